//! Any bytes as the BTF of a kernel, and every question that the loader asks of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace::kernel::btf::Btf;
use tcptrace_common::layout::{Layout, Lookup};

fuzz_target!(|bytes: &[u8]| {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for field in Layout::FIELDS {
        match field.lookup {
            Lookup::Offset(path) | Lookup::Bit(path) => {
                let _ = btf.field(path).map(|found| found.map(|field| field.byte_offset()));
            }
            Lookup::Enumerator(of, name) => _ = btf.enum_value(of, name),
            Lookup::Function(name) => _ = btf.has_function(name),
            Lookup::Arguments(tracepoint, _) => _ = btf.tracepoint_args(tracepoint),
        }
    }
    let _ = btf.enum_names("sk_rst_reason");
    // Short names are what a fuzzer comes upon by itself.
    for path in ["s", "s.a", "s.a.b", "sock", ""] {
        let _ = btf.field(path);
        let _ = btf.has_struct(path);
    }
});
