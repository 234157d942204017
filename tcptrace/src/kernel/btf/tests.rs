#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{raw::HEADER_LEN, *};

/// Kind numbers of `include/uapi/linux/btf.h`.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// The kind flag.
const FLAG: u32 = 1 << 31;
/// A `u32` of all its bits, as the word after an INT.
const BITS_32: u32 = 32;

const KERNEL: &str = "/sys/kernel/btf/vmlinux";

static VMLINUX: LazyLock<Vec<u8>> = LazyLock::new(|| {
    std::fs::read(KERNEL)
        .unwrap_or_else(|error| panic!("these tests need a kernel with BTF: {KERNEL}: {error}"))
});

/// Puts a BTF together type by type.
struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
    last_id: u32,
}

impl Builder {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], last_id: 0 }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let start = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.bytes().chain([0]));
        start
    }

    /// Adds a type of that name; `info` is kind and vlen as stored. Gives its id.
    fn raw(&mut self, name: &str, info: u32, size_or_type: u32, tail: &[u32]) -> u32 {
        let name = self.name(name);
        self.types.extend([name, info, size_or_type]);
        self.types.extend(tail);
        self.last_id += 1;
        self.last_id
    }

    /// Adds a type without what follows the common part.
    fn plain(&mut self, kind: u32, name: &str, size_or_type: u32) -> u32 {
        self.raw(name, kind << 24, size_or_type, &[])
    }

    fn int(&mut self, name: &str, bytes: u32, encoding: u32) -> u32 {
        self.raw(name, INT << 24, bytes, &[encoding])
    }

    fn array(&mut self, element: u32, count: u32) -> u32 {
        self.raw("", ARRAY << 24, 0, &[element, 1, count])
    }

    /// Adds a type with a list: members, variants, parameters. The kind may come with [`FLAG`].
    fn list<const N: usize>(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        entries: &[(&str, [u32; N])],
    ) -> u32 {
        let mut tail = Vec::new();
        for (name, words) in entries {
            tail.push(self.name(name));
            tail.extend(words);
        }
        let info = (kind << 24) | (kind & FLAG) | u32::try_from(entries.len()).unwrap();
        self.raw(name, info, size, &tail)
    }

    fn build(&self) -> Vec<u8> {
        let types_len = u32::try_from(self.types.len() * 4).unwrap();
        let strings_len = u32::try_from(self.strings.len()).unwrap();
        let header = [0x0001_eb9f, HEADER_LEN, 0, types_len, types_len, strings_len];
        let words = header.iter().chain(&self.types);
        words.flat_map(|word| word.to_le_bytes()).chain(self.strings.iter().copied()).collect()
    }
}

/// Paths for lookups in damaged copies of [`sample`].
const SAMPLE_PATHS: [&str; 12] = [
    "outer",
    "outer.deep",
    "outer.inner.b",
    "flags.flag3",
    "outer.old3",
    "outer.matrix",
    "outer.next.deep",
    "outer.wide.a",
    "fwd.x",
    "both.real",
    "missing.x",
    "both.value",
];

