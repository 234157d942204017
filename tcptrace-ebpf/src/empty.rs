//! Does nothing, at `sock:inet_sock_set_state`: what any program there costs at least. Attached by the hidden command
//! `empty` alone.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn empty(_: BtfTracePointContext) -> i32 {
    0
}
