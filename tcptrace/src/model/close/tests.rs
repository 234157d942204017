use super::*;

/// An orderly close, of which nothing is known of minisocks.
fn quiet() -> CloseDetail {
    CloseDetail { tw_count: UNKNOWN, tw_max: UNKNOWN, ..CloseDetail::default() }
}

fn record(flags: u32) -> Record {
    Record { flags, ..Record::default() }
}

#[test]
fn the_facts_tell_what_close_means() {
    use flags::{DEAD, DONE, LINGER0, OWNED};
    for (old, flags, linger2, after) in [
        // The peer's FIN, before and after the application closed.
        (State::FIN_WAIT2, DONE, 0, State::TIME_WAIT),
        (State::FIN_WAIT2, DONE | DEAD, 0, State::TIME_WAIT),
        (State::FIN_WAIT2, DONE | DEAD, -1, State::TIME_WAIT),
        // An orphan that waits for it: the default time, TCP_LINGER2, not at all.
        (State::FIN_WAIT2, DEAD, 0, State::FIN_WAIT2),
        (State::FIN_WAIT2, DEAD, 60_000, State::FIN_WAIT2),
        (State::FIN_WAIT2, DEAD, -1, State::CLOSE),
        // tcp_disconnect().
        (State::FIN_WAIT2, OWNED, 0, State::CLOSE),
        (State::FIN_WAIT2, OWNED | LINGER0, 0, State::CLOSE),
        // Both have sent a FIN.
        (State::CLOSING, DONE, 0, State::TIME_WAIT),
        (State::CLOSING, DONE | DEAD, -1, State::TIME_WAIT),
        (State::CLOSING, DONE | DEAD | LINGER0 | OWNED, 0, State::TIME_WAIT),
        (State::CLOSING, DONE | LINGER0, 0, State::TIME_WAIT),
        (State::CLOSING, DONE | LINGER0 | OWNED, 0, State::CLOSE),
        // From no other state a minisock takes over.
        (State::ESTABLISHED, DONE | DEAD, 0, State::CLOSE),
        (State::SYN_SENT, DEAD, 0, State::CLOSE),
        (State::SYN_RECV, DEAD, 0, State::CLOSE),
        (State::FIN_WAIT1, DONE | DEAD, 0, State::CLOSE),
        (State::CLOSE_WAIT, DONE | DEAD, 0, State::CLOSE),
        (State::LAST_ACK, DONE | DEAD, 0, State::CLOSE),
        (State::LISTEN, DEAD, 0, State::CLOSE),
        (State::CLOSE, DONE | DEAD, 0, State::CLOSE),
    ] {
        let detail = CloseDetail { linger2, ..quiet() };
        assert_eq!(
            state_after(old, &record(flags), &detail, false),
            after,
            "{old}, flags {flags:#x}, linger2 {linger2}"
        );
        // A RST or an error ends whatever it was.
        assert_eq!(state_after(old, &record(flags), &detail, true), State::CLOSE, "{old}, reset");
        let detail = CloseDetail { sk_err: 110, ..detail };
        assert_eq!(state_after(old, &record(flags), &detail, false), State::CLOSE, "{old}, error");
    }
}

#[test]
fn without_room_no_minisock_takes_over() {
    for (tw_count, tw_max, room) in [
        (0, 0, false),
        (7, 0, false),
        (1, 1, true),
        (2, 1, false),
        (99, 100, true),
        (100, 100, true),
        (101, 100, false),
        (UNKNOWN, 100, true),
        (UNKNOWN, 0, true),
        (101, UNKNOWN, true),
        (UNKNOWN, UNKNOWN, true),
    ] {
        let detail = CloseDetail { tw_count, tw_max, ..quiet() };
        for (old, flags, after) in [
            (State::FIN_WAIT2, flags::DONE, State::TIME_WAIT),
            (State::FIN_WAIT2, flags::DEAD, State::FIN_WAIT2),
            (State::CLOSING, flags::DONE, State::TIME_WAIT),
        ] {
            let expected = if room { after } else { State::CLOSE };
            assert_eq!(
                state_after(old, &record(flags), &detail, false),
                expected,
                "{old}, {tw_count} of {tw_max}"
            );
        }
    }
}

