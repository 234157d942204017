//! `tcptrace conns`: a line per connection.

use super::{
    lines::Lines,
    sink::Plan,
    watch::{self, Outcome},
};
use crate::{cli::Conns, model::event::Event, view::Connections};

/// Watches until it is told to stop.
pub async fn run(args: &Conns) -> anyhow::Result<Outcome> {
    let wanted = args.clone();
    let plan = Plan {
        happens: false,
        whole: true,
        open: args.live,
        shows: Box::new(move |event| shows(&wanted, event)),
        ..Plan::new(&args.shared)
    };
    watch::run(plan, |start| {
        Ok(Lines::new(&args.shared, start, |clock, options| Box::new(Connections::new(clock, options))))
    })
    .await
}

/// Whether the flags that only `conns` has let a connection pass.
fn shows(args: &Conns, event: &Event) -> bool {
    let history = event.history.as_deref();
    let lasted = |ms: u64| {
        history.and_then(|history| history.duration_ns).is_some_and(|ns| ns >= ms.saturating_mul(1_000_000))
    };
    let spent = |(state, time): &(_, std::time::Duration)| {
        let spent = history.and_then(|history| history.times().find(|(visited, _)| visited == state));
        spent.is_some_and(|(_, ns)| u128::from(ns) >= time.as_nanos())
    };
    args.min_ms.is_none_or(lasted)
        && args
            .cause
            .as_ref()
            .is_none_or(|causes| event.verdict.is_some_and(|verdict| causes.0.contains(&verdict.cause)))
        && args.state_times.as_ref().is_none_or(|times| times.0.iter().any(spent))
}
