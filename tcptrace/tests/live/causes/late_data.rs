//! Data that comes after this end has closed. tcp_rcv_state_process() calls tcp_reset() for it, as if a RST had
//! come, and then sends one itself: what looks like the peer's RST is ours.

use std::net::{Shutdown, TcpStream};

use super::{
    RESET_IN_CLOSE_WAIT, RESET_IN_FIN_WAIT2,
    fate::{Fate, Watch},
};
use crate::{
    abort::RESET_SERVER,
    close::LISTENER,
    support::{
        segment::{ACK, FIN, PSH, Segment},
        tcp::{self, Pair, read_to_end},
        wire::{Seen, To, Wire, wire_scenario},
    },
};

/// The client closes and something happens.
fn data_for(
    prepare: impl Fn(&Wire<'_>) + Sync,
    act: impl Fn(&Wire<'_>, &Watch, &TcpStream) + Sync,
    client_fate: &[&str],
    server_fate: &[&str],
) {
    wire_scenario(|wire| {
        prepare(wire);
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        act(wire, &watch, {
            drop(client);
            &server
        });
        drop((server, listener));
        watch.tells(
            &[
                Fate::new(ends.client, client_fate, "local_abort_other"),
                Fate::new(ends.server, server_fate, "peer_rst"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The server has not heard of the FIN.
#[test]
fn in_fin_wait1() {
    data_for(
        |wire| wire.lose(|seen| seen.segment.has(FIN)),
        |_, watch, server| {
            watch.until("ESTABLISHED", "FIN_WAIT1");
            tcp::send(server, 10);
            watch.until("ESTABLISHED", "CLOSE");
        },
        client![
            "ESTABLISHED>FIN_WAIT1",
            "RST< in FIN_WAIT1",
            "FIN_WAIT1>CLOSE ECONNRESET",
            "RST> TCP_ABORT_ON_DATA in FIN_WAIT1",
        ],
        RESET_SERVER,
    );
}

/// The data itself acknowledges the FIN: the state is FIN_WAIT2 for no time, and the socket is done without
/// an error.
#[test]
fn with_the_acknowledgment() {
    data_for(
        |wire| wire.lose(|seen| seen.to_client() && !seen.segment.is_syn_ack() && !seen.segment.has_data()),
        |_, watch, server| {
            assert_eq!(read_to_end(server), b"");
            tcp::send(server, 10);
            watch.until("CLOSE_WAIT", "CLOSE");
        },
        client![
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>FIN_WAIT2",
            // Not to be told from the birth of a minisock, but for the RST that comes right after.
            "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
            "RST> TCP_ABORT_ON_DATA in FIN_WAIT2",
            "FIN_WAIT2>CLOSE",
        ],
        RESET_IN_CLOSE_WAIT,
    );
}

/// An orphan that is a full socket yet.
#[test]
fn in_fin_wait2() {
    data_for(
        |wire| wire.sysctl("ipv4/tcp_fin_timeout", "100"),
        |_, watch, server| {
            assert_eq!(read_to_end(server), b"");
            watch.until("FIN_WAIT1", "FIN_WAIT2");
            tcp::send(server, 1);
            watch.until("CLOSE_WAIT", "CLOSE");
        },
        client![
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>FIN_WAIT2",
            "RST< in FIN_WAIT2",
            "FIN_WAIT2>CLOSE ECONNRESET",
            "RST> TCP_ABORT_ON_DATA in FIN_WAIT2",
        ],
        RESET_IN_CLOSE_WAIT,
    );
}

/// Says two bytes of data to an end, the first in the place of the other end's FIN.
fn say_data_after_fin(wire: &Wire<'_>, to: To) {
    let fin = wire.last(|seen| seen.to == to && seen.segment.has(FIN)).segment;
    let ack = wire.last(|seen| seen.to == to).segment.ack;
    wire.say_segment(to, &Segment { flags: ACK | PSH, ack, payload: vec![b'x'; 2], ..fin });
}

/// Data after the peer's own FIN, which no honest peer sends.
#[test]
fn in_closing() {
    data_for(
        |wire| wire.lose(|seen| seen.to_server() && seen.segment.has(FIN)),
        |wire, watch, server| {
            server.shutdown(Shutdown::Write).unwrap();
            watch.until("FIN_WAIT1", "CLOSING");
            watch.until("FIN_WAIT1", "FIN_WAIT2");
            say_data_after_fin(wire, To::Client);
            watch.until("FIN_WAIT2", "CLOSE");
        },
        client![
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>CLOSING",
            "RST< in CLOSING",
            "CLOSING>CLOSE ECONNRESET",
            "RST> TCP_ABORT_ON_DATA in CLOSING",
        ],
        server![
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>FIN_WAIT2",
            "RST< in FIN_WAIT2",
            "FIN_WAIT2>CLOSE ECONNRESET",
        ],
    );
}

/// The same in LAST_ACK, where it is the server that is gone.
#[test]
fn in_last_ack() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        watch.until("FIN_WAIT1", "FIN_WAIT2");
        wire.lose(|seen| Seen::to_client(seen) && seen.segment.has(FIN));
        drop(server);
        watch.until("CLOSE_WAIT", "LAST_ACK");
        say_data_after_fin(wire, To::Server);
        watch.until("FIN_WAIT2", "CLOSE");
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(ends.client, RESET_IN_FIN_WAIT2, "peer_rst"),
                Fate::new(
                    ends.server,
                    server![
                        "ESTABLISHED>CLOSE_WAIT",
                        "CLOSE_WAIT>LAST_ACK",
                        "RST< in LAST_ACK",
                        "LAST_ACK>CLOSE ECONNRESET",
                        "RST> TCP_ABORT_ON_DATA in LAST_ACK",
                    ],
                    "local_abort_other",
                ),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}
