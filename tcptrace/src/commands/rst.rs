//! `tcptrace rst`: the ledger of RSTs.

use super::{
    periods::{Count, Printer},
    sink::{Plan, Scene},
    watch::{self, Outcome},
};
use crate::{
    cli::Rst,
    model::{
        event::Event,
        filter::Filter,
        found::Survey,
        tally::{By, Tally},
    },
    view::report::{Page, Report, Resets},
};

/// Counts until it is told to stop.
pub async fn run(args: &Rst) -> anyhow::Result<Outcome> {
    watch::run(Plan::new(&args.shared), |start| {
        let ledger = Ledger {
            top: args.top,
            tally: Tally::new(By::Port, start.ephemeral.clone(), false).limited_to(args.shared.max_sockets),
            reasons: start.reasons,
            since_ns: start.now_ns,
        };
        Ok(Printer::new(ledger, &args.shared, &args.periods, start))
    })
    .await
}

/// Counts RSTs.
struct Ledger {
    /// Rows at most.
    top: usize,
    tally: Tally,
    /// Whether this kernel reports RSTs that belong to no socket.
    reasons: bool,
    /// When the last page was made, `CLOCK_MONOTONIC` in ns.
    since_ns: u64,
}

impl Count for Ledger {
    fn event(&mut self, event: &Event) {
        self.tally.event(event);
    }

    fn surveyed(&mut self, survey: &Survey, _filter: &Filter, now_ns: u64) {
        // Only the kernel's counters matter here.
        self.tally.surveyed(survey, now_ns, |_| false);
    }

    fn turned_away(&mut self) -> u64 {
        self.tally.take_turned_away()
    }

    fn begin(&mut self, scene: &Scene<'_>) {
        self.since_ns = scene.now_ns;
    }

    fn print(&mut self, scene: &Scene<'_>, report: &mut dyn Report) {
        let mut rows = self.tally.ledger.take();
        let left_out = rows.split_off(rows.len().min(self.top));
        let interval_ns = scene.now_ns.saturating_sub(std::mem::replace(&mut self.since_ns, scene.now_ns));
        let resets = Resets {
            at_ns: scene.now_ns,
            interval_ns,
            rows,
            left_out: left_out.iter().map(|row| row.count).sum(),
            reconciled: scene.counts_all().then(|| self.tally.ledger.reconciled()),
            reasons: self.reasons,
        };
        report.page(&Page::Resets(&resets));
    }
}
