//! Connections that end with a RST.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
};

use rustix::net::connect_unspec;
use socket2::{SockRef, Socket};

use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        host::{KERNEL, run, sysctl},
        netns::{COMM, scenario},
        story::End,
        tcp::{self, LOCALHOST, Pair, await_reset, connect, ends_of, pair, read_to_end},
        trace::Trace,
    },
};

/// An end that a RST ended while it was ESTABLISHED: tcp_reset() sets the error before tcp_done().
pub(crate) const RESET_CLIENT: &[&str] =
    &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", "RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"];
pub(crate) const RESET_SERVER: &[&str] =
    &["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED", "RST< in ESTABLISHED", "ESTABLISHED>CLOSE ECONNRESET"];
/// An end that sent it. tcp_disconnect() sets the state first, then sends.
pub(crate) const DISCONNECTED_CLIENT: &[&str] =
    &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", "ESTABLISHED>CLOSE", "RST> TCP_STATE in ESTABLISHED"];
pub(crate) const DISCONNECTED_SERVER: &[&str] =
    &["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED", "ESTABLISHED>CLOSE", "RST> TCP_STATE in ESTABLISHED"];
/// A connect() that a RST answered.
pub(crate) const REFUSED: &[&str] = &["CLOSE>SYN_SENT", "RST< in SYN_SENT", "SYN_SENT>CLOSE ECONNREFUSED"];

/// Nobody listens: tcp_v4_rcv() answers without a socket, so the RST is nobody's.
#[test]
fn a_connect_is_refused() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let (_reserved, closed) = tcp::bound_socket();
        let (socket, port) = tcp::bound_socket();
        let error = socket.connect(&SocketAddr::new(LOCALHOST, closed).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        drop(socket);
        trace.tells(&[(End::new(port, closed), REFUSED), (End::stray(closed, port), &["RST> NO_SOCKET"])]);
    });
}

/// SO_LINGER 0: __tcp_close() calls tcp_disconnect(). Nothing of the error that it leaves is there yet at CLOSE.
#[test]
fn close_with_linger_zero() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        tcp::abort(client);
        await_reset(&server);
        let (other, others_server) = connect(&listener);
        let others = ends_of(&other);
        tcp::abort(others_server);
        await_reset(&other);
        drop((server, other, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, DISCONNECTED_CLIENT),
            (ends.server, RESET_SERVER),
            (others.client, RESET_CLIENT),
            (others.server, DISCONNECTED_SERVER),
        ]);
    });
}

/// The same in CLOSE_WAIT; the peer is in FIN_WAIT2.
#[test]
fn close_with_linger_zero_after_the_fin() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        trace.until("the FIN is acknowledged", |events| {
            events.iter().any(|event| event.is("FIN_WAIT1", "FIN_WAIT2"))
        });
        tcp::abort(server);
        await_reset(&client);
        drop((client, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (
                ends.client,
                &[
                    "CLOSE>SYN_SENT",
                    "SYN_SENT>ESTABLISHED",
                    "ESTABLISHED>FIN_WAIT1",
                    "FIN_WAIT1>FIN_WAIT2",
                    "RST< in FIN_WAIT2",
                    "FIN_WAIT2>CLOSE ECONNRESET",
                ],
            ),
            (
                ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>CLOSE_WAIT",
                    "CLOSE_WAIT>CLOSE",
                    "RST> TCP_STATE in CLOSE_WAIT",
                ],
            ),
        ]);
    });
}

/// __tcp_close() resets when there is something that nobody has read.
#[test]
fn close_with_unread_data() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        tcp::send(&client, 10);
        tcp::await_unread(&server, 10);
        drop(server);
        await_reset(&client);
        drop((client, listener));
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, RESET_CLIENT),
            (
                ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>CLOSE",
                    "RST> TCP_ABORT_ON_CLOSE in ESTABLISHED",
                ],
            ),
        ]);
        let end = log.transition(ends.server, "ESTABLISHED", "CLOSE");
        assert_eq!((end.number("tx_bytes"), end.number("rx_bytes")), (Some(0), Some(10)));
    });
}

/// connect() to AF_UNSPEC disconnects, and the socket can connect once more: that is another connection. The id
/// is the socket's cookie where the probes can have one, and so the same.
#[test]
fn a_socket_disconnects_and_connects_again() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        connect_unspec(client.as_fd()).unwrap();
        await_reset(&server);
        drop(server);
        let socket = Socket::from(client);
        socket.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (again, _) = listener.accept().unwrap();
        let client = TcpStream::from(socket);
        let others = ends_of(&client);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&again), b"");
        drop(again);
        assert_eq!(read_to_end(&client), b"");
        let cookie = format!("{:x}", SockRef::from(&client).cookie().unwrap());
        drop((client, listener));
        let log = trace.compared_with(&[
            (ends.listener, LISTENER),
            (ends.client, DISCONNECTED_CLIENT),
            (ends.server, RESET_SERVER),
            (others.client, ACTIVE_CLIENT),
            (others.server, PASSIVE_SERVER),
        ]);
        log.is_of(std::process::id(), COMM);
        for event in [log.of(ends.client), log.of(others.client)].concat() {
            assert_eq!(event.text("id") == Some(&cookie), KERNEL.cookies, "{cookie}: {event:?}");
        }
    });
}

