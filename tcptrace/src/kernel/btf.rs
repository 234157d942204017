//! BTF: the kernel's own description of its types, read for the places of struct fields.
//!
//! The kernel publishes in `/sys/kernel/btf/vmlinux` every struct, enum and function it was built
//! with. What a tracer reads from kernel memory (`sock.sk_lock.owned`, say) stands at another
//! offset in another kernel; [`Btf`] finds the offset in the running one, and tells which
//! functions, tracepoints and enum variants that kernel has.
//!
//! Why our own reader: btf-rs is LGPL, and aya-obj keeps the members of its types private. What we
//! need is small: flat offsets, enum values, the presence of a name. The format is the one of the
//! kernel's `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`.
//!
//! Every function is total: damaged bytes give an error or `None`, never a panic and never an
//! endless loop. Only little-endian BTF is read, and pointers are taken to be 64 bits wide.

mod error;
mod raw;
mod stub;
#[cfg(test)]
mod tests;

pub use error::BtfError;
use raw::{Kind, Member, TRACE_PREFIX, Type, Word, sections};
pub use stub::stub;

/// Typedefs and qualifiers, or array dimensions, in a row before we call it a circle. Real chains
/// have fewer than ten.
const MAX_CHAIN: u32 = 32;
/// Anonymous structs within each other. Real ones nest fewer than ten deep.
const MAX_DEPTH: u32 = 16;
/// Members looked at for one path. Bounds the time where damage makes a struct contain itself many
/// times; a real path takes a few hundred, and one struct cannot have more than 65535.
const MAX_MEMBERS: u32 = 1 << 17;

/// Where a member lies in its outermost struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Bits from the struct's start to the member's. For a bit field it counts from the lowest bit
    /// of byte `bit_offset / 8`.
    pub bit_offset: u32,
    /// Size in bits: a bit field's width, or eight times the type's size in bytes. 0 where the type
    /// has no size (incomplete, or an array of unknown length).
    pub bits: u32,
}

impl Field {
    /// Bytes from the struct's start to the member's; `None` for a bit field that does not start on
    /// a byte. A bit field that happens to start on one has its offset; `bits` tells it from a
    /// whole member.
    #[must_use]
    pub fn byte_offset(&self) -> Option<u32> {
        self.bit_offset.is_multiple_of(8).then_some(self.bit_offset / 8)
    }
}

/// The types of one kernel, read from the bytes of its BTF.
pub struct Btf<'a> {
    /// The type section.
    types: &'a [Word],
    /// The string section: names ended by NUL. The first and the last byte are NUL.
    strings: &'a str,
    /// Where each type begins in `types`, in words; type 1 is the first.
    starts: Vec<u32>,
    /// Name hash and id of the types that are looked up by name, sorted. Takes no longer to build
    /// than a `HashMap`, and keeps types of one name together, lowest id first.
    index: Vec<(u32, u32)>,
}

