//! `void tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)`, 4.15 to 7.3: a SYN-ACK
//! was sent again. `sk` is the listener, or the child of a fast open; the ends are those of `req`.
//!
//! Attached only when asked for.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tcptrace_common::{
    filter::News,
    record::{Kind, NO_REASON},
};

use crate::{
    emit::{Event, emit},
    globals::{has, layout},
    memory::{Memory as _, Typed},
    sock::{self, Facts},
};

const NEW_SYN_RECV: u8 = 12;

#[btf_tracepoint(function = "tcp_retransmit_synack")]
fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let (sk, req) = (Typed(ctx.arg(0)), Typed(ctx.arg(1)));
    if !sock::is_tcp(sk) {
        return 0;
    }
    let tuple = sock::tuple(req);
    if sock::admitted(&tuple, sk, News::ELSEWHERE) {
        let sent =
            if has!(num_retrans) { i32::from(req.read::<u8>(layout!(num_retrans))) } else { NO_REASON };
        let event = Event {
            kind: Kind::RETRANSMIT_SYNACK,
            sk: req.0 as u64,
            tuple,
            old: NEW_SYN_RECV,
            new: NEW_SYN_RECV,
            reason: sent,
        };
        // User and cgroup are the listener's; the cookie is the request's own.
        emit(event, || Facts { cookie: req.read(layout!(cookie)), ..sock::facts(sk) });
    }
    0
}
