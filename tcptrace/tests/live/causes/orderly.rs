//! Both halves are closed with a FIN.

use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use super::fate::{Fate, Watch};
use crate::{
    close::{ACTIVE_CLIENT, ACTIVE_SERVER, LISTENER, PASSIVE_CLIENT, PASSIVE_SERVER},
    support::{
        segment::{ACK, FIN, SYN},
        story::End,
        tcp::{self, Pair, connect, ends_of, read_to_end},
        wire::{CLIENT, SERVER, Seen, wire_scenario},
    },
};

const DELAY: Duration = Duration::from_millis(100);

/// The client closes first, and every state takes the time that the wire gives it: the SYN-ACK comes late, then
/// the acknowledgment of the FIN, then the other FIN.
#[test]
fn the_client_closes_first() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        wire.delay(DELAY, Seen::to_client);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::send(&client, 5);
        tcp::receive(&server, 5);
        tcp::send(&server, 3);
        tcp::receive(&client, 3);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin")
                    .bytes(5, 3)
                    .waited("SYN_SENT", 100)
                    .waited("ESTABLISHED", 100)
                    .waited("FIN_WAIT1", 100)
                    .waited("FIN_WAIT2", 100),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin")
                    .bytes(3, 5)
                    .waited("CLOSE_WAIT", 100)
                    .waited("LAST_ACK", 100),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The same the other way round. The server's child is there when the client's ACK comes, and is ESTABLISHED
/// at once; what the SYN-ACK took was a request's time.
#[test]
fn the_server_closes_first() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        wire.delay(DELAY, |seen| seen.to_server() && !seen.segment.has(SYN));
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::send(&server, 30_000);
        tcp::receive(&client, 30_000);
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&client), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(ends.client, PASSIVE_CLIENT, "peer_fin").bytes(0, 30_000).waited("CLOSE_WAIT", 100),
                Fate::new(ends.server, ACTIVE_SERVER, "local_fin")
                    .bytes(30_000, 0)
                    .waited("FIN_WAIT1", 100)
                    .waited("FIN_WAIT2", 100),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// Two FINs pass each other: tcp_fin() in FIN_WAIT1.
#[test]
fn both_close_at_once() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        wire.keep(|seen| seen.segment.has(FIN));
        drop((client, server));
        wire.until_several("both FINs are on the wire", 2, |seen| seen.segment.has(FIN));
        wire.release();
        drop(listener);
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    &[
                        "CLOSE>SYN_SENT",
                        "SYN_SENT>ESTABLISHED",
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>CLOSING",
                        "CLOSING>TIME_WAIT (CLOSE)",
                    ],
                    "simultaneous_close",
                ),
                Fate::new(
                    ends.server,
                    &[
                        "LISTEN>SYN_RECV",
                        "SYN_RECV>ESTABLISHED",
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>CLOSING",
                        "CLOSING>TIME_WAIT (CLOSE)",
                    ],
                    "simultaneous_close",
                ),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// Two SYNs pass each other: both are clients, and go through SYN_RECV (tcp_rcv_synsent_state_process()).
#[test]
fn both_open_at_once() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        wire.keep(|seen| seen.segment.is_syn());
        let open = |here, there| {
            let socket = tcp::stream_socket(CLIENT.into());
            socket.bind(&SocketAddr::from(here).into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket.connect(&SocketAddr::from(there).into()).unwrap_err();
            socket
        };
        let (near, far) = ((CLIENT, 4000), (SERVER, 5000));
        let (client, other) = (open(near, far), wire.server.enter(|| open(far, near)));
        wire.until_several("both SYNs are on the wire", 2, |seen| seen.segment.is_syn());
        wire.release();
        watch.until_several(2, "SYN_RECV", "ESTABLISHED");
        for socket in [&client, &other] {
            socket.set_nonblocking(false).unwrap();
        }
        tcp::close_in_order(TcpStream::from(client), TcpStream::from(other));
        let end = End::new(near.1, far.1);
        watch.tells(
            &[
                Fate::new(
                    end,
                    &[
                        "CLOSE>SYN_SENT",
                        "SYN_SENT>SYN_RECV",
                        "SYN_RECV>ESTABLISHED",
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>TIME_WAIT (CLOSE)",
                    ],
                    "local_fin",
                ),
                Fate::new(
                    end.peer(),
                    &[
                        "CLOSE>SYN_SENT",
                        "SYN_SENT>SYN_RECV",
                        "SYN_RECV>ESTABLISHED",
                        "ESTABLISHED>CLOSE_WAIT",
                        "CLOSE_WAIT>LAST_ACK",
                        "LAST_ACK>CLOSE",
                    ],
                    "peer_fin",
                ),
            ],
            &[],
        );
    });
}

/// The FIN overtakes the data before it, and is taken only when that has come (tcp_ofo_queue()).
#[test]
fn the_fin_overtakes_data() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        wire.keep_one(|seen| seen.to_server() && seen.segment.has_data());
        tcp::send(&client, 10);
        client.shutdown(Shutdown::Write).unwrap();
        wire.until("the FIN has arrived", |seen| seen.to_server() && seen.segment.has(FIN));
        wire.release();
        tcp::receive(&server, 10);
        tcp::close_in_order(client, server);
        drop(listener);
        watch.tells(
            &[
                // The acknowledgment of the FIN alone says that the data is lost (tcp_rack_detect_loss()).
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin").bytes(10, 0).perhaps_repeated(),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").bytes(0, 10),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// What is lost is sent again, and counted once as payload.
#[test]
fn a_segment_is_lost() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        wire.lose_one(|seen| seen.to_server() && seen.segment.has_data());
        tcp::send(&client, 1000);
        tcp::receive(&server, 1000);
        tcp::close_in_order(client, server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin").bytes(1000, 0).repeated(),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").bytes(0, 1000),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The last ACK is lost: the FIN comes again, and the other end's TIME_WAIT answers it once more
/// (tcp_timewait_state_process()).
#[test]
fn the_last_ack_is_lost() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        wire.lose_one(|seen| seen.to_server() && seen.segment.has(ACK));
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin"),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").repeated().waited("LAST_ACK", 200),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// A listener has many, and each has its line.
#[test]
fn several_connections() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = wire.listen();
        let all: Vec<_> = (0..5).map(|_| connect(&listener)).collect();
        let ends: Vec<_> = all.iter().map(|(client, _)| ends_of(client)).collect();
        for (client, server) in all {
            tcp::close_in_order(client, server);
        }
        drop(listener);
        let fates: Vec<_> = ends
            .iter()
            .flat_map(|ends| {
                [
                    Fate::new(ends.client, ACTIVE_CLIENT, "local_fin"),
                    Fate::new(ends.server, PASSIVE_SERVER, "peer_fin"),
                ]
            })
            .collect();
        watch.tells(&fates, &[(ends[0].listener, LISTENER)]);
    });
}
