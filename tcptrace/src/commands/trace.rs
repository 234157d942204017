//! `tcptrace trace`: the stream.

use super::{
    lines::Lines,
    sink::Plan,
    watch::{self, Outcome},
};
use crate::{cli::Trace, view::Text};

/// Watches until it is told to stop.
pub async fn run(args: &Trace) -> anyhow::Result<Outcome> {
    let plan = Plan { retransmits: args.retransmits, raw: args.raw, ..Plan::new(&args.shared) };
    watch::run(plan, |start| {
        Ok(Lines::new(&args.shared, start, |clock, options| Box::new(Text::new(clock, options))))
    })
    .await
}
