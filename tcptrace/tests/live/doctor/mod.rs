//! `tcptrace doctor`: each rule fires where its trouble is real, with its owner and its numbers, and no other does.
//!
//! Thresholds are set lower where the usual ones take longer than a test may. Two rules have no scenario here, because
//! their trouble is the whole host's, and would not be the test's alone: memory-pressure (tcp_mem) and orphan-pressure
//! (tcp_max_orphans); model/doctor/tests.rs has them, and the table of conntrack, whose limit is the host's, too.

use std::time::{Duration, Instant};

use crate::support::{
    host::{Socket, sockets},
    process::await_that,
};

mod closing;
mod connects;
mod healthy;
mod ports;
mod queues;
mod resets;
mod settings;
mod silence;

/// States, as the kernel numbers them.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Waits until there are so many sockets like this in the calling thread's namespace.
fn await_sockets(what: &str, count: usize, is_one: impl Fn(&Socket) -> bool) {
    await_that(what, || sockets().iter().filter(|socket| is_one(socket)).count() == count);
}

/// Waits until so much time has passed since then: for what is about time, and nothing else can tell.
fn await_time(since: Instant, passed: Duration) {
    await_that("time passes", || since.elapsed() >= passed);
}
