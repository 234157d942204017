//! One file per command.

pub mod stop;
pub mod trace;
