//! `void tcp_receive_reset(struct sock *sk)`, 4.15 to 7.3.
//!
//! Fires in tcp_reset(), before the socket goes to CLOSE. That is also called for data that arrives after
//! we closed, and then the RST is ours. `sk` is a full socket and never NULL.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    filter::News,
    record::{Kind, NO_REASON},
};

use crate::{
    emit::{Event, emit},
    globals::layout,
    memory::{Memory as _, Typed},
    sock,
};

#[btf_tracepoint(function = "tcp_receive_reset")]
fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    let sk = Typed(ctx.arg(0));
    if !sock::is_tcp(sk) {
        return 0;
    }
    let tuple = sock::tuple(sk);
    if sock::admitted(&tuple, sk, News::ELSEWHERE) {
        let state = sk.read(layout!(state));
        let event = Event {
            kind: Kind::RST_RECEIVED,
            sk: sk.0 as u64,
            tuple,
            old: state,
            new: state,
            reason: NO_REASON,
        };
        emit(event, || sock::facts_with_cookie(sk));
    }
    0
}
