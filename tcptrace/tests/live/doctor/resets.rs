//! RSTs: this host's own, a peer's, and those that neither end has sent.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::await_time;
use crate::support::{
    doctor::{Doctor, Findings},
    host::KERNEL,
    netns::scenario,
    segment::{ACK, RST, SYN, Segment, WINDOW},
    tcp::{LOCALHOST, abort, await_reset, await_unread, connect, dial, send},
    wire::{CLIENT, SERVER, Seen, To, Wire, wire_scenario},
};

const ROUNDS: usize = 10;

/// The server closes without reading what it was sent.
#[test]
fn closed_unread() {
    scenario(|net| {
        let listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let doctor = Doctor::of(net, &["unread-close.in-seconds=1"]);
        for _ in 0..ROUNDS {
            let (client, server) = connect(&listener);
            send(&client, 7);
            await_unread(&server, 7);
            drop(server);
            await_reset(&client);
        }
        let found = doctor.finds(&["unread-close"]);
        let unread = found.of("unread-close");
        unread.is_warning().is_ours().has("lport", 8080).counts(ROUNDS as u64);
        unread.says("closes with data unread on port 8080: 10 connections");
    });
}

/// SO_LINGER 0, by the client.
#[test]
fn closed_with_linger_zero() {
    scenario(|net| {
        let listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let doctor = Doctor::of(net, &["linger-zero.count=10", "linger-zero.in-seconds=1"]);
        for _ in 0..ROUNDS {
            let (client, server) = connect(&listener);
            abort(client);
            await_reset(&server);
        }
        let found = doctor.finds(&["linger-zero"]);
        let linger = found.of("linger-zero");
        linger.is_warning().is_ours().has("rport", 8080).counts(ROUNDS as u64);
        linger.says("closes with SO_LINGER 0 to 127.0.0.1:8080: 10 connections");
    });
}

/// A peer resets what is open.
#[test]
fn a_peer_resets() {
    wire_scenario(|wire| {
        let listener = wire.listen();
        let port = listener.local_addr().unwrap().port();
        let doctor = Doctor::of(wire.client, &["peer-resets.in-seconds=1"]);
        for _ in 0..ROUNDS {
            let (client, server) = connect(&listener);
            abort(server);
            await_reset(&client);
        }
        let found = doctor.finds(&["peer-resets"]);
        let resets = found.of("peer-resets");
        resets.is_warning().is_ours().has("raddr", SERVER).has("rport", port).counts(ROUNDS as u64);
        resets.says("10.99.0.2 resets open connections of live-scenario/").says("10 RSTs in ESTABLISHED");
    });
}

/// Says a RST to the client that fits its connection.
fn reset_client(wire: &Wire<'_>, client: &TcpStream) {
    let port = client.local_addr().unwrap().port();
    let syn_ack = wire.last(|seen| seen.segment.is_syn_ack() && seen.segment.to.port() == port);
    wire.say_segment(To::Client, &syn_ack.segment.follow(RST | ACK));
}

/// A balancer that forgets connections five seconds after they have fallen silent: a test that is held up for some tenths of
/// a second makes no difference. They were there before anybody looked.
#[test]
fn an_idle_timeout() {
    wire_scenario(|wire| {
        let listener = wire.listen();
        let apart = Duration::from_millis(400);
        let idle = Duration::from_secs(5);
        let begun = Instant::now();
        let connections: Vec<_> = (0..4u32)
            .map(|number| {
                await_time(begun, number * apart);
                (begun.elapsed(), connect(&listener))
            })
            .collect();
        let thresholds = ["peer-resets.idle=1s", "peer-resets.in-seconds=2"];
        let doctor = Doctor::of(wire.client, &thresholds);
        for (opened, (client, _)) in &connections {
            await_time(begun, *opened + idle);
            reset_client(wire, client);
            await_reset(client);
        }
        let found = doctor.finds(&["peer-resets"]);
        let resets = found.of("peer-resets");
        resets.is_warning().is_ours().has("raddr", SERVER).counts(4);
        let near = ["4.9", "5.0", "5.1", "5.2", "5.3", "5.4"]
            .map(|seconds| format!("are reset after {seconds} s of silence"));
        assert!(near.iter().any(|near| resets.title().contains(near)), "{}", resets.title());
        resets.says("an idle timeout on the way").says("(4 known)").says("TCP_KEEPIDLE");
    });
}

/// Both ends get one.
#[test]
fn a_middlebox_resets() {
    wire_scenario(|wire| {
        let listener = wire.listen();
        let nets = format!("{},{}", wire.client.inode(), wire.server.inode());
        let doctor = Doctor::start(&nets, &[]);
        let (client, server) = connect(&listener);
        reset_client(wire, &client);
        let ack = wire.last(|seen| seen.to_server() && !seen.segment.is_syn());
        wire.say_segment(To::Server, &ack.segment.follow(RST | ACK));
        await_reset(&client);
        await_reset(&server);
        let found = doctor.finds(&["middlebox-resets"]);
        let resets = found.of("middlebox-resets");
        resets.is_warning().counts(1).says("1 connection got RSTs at both ends that neither sent");
        resets.says(&format!("{}", client.local_addr().unwrap()));
    });
}

