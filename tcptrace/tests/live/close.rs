//! Connections that end in order.

use std::net::{Shutdown, SocketAddr};

use crate::support::{
    host::sysctl,
    netns::scenario,
    story::{End, Expected},
    tcp::{self, Ends, LOCALHOST, Pair, connect, ends_of, pair, read_to_end},
    trace::Trace,
};

/// A listener that opens and closes. close() on one reports LISTEN>CLOSE (__tcp_close()).
pub(crate) const LISTENER: &[&str] = &["CLOSE>LISTEN", "LISTEN>CLOSE"];
/// An end that receives the FIN first: tcp_fin(), then its own close().
pub(crate) const PASSIVE_CLIENT: &[&str] = &[
    "CLOSE>SYN_SENT",
    "SYN_SENT>ESTABLISHED",
    "ESTABLISHED>CLOSE_WAIT",
    "CLOSE_WAIT>LAST_ACK",
    "LAST_ACK>CLOSE",
];
pub(crate) const PASSIVE_SERVER: &[&str] = &[
    "LISTEN>SYN_RECV",
    "SYN_RECV>ESTABLISHED",
    "ESTABLISHED>CLOSE_WAIT",
    "CLOSE_WAIT>LAST_ACK",
    "LAST_ACK>CLOSE",
];
/// An end that sends the FIN first and is there to receive the other one: tcp_rcv_state_process() hands it to
/// tcp_time_wait() and reports CLOSE.
pub(crate) const ACTIVE_CLIENT: &[&str] = &[
    "CLOSE>SYN_SENT",
    "SYN_SENT>ESTABLISHED",
    "ESTABLISHED>FIN_WAIT1",
    "FIN_WAIT1>FIN_WAIT2",
    "FIN_WAIT2>TIME_WAIT (CLOSE)",
];
pub(crate) const ACTIVE_SERVER: &[&str] = &[
    "LISTEN>SYN_RECV",
    "SYN_RECV>ESTABLISHED",
    "ESTABLISHED>FIN_WAIT1",
    "FIN_WAIT1>FIN_WAIT2",
    "FIN_WAIT2>TIME_WAIT (CLOSE)",
];

/// Makes a connection that its client closes first and its server then, and a listener around it.
pub(crate) fn one_connection() -> Ends {
    let Pair { listener, client, server, ends } = pair();
    tcp::close_in_order(client, server);
    drop(listener);
    ends
}

/// What is to be told of [`one_connection`].
pub(crate) fn story_of(ends: &Ends) -> [Expected<'static>; 3] {
    [(ends.listener, LISTENER), (ends.client, ACTIVE_CLIENT), (ends.server, PASSIVE_SERVER)]
}

/// close() leaves no socket that could wait for the peer's FIN: once ours is acknowledged a minisock in
/// FIN_WAIT2 takes over, and the kernel calls that CLOSE (tcp_rcv_state_process(), TCP_FIN_WAIT1). That the FIN came for it
/// the kernel reports to nobody; the peer's own end tells.
#[test]
fn the_client_closes_first() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        trace.until("the client's minisock waits", |events| {
            events.iter().any(|event| event.is("FIN_WAIT2", "FIN_WAIT2"))
        });
        drop((server, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (
                ends.client,
                &[
                    "CLOSE>SYN_SENT",
                    "SYN_SENT>ESTABLISHED",
                    "ESTABLISHED>FIN_WAIT1",
                    "FIN_WAIT1>FIN_WAIT2",
                    "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
                    "FIN_WAIT2>TIME_WAIT",
                ],
            ),
            (ends.server, PASSIVE_SERVER),
        ]);
    });
}

/// The same the other way round.
#[test]
fn the_server_closes_first() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        trace.until("the server's minisock waits", |events| {
            events.iter().any(|event| event.is("FIN_WAIT2", "FIN_WAIT2"))
        });
        drop((client, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, PASSIVE_CLIENT),
            (
                ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>FIN_WAIT1",
                    "FIN_WAIT1>FIN_WAIT2",
                    "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
                    "FIN_WAIT2>TIME_WAIT",
                ],
            ),
        ]);
    });
}

/// shutdown(SHUT_WR) closes one half; the close() that comes after the other half is closed too finds the
/// socket in CLOSE already and reports nothing.
#[test]
fn a_half_is_closed_and_the_other_later() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        tcp::send(&server, 1000);
        tcp::receive(&client, 1000);
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        drop((client, listener));
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
        ]);
        let end = log.transition(ends.client, "FIN_WAIT2", "TIME_WAIT");
        assert_eq!((end.number("tx_bytes"), end.number("rx_bytes")), (Some(0), Some(1000)));
    });
}

/// The kernel's own words for the same and more: close() after shutdown() sets the state once more
/// (tcp_close_state()), in every state that an end can be in then.
#[test]
fn raw_repeats_the_kernel() {
    scenario(|net| {
        let trace = Trace::of(net, &["--raw"]);
        let Pair { listener, client, server, ends } = pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        trace.until("the FIN is acknowledged", |events| {
            events.iter().any(|event| event.is("FIN_WAIT1", "FIN_WAIT2"))
        });
        drop(client);
        drop((server, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (
                ends.client,
                &[
                    "CLOSE>SYN_SENT",
                    "SYN_SENT>ESTABLISHED",
                    "ESTABLISHED>FIN_WAIT1",
                    "FIN_WAIT1>FIN_WAIT2",
                    "FIN_WAIT2>FIN_WAIT2",
                    "FIN_WAIT2>CLOSE",
                ],
            ),
            (ends.server, PASSIVE_SERVER),
        ]);
    });
}

