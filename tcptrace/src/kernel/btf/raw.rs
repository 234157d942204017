//! The bytes of BTF: header, sections, and one type's record.

use super::BtfError;

/// The magic number as a little-endian host reads it.
pub(super) const MAGIC: u16 = 0xeb9f;
/// The only version there is.
pub(super) const VERSION: u8 = 1;
/// Bytes of the header's known part; a later kernel may append to it.
pub(super) const HEADER_LEN: u32 = 24;
/// What the kernel puts before a tracepoint's name for the typedef of its handler.
pub(super) const TRACE_PREFIX: &str = "btf_trace_";

/// All of BTF is made of little-endian 32-bit words.
pub(super) type Word = [u8; 4];

/// A kind of type, by its number in `include/uapi/linux/btf.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Id 0; never stored.
    #[default]
    Void,
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Typedef,
    Func,
    FuncProto,
    Float,
    Enum64,
    /// CONST, VOLATILE, RESTRICT, TYPE_TAG: the same type with a remark.
    Qualifier,
    /// FWD, VAR, DATASEC, DECL_TAG: nothing we look up, and nothing with a size.
    Other,
}

impl Kind {
    /// The kind of that number, and how many words follow the three that every type has.
    fn decode(number: u32, vlen: usize) -> Option<(Self, usize)> {
        // At most 65535 * 3.
        let each = |words: usize| vlen.saturating_mul(words);
        Some(match number {
            1 => (Self::Int, 1),
            2 => (Self::Ptr, 0),
            3 => (Self::Array, 3),
            4 => (Self::Struct, each(3)),
            5 => (Self::Union, each(3)),
            6 => (Self::Enum, each(2)),
            8 => (Self::Typedef, 0),
            9 | 10 | 11 | 18 => (Self::Qualifier, 0),
            12 => (Self::Func, 0),
            13 => (Self::FuncProto, each(2)),
            16 => (Self::Float, 0),
            19 => (Self::Enum64, each(3)),
            7 => (Self::Other, 0),
            14 | 17 => (Self::Other, 1),
            15 => (Self::Other, each(3)),
            _ => return None,
        })
    }

    pub(super) fn is_struct(self) -> bool {
        matches!(self, Self::Struct | Self::Union)
    }

    pub(super) fn is_enum(self) -> bool {
        matches!(self, Self::Enum | Self::Enum64)
    }
}

/// One type's record; by default the one that `void` would have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Type<'a> {
    pub(super) id: u32,
    pub(super) kind: Kind,
    /// Struct: members may be bit fields by the new encoding. Enum: values are signed.
    flag: bool,
    /// Where its name begins in the string section; 0 for no name.
    pub(super) name: u32,
    /// By kind, the size in bytes or the id of the type referred to.
    pub(super) operand: u32,
    /// What follows by kind: members, variants, parameters.
    pub(super) tail: &'a [Word],
}

impl<'a> Type<'a> {
    /// Takes the record at the front of `words`; gives what follows it, too.
    pub(super) fn split(id: u32, words: &'a [Word]) -> Result<(Self, &'a [Word]), BtfError> {
        let (head, rest) = words.split_first_chunk::<3>().ok_or(BtfError::TypeCut(id))?;
        let [name, info, operand] = head.map(u32::from_le_bytes);
        let [vlen_low, vlen_high, ..] = info.to_le_bytes();
        let vlen = u16::from_le_bytes([vlen_low, vlen_high]);
        let kind = (info >> 24) & 0x1f;
        let (kind, len) = Kind::decode(kind, usize::from(vlen)).ok_or(BtfError::UnknownKind { id, kind })?;
        let (tail, rest) = rest.split_at_checked(len).ok_or(BtfError::TypeCut(id))?;
        let flag = info >> 31 != 0;
        Ok((Self { id, kind, flag, name, operand, tail }, rest))
    }

    /// Whether the type goes into the index by name.
    pub(super) fn is_indexed(&self, name: &str) -> bool {
        let wanted = match self.kind {
            Kind::Typedef => name.starts_with(TRACE_PREFIX),
            kind => kind.is_struct() || kind.is_enum() || kind == Kind::Func,
        };
        wanted && !name.is_empty()
    }

