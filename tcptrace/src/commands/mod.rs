//! One file per command; [`watch`] is what those that watch have in common.

pub mod conns;
pub mod doctor;
pub mod empty;
mod examiner;
pub mod explain;
pub mod hist;
pub mod lines;
mod periods;
pub mod probes;
pub mod record;
mod replay;
pub mod rst;
mod self_test;
pub mod serve;
pub mod sink;
pub mod stop;
mod survey;
pub mod top;
pub mod trace;
pub mod watch;
