//! Orphans in FIN_WAIT2: the kernel keeps what is left of them in a minisock and reports nothing more
//! (tcp_time_wait()), though they end in four ways; and those that it does not let wait.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    time::Duration,
};

use super::{
    RESET_IN_CLOSE_WAIT,
    fate::{Fate, Watch},
};
use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        host::{run, sysctl},
        options::set_linger2,
        process::await_that,
        segment::{FIN, RST},
        story::End,
        tcp::{self, Ends, Pair, connect, ends_of, read_to_end},
        wire::{Seen, Wire, wire_scenario},
    },
};

/// An orphan whose peer has closed, too.
const FIN_LATER: &[&str] = client![
    "ESTABLISHED>FIN_WAIT1",
    "FIN_WAIT1>FIN_WAIT2",
    "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
    "FIN_WAIT2>TIME_WAIT",
];
/// One whose peer has not.
const NO_FIN: &[&str] = client![
    "ESTABLISHED>FIN_WAIT1",
    "FIN_WAIT1>FIN_WAIT2",
    "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
    "FIN_WAIT2>CLOSE",
];
/// A peer that closes when the orphan is gone, and is told so.
const TOO_LATE: &[&str] = server![
    "ESTABLISHED>CLOSE_WAIT",
    "CLOSE_WAIT>LAST_ACK",
    "RST< in LAST_ACK",
    "LAST_ACK>CLOSE ECONNRESET",
];
/// A client that has closed, and a server that knows and has not.
struct Orphan {
    listener: TcpListener,
    server: TcpStream,
    ends: Ends,
}

fn orphan(wire: &Wire<'_>, watch: &Watch) -> Orphan {
    let Pair { listener, client, server, ends } = wire.pair();
    tcp::send(&client, 9);
    tcp::receive(&server, 9);
    drop(client);
    assert_eq!(read_to_end(&server), b"");
    watch.until("FIN_WAIT2", "FIN_WAIT2");
    Orphan { listener, server, ends }
}

/// Waits until there is no minisock in the thread's namespace.
fn await_no_minisock() {
    await_that("the minisock is gone", || {
        let text = std::fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
        text.lines().any(|line| line.starts_with("TCP:") && line.contains(" tw 0 "))
    });
}