/// Without --raw the repeated state is not there, and the close() of the half-closed socket makes an orphan.
#[test]
fn a_repeated_state_is_no_transition() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&client), b"");
        trace.until("the FIN is acknowledged", |events| {
            events.iter().any(|event| event.is("FIN_WAIT1", "FIN_WAIT2"))
        });
        drop(server);
        drop((client, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, PASSIVE_CLIENT),
            (
                ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>FIN_WAIT1",
                    "FIN_WAIT1>FIN_WAIT2",
                    "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
                    "FIN_WAIT2>TIME_WAIT",
                ],
            ),
        ]);
    });
}

/// An orphan that is to wait for longer than TIME_WAIT lasts stays a full socket (tcp_fin_time() >
/// TCP_TIMEWAIT_LEN), and so is there for the peer's FIN.
#[test]
fn an_orphan_receives_the_fin() {
    scenario(|net| {
        sysctl("ipv4/tcp_fin_timeout", "100");
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        let (other, others_server) = connect(&listener);
        let other_ends = ends_of(&other);
        drop(client);
        drop(others_server);
        assert_eq!((read_to_end(&server), read_to_end(&other)), (vec![], vec![]));
        trace.until("both FINs are acknowledged", |events| {
            events.iter().filter(|event| event.is("FIN_WAIT1", "FIN_WAIT2")).count() == 2
        });
        drop((server, other, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
            (other_ends.client, PASSIVE_CLIENT),
            (other_ends.server, ACTIVE_SERVER),
        ]);
    });
}

/// Where there is no room for another minisock the connection is over when the kernel says CLOSE
/// (inet_twsk_alloc()). What arrives for it later meets nobody.
#[test]
fn without_room_there_is_no_time_wait() {
    scenario(|net| {
        sysctl("ipv4/tcp_max_tw_buckets", "0");
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        let (orphan, orphans_server) = connect(&listener);
        let orphan_ends = ends_of(&orphan);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        drop(orphan);
        trace.until("the orphan is gone", |events| {
            events.iter().filter(|event| event.is("FIN_WAIT2", "CLOSE")).count() == 2
        });
        drop((client, orphans_server, listener));
        let closed_client = &[
            "CLOSE>SYN_SENT",
            "SYN_SENT>ESTABLISHED",
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>FIN_WAIT2",
            "FIN_WAIT2>CLOSE",
        ];
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, closed_client),
            (ends.server, PASSIVE_SERVER),
            (orphan_ends.client, closed_client),
            (
                orphan_ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>CLOSE_WAIT",
                    "CLOSE_WAIT>LAST_ACK",
                    "RST< in LAST_ACK",
                    "LAST_ACK>CLOSE ECONNRESET",
                ],
            ),
            (End::stray(orphan_ends.client.lport, orphan_ends.client.rport), &["RST> NO_SOCKET"]),
        ]);
    });
}

/// A socket that connects to its own port opens and closes from both sides at once: the SYN that arrives in
/// SYN_SENT is its own (tcp_rcv_synsent_state_process()), and so is the FIN in FIN_WAIT1 (tcp_fin()).
#[test]
fn both_sides_at_once() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let (socket, port) = tcp::bound_socket();
        socket.connect(&SocketAddr::new(LOCALHOST, port).into()).unwrap();
        drop(socket);
        trace.tells(&[(
            End::new(port, port),
            &[
                "CLOSE>SYN_SENT",
                "SYN_SENT>SYN_RECV",
                "SYN_RECV>ESTABLISHED",
                "ESTABLISHED>FIN_WAIT1",
                "FIN_WAIT1>CLOSING",
                "CLOSING>TIME_WAIT (CLOSE)",
            ],
        )]);
    });
}

/// tx_bytes and rx_bytes are payload, whatever the kernel's counters hold besides (tcp_ack() counts our SYN
/// and FIN in bytes_acked, tcp_rcv_nxt_update() the peer's FIN in bytes_received).
#[test]
fn bytes_are_payload() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        tcp::send(&client, 100_001);
        tcp::receive(&server, 100_001);
        tcp::send(&server, 7);
        tcp::receive(&client, 7);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        let (receiver, sender) = connect(&listener);
        let others = ends_of(&receiver);
        tcp::send(&sender, 65_536);
        tcp::receive(&receiver, 65_536);
        sender.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&receiver), b"");
        drop(receiver);
        assert_eq!(read_to_end(&sender), b"");
        drop((client, sender, listener));
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
            (others.client, PASSIVE_CLIENT),
            (others.server, ACTIVE_SERVER),
        ]);
        for (end, tx_bytes, rx_bytes) in [
            (ends.client, 100_001, 7),
            (ends.server, 7, 100_001),
            (others.client, 0, 65_536),
            (others.server, 65_536, 0),
        ] {
            let events = log.of(end);
            let (last, earlier) = events.split_last().unwrap();
            let bytes = (last.number("tx_bytes"), last.number("rx_bytes"));
            assert_eq!(bytes, (Some(tx_bytes), Some(rx_bytes)), "{end}: {last:?}");
            assert_eq!(last.number("retransmits"), Some(0), "{end}: {last:?}");
            assert!(last.number("srtt_us").is_some(), "{end}: {last:?}");
            assert!(earlier.iter().all(|event| event.number("tx_bytes").is_none()), "{end}: {earlier:?}");
        }
    });
}
