//! What the scenarios share.

pub(crate) mod actor;
pub(crate) mod conns;
pub(crate) mod doctor;
pub(crate) mod event;
pub(crate) mod host;
pub(crate) mod netns;
pub(crate) mod options;
pub(crate) mod packet;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod segment;
pub(crate) mod serve;
pub(crate) mod story;
pub(crate) mod tables;
pub(crate) mod tcp;
pub(crate) mod trace;
pub(crate) mod wire;

use std::time::Duration;

/// How long anything may take before the test says that it does not happen. Nothing ever waits that long
/// unless the test fails, but an emulated machine (`cargo xtask vm`) takes its time, what was lost is put right
/// in two rounds of 10 s, and TIME_WAIT lasts 60 s where nothing can end it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