#[test]
fn payload_is_counted_without_syn_and_fin() {
    use Role::{Client, Server};
    // What the counters show of a client that sends 5 bytes and gets 3 (kernel.md 6, and the same for the
    // states in between).
    for (old, role, acked, unacked, sent) in [
        // Nothing, not even the SYN.
        (State::SYN_SENT, Some(Client), 0, 1, 0),
        // The SYN.
        (State::ESTABLISHED, Some(Client), 1, 0, 0),
        (State::ESTABLISHED, Some(Client), 6, 0, 5),
        (State::CLOSE_WAIT, Some(Client), 6, 0, 5),
        // The FIN is not acknowledged.
        (State::FIN_WAIT1, Some(Client), 6, 1, 5),
        (State::LAST_ACK, Some(Client), 6, 1, 5),
        // Nor are two bytes before it.
        (State::FIN_WAIT1, Some(Client), 4, 3, 3),
        // The FIN is.
        (State::FIN_WAIT2, Some(Client), 7, 0, 5),
        (State::CLOSING, Some(Client), 7, 0, 5),
        (State::LAST_ACK, Some(Client), 7, 0, 5),
        // A server sent no SYN of its own: the counter begins after the SYN-ACK.
        (State::ESTABLISHED, Some(Server), 3, 0, 3),
        (State::FIN_WAIT1, Some(Server), 3, 1, 3),
        (State::LAST_ACK, Some(Server), 4, 0, 3),
        (State::FIN_WAIT2, Some(Server), 4, 0, 3),
        (State::SYN_RECV, Some(Server), 0, 0, 0),
        (State::LISTEN, Some(Role::Listener), 0, 0, 0),
    ] {
        let detail = CloseDetail { bytes_acked: acked, unacked, ..quiet() };
        let totals = totals(old, &record(0), &detail, role);
        assert_eq!(totals.tx_bytes, sent, "{old} {role:?} acked {acked} unacked {unacked}");
    }
}

#[test]
fn payload_of_an_unknown_role_is_at_most_what_was_sent() {
    for (old, acked, unacked, bytes_sent, bytes_retrans, sent) in [
        // A SYN there was.
        (State::FIN_WAIT2, 7, 0, 5, 0, 5),
        (State::FIN_WAIT2, 7, 0, 8, 3, 5),
        // There was none.
        (State::FIN_WAIT2, 6, 0, 5, 0, 5),
        // Not all was acknowledged.
        (State::ESTABLISHED, 3, 2, 5, 0, 3),
        // Counters that contradict each other.
        (State::FIN_WAIT2, 0, 0, 0, 9, 0),
    ] {
        let detail = CloseDetail { bytes_acked: acked, unacked, bytes_sent, bytes_retrans, ..quiet() };
        assert_eq!(totals(old, &record(0), &detail, None).tx_bytes, sent, "{old} {acked} {bytes_sent}");
    }
}

#[test]
fn the_peers_fin_is_no_payload() {
    for (flags, received, payload) in [
        // It went to the minisock.
        (flags::DEAD, 3, 3),
        (flags::DONE, 4, 3),
        (flags::DONE, 1, 0),
        (flags::DONE, 0, 0),
        (0, 0, 0),
    ] {
        let detail = CloseDetail { bytes_received: received, ..quiet() };
        assert_eq!(totals(State::FIN_WAIT2, &record(flags), &detail, None).rx_bytes, payload, "{received}");
    }
}

#[test]
fn the_other_totals_are_the_kernels() {
    let detail = CloseDetail { sk_err: 104, total_retrans: 9, srtt_8us: 815, ..quiet() };
    let totals = totals(State::ESTABLISHED, &record(0), &detail, None);
    assert_eq!((totals.sk_err, totals.retransmits, totals.srtt_us), (104, 9, 101));
}
