//! connect() that fails, or does not come back.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

use socket2::Socket;

use crate::{
    support::{
        doctor::Doctor,
        host::{KERNEL, add_black_hole, counter},
        netns::scenario,
        process::await_that,
        segment::{HOST_UNREACHABLE, unreachable},
        tcp::{LOCALHOST, stream_socket},
        wire::{CLIENT, SERVER, Seen, To, server_port, wire_scenario},
    },
    trouble::{NOWHERE, give_up_soon},
};

/// Begins to connect.
pub(super) fn begin(to: SocketAddr) -> Socket {
    let socket = stream_socket(to.ip());
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&to.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
    socket
}

fn await_errors(sockets: &[Socket], kind: io::ErrorKind) {
    for socket in sockets {
        let mut error = None;
        await_that("connect() fails", || {
            error = socket.take_error().unwrap();
            error.is_some()
        });
        assert_eq!(error.unwrap().kind(), kind);
    }
}

/// connect-refused is the client's, closed-port the server's.
#[test]
fn nobody_listens() {
    wire_scenario(|wire| {
        let client = Doctor::of(wire.client, &[]);
        let server = Doctor::of(&wire.server, &[]);
        for _ in 0..10 {
            let error = TcpStream::connect(server_port(80)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        }
        let found = client.finds(&["connect-refused"]);
        let refused = found.of("connect-refused");
        refused.is_warning().is_ours().has("raddr", SERVER).has("rport", 80).counts(10);
        refused.says("10.99.0.2:80 refuses live-scenario/").says("10 connections");
        // Before 6.10 the kernel reports no RST without a socket.
        let found = server.finds(if KERNEL.stray_resets { &["closed-port"] } else { &[] });
        if KERNEL.stray_resets {
            let closed = found.of("closed-port");
            closed.is_warning().has("lport", 80).counts(10).says(&format!("{CLIENT} (10)"));
        }
    });
}

/// "localhost" is ::1 first.
#[test]
fn somebody_listens_elsewhere() {
    scenario(|net| {
        let _listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let doctor = Doctor::of(net, &[]);
        for _ in 0..5 {
            TcpStream::connect((Ipv6Addr::LOCALHOST, 8080)).unwrap_err();
        }
        let found = doctor.finds(&["connect-refused"]);
        let refused = found.of("connect-refused");
        refused.is_warning().is_ours().has("raddr", "::1").has("rport", 8080).counts(5);
        refused.says("[::1]:8080 refuses").says("listens at 127.0.0.1:8080");
    });
}

/// connect-stuck while SYNs are sent again, connect-timeouts when that is over. Nothing of the host answers.
#[test]
fn nobody_answers() {
    scenario(|net| {
        add_black_hole();
        give_up_soon();
        let early = Doctor::of(net, &["connect-stuck.age=500ms"]);
        let late = Doctor::of(net, &[]);
        let sockets: Vec<Socket> = (0..3).map(|_| begin(SocketAddr::from((NOWHERE, 80)))).collect();
        await_that("each SYN is sent again", || counter("RetransSegs") == 3);
        // That give_up_soon() sets tcp_syn_retries is not healthy either.
        let found = early.finds(&["connect-stuck", "sysctls"]);
        let stuck = found.of("connect-stuck");
        stuck.is_warning().is_ours().has("raddr", NOWHERE).has("rport", 80).counts(3);
        stuck.says("192.0.2.1:80 does not answer: 3 connections of live-scenario/");
        stuck.says("nothing else from 192.0.2.1 was seen");
        await_errors(&sockets, io::ErrorKind::TimedOut);
        let found = late.finds(&["connect-timeouts", "sysctls"]);
        let timeouts = found.of("connect-timeouts");
        timeouts.is_warning().is_ours().has("raddr", NOWHERE).has("rport", 80).counts(3);
        timeouts.says("no SYN was answered").says("given up after 3.");
        found.of("sysctls").says("tcp_syn_retries=1");
    });
}

/// The host is there, but SYNs to one of its ports are dropped.
#[test]
fn a_port_is_filtered() {
    wire_scenario(|wire| {
        let doctor = Doctor::of(wire.client, &["connect-stuck.age=500ms"]);
        let pair = wire.pair();
        wire.lose(|seen| seen.segment.to.port() == 81);
        let sockets: Vec<Socket> = (0..3).map(|_| begin(server_port(81))).collect();
        await_that("each SYN is sent again", || counter("RetransSegs") >= 3);
        let found = doctor.finds(&["connect-stuck"]);
        found.of("connect-stuck").counts(3).has("rport", 81).says("10.99.0.2 itself is alive");
        drop((sockets, pair));
    });
}

/// A router says that there is no such host.
#[test]
fn there_is_no_way() {
    wire_scenario(|wire| {
        let doctor = Doctor::of(wire.client, &[]);
        wire.lose(Seen::to_server);
        let sockets: Vec<Socket> = (0..3).map(|_| begin(server_port(80))).collect();
        wire.until_several("every SYN", 3, |seen| seen.segment.is_syn());
        for socket in &sockets {
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            let syn = wire.last(|seen| seen.segment.is_syn() && seen.segment.from.port() == port);
            wire.say(To::Client, &unreachable(HOST_UNREACHABLE, &syn.packet));
        }
        await_errors(&sockets, io::ErrorKind::HostUnreachable);
        let found = doctor.finds(&["connect-timeouts"]);
        let timeouts = found.of("connect-timeouts");
        timeouts
            .is_warning()
            .is_ours()
            .has("raddr", SERVER)
            .counts(3)
            .says("ICMP said that it cannot be reached");
    });
}
