//! Why connections end: one test for each row of the table of causes, over a wire that does what the row
//! needs, each checked in full ([`fate`]).

pub(crate) mod fate;

/// What a client's end goes through, from when it is ESTABLISHED.
macro_rules! client {
    ($($words:expr),+ $(,)?) => { &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", $($words),+] };
}

/// What a server's does.
macro_rules! server {
    ($($words:expr),+ $(,)?) => { &["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED", $($words),+] };
}

mod abort;
mod connect;
mod fastopen;
mod handshake;
mod late_data;
mod minisock;
mod mptcp;
mod orderly;
mod reset;
mod silence;

use crate::support::{
    segment::{ACK, RST},
    wire::{To, Wire},
};

/// A server that knows of the client's FIN, and that a RST ends then.
const RESET_IN_CLOSE_WAIT: &[&str] =
    server!["ESTABLISHED>CLOSE_WAIT", "RST< in CLOSE_WAIT", "CLOSE_WAIT>CLOSE EPIPE"];
/// A client whose own FIN had been acknowledged.
const RESET_IN_FIN_WAIT2: &[&str] = client![
    "ESTABLISHED>FIN_WAIT1",
    "FIN_WAIT1>FIN_WAIT2",
    "RST< in FIN_WAIT2",
    "FIN_WAIT2>CLOSE ECONNRESET",
];

/// Says a RST to an end as if the other had sent it. Only one whose number is exactly the expected one counts
/// (tcp_validate_incoming(), RFC 5961).
fn say_reset(wire: &Wire<'_>, to: To) {
    let from_there = wire.last(|seen| seen.to != to).segment;
    wire.say_segment(to, &from_there.answer(RST | ACK));
}
