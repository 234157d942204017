//! Kernel types that are nothing but their names and numbers.
//!
//! To attach a program aya looks up one typedef's number, but in a [`Btf`](aya::Btf) of its own, and to read all the
//! kernel's types into that takes 20 MB, which the C library keeps. So aya gets types of which only those that it looks
//! for have a name.

/// `BTF_MAGIC`
const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_header`.
const HEADER_BYTES: u32 = 24;
/// `BTF_KIND_FWD`, the smallest type, as it stands in the upper bits of `btf_type.info`.
const FWD: u32 = 7 << 24;
/// `BTF_KIND_TYPEDEF`, likewise.
const TYPEDEF: u32 = 8 << 24;

/// BTF in which each typedef has its number, and every other number up to the last stands for something without a name.
#[must_use]
pub fn stub(typedefs: &[(u32, String)]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut names: Vec<(u32, u32)> = Vec::new();
    for (id, name) in typedefs {
        names.push((*id, u32::try_from(strings.len()).unwrap_or(0)));
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    let last = typedefs.iter().map(|(id, _)| *id).max().unwrap_or(0);
    let words = (1..=last).flat_map(|id| match names.iter().find(|(named, _)| *named == id) {
        Some((_, name)) => [*name, TYPEDEF, 0],
        None => [0, FWD, 0],
    });
    let types: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0);
    let mut btf = Vec::with_capacity(HEADER_BYTES as usize + types.len() + strings.len());
    btf.extend(MAGIC.to_ne_bytes());
    // Version and flags.
    btf.extend([1, 0]);
    for word in [HEADER_BYTES, 0, len(&types), len(&types), len(&strings)] {
        btf.extend(word.to_ne_bytes());
    }
    btf.extend(types);
    btf.extend(strings);
    btf
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    #![expect(clippy::default_trait_access, reason = "aya does not give out the name of the type")]

    use super::*;
    use crate::kernel::btf::Btf;

    #[test]
    fn names_have_their_numbers() {
        let bytes = stub(&[(70, "btf_trace_b".to_owned()), (3, "btf_trace_a".to_owned())]);
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.tracepoint_type("a"), Some((3, "btf_trace_a".to_owned())));
        assert_eq!(btf.tracepoint_type("b"), Some((70, "btf_trace_b".to_owned())));
        assert_eq!(btf.tracepoint_type("c"), None);
        assert!(aya::Btf::parse(&bytes, Default::default()).is_ok());
        assert!(Btf::parse(&stub(&[])).is_ok());
    }
}
