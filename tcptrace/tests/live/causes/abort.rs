//! Connections that this host ends with a RST, or without a word.

use std::{net::Shutdown, os::fd::AsFd as _};

use rustix::net::connect_unspec;

use super::{
    RESET_IN_CLOSE_WAIT, RESET_IN_FIN_WAIT2,
    fate::{Fate, Watch},
};
use crate::{
    abort::{DISCONNECTED_CLIENT, DISCONNECTED_SERVER, RESET_CLIENT, RESET_SERVER},
    close::LISTENER,
    support::{
        host::run,
        segment::RST,
        tcp::{self, Pair, await_reset, ends_of, read_to_end},
        wire::wire_scenario,
    },
};

/// __tcp_close() resets where there is something that nobody has read.
#[test]
fn close_with_unread_data() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::send(&client, 10);
        tcp::receive(&server, 4);
        tcp::await_unread(&server, 6);
        // Or the data counts as not acknowledged.
        wire.until("the data is acknowledged", |seen| seen.to_client() && !seen.segment.is_syn_ack());
        drop(server);
        await_reset(&client);
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(ends.client, RESET_CLIENT, "peer_rst").bytes(10, 0),
                Fate::new(
                    ends.server,
                    server!["ESTABLISHED>CLOSE", "RST> TCP_ABORT_ON_CLOSE in ESTABLISHED"],
                    "local_abort_unread",
                )
                .bytes(0, 10),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The peer's FIN is not what is unread.
#[test]
fn close_with_unread_data_after_the_fin() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::send(&client, 10);
        client.shutdown(Shutdown::Write).unwrap();
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        drop(server);
        await_reset(&client);
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(ends.client, RESET_IN_FIN_WAIT2, "peer_rst").bytes(10, 0),
                Fate::new(
                    ends.server,
                    server![
                        "ESTABLISHED>CLOSE_WAIT",
                        "CLOSE_WAIT>CLOSE",
                        "RST> TCP_ABORT_ON_CLOSE in CLOSE_WAIT",
                    ],
                    "local_abort_unread",
                )
                .bytes(0, 10),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// SO_LINGER 0, on the client.
#[test]
fn linger_zero() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::abort(client);
        await_reset(&server);
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(ends.client, DISCONNECTED_CLIENT, "local_abort_linger"),
                Fate::new(ends.server, RESET_SERVER, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// SO_LINGER 0 in FIN_WAIT2: that is not TIME_WAIT, and no minisock waits.
#[test]
fn linger_zero_in_fin_wait2() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        tcp::abort(client);
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
                        "RST> TCP_STATE in FIN_WAIT2",
                    ],
                    "local_abort_linger",
                ),
                Fate::new(ends.server, RESET_IN_CLOSE_WAIT, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// connect() to AF_UNSPEC.
#[test]
fn disconnect() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        connect_unspec(client.as_fd()).unwrap();
        await_reset(&server);
        drop((client, server, listener));
        watch.tells(
            &[
                Fate::new(ends.client, DISCONNECTED_CLIENT, "local_abort_other"),
                Fate::new(ends.server, RESET_SERVER, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// `ss -K`: tcp_abort().
#[test]
fn killed() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        let filter = format!("sport = :{}", ends.client.lport);
        let killed = run("ss", &["-K", "-H", "-t", "-n", &filter]);
        assert_eq!(killed.lines().count(), 1, "the kernel needs CONFIG_INET_DIAG_DESTROY=y: {killed}");
        await_reset(&server);
        drop((client, server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client!["RST> TCP_STATE in ESTABLISHED", "ESTABLISHED>CLOSE ECONNABORTED"],
                    "local_abort_other",
                ),
                Fate::new(ends.server, RESET_SERVER, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// Children that nobody has accepted end with their listener (inet_csk_listen_stop()), whatever they have
/// received.
#[test]
fn the_listener_closes() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = wire.listen();
        let clients = [(); 2].map(|()| tcp::dial(&listener));
        let [first, second] = [ends_of(&clients[0]), ends_of(&clients[1])];
        tcp::send(&clients[0], 7);
        watch.until_several(2, "SYN_RECV", "ESTABLISHED");
        wire.until("the data is acknowledged", |seen| seen.to_client() && !seen.segment.is_syn_ack());
        clients[1].shutdown(Shutdown::Write).unwrap();
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        drop(listener);
        wire.until_several("both RSTs", 2, |seen| seen.segment.has(RST));
        for client in &clients {
            await_reset(client);
        }
        drop(clients);
        watch.tells(
            &[
                Fate::new(first.client, RESET_CLIENT, "peer_rst").bytes(7, 0),
                Fate::new(first.server, DISCONNECTED_SERVER, "listener_closed").bytes(0, 7).never_accepted(),
                Fate::new(second.client, RESET_IN_FIN_WAIT2, "peer_rst"),
                Fate::new(
                    second.server,
                    server!["ESTABLISHED>CLOSE_WAIT", "CLOSE_WAIT>CLOSE", "RST> TCP_STATE in CLOSE_WAIT"],
                    "listener_closed",
                )
                .never_accepted(),
            ],
            &[(first.listener, LISTENER)],
        );
    });
}
