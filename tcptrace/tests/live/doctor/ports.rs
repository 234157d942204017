//! Ports that run out, and TIME_WAIT.

use std::{
    io,
    net::{TcpListener, TcpStream},
};

use super::{TIME_WAIT, await_sockets};
use crate::support::{
    doctor::Doctor,
    host::{counter, sysctl},
    netns::scenario,
    tcp::{LOCALHOST, abort, close_in_order, connect},
};

/// A hundred.
fn narrow_ports() {
    sysctl("ipv4/ip_local_port_range", "40000 40099");
}

fn there_is_none(port: u16) {
    let error = TcpStream::connect((LOCALHOST, port)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
}

/// Before it happens, and when it has: each destination has the ports for itself.
#[test]
fn ports_run_out() {
    scenario(|net| {
        narrow_ports();
        let listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let before = Doctor::of(net, &["sysctls.ports=0"]);
        let mut held: Vec<_> = (0..60).map(|_| connect(&listener)).collect();
        let found = before.finds(&["port-exhaustion"]);
        let soon = found.of("port-exhaustion");
        soon.is_critical().is_ours().has("raddr", LOCALHOST).has("rport", 8080).counts(60);
        soon.says("uses 60 % of the local ports for 127.0.0.1:8080, and runs out in");
        soon.says("60 of 100 ports in use (ip_local_port_range 40000 to 40099), 0 of them in TIME_WAIT");

        let after = Doctor::of(net, &["sysctls.ports=0"]);
        held.extend((60..100).map(|_| connect(&listener)));
        (0..3).for_each(|_| there_is_none(8080));
        let found = after.finds(&["port-exhaustion"]);
        let failed = found.of("port-exhaustion");
        failed.is_critical().is_ours().has("raddr", LOCALHOST).has("rport", 8080).counts(100);
        failed.says("has no local port left for 127.0.0.1:8080: connect() failed 3 times");
        failed.says("EADDRNOTAVAIL").says("fewer connections");
        for (client, server) in held {
            abort(client);
            drop(server);
        }
    });
}

/// Ports that only wait, where they may not be taken over.
#[test]
fn ports_run_out_in_time_wait() {
    scenario(|net| {
        narrow_ports();
        sysctl("ipv4/tcp_tw_reuse", "0");
        let listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let doctor = Doctor::of(net, &["sysctls.ports=0"]);
        for _ in 0..100 {
            let (client, server) = connect(&listener);
            close_in_order(client, server);
        }
        there_is_none(8080);
        let found = doctor.finds(&["port-exhaustion"]);
        let failed = found.of("port-exhaustion");
        failed.is_critical().is_ours().has("rport", 8080).counts(100);
        failed.says("connect() failed once").says("100 of them in TIME_WAIT").says("keep connections open");
    });
}

/// The limit of minisocks is reached, and the client is who closes first.
#[test]
fn too_many_in_time_wait() {
    scenario(|net| {
        sysctl("ipv4/tcp_max_tw_buckets", "20");
        let listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let doctor = Doctor::of(net, &["sysctls.tw-buckets=0"]);
        for _ in 0..25 {
            let (client, server) = connect(&listener);
            close_in_order(client, server);
        }
        let over = counter("TCPTimeWaitOverflow");
        assert!(over > 0);
        await_sockets("TIME_WAIT", 25 - usize::try_from(over).unwrap(), |socket| socket.state == TIME_WAIT);
        let found = doctor.finds(&["time-wait-limit"]);
        let full = found.of("time-wait-limit");
        full.is_critical().has("netns", net.inode()).counts(25 - over);
        full.says(&format!("TCPTimeWaitOverflow rose by {over}"));
        full.says("20 in TIME_WAIT: closed first by live-scenario/").says("a client of 127.0.0.1:8080");
    });
}
