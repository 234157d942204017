//! Handshakes that do not end well on the server's side, and listeners that do not come about.

use std::net::{SocketAddr, SocketAddrV4};

use super::{
    fate::{Fate, Watch},
    say_reset,
};
use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        event::Event,
        host::sysctl,
        segment::{RST, SYN, Segment, WINDOW},
        story::End,
        tcp::{self, Pair, await_reset, ends_of},
        wire::{CLIENT, SERVER, Seen, To, wire_scenario},
    },
};

/// A peer's RST for a request: there never was a connection (tcp_check_req()), and nothing is told.
#[test]
fn a_request_is_reset() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = wire.listen();
        let port = listener.local_addr().unwrap().port();
        let (from, to) = (SocketAddrV4::new(CLIENT, 4000), SocketAddrV4::new(SERVER, port));
        let syn = Segment { from, to, seq: 1000, ack: 0, flags: SYN, window: WINDOW, payload: vec![] };
        wire.lose_one(Seen::to_client);
        wire.say_segment(To::Server, &syn);
        wire.until("the SYN-ACK", |seen| seen.segment.is_syn_ack());
        wire.say_segment(To::Server, &syn.follow(RST));
        // Another one, so that there is something to wait for.
        let client = tcp::dial(&listener);
        let (server, _) = listener.accept().unwrap();
        let ends = ends_of(&client);
        tcp::close_in_order(client, server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin"),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin"),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The queue is full when the ACK comes, and tcp_abort_on_overflow has the request reset (tcp_check_req()): the
/// client was connected, the server's side never was. A backlog of 1 has room for two, and for one request; who
/// comes beside that request gets a cookie and no request, and is the second in the queue.
#[test]
fn the_queue_is_full() {
    wire_scenario(|wire| {
        wire.server.enter(|| sysctl("ipv4/tcp_abort_on_overflow", "1"));
        let watch = Watch::both(wire);
        let listener = wire.listen_for(1);
        let first = tcp::dial(&listener);
        watch.until("SYN_RECV", "ESTABLISHED");
        wire.keep_one(|seen| seen.to_server() && !seen.segment.has(SYN));
        let (late, second) = (tcp::dial(&listener), tcp::dial(&listener));
        watch.until_several(2, "SYN_RECV", "ESTABLISHED");
        let [ends, others, of_late] = [&first, &second, &late].map(ends_of);
        wire.release();
        await_reset(&late);
        for client in [first, second] {
            let (server, _) = listener.accept().unwrap();
            tcp::close_in_order(client, server);
        }
        drop((late, listener));
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin"),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin"),
                Fate::new(others.client, ACTIVE_CLIENT, "local_fin"),
                Fate::new(others.server, PASSIVE_SERVER, "peer_fin"),
                Fate::new(
                    of_late.client,
                    client!["RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"],
                    "peer_rst",
                ),
            ],
            &[
                (ends.listener, LISTENER),
                (End::stray(of_late.server.lport, of_late.server.rport), &["RST> INVALID_SYN in LISTEN"]),
            ],
        );
    });
}

/// A simultaneous open that a RST ends in SYN_RECV: that is a client, and no server's handshake.
#[test]
fn a_client_is_reset_in_syn_recv() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        wire.lose(Seen::to_server);
        let socket = tcp::stream_socket(CLIENT.into());
        socket.bind(&SocketAddr::from((CLIENT, 4000)).into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&SocketAddr::from((SERVER, 5000)).into()).unwrap_err();
        wire.until("the SYN", |seen| seen.segment.is_syn());
        let answer = wire.last(|seen| seen.segment.is_syn()).segment.answer(SYN);
        wire.say_segment(To::Client, &Segment { seq: 9000, ..answer });
        wire.until("the SYN-ACK", |seen| seen.segment.is_syn_ack());
        say_reset(wire, To::Client);
        drop(socket);
        watch.tells(
            &[Fate::new(
                End::new(4000, 5000),
                &["CLOSE>SYN_SENT", "SYN_SENT>SYN_RECV", "RST< in SYN_RECV", "SYN_RECV>CLOSE ECONNRESET"],
                "peer_rst",
            )],
            &[],
        );
    });
}

/// A listener whose port is taken comes and goes (inet_csk_listen_start()); that is no connection.
#[test]
fn a_listener_finds_its_port_taken() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        tcp::close_in_order(client, server);
        drop(listener);
        let bound = |port| {
            let socket = tcp::stream_socket(SERVER.into());
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from((SERVER, port)).into()).unwrap();
            socket
        };
        let error = wire.server.enter(|| {
            let (first, second) = (bound(7000), bound(7000));
            first.listen(1).unwrap();
            second.listen(1).unwrap_err()
        });
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
        let (log, lines) = watch.stop(2);
        assert!(lines.0.iter().all(|line| line.port("lport") != 7000), "{:?}", lines.0);
        let words: Vec<_> =
            log.events.iter().filter(|event| event.port("lport") == 7000).map(Event::words).collect();
        assert_eq!(words, ["CLOSE>LISTEN", "CLOSE>LISTEN", "LISTEN>CLOSE", "LISTEN>CLOSE"]);
        let mut of_listeners = log.events.iter().filter(|event| event.text("role") == Some("listener"));
        assert!(of_listeners.all(|event| event.text("cause").is_none()), "{:?}", log.events);
        let _ = ends;
    });
}