impl<'a> Btf<'a> {
    /// Reads the header, finds the start of every type and indexes the names.
    ///
    /// `bytes` is a whole BTF as in `/sys/kernel/btf/vmlinux`; a module's BTF, which continues the
    /// numbering of that one, is not understood.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let (types, strings) = sections(bytes)?;
        let (types, odd_bytes) = types.as_chunks::<4>();
        let mut btf = Self { types, strings, starts: Vec::new(), index: Vec::new() };
        let mut rest = types;
        let mut id = 0_u32;
        while !rest.is_empty() {
            // Types and their words are fewer than the 2^32 bytes a section can have.
            id = id.saturating_add(1);
            let start = types.len().saturating_sub(rest.len());
            btf.starts.push(u32::try_from(start).map_err(|_| BtfError::TypeCut(id))?);
            let (ty, after) = Type::split(id, rest)?;
            let name = btf.name(ty.name)?;
            if ty.is_indexed(name) {
                btf.index.push((hash(name), id));
            }
            rest = after;
        }
        if !odd_bytes.is_empty() {
            return Err(BtfError::TypeCut(id.saturating_add(1)));
        }
        btf.index.sort_unstable();
        Ok(btf)
    }

    /// Finds a member by its path: a struct's or union's name, then member names, with dots
    /// between, as in `sock.__sk_common.skc_daddr`. The name alone stands for the whole struct.
    ///
    /// Members of anonymous structs and unions are found as in C, and typedefs and qualifiers are
    /// looked through. An array is one member: a path may end at it, which gives the array's start,
    /// but not go on into its elements.
    ///
    /// `None` when this kernel has no such field at a fixed offset: the struct or a member is
    /// missing, or the path leads through a pointer or an array. Of several structs of that name,
    /// the first one that has the whole path counts.
    pub fn field(&self, path: &str) -> Result<Option<Field>, BtfError> {
        let (name, members) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let mut search = Search { btf: self, members_left: MAX_MEMBERS };
        for ty in self.named(name).filter(|ty| ty.kind.is_struct()) {
            let Some(members) = members else {
                return Ok(Some(Field { bit_offset: 0, bits: ty.size_in_bits()? }));
            };
            if let Some(member) = search.path(ty.id, members)? {
                return self.place(member).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether there is a struct or union of that name with its members known.
    #[must_use]
    pub fn has_struct(&self, name: &str) -> bool {
        self.named(name).any(|ty| ty.kind.is_struct())
    }

    /// Whether there is a function of that name. Functions that were inlined everywhere are not in
    /// BTF.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.named(name).any(|ty| ty.kind == Kind::Func)
    }

    /// The value of an enum's variant; `None` when the enum or the variant is missing. See
    /// [`Self::enum_names`].
    #[must_use]
    pub fn enum_value(&self, enum_name: &str, variant: &str) -> Option<i64> {
        let variants = self.enum_names(enum_name)?;
        variants.into_iter().find_map(|(value, name)| (name == variant).then_some(value))
    }

    /// The values and names of an enum's variants, in the order of their declaration; `None` when
    /// there is no enum of that name. Of several enums of that name, the first counts.
    ///
    /// Values above `i64::MAX` come out negative, and a variant whose name is damaged is left out.
    /// Before Linux 6.0 BTF did not tell signed enums from unsigned ones: a negative value then
    /// comes out as the unsigned one of the same 32 bits.
    #[must_use]
    pub fn enum_names(&self, enum_name: &str) -> Option<Vec<(i64, &'a str)>> {
        let ty = self.named(enum_name).find(|ty| ty.kind.is_enum())?;
        let variants = ty.variants().into_iter();
        Some(variants.filter_map(|(name, value)| Some((value, self.name(name).ok()?))).collect())
    }

    /// How many arguments a raw tracepoint hands to its program; `None` when there is no such
    /// tracepoint.
    #[must_use]
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let name = format!("{TRACE_PREFIX}{name}");
        let typedef = self.named(&name).find(|ty| ty.kind == Kind::Typedef)?;
        let pointer = self.resolve(typedef.id).ok().filter(|ty| ty.kind == Kind::Ptr)?;
        let handler = self.resolve(pointer.operand).ok().filter(|ty| ty.kind == Kind::FuncProto)?;
        let (parameters, _) = handler.tail.as_chunks::<2>();
        // The first parameter, `void *__data`, is not handed on.
        parameters.len().checked_sub(1)
    }

    /// The typedef that stands for a raw tracepoint: its number and its name; `None` when there is no such tracepoint.
    #[must_use]
    pub fn tracepoint_type(&self, name: &str) -> Option<(u32, String)> {
        let name = format!("{TRACE_PREFIX}{name}");
        let id = self.named(&name).find(|ty| ty.kind == Kind::Typedef)?.id;
        Some((id, name))
    }

    /// The indexed types of that name, lowest id first.
    fn named<'s>(&'s self, name: &'s str) -> impl Iterator<Item = Type<'a>> + use<'s, 'a> {
        let wanted = hash(name);
        let first = self.index.partition_point(|&(hash, _)| hash < wanted);
        let same_hash = self.index.iter().skip(first).take_while(move |&&(hash, _)| hash == wanted);
        same_hash
            .filter_map(|&(_, id)| self.ty(id).ok())
            .filter(move |ty| self.is_named(ty.name, name) == Ok(true))
    }

    /// The type of that id.
    fn ty(&self, id: u32) -> Result<Type<'a>, BtfError> {
        let Some(place) = id.checked_sub(1) else {
            return Ok(Type::default());
        };
        let start = usize::try_from(place).ok().and_then(|place| self.starts.get(place));
        let words = start.and_then(|&start| self.types.get(usize::try_from(start).ok()?..));
        let last = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        Ok(Type::split(id, words.ok_or(BtfError::TypeId { id, last })?)?.0)
    }

    /// The type of that id with typedefs and qualifiers taken off.
    fn resolve(&self, id: u32) -> Result<Type<'a>, BtfError> {
        let mut ty = self.ty(id)?;
        for _ in 0..MAX_CHAIN {
            if !matches!(ty.kind, Kind::Typedef | Kind::Qualifier) {
                return Ok(ty);
            }
            ty = self.ty(ty.operand)?;
        }
        Err(BtfError::Circle(id))
    }

    /// The name that begins there.
    fn name(&self, start: u32) -> Result<&'a str, BtfError> {
        let text = self.text(start)?;
        let end = text.bytes().position(|byte| byte == 0);
        end.and_then(|end| text.get(..end)).ok_or(BtfError::Name(start))
    }

    /// Whether the name that begins there is this one; cheaper than to find its end.
    fn is_named(&self, start: u32, name: &str) -> Result<bool, BtfError> {
        let after = self.text(start)?.strip_prefix(name);
        Ok(after.is_some_and(|after| after.starts_with('\0')))
    }

    /// The string section from there on.
    fn text(&self, start: u32) -> Result<&'a str, BtfError> {
        let text = usize::try_from(start).ok().and_then(|start| self.strings.get(start..));
        text.filter(|text| !text.is_empty()).ok_or(BtfError::Name(start))
    }

    /// Where a found member lies, and its size.
    fn place(&self, member: Member) -> Result<Field, BtfError> {
        let ty = self.resolve(member.type_id)?;
        let (shift, bits) = match (member.bit_field, ty.kind, ty.tail) {
            // The old encoding of bit fields has an integer type for each width. Other integers
            // have shift 0 and all their bits.
            (0, Kind::Int, &[[bits, _, shift, _]]) => (shift.into(), bits.into()),
            (0, ..) => (0, self.bits(member.type_id)?),
            (width, ..) => (0, width),
        };
        let bit_offset = member.moved_by(shift)?.bit_offset;
        Ok(Field { bit_offset, bits })
    }

    /// The size of a type in bits; 0 for what has none.
    fn bits(&self, type_id: u32) -> Result<u32, BtfError> {
        let mut id = type_id;
        let mut elements = 1_u32;
        for _ in 0..MAX_CHAIN {
            let ty = self.resolve(id)?;
            let bits = match (ty.kind, ty.tail) {
                (Kind::Array, &[element, _, count]) => {
                    let count = u32::from_le_bytes(count);
                    elements = elements.checked_mul(count).ok_or(BtfError::TooLarge(type_id))?;
                    id = u32::from_le_bytes(element);
                    continue;
                }
                (Kind::Ptr, _) => 64,
                (Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float, _) => {
                    ty.size_in_bits()?
                }
                _ => 0,
            };
            return bits.checked_mul(elements).ok_or(BtfError::TooLarge(type_id));
        }
        Err(BtfError::Circle(type_id))
    }
}

