//! TCP Fast Open: data comes with the SYN, and the server's child is there, and accepted, before the handshake
//! is over (tcp_try_fastopen()).

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::net::{SendFlags, sendto};

use super::{
    fate::{Fate, Watch},
    say_reset,
};
use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_CLIENT, PASSIVE_SERVER},
    support::{
        PATIENCE,
        options::set_fast_open,
        segment::{ACK, RST},
        story::End,
        tcp::{self, Ends, read_to_end},
        wire::{CLIENT, Seen, To, Wire, wire_scenario},
    },
};

/// `MSG_FASTOPEN`
const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
/// The way from the server.
const DELAY: Duration = Duration::from_millis(100);

/// A listener that takes data with the SYN.
fn listen(wire: &Wire<'_>) -> TcpListener {
    // TFO_CLIENT_ENABLE | TFO_SERVER_ENABLE
    wire.sysctl("ipv4/tcp_fastopen", "3");
    let listener = wire.listen();
    set_fast_open(&listener, 5);
    listener
}

/// A client that connects with `count` bytes.
fn open_with(count: usize, listener: &TcpListener, flags: SendFlags) -> (TcpStream, Ends) {
    let addr = listener.local_addr().unwrap();
    let socket = tcp::stream_socket(CLIENT.into());
    socket.bind(&SocketAddr::from((CLIENT, 0)).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = sendto(&socket, &vec![b'x'; count], flags | FAST_OPEN, &addr).unwrap();
    assert_eq!(sent, count);
    let local = socket.local_addr().unwrap().as_socket().unwrap().port();
    let client = End::new(local, addr.port());
    let listener = End::listener(addr.port());
    (socket.into(), Ends { listener, client, server: client.peer() })
}

/// The first connection brings the cookie, and is like any other.
fn fetch_cookie(listener: &TcpListener) -> Ends {
    let (client, ends) = open_with(5, listener, SendFlags::empty());
    let (server, _) = listener.accept().unwrap();
    tcp::receive(&server, 5);
    tcp::close_in_order(client, server);
    ends
}

/// A server's end that is accepted and read in SYN_RECV, and gets through the handshake.
#[test]
fn accepted_in_syn_recv() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = listen(wire);
        let first = fetch_cookie(&listener);
        wire.delay(DELAY, Seen::to_client);
        let (client, ends) = open_with(7, &listener, SendFlags::DONTWAIT);
        wire.until("a SYN with data", |seen| seen.segment.is_syn() && seen.segment.has_data());
        let (server, _) = listener.accept().unwrap();
        tcp::receive(&server, 7);
        tcp::send(&server, 3);
        tcp::receive(&client, 3);
        tcp::close_in_order(client, server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(first.client, ACTIVE_CLIENT, "local_fin").bytes(5, 0),
                Fate::new(first.server, PASSIVE_SERVER, "peer_fin").bytes(0, 5),
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin").bytes(7, 3).waited("SYN_SENT", 100),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin").bytes(3, 7).waited("SYN_RECV", 100),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// One that is closed before: the FIN waits for the handshake's end, and the state does not.
#[test]
fn closed_in_syn_recv() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = listen(wire);
        let first = fetch_cookie(&listener);
        wire.delay(DELAY, Seen::to_client);
        let (client, ends) = open_with(7, &listener, SendFlags::DONTWAIT);
        let (server, _) = listener.accept().unwrap();
        tcp::receive(&server, 7);
        drop(server);
        assert_eq!(read_to_end(&client), b"");
        watch.until("FIN_WAIT2", "FIN_WAIT2");
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(first.client, ACTIVE_CLIENT, "local_fin").bytes(5, 0),
                Fate::new(first.server, PASSIVE_SERVER, "peer_fin").bytes(0, 5),
                Fate::new(ends.client, PASSIVE_CLIENT, "peer_fin").bytes(7, 0).waited("SYN_SENT", 100),
                Fate::new(
                    ends.server,
                    &[
                        "LISTEN>SYN_RECV",
                        "SYN_RECV>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>FIN_WAIT2 (CLOSE)",
                        "FIN_WAIT2>TIME_WAIT",
                    ],
                    "local_fin",
                )
                .bytes(0, 7)
                .waited("FIN_WAIT1", 100),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// One that a RST ends before (tcp_check_req()).
#[test]
fn reset_in_syn_recv() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = listen(wire);
        let first = fetch_cookie(&listener);
        wire.lose(|seen| seen.segment.is_syn_ack());
        let (client, ends) = open_with(7, &listener, SendFlags::DONTWAIT);
        wire.until("the SYN-ACK", move |seen| {
            seen.segment.is_syn_ack() && seen.segment.to.port() == ends.client.lport
        });
        say_reset(wire, To::Server);
        let syn = wire.last(|seen| seen.segment.is_syn()).segment;
        wire.say_segment(To::Client, &syn.answer(RST | ACK));
        drop((client, listener));
        watch.tells(
            &[
                Fate::new(first.client, ACTIVE_CLIENT, "local_fin").bytes(5, 0),
                Fate::new(first.server, PASSIVE_SERVER, "peer_fin").bytes(0, 5),
                Fate::new(
                    ends.client,
                    &["CLOSE>SYN_SENT", "RST< in SYN_SENT", "SYN_SENT>CLOSE ECONNREFUSED"],
                    "refused",
                ),
                Fate::new(
                    ends.server,
                    &["LISTEN>SYN_RECV", "RST< in SYN_RECV", "SYN_RECV>CLOSE ECONNRESET"],
                    "handshake_failed",
                )
                .bytes(0, 7)
                .never_accepted(),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}
