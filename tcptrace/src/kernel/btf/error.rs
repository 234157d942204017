//! What can be wrong with BTF.

use thiserror::Error;

use super::raw::{HEADER_LEN, MAGIC, VERSION};

/// What is wrong with the BTF.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// There are fewer bytes than a header has.
    #[error("the BTF ends within its header: {0} bytes, {HEADER_LEN} needed")]
    ShortHeader(usize),
    /// The first two bytes are not BTF's.
    #[error("this is not BTF: the magic number is {0:#06x}, not {MAGIC:#06x}")]
    Magic(u16),
    /// The magic number has its bytes swapped.
    #[error("this BTF is big-endian, of a kernel for another machine; only little-endian BTF is read")]
    ForeignEndian,
    /// The version is not 1.
    #[error("BTF version {0} is not known, only version {VERSION}")]
    Version(u8),
    /// The header claims a length smaller than its own fields.
    #[error("the BTF header gives its length as {0} bytes, fewer than the {HEADER_LEN} it has")]
    HeaderLength(u32),
    /// A section lies outside the bytes given.
    #[error("the BTF {section} section ends at byte {end}, the BTF itself at byte {have}")]
    Section {
        /// Which section: `type` or `string`.
        section: &'static str,
        /// Where the section would end, in bytes from the start of the BTF.
        end: u64,
        /// Bytes there are.
        have: usize,
    },
    /// The string section does not begin and end with a NUL byte.
    #[error("the BTF string section does not begin and end with a NUL byte")]
    StringEnds,
    /// The string section is not UTF-8.
    #[error("the BTF string section is not text from its byte {0} on")]
    StringText(usize),
    /// A type's record reaches beyond the type section.
    #[error("BTF type {0} reaches beyond the end of the type section")]
    TypeCut(u32),
    /// A type is of a kind made after this reader; its length, and so where the next type begins,
    /// is unknown.
    #[error("BTF type {id} is of kind {kind}, which this reader does not know")]
    UnknownKind {
        /// The type's id.
        id: u32,
        /// The kind's number.
        kind: u32,
    },
    /// Something refers to a type that is not there.
    #[error("the BTF refers to type {id}, its last one is {last}")]
    TypeId {
        /// The id referred to.
        id: u32,
        /// The highest id there is.
        last: u32,
    },
    /// A name lies outside the string section.
    #[error("the BTF has a name at byte {0} of the string section, where none can be")]
    Name(u32),
    /// Typedefs, qualifiers or arrays refer to each other in a circle.
    #[error("BTF type {0} is defined by itself")]
    Circle(u32),
    /// Anonymous structs are nested too deep or too often: one contains itself.
    #[error("BTF type {0} holds structs nested without end")]
    Nesting(u32),
    /// An offset or a size, in bits, does not fit 32 bits.
    #[error("BTF type {0} has an offset or a size beyond 512 MiB")]
    TooLarge(u32),
}