/// One BTF with every kind in it.
fn sample() -> Builder {
    let mut b = Builder::new();
    let int = b.int("unsigned int", 4, BITS_32);
    let inner = b.list(STRUCT, "inner", 8, &[("a", [int, 0]), ("b", [int, 32])]);
    let typedef = b.plain(TYPEDEF, "inner_t", inner);
    let volatile = b.plain(VOLATILE, "", typedef);
    let tag = b.plain(TYPE_TAG, "user", volatile);
    let qualified = b.plain(CONST, "", tag);
    let restrict = b.plain(RESTRICT, "", qualified);
    let innermost = b.list(STRUCT, "", 8, &[("shallow", [int, 0]), ("deep", [int, 32])]);
    let union = b.list(UNION, "", 8, &[("other", [int, 0]), ("", [innermost, 0])]);
    let row = b.array(int, 3);
    let matrix = b.array(row, 2);
    let three_bits = b.int("unsigned int", 4, (5 << 16) | 3);
    let float = b.plain(FLOAT, "double", 8);
    let pointer = b.plain(PTR, "", b.last_id + 2);
    // The old encoding of bit fields, then the new one.
    let members = [
        ("", [union, 64]),
        ("inner", [qualified, 128]),
        ("old3", [three_bits, 192]),
        ("matrix", [matrix, 224]),
        ("next", [pointer, 448]),
        ("wide", [restrict, 512]),
    ];
    let outer = b.list(STRUCT, "outer", 72, &members);
    assert_eq!(outer, pointer + 1);
    let flags = [("whole", [int, 0]), ("flag3", [int, (3 << 24) + 37])];
    let flags = b.list(STRUCT | FLAG, "flags", 8, &flags);
    b.list(STRUCT, "both", 1, &[("first", [int, 0])]);
    b.list(STRUCT, "both", 8, &[("value", [flags, 0]), ("real", [float, 64])]);
    b.plain(FWD, "fwd", 0);
    let proto = b.list(FUNC_PROTO, "", 0, &[("__data", [0]), ("sk", [pointer]), ("state", [int])]);
    let handler = b.plain(PTR, "", proto);
    b.plain(TYPEDEF, "btf_trace_state", handler);
    b.raw("tcp_close", (FUNC << 24) | 1, proto, &[]);
    let var = b.raw("counter", VAR << 24, int, &[1]);
    b.raw(".data", (DATASEC << 24) | 1, 4, &[var, 0, 4]);
    b.raw("tag", DECL_TAG << 24, outer, &[u32::MAX]);
    b.list(ENUM, "colour", 4, &[("RED", [0]), ("BIG", [u32::MAX])]);
    b.list(ENUM | FLAG, "sign", 4, &[("MINUS", [u32::MAX]), ("PLUS", [1])]);
    b.list(ENUM64, "huge", 8, &[("HUGE", [1, 2])]);
    b.list(ENUM64 | FLAG, "huge_sign", 8, &[("LESS", [u32::MAX - 1, u32::MAX])]);
    b
}

/// Does every kind of lookup; what comes out does not matter, that it comes out does.
fn look_up(bytes: &[u8], paths: &[&str], name: &str) {
    let Ok(btf) = Btf::parse(bytes) else {
        return;
    };
    for path in paths.iter().chain([&name]) {
        let _ = btf.field(path);
    }
    for name in ["outer", "colour", "sign", "huge", "huge_sign", "sk_rst_reason", "tcp_close", "state", name]
    {
        let _ = btf.enum_names(name);
        let _ = btf.enum_value(name, "BIG");
        let _ = btf.tracepoint_args(name);
        let _ = btf.has_function(name);
        let _ = btf.has_struct(name);
    }
}

#[track_caller]
fn assert_field(btf: &Btf<'_>, path: &str, bit_offset: u32, bits: u32) {
    assert_eq!(btf.field(path), Ok(Some(Field { bit_offset, bits })), "{path}");
}

#[track_caller]
fn assert_parse_error(bytes: &[u8], expected: &BtfError) {
    assert_eq!(Btf::parse(bytes).err().as_ref(), Some(expected));
}

#[test]
fn fields_are_found_through_anonymous_members_and_typedefs() {
    let bytes = sample().build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_field(&btf, "outer", 0, 72 * 8);
    assert_field(&btf, "outer.other", 64, 32);
    assert_field(&btf, "outer.shallow", 64, 32);
    assert_field(&btf, "outer.deep", 96, 32);
    assert_field(&btf, "outer.inner", 128, 64);
    assert_field(&btf, "outer.inner.b", 160, 32);
    assert_field(&btf, "outer.wide.b", 544, 32);
    assert_field(&btf, "outer.matrix", 224, 6 * 32);
    assert_field(&btf, "outer.next", 448, 64);
    assert!(btf.has_struct("outer"));
}

#[test]
fn what_is_missing_or_not_flat_is_none() {
    let bytes = sample().build();
    let btf = Btf::parse(&bytes).unwrap();
    for path in [
        "",
        ".",
        "outer.",
        "outer..deep",
        "outer.missing",
        "outer.dee",
        "outer.deeper",
        "missing.deep",
        // Through a pointer, an array and an integer.
        "outer.next.deep",
        "outer.matrix.x",
        "outer.deep.x",
        // Not structs.
        "fwd",
        "colour",
        "inner_t.a",
        "tcp_close",
    ] {
        assert_eq!(btf.field(path), Ok(None), "{path:?}");
    }
    for name in ["", "oute", "outer2", "colour", "fwd"] {
        assert!(!btf.has_struct(name), "{name:?}");
    }
}

