//! Connections that do not come to their end: each state of the close, stuck.

use std::{
    io::{self, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::{CLOSE_WAIT, CLOSING, FIN_WAIT1, FIN_WAIT2, LAST_ACK, await_sockets, await_time};
use crate::support::{
    actor::Actor,
    doctor::Doctor,
    netns::scenario,
    process::await_that,
    segment::FIN,
    tcp::{LOCALHOST, connect, read_to_end},
    wire::{CLIENT, Seen, To, Wire, wire_scenario},
};

/// A server that does not close, and whose descriptors will run out.
#[test]
fn a_leak() {
    scenario(|net| {
        const CLIENTS: u32 = 20;
        let leaky = Actor::start("leaky");
        leaky.limit_descriptors(64);
        let (listener, port) = leaky.listen();
        let doctor = Doctor::of(net, &[]);
        let begun = Instant::now();
        let mut servers = Vec::new();
        for client in 1..=CLIENTS {
            let stream = TcpStream::connect((LOCALHOST, port)).unwrap();
            servers.push(leaky.accept(listener));
            drop(stream);
            await_time(begun, Duration::from_millis(50) * client);
        }
        await_sockets("every client has closed", CLIENTS as usize, |socket| socket.state == CLOSE_WAIT);
        let old = Doctor::of(net, &["close-wait-leak.age=10ms"]);
        let found = doctor.finds(&["close-wait-leak"]);
        let leak = found.of("close-wait-leak");
        leak.is_critical().is_of(leaky.pid(), "leaky").has("lport", port).counts(CLIENTS.into());
        leak.says(&format!("leaves 20 connections in CLOSE_WAIT on port {port}, ")).says("more every second");
        leak.says("none was read to the end");
        leak.says("of its 64 descriptors are open: full in").says("peers: 127.0.0.1 (20)");
        // To who comes later it does not grow, but is old. Half of them are read to the end now.
        for server in servers.iter().take(10) {
            leaky.read_to_end(*server);
        }
        let found = old.finds(&["close-wait-leak"]);
        let leak = found.of("close-wait-leak");
        leak.is_warning().is_of(leaky.pid(), "leaky").counts(CLIENTS.into()).says("descriptors are open");
        leak.says("10 were read to the end, 10 were not, 0 were never accepted");
    });
}

/// A server that closes late, but does.
#[test]
fn no_leak() {
    scenario(|net| {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let doctor = Doctor::of(net, &[]);
        for _ in 0..50 {
            let (client, server) = connect(&listener);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&server), b"");
            drop(server);
            read_to_end(&client);
        }
        doctor.finds(&[]);
    });
}

/// Five connections of one client.
fn five(wire: &Wire<'_>) -> (TcpListener, Vec<TcpStream>, Vec<TcpStream>) {
    let listener = wire.listen();
    let (clients, servers) = (0..5).map(|_| connect(&listener)).unzip();
    (listener, clients, servers)
}

fn lport(stream: &TcpStream) -> u16 {
    stream.local_addr().unwrap().port()
}

/// The peer does not acknowledge.
#[test]
fn fin_wait1_unacknowledged() {
    wire_scenario(|wire| {
        let (_listener, clients, servers) = five(wire);
        let doctor = Doctor::of(wire.client, &["fin-wait1-stuck.age=200ms"]);
        let port = clients[0].peer_addr().unwrap().port();
        wire.lose(|_| true);
        drop(clients);
        wire.until_several("each FIN twice again", 15, |seen| seen.segment.has(FIN));
        await_sockets("FIN_WAIT1", 5, |socket| socket.state == FIN_WAIT1);
        let found = doctor.finds(&["fin-wait1-stuck"]);
        let stuck = found.of("fin-wait1-stuck");
        stuck.is_warning().has("rport", port).counts(5).says("their peers do not acknowledge");
        stuck.says("5 have sent something again").says("peers: 10.99.0.2 (5)");
        drop(servers);
    });
}

