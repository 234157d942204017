//! Connects that lead nowhere.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{SockRef, Socket};

use super::fate::{Fate, Watch};
use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        host::{run, sysctl},
        segment::{ACK, HOST_UNREACHABLE, PORT_UNREACHABLE, RST, SYN, Segment, unreachable},
        story::End,
        tcp::{self, Pair},
        wire::{CLIENT, Seen, To, Wire, server_port, wire_scenario},
    },
};

/// A port of the server's where nobody listens.
const NOBODY: u16 = 9;

/// A socket that connects, and what the wire sees of it.
fn connecting(port: u16) -> (Socket, End) {
    let socket = tcp::stream_socket(CLIENT.into());
    socket.bind(&SocketAddr::from((CLIENT, 0)).into()).unwrap();
    let local = socket.local_addr().unwrap().as_socket().unwrap().port();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&server_port(port).into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::INPROGRESS.raw_os_error()), "{error}");
    (socket, End::new(local, port))
}

/// Nobody listens.
#[test]
fn refused() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        wire.delay(Duration::from_millis(100), Seen::to_client);
        let error = TcpStream::connect(server_port(NOBODY)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let port = wire.last(Seen::to_server).segment.from.port();
        let end = End::new(port, NOBODY);
        watch.tells(
            &[Fate::new(
                end,
                &["CLOSE>SYN_SENT", "RST< in SYN_SENT", "SYN_SENT>CLOSE ECONNREFUSED"],
                "refused",
            )
            .waited("SYN_SENT", 100)],
            &[(End::stray(end.rport, end.lport), &["RST> NO_SOCKET"])],
        );
    });
}

/// Something happens to a connect whose SYNs are lost, and no other end hears of it.
fn unanswered<'a>(
    act: impl Fn(&Wire<'_>, &Watch, Socket) + Sync,
    story: &'a [&'a str],
    cause: &'a str,
    more: impl Fn(Fate<'a>) -> Fate<'a> + Sync,
) {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        wire.lose(|seen| seen.segment.is_syn());
        let (socket, end) = connecting(NOBODY);
        wire.until("the SYN", |seen| seen.segment.is_syn());
        act(wire, &watch, socket);
        watch.tells(&[more(Fate::new(end, story, cause))], &[]);
    });
}

/// TCP_USER_TIMEOUT: the SYN is sent again after a second, and given up right then (tcp_write_timeout()).
#[test]
fn never_answered() {
    unanswered(
        |_, watch, socket| {
            SockRef::from(&socket).set_tcp_user_timeout(Some(Duration::from_millis(500))).unwrap();
            watch.until("SYN_SENT", "CLOSE");
        },
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE ETIMEDOUT"],
        "connect_timeout",
        |fate| fate.repeated().waited("SYN_SENT", 990),
    );
}

/// Who closes before the SYN is sent again has not waited for an answer.
#[test]
fn given_up_at_once() {
    unanswered(
        |_, _, socket| drop(socket),
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"],
        "local_abort_other",
        |fate| fate,
    );
}

/// Who closes later has, in vain.
#[test]
fn given_up_later() {
    unanswered(
        |wire, _, socket| {
            wire.until_several("the SYN again", 2, |seen| seen.segment.is_syn());
            drop(socket);
        },
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"],
        "connect_timeout",
        |fate| fate.inferred().repeated().waited("SYN_SENT", 990),
    );
}

/// shutdown() disconnects who is not connected yet (inet_shutdown()).
#[test]
fn shut_down() {
    unanswered(
        |_, _, socket| {
            socket.shutdown(Shutdown::Both).unwrap();
        },
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"],
        "local_abort_other",
        |fate| fate,
    );
}

/// `ss -K`: there is nothing to reset yet (tcp_need_reset()).
#[test]
fn killed() {
    unanswered(
        |_, _, _socket| {
            let killed = run("ss", &["-K", "-H", "-t", "-n", "state", "syn-sent"]);
            assert_eq!(killed.lines().count(), 1, "the kernel needs CONFIG_INET_DIAG_DESTROY=y: {killed}");
        },
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE ECONNABORTED"],
        "local_abort_other",
        |fate| fate,
    );
}