/// A segment that no connection has.
fn stray(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Segment {
    let (from, to) = (SocketAddrV4::new(from.0, from.1), SocketAddrV4::new(to.0, to.1));
    Segment { from, to, seq: 1, ack: 1, flags, window: WINDOW, payload: vec![] }
}

/// Says twenty, each of which is answered by a RST. Before 6.10 the kernel reports none of those.
fn say_strays(
    wire: &Wire<'_>,
    doctor: Doctor,
    to: To,
    rule: &'static str,
    stray: impl Fn(u16) -> Segment,
) -> Option<Findings> {
    for number in 0..20 {
        wire.say_segment(to, &stray(number));
    }
    wire.until_several("RSTs", 20, |seen| seen.segment.has(RST));
    let rules = [rule];
    let found = doctor.finds(if KERNEL.stray_resets { &rules } else { &[] });
    KERNEL.stray_resets.then_some(found)
}

/// A service's segments for connections that the client does not have.
#[test]
fn half_of_a_path() {
    wire_scenario(|wire| {
        let doctor = Doctor::of(wire.client, &[]);
        let stray = |number| stray((SERVER, 80), (CLIENT, 40_000 + number), ACK);
        let Some(found) = say_strays(wire, doctor, To::Client, "middlebox-resets", stray) else { return };
        let strays = found.of("middlebox-resets");
        strays.is_warning().has("raddr", SERVER).has("rport", 80).counts(20);
        strays.says("10.99.0.2:80 sends segments of connections that are not here");
    });
}

/// The same where the client has given them up itself, and the service has not heard of it yet: no wonder.
#[test]
fn late_segments() {
    wire_scenario(|wire| {
        let listener = wire.server.enter(|| TcpListener::bind((SERVER, 80)).unwrap());
        let doctor = Doctor::of(wire.client, &[]);
        let reset = |seen: &Seen| seen.to_server() && seen.segment.has(RST);
        wire.lose(reset);
        let connections: Vec<_> = (0..20).map(|_| connect(&listener)).collect();
        let servers: Vec<TcpStream> = connections
            .into_iter()
            .map(|(client, server)| {
                abort(client);
                server
            })
            .collect();
        wire.until_several("the RSTs of the close", 20, reset);
        for server in &servers {
            send(server, 1);
        }
        wire.until_several("those for what comes late", 40, reset);
        doctor.finds(&[]);
        wire.release();
        servers.into_iter().for_each(abort);
    });
}

/// A peer asks for one port after the other.
#[test]
fn a_scan() {
    wire_scenario(|wire| {
        let doctor = Doctor::of(&wire.server, &[]);
        let stray = |number| stray((CLIENT, 40_000), (SERVER, 100 + number), SYN);
        let Some(found) = say_strays(wire, doctor, To::Server, "closed-port", stray) else { return };
        let scan = found.of("closed-port");
        scan.is_warning().has("raddr", CLIENT).counts(20);
        scan.says("10.99.0.1 scans this host: it asked for 20 ports");
    });
}

/// A service that listens elsewhere, at a port that the kernel could have handed out.
#[test]
fn a_service_at_another_address() {
    wire_scenario(|wire| {
        let _here = wire.server.enter(|| TcpListener::bind((LOCALHOST, 50_051)).unwrap());
        let doctor = Doctor::of(&wire.server, &[]);
        for _ in 0..ROUNDS {
            TcpStream::connect((SERVER, 50_051)).unwrap_err();
        }
        if KERNEL.stray_resets {
            let found = doctor.finds(&["closed-port"]);
            let closed = found.of("closed-port");
            closed.is_warning().has("lport", 50_051).counts(ROUNDS as u64);
            closed.says("nothing listens on 10.99.0.2:50051").says("listens at 127.0.0.1:50051 alone");
        } else {
            doctor.finds(&[]);
        }
    });
}

/// A service that is closed and opened again, while somebody waits to be accepted.
#[test]
fn a_listener_restarts() {
    scenario(|net| {
        let doctor = Doctor::of(net, &[]);
        for _ in 0..3 {
            let listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
            let waits = dial(&listener);
            drop(listener);
            await_reset(&waits);
        }
        let found = doctor.finds(&["listener-restarts"]);
        let restarts = found.of("listener-restarts");
        restarts.is_warning().is_ours().has("lport", 8080).counts(2);
        restarts
            .says("was closed and opened again twice")
            .says("3 connections in the accept queue got a RST");
    });
}