/// The peer does not read.
#[test]
fn fin_wait1_behind_a_closed_window() {
    wire_scenario(|wire| {
        let (_listener, clients, servers) = five(wire);
        let doctor = Doctor::of(wire.client, &["fin-wait1-stuck.age=200ms"]);
        for client in &clients {
            client.set_nonblocking(true).unwrap();
            let port = lport(client);
            await_that("the window closes", || {
                let mut client = client;
                match client.write(&[b'x'; 4096]) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                }
                let closed = |seen: &Seen| seen.segment.to.port() == port && seen.segment.window == 0;
                wire.count(closed) > 0
            });
        }
        drop(clients);
        await_sockets("all probe", 5, |socket| (socket.state, socket.timer) == (FIN_WAIT1, 4));
        let since = Instant::now();
        await_time(since, Duration::from_millis(200));
        let found = doctor.finds(&["fin-wait1-stuck"]);
        let stuck = found.of("fin-wait1-stuck");
        stuck
            .is_warning()
            .counts(5)
            .says("their peers' windows are closed")
            .says("5 wait for a window to open");
        drop(servers);
    });
}

/// The peer closed first, and does not acknowledge that this end has closed, too.
#[test]
fn last_ack_unacknowledged() {
    wire_scenario(|wire| {
        let (listener, clients, servers) = five(wire);
        let doctor = Doctor::of(&wire.server, &["last-ack-stuck.age=200ms"]);
        for (client, server) in clients.iter().zip(&servers) {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(server), b"");
        }
        wire.lose(Seen::to_client);
        drop(servers);
        wire.until_several("each FIN twice again", 15, |seen| seen.to_client() && seen.segment.has(FIN));
        wire.server.enter(|| await_sockets("LAST_ACK", 5, |socket| socket.state == LAST_ACK));
        let found = doctor.finds(&["last-ack-stuck"]);
        let stuck = found.of("last-ack-stuck");
        let port = listener.local_addr().unwrap().port();
        stuck.is_warning().has("lport", port).counts(5).says("stay in LAST_ACK");
        stuck.says("5 have sent something again").says(&format!("peers: {CLIENT} (5)"));
        drop(clients);
    });
}

/// Both closed at once, and hear each other's FIN, but no ACK.
#[test]
fn closing_unacknowledged() {
    wire_scenario(|wire| {
        let (_listener, clients, servers) = five(wire);
        let doctor = Doctor::of(wire.client, &["last-ack-stuck.age=200ms"]);
        wire.lose(|_| true);
        for stream in clients.iter().chain(&servers) {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for client in &clients {
            let port = lport(client);
            let fin = move |seen: &Seen| seen.segment.to.port() == port && seen.segment.has(FIN);
            wire.until("the server's FIN", fin);
            wire.say(To::Client, &wire.last(fin).packet);
        }
        await_sockets("CLOSING", 5, |socket| socket.state == CLOSING);
        let since = Instant::now();
        await_time(since, Duration::from_millis(200));
        let found = doctor.finds(&["last-ack-stuck"]);
        found.of("last-ack-stuck").is_warning().is_ours().counts(5).says("stay in CLOSING");
        drop((clients, servers));
    });
}

/// The peers do not close: their ends are in CLOSE_WAIT.
#[test]
fn fin_wait2_orphans() {
    wire_scenario(|wire| {
        let (_listener, clients, servers) = five(wire);
        let thresholds = ["fin-wait2-orphans.count=5", "fin-wait2-orphans.age=0s"];
        let doctor = Doctor::of(wire.client, &thresholds);
        let port = clients[0].peer_addr().unwrap().port();
        drop(clients);
        await_sockets("FIN_WAIT2", 5, |socket| (socket.state, socket.timer) == (FIN_WAIT2, 3));
        let found = doctor.finds(&["fin-wait2-orphans"]);
        let orphans = found.of("fin-wait2-orphans");
        orphans.is_warning().has("rport", port).counts(5).says("5 orphans in FIN_WAIT2: the peers of");
        orphans.says("tcp_fin_timeout=60 s").says("peers: 10.99.0.2 (5)");
        drop(servers);
    });
}
