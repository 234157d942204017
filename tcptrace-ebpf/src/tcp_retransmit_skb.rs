//! `void tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)`, 4.15 to 6.17: a segment was
//! sent again; with a third argument `int err`, 6.18 to 7.3: it was tried. Neither pointer is NULL.
//!
//! Attached only when asked for.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{filter::News, record::Kind};

use crate::{
    emit::{Event, emit},
    globals::{has, layout},
    memory::{Memory as _, Typed},
    sock,
};

#[btf_tracepoint(function = "tcp_retransmit_skb")]
fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let sk = Typed(ctx.arg(0));
    if !sock::is_tcp(sk) {
        return 0;
    }
    let tuple = sock::tuple(sk);
    if sock::admitted(&tuple, sk, News::ELSEWHERE) {
        let result = if has!(has_err) { ctx.arg::<i32>(2) } else { 0 };
        let state = sk.read(layout!(state));
        let event =
            Event { kind: Kind::RETRANSMIT, sk: sk.0 as u64, tuple, old: state, new: state, reason: result };
        emit(event, || sock::facts_with_cookie(sk));
    }
    0
}