    /// The members of a struct or union.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> + use<'a> {
        let new_encoding = self.flag;
        let (members, _) = self.tail.as_chunks::<3>();
        members.iter().map(move |member| {
            let [name, type_id, offset] = member.map(u32::from_le_bytes);
            let (bit_offset, bit_field) =
                if new_encoding { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            Member { name, type_id, bit_offset, bit_field }
        })
    }

    /// The variants of an enum: where the name begins, and the value.
    pub(super) fn variants(&self) -> Vec<(u32, i64)> {
        if self.kind == Kind::Enum64 {
            let (variants, _) = self.tail.as_chunks::<3>();
            let decode = |variant: &[Word; 3]| {
                let [name, low, high] = variant.map(u32::from_le_bytes);
                (name, (u64::from(high) << 32 | u64::from(low)).cast_signed())
            };
            return variants.iter().map(decode).collect();
        }
        let (variants, _) = self.tail.as_chunks::<2>();
        let decode = |variant: &[Word; 2]| {
            let [name, value] = variant.map(u32::from_le_bytes);
            let signed = value.cast_signed();
            (name, if self.flag { signed.into() } else { value.into() })
        };
        variants.iter().map(decode).collect()
    }

    /// The size in bits of a type whose record gives it in bytes.
    pub(super) fn size_in_bits(&self) -> Result<u32, BtfError> {
        self.operand.checked_mul(8).ok_or(BtfError::TooLarge(self.id))
    }
}

/// One member of a struct or union.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Member {
    /// Where its name begins in the string section; 0 for no name.
    pub(super) name: u32,
    pub(super) type_id: u32,
    /// Bits from the start of the struct.
    pub(super) bit_offset: u32,
    /// Width in bits by the new encoding; 0 when the type says it.
    pub(super) bit_field: u32,
}

impl Member {
    /// The same member, seen from a struct that has this one's at `base`.
    pub(super) fn moved_by(self, base: u32) -> Result<Self, BtfError> {
        let bit_offset = self.bit_offset.checked_add(base).ok_or(BtfError::TooLarge(self.type_id))?;
        Ok(Self { bit_offset, ..self })
    }
}

/// Checks the header; gives the type section and the string section.
pub(super) fn sections(bytes: &[u8]) -> Result<(&[u8], &str), BtfError> {
    // The magic number first: it tells most about bytes that are something else.
    if let [first, second, ..] = *bytes {
        match u16::from_le_bytes([first, second]) {
            MAGIC => {}
            magic if magic.swap_bytes() == MAGIC => return Err(BtfError::ForeignEndian),
            magic => return Err(BtfError::Magic(magic)),
        }
    }
    let (words, _) = bytes.as_chunks::<4>();
    let header = words.first_chunk::<6>().ok_or(BtfError::ShortHeader(bytes.len()))?;
    let [[_, _, version, _], header @ ..] = *header;
    let [header_len, type_start, type_len, string_start, string_len] = header.map(u32::from_le_bytes);
    if version != VERSION {
        return Err(BtfError::Version(version));
    }
    if header_len < HEADER_LEN {
        return Err(BtfError::HeaderLength(header_len));
    }
    let types = section("type", bytes, [header_len, type_start, type_len])?;
    let strings = section("string", bytes, [header_len, string_start, string_len])?;
    // With a NUL at the end every name has an end; with one at the start, name 0 is no name.
    if strings.first() != Some(&0) || strings.last() != Some(&0) {
        return Err(BtfError::StringEnds);
    }
    let strings = str::from_utf8(strings).map_err(|error| BtfError::StringText(error.valid_up_to()))?;
    Ok((types, strings))
}

/// The bytes of one section, which begins `start` bytes after the header.
fn section<'a>(
    section: &'static str,
    bytes: &'a [u8],
    [header_len, start, len]: [u32; 3],
) -> Result<&'a [u8], BtfError> {
    // Three 32-bit numbers cannot overflow 64 bits.
    let start = u64::from(header_len).saturating_add(u64::from(start));
    let end = start.saturating_add(u64::from(len));
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let bytes_there = range.and_then(|(start, end)| bytes.get(start..end));
    bytes_there.ok_or(BtfError::Section { section, end, have: bytes.len() })
}
