//! `tcptrace empty`: hidden; what any program at the tracepoint costs at least, for `cargo xtask bench`.

use anyhow::Context as _;

use super::stop::Stop;
use crate::kernel::attach;

/// Attaches a program that does nothing until it is told to stop.
pub async fn run() -> anyhow::Result<()> {
    let mut stop = Stop::new().context("cannot listen for signals")?;
    let _attached = attach::attach_empty()?;
    stop.asked().await;
    Ok(())
}