#[test]
fn bit_fields_of_both_encodings_have_their_width() {
    let bytes = sample().build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_field(&btf, "outer.old3", 197, 3);
    assert_field(&btf, "flags.flag3", 37, 3);
    assert_field(&btf, "flags.whole", 0, 32);
    assert_eq!(btf.field("flags.flag3").unwrap().unwrap().byte_offset(), None);
    assert_eq!(btf.field("outer.deep").unwrap().unwrap().byte_offset(), Some(12));
}

#[test]
fn of_structs_of_one_name_the_first_that_has_the_path_counts() {
    let bytes = sample().build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_field(&btf, "both", 0, 8);
    assert_field(&btf, "both.first", 0, 32);
    assert_field(&btf, "both.value.flag3", 37, 3);
    assert_field(&btf, "both.real", 64, 64);
}

#[test]
fn enums_keep_their_sign() {
    let bytes = sample().build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.enum_names("colour").unwrap(), [(0, "RED"), (i64::from(u32::MAX), "BIG")]);
    assert_eq!(btf.enum_names("sign").unwrap(), [(-1, "MINUS"), (1, "PLUS")]);
    assert_eq!(btf.enum_value("huge", "HUGE"), Some((2 << 32) + 1));
    assert_eq!(btf.enum_value("huge_sign", "LESS"), Some(-2));
    assert_eq!(btf.enum_value("colour", "BLUE"), None);
    assert_eq!(btf.enum_value("outer", "RED"), None);
    assert_eq!(btf.enum_names(""), None);
}

#[test]
fn functions_and_tracepoints_are_found_by_name() {
    let bytes = sample().build();
    let btf = Btf::parse(&bytes).unwrap();
    assert!(btf.has_function("tcp_close"));
    assert!(!btf.has_function("tcp_clos"));
    assert!(!btf.has_function("outer"));
    assert_eq!(btf.tracepoint_args("state"), Some(2));
    assert_eq!(btf.tracepoint_args("stat"), None);
}

#[test]
fn a_damaged_header_says_what_is_wrong() {
    let good = sample().build();
    let with = |place: usize, byte: u8| {
        let mut bytes = good.clone();
        *bytes.get_mut(place).unwrap() = byte;
        bytes
    };
    assert_parse_error(&[], &BtfError::ShortHeader(0));
    assert_parse_error(good.get(..23).unwrap(), &BtfError::ShortHeader(23));
    assert_parse_error(b"\x7fELF", &BtfError::Magic(0x457f));
    assert_parse_error(&[0xeb, 0x9f, 1, 0], &BtfError::ForeignEndian);
    assert_parse_error(&with(2, 2), &BtfError::Version(2));
    assert_parse_error(&with(4, 23), &BtfError::HeaderLength(23));
    assert_parse_error(&with(24 + 7, 20), &BtfError::UnknownKind { id: 1, kind: 20 });
    assert_parse_error(&with(24 + 7, 0), &BtfError::UnknownKind { id: 1, kind: 0 });
    assert_parse_error(&with(good.len() - 1, b'x'), &BtfError::StringEnds);
    assert_parse_error(&with(good.len() - 2, 0xff), &BtfError::StringText(sample().strings.len() - 2));
    let end = u64::try_from(good.len()).unwrap() + (1 << 24);
    let have = good.len();
    assert_parse_error(&with(23, 1), &BtfError::Section { section: "string", end, have });
}

#[test]
fn a_type_section_that_ends_within_a_type_is_an_error() {
    let mut b = sample();
    b.types.pop();
    assert_parse_error(&b.build(), &BtfError::TypeCut(b.last_id));
    // One byte more than whole types.
    let b = sample();
    let mut bytes = b.build();
    *bytes.get_mut(12).unwrap() += 1;
    assert_parse_error(&bytes, &BtfError::TypeCut(b.last_id + 1));
}

