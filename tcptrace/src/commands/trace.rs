//! `tcptrace trace`: the stream.

use super::watch::{self, Lines, Outcome, Plan};
use crate::{cli::Trace, view::Text};

/// Watches until it is told to stop.
pub async fn run(args: &Trace) -> anyhow::Result<Outcome> {
    let plan = Plan {
        shared: &args.shared,
        retransmits: args.retransmits,
        raw: args.raw,
        whole: false,
        open: false,
        shows: Box::new(|_| true),
    };
    watch::run(plan, |start| {
        Ok(Lines::new(&args.shared, start, |clock, options| Box::new(Text::new(clock, options))))
    })
    .await
}