/// The search for one path, with the work it may still do.
struct Search<'s, 'a> {
    btf: &'s Btf<'a>,
    members_left: u32,
}

impl Search<'_, '_> {
    /// The member at the end of a dotted path that begins in the struct of that id.
    fn path(&mut self, id: u32, path: &str) -> Result<Option<Member>, BtfError> {
        let mut at = Member { type_id: id, ..Member::default() };
        for name in path.split('.') {
            // No name at all would match the anonymous members.
            if name.is_empty() {
                return Ok(None);
            }
            let Some(member) = self.member(at.type_id, name, 0)? else {
                return Ok(None);
            };
            at = member.moved_by(at.bit_offset)?;
        }
        Ok(Some(at))
    }

    /// The member of that name in a type or in its anonymous members, placed from the type's start.
    /// `None` also when the type is not a struct, which is what ends a path at a pointer.
    fn member(&mut self, id: u32, name: &str, depth: u32) -> Result<Option<Member>, BtfError> {
        let owner = self.btf.resolve(id)?;
        if !owner.kind.is_struct() {
            return Ok(None);
        }
        if depth > MAX_DEPTH {
            return Err(BtfError::Nesting(id));
        }
        for member in owner.members() {
            self.members_left = self.members_left.checked_sub(1).ok_or(BtfError::Nesting(id))?;
            if self.btf.is_named(member.name, name)? {
                return Ok(Some(member));
            }
            if self.btf.is_named(member.name, "")?
                && let Some(inner) = self.member(member.type_id, name, depth.saturating_add(1))?
            {
                return inner.moved_by(member.bit_offset).map(Some);
            }
        }
        Ok(None)
    }
}

/// FNV-1a: fast on short names. Nobody gains by collisions here, and names are compared in the end.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