/// inet_csk_listen_stop() disconnects the children that nobody has accepted. They are the listener's, not the
/// task's that happens to be there.
#[test]
fn a_listener_closes_before_it_accepts() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let clients = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
        let [first, second] = [ends_of(&clients[0]), ends_of(&clients[1])];
        // One has sent its FIN already, so it waits in CLOSE_WAIT.
        clients[1].shutdown(Shutdown::Write).unwrap();
        trace.until("the FIN is acknowledged", |events| {
            events.iter().any(|event| event.is("FIN_WAIT1", "FIN_WAIT2"))
        });
        drop(listener);
        for client in &clients {
            await_reset(client);
        }
        drop(clients);
        let log = trace.tells(&[
            (first.listener, LISTENER),
            (first.client, RESET_CLIENT),
            (first.server, DISCONNECTED_SERVER),
            (
                second.client,
                &[
                    "CLOSE>SYN_SENT",
                    "SYN_SENT>ESTABLISHED",
                    "ESTABLISHED>FIN_WAIT1",
                    "FIN_WAIT1>FIN_WAIT2",
                    "RST< in FIN_WAIT2",
                    "FIN_WAIT2>CLOSE ECONNRESET",
                ],
            ),
            (
                second.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>CLOSE_WAIT",
                    "CLOSE_WAIT>CLOSE",
                    "RST> TCP_STATE in CLOSE_WAIT",
                ],
            ),
        ]);
        for end in [first.server, second.server] {
            for event in log.of(end) {
                assert_eq!(event.text("owner_src"), Some("listener"), "{event:?}");
            }
        }
    });
}

/// `ss -K`: tcp_abort() resets while the state is still the old one. Who killed the socket does not own it.
#[test]
fn a_socket_is_killed() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        let filter = format!("sport = :{}", ends.client.lport);
        let killed = run("ss", &["-K", "-H", "-t", "-n", "state", "established", &filter]);
        assert_eq!(killed.lines().count(), 1, "the kernel needs CONFIG_INET_DIAG_DESTROY=y: {killed}");
        await_reset(&server);
        drop((client, server, listener));
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (
                ends.client,
                &[
                    "CLOSE>SYN_SENT",
                    "SYN_SENT>ESTABLISHED",
                    "RST> TCP_STATE in ESTABLISHED",
                    "ESTABLISHED>CLOSE ECONNABORTED",
                ],
            ),
            (ends.server, RESET_SERVER),
        ]);
        let end = log.transition(ends.client, "ESTABLISHED", "CLOSE");
        assert_eq!((end.text("task_comm"), end.text("owner_src")), (Some("ss"), Some("connect")));
    });
}

/// Data for an orphan that is still a full socket: tcp_rcv_state_process() calls tcp_reset(), as if a RST had
/// come, and then sends one itself.
#[test]
fn data_arrives_after_close() {
    scenario(|net| {
        sysctl("ipv4/tcp_fin_timeout", "100");
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        trace.until("the FIN is acknowledged", |events| {
            events.iter().any(|event| event.is("FIN_WAIT1", "FIN_WAIT2"))
        });
        tcp::send(&server, 1);
        trace.until("the RST came", |events| {
            events.iter().any(|event| event.text("prev_state") == Some("CLOSE_WAIT"))
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
                    "RST< in FIN_WAIT2",
                    "FIN_WAIT2>CLOSE ECONNRESET",
                    "RST> TCP_ABORT_ON_DATA in FIN_WAIT2",
                ],
            ),
            (
                ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>CLOSE_WAIT",
                    "RST< in CLOSE_WAIT",
                    "CLOSE_WAIT>CLOSE EPIPE",
                ],
            ),
        ]);
    });
}

/// Data for a minisock: tcp_timewait_state_process() says TCP_TW_RST. The minisock has the connection's
/// cookie, so the RST is told of the connection.
#[test]
fn data_arrives_for_a_minisock() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let Pair { listener, client, server, ends } = pair();
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        trace.until("the client's minisock waits", |events| {
            events.iter().any(|event| event.is("FIN_WAIT2", "FIN_WAIT2"))
        });
        tcp::send(&server, 1);
        trace.until("the RST came", |events| {
            events.iter().any(|event| event.text("prev_state") == Some("CLOSE_WAIT"))
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
                    "RST> TCP_TIMEWAIT_SOCKET in FIN_WAIT2",
                    "FIN_WAIT2>CLOSE",
                ],
            ),
            (
                ends.server,
                &[
                    "LISTEN>SYN_RECV",
                    "SYN_RECV>ESTABLISHED",
                    "ESTABLISHED>CLOSE_WAIT",
                    "RST< in CLOSE_WAIT",
                    "CLOSE_WAIT>CLOSE EPIPE",
                ],
            ),
        ]);
    });
}
