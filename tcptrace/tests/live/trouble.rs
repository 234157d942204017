//! Connections that do not come about, and peers that fall silent.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};

use crate::{
    abort::{DISCONNECTED_SERVER, RESET_SERVER},
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        host::{add_black_hole, run, sysctl, sysctl_if_any},
        netns::scenario,
        packet,
        story::End,
        tcp::{self, LOCALHOST, ends_of},
        trace::Trace,
    },
};

/// An address that does not answer, see [`add_black_hole`].
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// One SYN, one more a second later, and two seconds after that the end (tcp_write_timeout()).
pub(crate) fn give_up_soon() {
    sysctl("ipv4/tcp_syn_retries", "1");
    // From 6.5 on some more come before the waits begin to double.
    sysctl_if_any("ipv4/tcp_syn_linear_timeouts", "0");
}

/// A connection to an address that its host has lost since: what is sent there arrives, but the server cannot
/// answer (ip_queue_xmit() finds no route from an address that is not its own).
fn silent_peer() -> (TcpListener, TcpStream, TcpStream) {
    run("ip", &["address", "add", &format!("{NOWHERE}/32"), "dev", "lo"]);
    let listener = TcpListener::bind((NOWHERE, 0)).unwrap();
    let (socket, _) = tcp::bound_socket();
    socket.connect(&listener.local_addr().unwrap().into()).unwrap();
    let (server, _) = listener.accept().unwrap();
    add_black_hole();
    run("ip", &["address", "delete", &format!("{NOWHERE}/32"), "dev", "lo"]);
    // An orphan would send its FIN again and again, and keep the namespace.
    tcp::set_linger_zero(&server);
    (listener, socket.into(), server)
}

/// No answer to the SYN: tcp_write_err() from the timer.
#[test]
fn a_connect_is_not_answered() {
    scenario(|net| {
        add_black_hole();
        give_up_soon();
        let trace = Trace::of(net, &["-r"]);
        let (socket, port) = tcp::bound_socket();
        let error = socket.connect(&SocketAddr::from((NOWHERE, 80)).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(socket);
        let log = trace.tells(&[(
            End::new(port, 80),
            &["CLOSE>SYN_SENT", "AGAIN in SYN_SENT", "SYN_SENT>CLOSE ETIMEDOUT"],
        )]);
        let end = log.transition(End::new(port, 80), "SYN_SENT", "CLOSE");
        assert_eq!(end.number("retransmits"), Some(1), "{end:?}");
        let waited = end.micros("in_state_us").unwrap();
        assert!((2_900_000.0..20_000_000.0).contains(&waited), "1 s and 2 s, not {waited} µs");
    });
}

/// A listener whose queue is full drops the SYN (tcp_conn_request()). A backlog of 0 has room for one.
#[test]
fn a_full_queue_does_not_answer() {
    scenario(|net| {
        give_up_soon();
        let trace = Trace::of(net, &[]);
        let (listener, port) = tcp::bound_socket();
        listener.listen(0).unwrap();
        let first = TcpStream::connect((LOCALHOST, port)).unwrap();
        let ends = ends_of(&first);
        let (second, second_port) = tcp::bound_socket();
        let error = second.connect(&SocketAddr::new(LOCALHOST, port).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(second);
        let listener = TcpListener::from(listener);
        let (server, _) = listener.accept().unwrap();
        tcp::close_in_order(first, server);
        drop(listener);
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
            (End::new(second_port, port), &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE ETIMEDOUT"]),
        ]);
    });
}

/// All local ports are taken: connect() fails after it has set the state (tcp_v4_connect()), and the
/// connection never has a port.
#[test]
fn there_is_no_local_port() {
    scenario(|net| {
        sysctl("ipv4/ip_local_port_range", "40000 40000");
        let trace = Trace::of(net, &[]);
        let (listener, port) = (TcpListener::bind((LOCALHOST, 50_000)).unwrap(), 50_000);
        let client = TcpStream::connect((LOCALHOST, port)).unwrap();
        let error = TcpStream::connect((LOCALHOST, port)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
        let (server, _) = listener.accept().unwrap();
        let ends = ends_of(&client);
        assert_eq!(ends.client.lport, 40_000);
        tcp::close_in_order(client, server);
        drop(listener);
        trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, ACTIVE_CLIENT),
            (ends.server, PASSIVE_SERVER),
            (End::new(0, port), &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"]),
        ]);
    });
}

/// TCP_USER_TIMEOUT: the peer does not acknowledge data for that long (tcp_write_timeout()). No RST is sent.
#[test]
fn data_is_not_acknowledged() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let (listener, client, server) = silent_peer();
        let ends = ends_of(&client);
        SockRef::from(&client).set_tcp_user_timeout(Some(Duration::from_millis(500))).unwrap();
        tcp::send(&client, 10);
        tcp::receive(&server, 10);
        let error = client.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop((client, server, listener));
        let log = trace.tells(&[
            (ends.listener, LISTENER),
            (ends.client, &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", "ESTABLISHED>CLOSE ETIMEDOUT"]),
            (ends.server, DISCONNECTED_SERVER),
        ]);
        let end = log.transition(ends.client, "ESTABLISHED", "CLOSE");
        assert_eq!((end.number("tx_bytes"), end.number("rx_bytes")), (Some(0), Some(0)), "{end:?}");
        assert!(end.number("retransmits") > Some(0), "{end:?}");
    });
}

/// tcp_keepalive_timer() resets first and sets the state then.
#[test]
fn keepalive_is_not_answered() {
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let (listener, client, server) = silent_peer();
        let ends = ends_of(&client);
        let second = Duration::from_secs(1);
        let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
        SockRef::from(&client).set_tcp_keepalive(&keepalive).unwrap();
        let error = client.peek(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop((client, server, listener));
        trace.tells(&[
            (ends.listener, LISTENER),
            (
                ends.client,
                &[
                    "CLOSE>SYN_SENT",
                    "SYN_SENT>ESTABLISHED",
                    "RST> TCP_KEEPALIVE_TIMEOUT in ESTABLISHED",
                    "ESTABLISHED>CLOSE ETIMEDOUT",
                ],
            ),
            (ends.server, RESET_SERVER),
        ]);
    });
}

/// A peer that never finishes the handshake: the request is no socket yet, so nothing but the SYN-ACK that
/// is sent again (reqsk_timer_handler()) tells of it.
#[test]
fn a_handshake_is_not_finished() {
    scenario(|net| {
        add_black_hole();
        let trace = Trace::of(net, &["-r"]);
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        packet::send_syn(SocketAddrV4::new(NOWHERE, 9), SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        trace.until("the SYN-ACK is sent again", |events| {
            events.iter().any(|event| event.kind() == "retransmit")
        });
        drop(listener);
        let log = trace
            .tells(&[(End::listener(port), LISTENER), (End::stray(port, 9), &["AGAIN in NEW_SYN_RECV"])]);
        let again = &log.of(End::stray(port, 9))[0];
        assert_eq!(again.number("retransmits"), Some(1), "{again:?}");
        assert_eq!(again.text("laddr"), Some("127.0.0.1"), "{again:?}");
        assert_eq!(again.text("raddr"), Some("192.0.2.1"), "{again:?}");
    });
}