#[test]
fn a_longer_header_is_read() {
    let mut bytes = sample().build();
    *bytes.get_mut(4).unwrap() = 32;
    bytes.splice(24..24, [0; 8]);
    assert_field(&Btf::parse(&bytes).unwrap(), "outer.deep", 96, 32);
}

#[test]
fn a_list_longer_than_the_section_is_an_error() {
    for kind in [STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64] {
        let mut b = Builder::new();
        b.raw("x", (kind << 24) | 0xffff, 4, &[0, 0, 0]);
        assert_parse_error(&b.build(), &BtfError::TypeCut(1));
    }
}

#[test]
fn circles_are_errors() {
    let mut b = Builder::new();
    let typedef = b.plain(TYPEDEF, "circle", 1);
    b.list(STRUCT, "loop", 4, &[("x", [typedef, 0])]);
    let array = b.array(3, 1);
    b.list(STRUCT, "grid", 4, &[("x", [array, 0])]);
    // A struct within itself, as its only member and as each of many.
    let once = b.last_id + 1;
    b.list(STRUCT, "selfish", 4, &[("", [once, 0])]);
    let many = b.last_id + 1;
    b.list(STRUCT, "wild", 4, &[("", [many, 0]); 500]);
    b.plain(TYPEDEF, "btf_trace_circle", b.last_id + 1);
    let bytes = b.build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.field("loop.x"), Err(BtfError::Circle(typedef)));
    assert_eq!(btf.field("loop.x.y"), Err(BtfError::Circle(typedef)));
    assert_eq!(btf.field("grid.x"), Err(BtfError::Circle(array)));
    assert_eq!(btf.field("selfish.x"), Err(BtfError::Nesting(once)));
    assert_eq!(btf.field("wild.x"), Err(BtfError::Nesting(many)));
    assert_eq!(btf.tracepoint_args("circle"), None);
}

#[test]
fn nesting_that_branches_without_a_circle_ends_too() {
    let mut b = Builder::new();
    b.list(STRUCT, "", 4, &[("bottom", [0, 0])]);
    for level in 1..16 {
        b.list(STRUCT, if level == 15 { "top" } else { "" }, 4, &[("", [level, 0]); 16]);
    }
    let bytes = b.build();
    let btf = Btf::parse(&bytes).unwrap();
    assert!(matches!(btf.field("top.missing"), Err(BtfError::Nesting(_))));
    assert_field(&btf, "top.bottom", 0, 0);
}

#[test]
fn references_to_nothing_are_errors() {
    let mut b = Builder::new();
    b.list(STRUCT, "a", 4, &[("x", [99, 0])]);
    b.list(STRUCT, "b", 4, &[("x", [2, u32::MAX]), ("y", [1, 1])]);
    b.list(STRUCT, "vast", u32::MAX, &[("x", [1, 0])]);
    b.raw("c", (STRUCT << 24) | 1, 4, &[0xffff, 1, 0]);
    let mut bytes = b.build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.field("a.x"), Err(BtfError::TypeId { id: 99, last: 4 }));
    assert_eq!(btf.field("b.x.y"), Err(BtfError::TooLarge(1)));
    assert_eq!(btf.field("vast"), Err(BtfError::TooLarge(3)));
    assert_eq!(btf.field("c.x"), Err(BtfError::Name(0xffff)));
    // The name of the first type.
    bytes.splice(24..28, [0xff; 4]);
    assert_parse_error(&bytes, &BtfError::Name(u32::MAX));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample().build();
    for len in 0..bytes.len() {
        let cut = bytes.get(..len).unwrap();
        assert!(Btf::parse(cut).is_err(), "{len} bytes");
        // The same with a header that fits, so that the cut goes through a type.
        let mut b = sample();
        b.types.truncate(len / 4);
        look_up(&b.build(), &SAMPLE_PATHS, "inner");
    }
}

