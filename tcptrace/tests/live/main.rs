//! The live tests: tcptrace on the running kernel, watched from outside.
//!
//! Each test makes a network namespace of its own ([`support::netns`]), starts the tcptrace that cargo built
//! ([`support::trace`]), does something to sockets, and compares everything that was told of every end of
//! every connection, in order ([`support::story`]), with what the kernel's source says happens. They need
//! root, BPF and the programs that `cargo xtask test` installs, and fail without; they never skip.
//!
//! No test sleeps: it waits for what is to happen, and fails when that takes longer than
//! [`support::PATIENCE`]. Nothing is left behind, not even by a test that fails: namespaces have no name,
//! and children die with the test.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod abort;
mod addresses;
mod agreement;
mod causes;
mod close;
mod containers;
mod crowd;
mod deploy;
mod doctor;
mod family;
mod faults;
mod hist_cli;
mod mptcp;
mod owners;
mod ownership;
mod ports;
mod privileges;
mod probes_cli;
mod programs;
mod record_cli;
mod repair;
mod rst_cli;
mod serve;
mod snapshot_cli;
mod stop;
mod support;
mod survey;
mod top_cli;
mod trouble;
