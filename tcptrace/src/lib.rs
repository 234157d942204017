//! tcptrace: watches the Linux kernel change the state of every TCP socket, live, and says what happened.
//!
//! A record goes from a [`source`] through the tracker in [`model`] to a [`view`]; docs/architecture.md
//! has the map.

pub mod cli;
pub mod commands;
pub mod kernel;
pub mod model;
pub mod recording;
pub mod source;
pub mod view;