#[test]
fn the_running_kernel_has_what_every_kernel_has() {
    let btf = Btf::parse(&VMLINUX).unwrap();
    // Fixed since IPv6 went into sock_common, and so in every kernel with BTF.
    for (member, byte, bytes) in [
        ("skc_daddr", 0, 4),
        ("skc_rcv_saddr", 4, 4),
        ("skc_dport", 12, 2),
        ("skc_num", 14, 2),
        ("skc_family", 16, 2),
        ("skc_state", 18, 1),
        ("skc_bound_dev_if", 20, 4),
        ("skc_net.net", 48, 8),
        ("skc_v6_daddr", 56, 16),
        ("skc_v6_rcv_saddr", 72, 16),
        ("skc_cookie", 88, 8),
        ("skc_flags", 96, 8),
    ] {
        let field = btf.field(&format!("sock.__sk_common.{member}")).unwrap().unwrap();
        assert_eq!((field.byte_offset(), field.bits), (Some(byte), bytes * 8), "{member}");
        assert_eq!(btf.field(&format!("sock_common.{member}")), Ok(Some(field)));
    }
    assert_field(&btf, "sock_common.skc_reuse", 19 * 8, 4);
    assert_field(&btf, "sock_common.skc_reuseport", 19 * 8 + 4, 1);
    assert_eq!(btf.field("sock.sk_uid.val").unwrap().unwrap().bits, 32);
    assert!(btf.field("sock.sk_lock.owned").unwrap().is_some());
    assert!(btf.field("sk_buff.transport_header").unwrap().is_some());
    let port = btf.field("tcp_sock.inet_conn.icsk_inet.inet_sport").unwrap().unwrap();
    assert_eq!(btf.field("inet_sock.inet_sport"), Ok(Some(port)));
    for path in ["sock.sk_socket.state", "sock.no_such_member", "no_such_struct.x", "inet_sock_set_state"] {
        assert_eq!(btf.field(path), Ok(None), "{path}");
    }
}

#[test]
fn the_running_kernel_has_tracepoints_functions_and_enums() {
    let btf = Btf::parse(&VMLINUX).unwrap();
    assert_eq!(btf.tracepoint_args("inet_sock_set_state"), Some(3));
    assert_eq!(btf.tracepoint_args("no_such_tracepoint"), None);
    assert!(btf.has_function("tcp_v4_connect"));
    assert!(!btf.has_function("no_such_function"));
    assert!(btf.has_struct("tcp_sock"));
    assert_eq!(btf.enum_value("sock_flags", "SOCK_DEAD"), Some(0));
    assert_eq!(btf.enum_names("no_such_enum"), None);
    // From Linux 6.10 on.
    if let Some(reasons) = btf.enum_names("sk_rst_reason") {
        assert!(reasons.contains(&(0, "SK_RST_REASON_NOT_SPECIFIED")), "{reasons:?}");
    }
}

/// Bytes of a BTF with some of them overwritten, none past `end`.
fn damaged(good: &[u8], end: usize, flips: &[(Index, u8)]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (place, mask) in flips {
        *bytes.get_mut(place.index(end)).unwrap() ^= mask;
    }
    bytes
}

/// A word that is likely to mean something: an id, a small number, or a kind with a list of one.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..64, (0_u32..20).prop_map(|kind| (kind << 24) | 1)]
}

/// So many cases, and no file of failed ones in the source tree.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(4096))]

    #[test]
    fn flipped_bytes_never_panic(flips in vec((any::<Index>(), 1_u8..), 1..8)) {
        let good = sample().build();
        look_up(&damaged(&good, good.len(), &flips), &SAMPLE_PATHS, "inner");
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..512), name in "[a-z.]{0,8}") {
        look_up(&bytes, &SAMPLE_PATHS, &name);
    }

    /// Random words between a good header and good strings: these get further than random bytes.
    #[test]
    fn random_types_never_panic(types in vec(word(), 0..256)) {
        let bytes = Builder { types, ..sample() }.build();
        look_up(&bytes, &SAMPLE_PATHS, "inner");
    }
}

proptest! {
    // Each case copies and parses 5 MiB.
    #![proptest_config(cases(48))]

    #[test]
    fn a_damaged_kernel_btf_never_panics(flips in vec((any::<Index>(), 1_u8..), 1..4)) {
        let bytes = damaged(&VMLINUX, 64 * 1024, &flips);
        let paths = ["sock.__sk_common.skc_v6_daddr", "sock.sk_lock.owned", "tcp_sock.nothing"];
        look_up(&bytes, &paths, "sock");
    }
}
