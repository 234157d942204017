//! One file per command; [`watch`] is what those that watch have in common.

pub mod conns;
pub mod hist;
pub mod lines;
mod periods;
pub mod rst;
pub mod sink;
pub mod stop;
mod survey;
pub mod top;
pub mod trace;
pub mod watch;
