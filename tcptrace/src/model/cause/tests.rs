#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

#[test]
fn every_cause_has_a_name_of_its_own_and_is_read_back() {
    for cause in Cause::ALL {
        assert_eq!(cause.name().parse::<Cause>().unwrap(), cause);
        assert_eq!(cause.name().to_uppercase().replace('_', "-").parse::<Cause>().unwrap(), cause);
    }
    assert!("reset".parse::<Cause>().unwrap_err().contains("peer_rst"));
}

/// A close by the process that owns the socket: shut down on both sides, attached, not orphaned yet.
fn by_owner() -> Record {
    Record { flags: flags::OWNED | flags::SOCKET, shutdown: 3, ..Record::default() }
}

fn from(old: State, record: &Record, detail: &CloseDetail) -> Verdict {
    of_close(old, State::CLOSE, record, detail, Some(Role::Server), Resets::default())
}

#[test]
fn close_with_unread_data_comes_before_linger() {
    let record = Record { flags: by_owner().flags | flags::LINGER0, ..by_owner() };
    let unread = CloseDetail { unread: 5, ..CloseDetail::default() };
    assert_eq!(from(State::ESTABLISHED, &record, &unread), Verdict::read(Cause::LocalAbortUnread));
    assert_eq!(
        from(State::ESTABLISHED, &record, &CloseDetail::default()),
        Verdict::read(Cause::LocalAbortLinger)
    );
    // The peer's FIN alone is no data.
    let fin = CloseDetail { unread: 1, ..CloseDetail::default() };
    let record = Record { flags: record.flags | flags::DONE, ..record };
    assert_eq!(from(State::CLOSE_WAIT, &record, &fin), Verdict::read(Cause::LocalAbortLinger));
}

#[test]
fn nobody_accepted() {
    let softirq = Record::default();
    for old in [State::ESTABLISHED, State::CLOSE_WAIT] {
        assert_eq!(from(old, &softirq, &CloseDetail::default()), Verdict::read(Cause::ListenerClosed));
    }
    assert_eq!(
        from(State::SYN_RECV, &softirq, &CloseDetail::default()),
        Verdict::read(Cause::HandshakeFailed)
    );
}

#[test]
fn errors_tell_timeouts_from_icmp() {
    let softirq = Record { flags: flags::SOCKET, ..Record::default() };
    let timeout = CloseDetail { sk_err: ETIMEDOUT, ..CloseDetail::default() };
    assert_eq!(from(State::ESTABLISHED, &softirq, &timeout), Verdict::read(Cause::Timeout));
    assert_eq!(from(State::SYN_SENT, &softirq, &timeout), Verdict::read(Cause::ConnectTimeout));
    let icmp = CloseDetail { sk_err: 113, ..CloseDetail::default() };
    assert_eq!(from(State::ESTABLISHED, &softirq, &icmp), Verdict::read(Cause::Unreachable));
    assert_eq!(from(State::SYN_SENT, &softirq, &icmp), Verdict::read(Cause::Unreachable));
    let sent = Resets { sent: true, keepalive: Some(true), ..Resets::default() };
    let verdict = of_close(State::ESTABLISHED, State::CLOSE, &softirq, &timeout, None, sent);
    assert_eq!(verdict, Verdict::read(Cause::KeepaliveTimeout));
    // A kernel without reasons.
    let probed = CloseDetail { probes_out: 3, ..timeout };
    let record = Record { flags: flags::KEEPALIVE, ..Record::default() };
    let sent = Resets { sent: true, ..Resets::default() };
    let verdict = of_close(State::ESTABLISHED, State::CLOSE, &record, &probed, None, sent);
    assert_eq!(verdict, Verdict::inferred(Cause::KeepaliveTimeout));
    // A timer that met the socket in use.
    assert_eq!(from(State::FIN_WAIT1, &by_owner(), &timeout), Verdict::read(Cause::Timeout));
    // An error from before does not end a connection that its process closes.
    let stale = CloseDetail { sk_err: 113, ..CloseDetail::default() };
    let record = Record { flags: by_owner().flags | flags::LINGER0, ..by_owner() };
    assert_eq!(from(State::ESTABLISHED, &record, &stale), Verdict::read(Cause::LocalAbortLinger));
}

#[test]
fn a_connect_that_was_never_sent_had_no_port() {
    let failed = Record { flags: flags::OWNED | flags::SOCKET, ..Record::default() };
    assert_eq!(from(State::SYN_SENT, &failed, &CloseDetail::default()), Verdict::read(Cause::NoLocalPort));
    let mut bound = failed;
    bound.tuple.lport = 4711;
    assert_eq!(from(State::SYN_SENT, &bound, &CloseDetail::default()), Verdict::inferred(Cause::NoLocalPort));
    let mut given_up = by_owner();
    given_up.tuple.lport = 4711;
    let sent = CloseDetail { segs_out: 1, ..CloseDetail::default() };
    assert_eq!(from(State::SYN_SENT, &given_up, &sent), Verdict::read(Cause::LocalAbortOther));
    let repeated = CloseDetail { segs_out: 2, retransmits: 1, ..CloseDetail::default() };
    assert_eq!(from(State::SYN_SENT, &given_up, &repeated), Verdict::inferred(Cause::ConnectTimeout));
}

/// Whatever the kernel reports, there is an answer, and a RST that came is what ended the connection.
#[test]
fn there_is_always_a_cause() {
    for number in 1..=12 {
        let old = State::from_kernel(number).unwrap();
        for bits in 0..64 {
            let record = Record { flags: bits, ..Record::default() };
            for err in [0, 32, 103, 104, 110, 113] {
                let detail = CloseDetail { sk_err: err, ..CloseDetail::default() };
                for (received, sent) in [(false, false), (true, false), (false, true), (true, true)] {
                    let resets = Resets { received, sent, keepalive: None };
                    let verdict = of_close(old, State::CLOSE, &record, &detail, None, resets);
                    assert_ne!(verdict.cause, Cause::Unknown);
                    if received && old != State::SYN_SENT {
                        assert_eq!(verdict.cause, Cause::PeerRst, "{old:?}");
                    }
                }
            }
        }
    }
}
