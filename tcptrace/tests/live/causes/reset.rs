//! RSTs that come from the wire and that neither end has sent, in every state that they can hit.

use std::net::{Shutdown, TcpListener, TcpStream};

use super::{
    fate::{Fate, Watch},
    say_reset,
};
use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        segment::{ACK, FIN, RST, Segment},
        tcp::{self, Ends, Pair, await_reset, read_to_end},
        wire::{Seen, To, Wire, wire_scenario},
    },
};

/// A middlebox tells both ends; neither has sent one.
#[test]
fn in_established() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::send(&client, 5);
        tcp::receive(&server, 5);
        tcp::send(&server, 3);
        tcp::receive(&client, 3);
        // Both know what the other has.
        let next = wire.last(|seen| seen.to_client() && seen.segment.has_data()).segment.next();
        wire.until("the data is acknowledged", |seen| seen.to_server() && seen.segment.ack == next);
        say_reset(wire, To::Client);
        say_reset(wire, To::Server);
        await_reset(&client);
        await_reset(&server);
        drop((client, server, listener));
        watch.tells(
            &[
                Fate::new(
                    ends.client,
                    client!["RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"],
                    "peer_rst",
                )
                .bytes(5, 3),
                Fate::new(
                    ends.server,
                    server!["RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"],
                    "peer_rst",
                )
                .bytes(3, 5),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// A RST in a state of the client's, for it and for the server, in the state that that is in.
fn hits(
    prepare: impl Fn(&Wire<'_>, &Watch, Pair) -> (TcpListener, Vec<TcpStream>, Ends) + Sync,
    client: &[&str],
    server: &[&str],
) {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let pair = wire.pair();
        let (listener, streams, ends) = prepare(wire, &watch, pair);
        say_reset(wire, To::Client);
        say_reset(wire, To::Server);
        drop((streams, listener));
        watch.tells(
            &[Fate::new(ends.client, client, "peer_rst"), Fate::new(ends.server, server, "peer_rst")],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The FIN is lost; it counts as one that has been sent.
#[test]
fn in_fin_wait1() {
    hits(
        |wire, watch, Pair { listener, client, server, ends }| {
            wire.lose(|seen| seen.segment.has(FIN));
            client.shutdown(Shutdown::Write).unwrap();
            watch.until("ESTABLISHED", "FIN_WAIT1");
            (listener, vec![client, server], ends)
        },
        client!["ESTABLISHED>FIN_WAIT1", "RST< in FIN_WAIT1", "FIN_WAIT1>CLOSE ECONNRESET"],
        server!["RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"],
    );
}

/// tcp_reset() says EPIPE in CLOSE_WAIT.
#[test]
fn in_fin_wait2_and_close_wait() {
    hits(
        |_, watch, Pair { listener, client, server, ends }| {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&server), b"");
            watch.until("FIN_WAIT1", "FIN_WAIT2");
            (listener, vec![client, server], ends)
        },
        client![
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>FIN_WAIT2",
            "RST< in FIN_WAIT2",
            "FIN_WAIT2>CLOSE ECONNRESET",
        ],
        server!["ESTABLISHED>CLOSE_WAIT", "RST< in CLOSE_WAIT", "CLOSE_WAIT>CLOSE EPIPE"],
    );
}

/// The server's FIN arrives and the client's does not.
#[test]
fn in_closing() {
    hits(
        |wire, watch, Pair { listener, client, server, ends }| {
            wire.lose(Seen::to_server);
            client.shutdown(Shutdown::Write).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            watch.until("FIN_WAIT1", "CLOSING");
            wire.until("the FIN's acknowledgment", |seen| seen.to_server() && !seen.segment.has(FIN));
            (listener, vec![client, server], ends)
        },
        client!["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>CLOSING", "RST< in CLOSING", "CLOSING>CLOSE ECONNRESET",],
        server!["ESTABLISHED>FIN_WAIT1", "RST< in FIN_WAIT1", "FIN_WAIT1>CLOSE ECONNRESET"],
    );
}

/// An orphan, and no data: no RST follows that would be ours.
#[test]
fn in_last_ack() {
    hits(
        |wire, watch, Pair { listener, client, server, ends }| {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&server), b"");
            watch.until("FIN_WAIT1", "FIN_WAIT2");
            wire.lose(|seen| seen.segment.has(FIN));
            drop(server);
            watch.until("CLOSE_WAIT", "LAST_ACK");
            (listener, vec![client], ends)
        },
        client![
            "ESTABLISHED>FIN_WAIT1",
            "FIN_WAIT1>FIN_WAIT2",
            "RST< in FIN_WAIT2",
            "FIN_WAIT2>CLOSE ECONNRESET",
        ],
        server![
            "ESTABLISHED>CLOSE_WAIT",
            "CLOSE_WAIT>LAST_ACK",
            "RST< in LAST_ACK",
            "LAST_ACK>CLOSE ECONNRESET",
        ],
    );
}

/// A RST whose number is in the window but not the next is answered by a challenge, and one beyond the window
/// by nothing (tcp_validate_incoming()); the connection lives on.
#[test]
fn out_of_place() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        let next = wire.last(Seen::to_server).segment.answer(RST | ACK);
        let answers = wire.count(Seen::to_server);
        wire.say_segment(To::Client, &Segment { seq: next.seq.wrapping_add(0x4000_0000), ..next.clone() });
        wire.say_segment(To::Client, &Segment { seq: next.seq.wrapping_add(1), ..next });
        wire.until_several("the challenge", answers + 1, Seen::to_server);
        tcp::send(&client, 5);
        tcp::receive(&server, 5);
        tcp::close_in_order(client, server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin").bytes(5, 0),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").bytes(0, 5),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}
