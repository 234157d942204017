//! Peers that fall silent.

use std::{
    io::{self, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};

use super::fate::{Fate, Watch};
use crate::{
    abort::DISCONNECTED_SERVER,
    close::LISTENER,
    support::{
        process::await_that,
        segment::{FIN, HOST_UNREACHABLE, unreachable},
        tcp::{self, Pair, read_to_end},
        wire::{Seen, To, Wire, wire_scenario},
    },
};

const TIMED_OUT: &[&str] = client!["ESTABLISHED>CLOSE ETIMEDOUT"];

fn await_error(client: &TcpStream, kind: io::ErrorKind) {
    let error = client.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
}

/// The client sends into the void, and learns of it; the server never does.
fn unacknowledged(
    prepare: impl Fn(&Wire<'_>, &TcpStream) + Sync,
    during: impl Fn(&Wire<'_>) + Sync,
    error: io::ErrorKind,
    story: &[&str],
    cause: &str,
) {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        prepare(wire, &client);
        tcp::send(&client, 5);
        tcp::receive(&server, 5);
        wire.until("the data is acknowledged", |seen| seen.to_client() && !seen.segment.is_syn_ack());
        wire.lose(|_| true);
        tcp::send(&client, 10);
        during(wire);
        await_error(&client, error);
        tcp::abort(server);
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(ends.client, story, cause).bytes(5, 0).repeated().waited("ESTABLISHED", 450),
                Fate::new(ends.server, DISCONNECTED_SERVER, "local_abort_linger").bytes(0, 5),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

fn half_a_second(_: &Wire<'_>, client: &TcpStream) {
    SockRef::from(client).set_tcp_user_timeout(Some(Duration::from_millis(500))).unwrap();
}

/// TCP_USER_TIMEOUT. No RST is sent (tcp_write_timeout()).
#[test]
fn the_user_timeout() {
    unacknowledged(half_a_second, |_| {}, io::ErrorKind::TimedOut, TIMED_OUT, "timeout");
}

/// tcp_retries2: the time that so many retransmissions would take.
#[test]
fn the_retransmission_timeout() {
    unacknowledged(
        |wire, _| wire.sysctl("ipv4/tcp_retries2", "1"),
        |_| {},
        io::ErrorKind::TimedOut,
        TIMED_OUT,
        "timeout",
    );
}

/// ICMP is no reason to end a connection that stands, but it is what the timeout says then (tcp_write_err()).
#[test]
fn the_way_is_gone() {
    unacknowledged(
        half_a_second,
        |wire| {
            wire.until_several("the lost data again", 3, |seen| seen.to_server() && seen.segment.has_data());
            let data = wire.last(|seen| seen.to_server() && seen.segment.has_data());
            wire.say(To::Client, &unreachable(HOST_UNREACHABLE, &data.packet));
        },
        io::ErrorKind::HostUnreachable,
        client!["ESTABLISHED>CLOSE EHOSTUNREACH"],
        "unreachable",
    );
}

/// The peer reads nothing, and then does not even say so any more (tcp_probe_timer()).
#[test]
fn a_zero_window() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        half_a_second(wire, &client);
        client.set_nonblocking(true).unwrap();
        await_that("there is no more room", || {
            // What does not fit now may fit later.
            let _ = (&client).write(&[b'x'; 4096]);
            wire.count(|seen| seen.to_client() && seen.segment.window == 0) > 0
        });
        client.set_nonblocking(false).unwrap();
        wire.lose(|_| true);
        let begin = wire.last(|seen| seen.segment.is_syn()).segment.next();
        let acked = wire.last(Seen::to_client).segment.ack.wrapping_sub(begin);
        await_error(&client, io::ErrorKind::TimedOut);
        // What is unread comes before SO_LINGER in __tcp_close().
        tcp::abort(server);
        drop((client, listener));
        watch.tells(
            &[
                // A segment for which there was no more memory comes again.
                Fate::new(ends.client, TIMED_OUT, "timeout").bytes(acked.into(), 0).perhaps_repeated(),
                Fate::new(
                    ends.server,
                    server!["ESTABLISHED>CLOSE", "RST> TCP_ABORT_ON_CLOSE in ESTABLISHED"],
                    "local_abort_unread",
                )
                .bytes(0, acked.into()),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// tcp_keepalive_timer() resets first and sets the state then.
#[test]
fn keepalive() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        let second = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
        SockRef::from(&client).set_tcp_keepalive(&keepalive).unwrap();
        wire.lose(|_| true);
        await_error(&client, io::ErrorKind::TimedOut);
        tcp::abort(server);
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client!["RST> TCP_KEEPALIVE_TIMEOUT in ESTABLISHED", "ESTABLISHED>CLOSE ETIMEDOUT"],
                    "keepalive_timeout",
                )
                .waited("ESTABLISHED", 1900),
                Fate::new(ends.server, DISCONNECTED_SERVER, "local_abort_linger"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// An orphan whose FIN is not acknowledged, after tcp_orphan_retries.
#[test]
fn in_fin_wait1() {
    wire_scenario(|wire| {
        wire.sysctl("ipv4/tcp_orphan_retries", "1");
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        wire.lose(|_| true);
        drop(client);
        watch.until("FIN_WAIT1", "CLOSE");
        tcp::abort(server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client!["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>CLOSE ETIMEDOUT"],
                    "timeout",
                )
                .repeated()
                .waited("FIN_WAIT1", 500),
                Fate::new(ends.server, DISCONNECTED_SERVER, "local_abort_linger"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The same for the end that closes second.
#[test]
fn in_last_ack() {
    wire_scenario(|wire| {
        wire.sysctl("ipv4/tcp_orphan_retries", "1");
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        wire.lose(|_| true);
        drop(server);
        watch.until("LAST_ACK", "CLOSE");
        tcp::abort(client);
        drop(listener);
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client![
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>CLOSE",
                        "RST> TCP_STATE in FIN_WAIT2",
                    ],
                    "local_abort_linger",
                ),
                Fate::new(
                    ends.server,
                    server!["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>LAST_ACK", "LAST_ACK>CLOSE ETIMEDOUT"],
                    "timeout",
                )
                .repeated()
                .waited("LAST_ACK", 500),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// And for one that has the other's FIN, but no acknowledgment of its own.
#[test]
fn in_closing() {
    wire_scenario(|wire| {
        wire.sysctl("ipv4/tcp_orphan_retries", "1");
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        wire.lose(Seen::to_server);
        drop(client);
        drop(server);
        watch.until("CLOSING", "CLOSE");
        watch.until("FIN_WAIT1", "CLOSE");
        let fins = wire.count(|seen| seen.to_client() && seen.segment.has(FIN));
        assert!(fins > 1, "the server repeats its FIN, too");
        drop(listener);
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client!["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>CLOSING", "CLOSING>CLOSE ETIMEDOUT"],
                    "timeout",
                )
                .repeated()
                .waited("CLOSING", 500),
                Fate::new(
                    ends.server,
                    server!["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>CLOSE ETIMEDOUT"],
                    "timeout",
                )
                .repeated()
                .waited("FIN_WAIT1", 500),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}
