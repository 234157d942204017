//! `void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, 4.16 to 7.3.
//!
//! Fires before `sk->sk_state` is written; to CLOSE, after the local port was given back. `sk` is never NULL.

use aya_ebpf::{helpers::bpf_skc_to_tcp_sock, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::error;
use tcptrace_common::{
    filter::News,
    record::{CloseDetail, Kind, NO_REASON, UNKNOWN},
};

use crate::{
    emit::{Event, emit, emit_close},
    globals::{has, layout},
    handled,
    memory::{Memory as _, Typed},
    sock,
};

const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSING: u8 = 11;

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    if has!(no_recursion) {
        handled::note(event(&ctx));
    }
    transition(&ctx)
}

/// From 6.1 on the kernel does not run a program that it has interrupted or preempted on the same CPU
/// (__bpf_trace_run()), and a softirq can bring hundreds of events. This one is attached after the other, is called for
/// every event, and does what that one was kept from.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state_again(ctx: BtfTracePointContext) -> i32 {
    if handled::is_noted(event(&ctx)) { 0 } else { transition(&ctx) }
}

#[inline(always)]
fn event(ctx: &BtfTracePointContext) -> handled::Event {
    handled::Event {
        sk: ctx.arg(0),
        states: u64::from(ctx.arg::<u32>(1)) << 32 | u64::from(ctx.arg::<u32>(2)),
    }
}

#[inline(always)]
fn transition(ctx: &BtfTracePointContext) -> i32 {
    let sk = Typed(ctx.arg(0));
    if !sock::is_tcp(sk) {
        return 0;
    }
    let (old, new) = (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    let news = News::of_transition(old, new);
    let mut tuple = sock::tuple(sk);
    if new != CLOSE {
        if sock::admitted(&tuple, sk, news) {
            let event = Event { kind: Kind::TRANSITION, sk: sk.0 as u64, tuple, old, new, reason: NO_REASON };
            emit(event, || sock::facts_with_cookie(sk));
        }
        return 0;
    }
    // SAFETY: `sk` is a struct sock; the result is NULL unless it is a full TCP socket.
    let tcp = Typed(unsafe { bpf_skc_to_tcp_sock(sk.0.cast_mut().cast()) }.cast_const().cast());
    if tcp.0.is_null() {
        return impossible(ctx);
    }
    if tuple.lport == 0 {
        tuple.lport = u16::from_be(tcp.read(layout!(sport)));
    }
    if sock::admitted(&tuple, sk, news) {
        let event = Event { kind: Kind::CLOSE, sk: sk.0 as u64, tuple, old, new, reason: NO_REASON };
        emit_close(event, || sock::facts_with_cookie(sk), |detail| fill_detail(detail, sk, tcp, old));
    }
    0
}

#[cold]
#[inline(never)]
fn impossible(ctx: &BtfTracePointContext) -> i32 {
    error!(ctx, "inet_sock_set_state: a TCP socket goes to CLOSE and has no tcp_sock");
    0
}

#[inline(always)]
fn fill_detail(detail: &mut CloseDetail, sk: Typed, tcp: Typed, old: u8) {
    // The count of minisocks is shared by all CPUs: it is read only where a minisock may just have been made.
    let net = if old == FIN_WAIT2 || old == CLOSING { sk.follow(layout!(net)) } else { None };
    detail.tw_count = match net {
        // A refcount_t that starts at 1.
        Some(net) if has!(tw_refcount) => net.read::<u32>(layout!(tw_refcount)).wrapping_sub(1),
        Some(net) if has!(tw_count) => net.read(layout!(tw_count)),
        _ => UNKNOWN,
    };
    detail.tw_max = match net {
        Some(net) if has!(tw_max) => net.read(layout!(tw_max)),
        _ => UNKNOWN,
    };
    detail.bytes_acked = tcp.read(layout!(bytes_acked));
    detail.bytes_received = tcp.read(layout!(bytes_received));
    detail.bytes_sent = tcp.read(layout!(bytes_sent));
    detail.bytes_retrans = tcp.read(layout!(bytes_retrans));
    detail.sk_err = sk.read(layout!(err));
    detail.sk_err_soft = sk.read(layout!(err_soft));
    detail.linger2 = tcp.read(layout!(linger2));
    detail.user_timeout_ms = if has!(user_timeout) { tcp.read(layout!(user_timeout)) } else { 0 };
    detail.unread = tcp.read::<u32>(layout!(rcv_nxt)).wrapping_sub(tcp.read(layout!(copied_seq)));
    detail.unacked = tcp.read::<u32>(layout!(write_seq)).wrapping_sub(tcp.read(layout!(snd_una)));
    detail.snd_wnd = tcp.read(layout!(snd_wnd));
    detail.srtt_8us = tcp.read(layout!(srtt));
    detail.total_retrans = tcp.read(layout!(total_retrans));
    detail.segs_in = tcp.read(layout!(segs_in));
    detail.segs_out = tcp.read(layout!(segs_out));
    detail.retransmits = tcp.read(layout!(retransmits));
    detail.probes_out = tcp.read(layout!(probes_out));
    detail.mptcp = u8::from(has!(is_mptcp) && tcp.bit(layout!(is_mptcp)));
    detail.repair = u8::from(has!(repair) && tcp.bit(layout!(repair)));
}
