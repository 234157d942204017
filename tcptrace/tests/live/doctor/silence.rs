//! Peers that fall silent, and what is lost.

use std::{io, net::TcpStream, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::support::{
    doctor::Doctor,
    tcp::{connect, read_to_end, send},
    wire::{SERVER, Seen, wire_scenario},
};

const SECOND: Duration = Duration::from_secs(1);

fn await_timeout(client: &TcpStream) {
    let error = client.peek(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

/// What is sent is not acknowledged any more, and what is idle answers no probe.
#[test]
fn a_peer_falls_silent() {
    wire_scenario(|wire| {
        let listener = wire.listen();
        let port = listener.local_addr().unwrap().port();
        let thresholds = ["retransmit-storm.count=6", "retransmit-storm.in-seconds=1"];
        let doctor = Doctor::of(wire.client, &thresholds);
        let (busy, idle): (Vec<_>, Vec<_>) = (0..3).map(|_| (connect(&listener), connect(&listener))).unzip();
        wire.lose(|_| true);
        for (client, _) in &busy {
            SockRef::from(client).set_tcp_user_timeout(Some(SECOND)).unwrap();
            send(client, 10);
        }
        let keepalive = TcpKeepalive::new().with_time(SECOND).with_interval(SECOND).with_retries(1);
        for (client, _) in &idle {
            SockRef::from(client).set_tcp_keepalive(&keepalive).unwrap();
        }
        for (client, _) in busy.iter().chain(&idle) {
            await_timeout(client);
        }
        let found = doctor.finds(&["peer-timeouts", "keepalive-deaths", "retransmit-storm"]);
        for rule in ["peer-timeouts", "keepalive-deaths"] {
            found.of(rule).is_warning().is_ours().has("raddr", SERVER).has("rport", port).counts(3);
        }
        found.of("peer-timeouts").says("10.99.0.2 acknowledges nothing: 3 connections");
        found.of("keepalive-deaths").says("answers no keepalive probe").says("tcp_keepalive_time=7200 s");
        let storm = found.of("retransmit-storm");
        storm.is_warning().is_ours().has("raddr", SERVER).says("segments to 10.99.0.2 are lost");
        storm.says(&format!("10.99.0.2:{port} ("));
    });
}

/// A connection for each request, to a server that is 10 ms away.
#[test]
fn short_connections() {
    wire_scenario(|wire| {
        let listener = wire.listen();
        let port = listener.local_addr().unwrap().port();
        wire.delay(Duration::from_millis(5), |_| true);
        let doctor = Doctor::of(wire.client, &["short-connections.rate=1", "short-connections.count=10"]);
        for _ in 0..10 {
            let (client, server) = connect(&listener);
            send(&client, 10);
            drop(client);
            read_to_end(&server);
        }
        wire.until_several("the last FIN", 10, |seen: &Seen| seen.to_client() && seen.segment.has(1));
        let found = doctor.finds(&["short-connections"]);
        let short = found.of("short-connections");
        short.is_warning().is_ours().has("raddr", SERVER).has("rport", port).counts(10);
        short
            .says("opens a connection to 10.99.0.2:")
            .says("for each request")
            .says("the handshake alone took");
    });
}