/// The FIN comes: the minisock is in TIME_WAIT from then on (tcp_timewait_state_process()).
#[test]
fn the_fin_comes() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Orphan { listener, server, ends } = orphan(wire, &watch);
        wire.delay(Duration::from_millis(150), |seen| seen.to_client() && seen.segment.has(FIN));
        drop((server, listener));
        watch.tells(
            &[
                // As its timer tells, in ticks of up to 10 ms.
                Fate::new(ends.client, FIN_LATER, "local_fin").bytes(9, 0).waited("FIN_WAIT2", 140),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").bytes(0, 9).waited("LAST_ACK", 150),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// A RST comes, and the minisock is gone.
#[test]
fn a_reset_comes() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Orphan { listener, server, ends } = orphan(wire, &watch);
        tcp::abort(server);
        await_no_minisock();
        drop(listener);
        watch.tells(
            &[
                Fate::new(ends.client, NO_FIN, "peer_rst").inferred().bytes(9, 0),
                Fate::new(
                    ends.server,
                    server!["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>CLOSE", "RST> TCP_STATE in CLOSE_WAIT"],
                    "local_abort_linger",
                )
                .bytes(0, 9),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// Data comes, and nobody is there to read it: tcp_timewait_state_process() says TCP_TW_RST.
#[test]
fn data_comes() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Orphan { listener, server, ends } = orphan(wire, &watch);
        tcp::send(&server, 1);
        watch.until("CLOSE_WAIT", "CLOSE");
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client![
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
                        "RST> TCP_TIMEWAIT_SOCKET in FIN_WAIT2",
                        "FIN_WAIT2>CLOSE",
                    ],
                    "local_abort_other",
                )
                .bytes(9, 0),
                Fate::new(ends.server, RESET_IN_CLOSE_WAIT, "peer_rst").bytes(0, 9),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// Nothing comes for as long as tcp_fin_timeout says; what comes then meets nobody.
#[test]
fn nothing_comes() {
    wire_scenario(|wire| {
        wire.sysctl("ipv4/tcp_fin_timeout", "1");
        nothing_comes_for_a_second(wire, |_| {});
    });
}

/// The same where the socket says so (TCP_LINGER2).
#[test]
fn nothing_comes_for_as_long_as_the_socket_says() {
    wire_scenario(|wire| nothing_comes_for_a_second(wire, |client| set_linger2(client, 1)));
}

fn nothing_comes_for_a_second(wire: &Wire<'_>, prepare: impl FnOnce(&TcpStream)) {
    let watch = Watch::both(wire);
    let Pair { listener, client, server, ends } = wire.pair();
    prepare(&client);
    drop(client);
    assert_eq!(read_to_end(&server), b"");
    watch.until("FIN_WAIT2", "FIN_WAIT2");
    await_no_minisock();
    drop((server, listener));
    watch.tells(
        &[
            Fate::new(ends.client, NO_FIN, "fin_wait2_timeout").inferred().waited("FIN_WAIT2", 1000),
            Fate::new(ends.server, TOO_LATE, "peer_rst"),
        ],
        &[(ends.listener, LISTENER), (End::stray(ends.client.lport, ends.client.rport), &["RST> NO_SOCKET"])],
    );
}

/// An orphan that is to wait for longer than TIME_WAIT lasts is a full socket for the time that is more, on
/// its keepalive timer; when that is over and the rest has become less than nothing, tcp_keepalive_timer()
/// resets.
#[test]
fn nothing_comes_for_a_full_socket() {
    wire_scenario(|wire| {
        wire.sysctl("ipv4/tcp_fin_timeout", "61");
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        wire.sysctl("ipv4/tcp_fin_timeout", "60");
        watch.until("CLOSE_WAIT", "CLOSE");
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client![
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "RST> TCP_STATE in FIN_WAIT2",
                        "FIN_WAIT2>CLOSE",
                    ],
                    "fin_wait2_timeout",
                )
                .waited("FIN_WAIT2", 900),
                Fate::new(ends.server, RESET_IN_CLOSE_WAIT, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The same, but there is still something left, which a minisock waits for: FIN_WAIT2 goes on.
#[test]
fn a_full_socket_becomes_a_minisock() {
    wire_scenario(|wire| {
        wire.sysctl("ipv4/tcp_fin_timeout", "61");
        let watch = Watch::both(wire);
        let Orphan { listener, server, ends } = orphan(wire, &watch);
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(ends.client, FIN_LATER, "local_fin").bytes(9, 0).waited("FIN_WAIT2", 900),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").bytes(0, 9).waited("CLOSE_WAIT", 900),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// TCP_LINGER2 below 0, and the FIN is acknowledged when close() comes: __tcp_close() resets.
#[test]
fn no_wait_in_fin_wait2() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        set_linger2(&client, -1);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        drop(client);
        watch.until("CLOSE_WAIT", "CLOSE");
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client![
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>CLOSE",
                        "RST> TCP_ABORT_ON_LINGER in FIN_WAIT2",
                    ],
                    "local_abort_other",
                ),
                Fate::new(ends.server, RESET_IN_CLOSE_WAIT, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The same, and the acknowledgment comes after close(): tcp_rcv_state_process() ends the connection, and the
/// RST is sent when the socket has been destroyed.
#[test]
fn no_wait_after_the_acknowledgment() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        set_linger2(&client, -1);
        wire.delay(Duration::from_millis(100), Seen::to_client);
        drop(client);
        watch.until("CLOSE_WAIT", "CLOSE");
        wire.until("the RST", |seen| seen.segment.has(RST));
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client![
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>CLOSE",
                        "RST> TCP_ABORT_ON_DATA in FIN_WAIT2",
                    ],
                    "local_abort_other",
                )
                .waited("FIN_WAIT1", 100),
                Fate::new(ends.server, RESET_IN_CLOSE_WAIT, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// There is room for so many minisocks, and the connections beyond end without (inet_twsk_alloc()). The socket
/// says nothing of that, and how many there are says it only where it is not exactly as many as can be.
fn room_for(minisocks: usize) {
    const FULL: &[&str] = client!["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>CLOSE"];
    wire_scenario(|wire| {
        sysctl("ipv4/tcp_max_tw_buckets", &minisocks.to_string());
        let watch = Watch::both(wire);
        let listener = wire.listen();
        let mut all = Vec::new();
        for count in 1..=minisocks + 2 {
            let (client, server) = connect(&listener);
            all.push(ends_of(&client));
            tcp::close_in_order(client, server);
            watch.until_several(count, "LAST_ACK", "CLOSE");
        }
        let left = run("ss", &["-H", "-t", "-n", "state", "time-wait"]);
        assert_eq!(left.lines().count(), minisocks, "{left}");
        drop(listener);
        let listener = all[0].listener;
        let fates: Vec<_> = all
            .into_iter()
            .enumerate()
            .flat_map(|(at, ends)| {
                let story = if at < minisocks { ACTIVE_CLIENT } else { FULL };
                [
                    Fate::new(ends.client, story, "local_fin"),
                    Fate::new(ends.server, PASSIVE_SERVER, "peer_fin"),
                ]
            })
            .collect();
        watch.tells(&fates, &[(listener, LISTENER)]);
    });
}

#[test]
fn there_is_room_for_none() {
    room_for(0);
}

#[test]
fn there_is_room_for_one() {
    room_for(1);
}

#[test]
fn there_is_room_for_two() {
    room_for(2);
}

/// An orphan for whose minisock there is no room is gone, and its peer finds nobody.
#[test]
fn there_is_room_for_one_orphan() {
    wire_scenario(|wire| {
        sysctl("ipv4/tcp_max_tw_buckets", "1");
        let watch = Watch::both(wire);
        let first = orphan(wire, &watch);
        let Pair { listener, client, server, ends } = wire.pair();
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT2", "CLOSE");
        drop((first.server, first.listener));
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(first.ends.client, FIN_LATER, "local_fin").bytes(9, 0),
                Fate::new(first.ends.server, PASSIVE_SERVER, "peer_fin").bytes(0, 9),
                Fate::new(
                    ends.client,
                    client!["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>CLOSE"],
                    "local_fin",
                ),
                Fate::new(ends.server, TOO_LATE, "peer_rst"),
            ],
            &[
                (first.ends.listener, LISTENER),
                (ends.listener, LISTENER),
                (End::stray(ends.client.lport, ends.client.rport), &["RST> NO_SOCKET"]),
            ],
        );
    });
}