/// A router knows no way: tcp_v4_err() gives up at once where nobody has the socket's lock.
#[test]
fn host_unreachable() {
    unanswered(
        |wire, _, _socket| {
            let syn = wire.last(|seen| seen.segment.is_syn());
            wire.say(To::Client, &unreachable(HOST_UNREACHABLE, &syn.packet));
        },
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE EHOSTUNREACH"],
        "unreachable",
        |fate| fate,
    );
}

/// The same error as a RST's, without a RST: a firewall that rejects.
#[test]
fn port_unreachable() {
    unanswered(
        |wire, _, _socket| {
            let syn = wire.last(|seen| seen.segment.is_syn());
            wire.say(To::Client, &unreachable(PORT_UNREACHABLE, &syn.packet));
        },
        &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE ECONNREFUSED"],
        "unreachable",
        |fate| fate,
    );
}

/// A stale answer is answered by a RST of ours, which does not end the connect (tcp_rcv_synsent_state_process()).
#[test]
fn a_wrong_answer_and_then_the_right_one() {
    wire_scenario(|wire| {
        let watch = Watch::both(wire);
        let listener = wire.listen();
        let port = listener.local_addr().unwrap().port();
        wire.keep(Seen::to_server);
        let (socket, end) = connecting(port);
        wire.until("the SYN", |seen| seen.segment.is_syn());
        let answer = wire.last(|seen| seen.segment.is_syn()).segment.answer(SYN | ACK);
        wire.say_segment(To::Client, &Segment { ack: answer.ack.wrapping_add(1000), ..answer });
        wire.until("our RST", |seen| seen.segment.has(RST));
        wire.release();
        let (server, _) = listener.accept().unwrap();
        socket.set_nonblocking(false).unwrap();
        tcp::close_in_order(TcpStream::from(socket), server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(
                    end,
                    &[
                        "CLOSE>SYN_SENT",
                        "RST> TCP_INVALID_ACK_SEQUENCE in SYN_SENT",
                        "SYN_SENT>ESTABLISHED",
                        "ESTABLISHED>FIN_WAIT1",
                        "FIN_WAIT1>FIN_WAIT2",
                        "FIN_WAIT2>TIME_WAIT (CLOSE)",
                    ],
                    "local_fin",
                ),
                Fate::new(end.peer(), PASSIVE_SERVER, "peer_fin"),
            ],
            &[(End::listener(port), LISTENER)],
        );
    });
}

/// All local ports are taken: the `failure` label of tcp_v4_connect().
#[test]
fn no_port_is_free() {
    wire_scenario(|wire| {
        sysctl("ipv4/ip_local_port_range", "40000 40000");
        let watch = Watch::both(wire);
        let Pair { listener, client, server, ends } = wire.pair();
        let error = TcpStream::connect(listener.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
        assert_eq!(ends.client.lport, 40_000);
        tcp::close_in_order(client, server);
        drop(listener);
        watch.tells(
            &[
                Fate::new(ends.client, ACTIVE_CLIENT, "local_fin"),
                Fate::new(ends.server, PASSIVE_SERVER, "peer_fin"),
                Fate::new(
                    End::new(0, ends.client.rport),
                    &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"],
                    "no_local_port",
                ),
            ],
            &[(ends.listener, LISTENER)],
        );
    });
}

/// The port that the socket is bound to is in use for this very peer (__inet_check_established()). The other
/// connection began before anybody looked, and ends after.
#[test]
fn the_bound_port_is_taken() {
    wire_scenario(|wire| {
        let listener = wire.listen();
        let addr = listener.local_addr().unwrap();
        let bound = |port| {
            let socket = tcp::stream_socket(CLIENT.into());
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::from((CLIENT, port)).into()).unwrap();
            socket
        };
        let first = bound(0);
        let port = first.local_addr().unwrap().as_socket().unwrap().port();
        let second = bound(port);
        first.connect(&addr.into()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let watch = Watch::both(wire);
        let error = second.connect(&addr.into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
        drop(second);
        let fate =
            Fate::new(End::new(port, addr.port()), &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"], "no_local_port");
        watch.tells(&[fate.inferred()], &[]);
        tcp::close_in_order(TcpStream::from(first), server);
    });
}
