//! Listeners: what waits to be accepted, and what never gets that far.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use super::{await_time, connects::begin};
use crate::support::{
    actor::Actor,
    doctor::Doctor,
    host::{add_black_hole, counter, sysctl},
    netns::scenario,
    packet::send_syn,
    process::await_that,
    tcp::LOCALHOST,
};

/// The kernel holds one more than somaxconn lets, and drops the next.
#[test]
fn nobody_accepts() {
    scenario(|net| {
        sysctl("core/somaxconn", "8");
        let slow = Actor::start("slow");
        let (_, port) = slow.listen();
        let doctor = Doctor::of(net, &[]);
        let held: Vec<_> = (0..9).map(|_| std::net::TcpStream::connect((LOCALHOST, port)).unwrap()).collect();
        let waits = begin((LOCALHOST, port).into());
        await_that("the queue overflows", || counter("ListenOverflows") > 0);
        let found = doctor.finds(&["accept-queue-full"]);
        let full = found.of("accept-queue-full");
        full.is_critical().is_of(slow.pid(), "slow").has("lport", port).counts(9);
        full.says("9 connections waited to be accepted, of a backlog of 8");
        full.says("net.core.somaxconn is 8: it caps").says("ListenOverflows rose by");
        drop((held, waits));
    });
}

/// Nearly full at more than one look is a warning, and the application asked for that few.
#[test]
fn hardly_anybody_accepts() {
    scenario(|net| {
        let slow = Actor::start("slow");
        let (_, port) = slow.listen();
        let doctor = Doctor::of(net, &[]);
        // Of 128.
        let held: Vec<_> =
            (0..110).map(|_| std::net::TcpStream::connect((LOCALHOST, port)).unwrap()).collect();
        // It looks each second.
        await_time(Instant::now(), Duration::from_secs(3));
        let found = doctor.finds(&["accept-queue-full"]);
        let near = found.of("accept-queue-full");
        near.is_warning().is_of(slow.pid(), "slow").counts(110).says("asked for in listen()");
        drop(held);
    });
}

/// SYNs from addresses that never answer.
fn flood(port: u16, from: impl Iterator<Item = (u8, u16)>) {
    for (host, from) in from {
        let from = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), from);
        send_syn(from, SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    }
}

/// From everywhere, and more than the queue holds.
#[test]
fn a_flood() {
    scenario(|net| {
        add_black_hole();
        sysctl("core/somaxconn", "20");
        let flooded = Actor::start("flooded");
        let (_, port) = flooded.listen();
        let doctor = Doctor::of(net, &["syn-flood.count=20"]);
        flood(port, (1..=50).map(|host| (host, 1000)));
        let cookies = counter("TCPReqQFullDoCookies");
        assert!(cookies > 0);
        let found = doctor.finds(&["syn-flood"]);
        let flood = found.of("syn-flood");
        flood.is_critical().is_of(flooded.pid(), "flooded").has("lport", port).counts(50 - cookies);
        flood.says("a SYN flood").says(&format!("{cookies} SYNs answered with a cookie"));
        flood.says(&format!("from {} addresses", 50 - cookies));
    });
}

/// From one peer, which does not get the answers.
#[test]
fn acks_are_lost() {
    scenario(|net| {
        add_black_hole();
        let flooded = Actor::start("flooded");
        let (_, port) = flooded.listen();
        let doctor = Doctor::of(net, &["syn-flood.count=20"]);
        flood(port, (1000..1030).map(|port| (1, port)));
        await_that("each SYN-ACK is sent again", || counter("RetransSegs") >= 30);
        let found = doctor.finds(&["syn-flood"]);
        let flood = found.of("syn-flood");
        flood.is_warning().is_of(flooded.pid(), "flooded").has("lport", port).counts(30);
        flood.says("ACKs do not arrive").says("192.0.2.1 (30)").says("30 of them for a second");
    });
}

/// Without cookies what does not fit is dropped.
#[test]
fn a_flood_without_cookies() {
    scenario(|net| {
        add_black_hole();
        sysctl("core/somaxconn", "20");
        sysctl("ipv4/tcp_syncookies", "0");
        let flooded = Actor::start("flooded");
        let (_, port) = flooded.listen();
        let doctor = Doctor::of(net, &[]);
        flood(port, (1..=50).map(|host| (host, 1000)));
        let dropped = counter("TCPReqQFullDrop");
        assert!(dropped > 0);
        let found = doctor.finds(&["syn-queue-drops", "sysctls"]);
        let full = found.of("syn-queue-drops");
        full.is_critical().is_of(flooded.pid(), "flooded").has("lport", port).counts(dropped);
        full.says(&format!("the SYN queue of port {port} is full: {dropped} SYNs were dropped"));
        full.says("tcp_syncookies=0");
        found.of("sysctls").says("tcp_syncookies=0");
    });
}
