//! What a record to CLOSE really says.
//!
//! The kernel reports CLOSE when a socket dies and also when the connection lives on in a minisock, in
//! TIME_WAIT or FIN_WAIT2 (tcp_time_wait() in net/ipv4/tcp_minisocks.c). The two look alike but for the
//! facts weighed here; kernel.md of the design has the observations, docs/kernels.md the rules.

use tcptrace_common::record::{CloseDetail, Record, UNKNOWN, flags};

use super::{
    event::{Role, Totals},
    found::Counters,
    state::State,
};

/// The state that the connection is in after the kernel reported its socket's CLOSE.
///
/// `reset_before` says that a RST was sent or received on the socket since its last transition.
#[must_use]
pub fn state_after(old: State, record: &Record, detail: &CloseDetail, reset_before: bool) -> State {
    if reset_before || detail.sk_err != 0 || no_room(detail) {
        return State::CLOSE;
    }
    let has = |flag| record.flags & flag != 0;
    match old {
        // The peer's FIN is what ends FIN_WAIT2 in order.
        State::FIN_WAIT2 if has(flags::DONE) => State::TIME_WAIT,
        // Orphaned, and the kernel waits for that FIN. With linger2 < 0 it does not wait; without SOCK_DEAD
        // this is tcp_disconnect().
        State::FIN_WAIT2 if has(flags::DEAD) && detail.linger2 >= 0 => State::FIN_WAIT2,
        // SO_LINGER 0 on a socket that was shut down before. It is not orphaned yet in tcp_disconnect().
        State::CLOSING if has(flags::LINGER0) && !has(flags::DEAD) && has(flags::OWNED) => State::CLOSE,
        State::CLOSING => State::TIME_WAIT,
        _ => State::CLOSE,
    }
}

/// Whether the namespace certainly had no room for another minisock (inet_twsk_alloc()). With exactly
/// `tw_max` of them this one may be the last that fitted, or refused.
fn no_room(detail: &CloseDetail) -> bool {
    let CloseDetail { tw_count, tw_max, .. } = *detail;
    tw_count != UNKNOWN && tw_max != UNKNOWN && (tw_max == 0 || tw_count > tw_max)
}

/// Whether the namespace holds exactly as many minisocks as it may: then this one may be the last that fitted, or
/// refused, and only sock_diag can tell.
#[must_use]
pub fn room_in_doubt(detail: &CloseDetail) -> bool {
    detail.tw_max != UNKNOWN && detail.tw_count == detail.tw_max
}

/// The connection's totals.
#[must_use]
pub fn totals(old: State, record: &Record, detail: &CloseDetail, role: Option<Role>) -> Totals {
    let fin_sent = matches!(old, State::FIN_WAIT1 | State::FIN_WAIT2 | State::CLOSING | State::LAST_ACK);
    let fin_acked = u64::from(fin_sent && detail.unacked == 0);
    let tx_bytes = payload_acked(
        detail.bytes_acked.saturating_sub(fin_acked),
        detail.bytes_sent.saturating_sub(detail.bytes_retrans),
        role,
    );
    Totals {
        sk_err: detail.sk_err,
        retransmits: detail.total_retrans,
        tx_bytes,
        rx_bytes: detail.bytes_received.saturating_sub(u64::from(record.flags & flags::DONE != 0)),
        srtt_us: detail.srtt_8us >> 3,
    }
}

/// Payload bytes that the peer acknowledged. `acked` holds our SYN if we sent one, and not our FIN; `sent` is payload.
fn payload_acked(acked: u64, sent: u64, role: Option<Role>) -> u64 {
    match role {
        Some(Role::Client) => acked.saturating_sub(1),
        Some(_) => acked,
        // Whether there was a SYN is not known, so count what was sent once.
        None => acked.min(sent),
    }
}

/// The totals of a connection that is open.
#[must_use]
pub fn totals_so_far(state: State, counters: &Counters, role: Option<Role>) -> Totals {
    let fin_acked = u64::from(matches!(state, State::FIN_WAIT2));
    let fin_received = matches!(state, State::CLOSE_WAIT | State::LAST_ACK | State::CLOSING);
    Totals {
        sk_err: 0,
        retransmits: counters.total_retrans,
        tx_bytes: payload_acked(
            counters.bytes_acked.saturating_sub(fin_acked),
            counters.bytes_sent.saturating_sub(counters.bytes_retrans),
            role,
        ),
        rx_bytes: counters.bytes_received.saturating_sub(u64::from(fin_received)),
        srtt_us: counters.srtt_us,
    }
}

/// Which end sent the SYN, by the counters of an open connection: only who sent one has it acknowledged beside its
/// payload. `None` while something is on its way.
#[must_use]
pub fn role_by_counters(state: State, counters: &Counters) -> Option<Role> {
    if counters.unacked > 0 || !matches!(state, State::ESTABLISHED | State::CLOSE_WAIT) {
        return None;
    }
    let sent = counters.bytes_sent.saturating_sub(counters.bytes_retrans);
    match counters.bytes_acked.checked_sub(sent)? {
        0 => Some(Role::Server),
        1 => Some(Role::Client),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
