//! `void tcp_send_reset(const struct sock *sk, const struct sk_buff *skb)`, 4.15 to 6.9, and
//! `void tcp_send_reset(const struct sock *sk, const struct sk_buff *skb__nullable,
//! const enum sk_rst_reason reason)`, 6.10 to 7.3.
//!
//! `skb` is the packet that the RST answers, NULL when the host resets by itself. From 6.10 it fires for
//! RSTs without a full socket too: `sk` is then NULL or a minisock.
//!
//! A raw tracepoint that reads by helper, because from 6.2 to 6.12.5 the verifier takes the arguments of a
//! tp_btf program for non-NULL and drops the program's own check.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tcptrace_common::{
    filter::News,
    record::{Kind, NO_REASON, flags},
};

use crate::{
    emit::{Event, emit},
    globals::{has, layout},
    memory::{Memory as _, Untyped},
    packet,
    sock::{self, Facts},
};

const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
fn tcp_send_reset(ctx: RawTracePointContext) -> i32 {
    let sk = Some(Untyped(ctx.arg(0))).filter(|sk| sk.0 != 0);
    let skb = Some(Untyped(ctx.arg(1))).filter(|skb| skb.0 != 0);
    // The kernel refuses a program that looks for an argument that is not there.
    let reason = if has!(has_reason) { ctx.arg::<i32>(2) } else { NO_REASON };

    let state = sk.map_or(0, |sk| sk.read::<u8>(layout!(state)));
    // Of a minisock or a request only the sock_common is there.
    let full = sk.filter(|_| state != TIME_WAIT && state != NEW_SYN_RECV);
    let mut tuple = match (skb, sk) {
        // The socket may be the listener.
        (Some(skb), _) => packet::received(skb),
        (None, Some(sk)) => sock::tuple(sk),
        (None, None) => return 0,
    };
    if let Some(sk) = sk
        && skb.is_some()
        && let Some(net) = sk.follow(layout!(net))
    {
        tuple.netns = net.read(layout!(net_inum));
    }
    if let Some(sk) = full
        && tuple.lport == 0
    {
        tuple.lport = u16::from_be(sk.read(layout!(sport)));
    }
    let admitted = match full {
        Some(sk) => sock::admitted(&tuple, sk, News::ELSEWHERE),
        None => sock::admitted_without_socket(&tuple),
    };
    if admitted {
        // A minisock stands for FIN_WAIT2 or TIME_WAIT; `new` still tells that it is one.
        let old = match sk {
            Some(sk) if state == TIME_WAIT && has!(tw_substate) => sk.read(layout!(tw_substate)),
            _ => state,
        };
        let event =
            Event { kind: Kind::RST_SENT, sk: sk.map_or(0, |sk| sk.0), tuple, old, new: state, reason };
        emit(event, || {
            let mut facts = full.map_or_else(Facts::default, sock::facts);
            facts.cookie = sk.map_or(0, |sk| sk.read(layout!(cookie)));
            if skb.is_some() {
                facts.flags |= flags::PACKET;
            }
            facts
        });
    }
    0
}
