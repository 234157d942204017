//! `tcptrace rst`: the ledger of RSTs.

use super::{
    periods::{Schedule, report},
    watch::{self, Moment, Outcome, Plan, Scene, Sink},
};
use crate::{
    cli::Rst,
    kernel::survey::ephemeral_ports,
    model::{
        event::Event,
        filter::Filter,
        found::Survey,
        loss::Loss,
        tally::{By, Tally},
    },
    view::{
        Summary,
        report::{Page, Report, Resets},
    },
};

/// Counts until it is told to stop.
pub async fn run(args: &Rst) -> anyhow::Result<Outcome> {
    let plan = Plan {
        shared: &args.shared,
        retransmits: false,
        raw: false,
        whole: false,
        open: false,
        shows: Box::new(|_| true),
    };
    watch::run(plan, |start| {
        Ok(Ledger {
            args,
            tally: Tally::new(By::Port, ephemeral_ports(), false),
            schedule: Schedule::new(&args.periods),
            report: report(&args.shared, &args.periods, start),
            reasons: start.reasons,
            since_ns: start.now_ns,
        })
    })
    .await
}

/// Counts, and prints the ledger now and then.
struct Ledger<'a> {
    args: &'a Rst,
    tally: Tally,
    schedule: Schedule,
    report: Box<dyn Report>,
    /// Whether this kernel reports RSTs that belong to no socket.
    reasons: bool,
    /// When the last page was made, `CLOCK_MONOTONIC` in ns.
    since_ns: u64,
}

impl Sink for Ledger<'_> {
    fn event(&mut self, event: &Event) {
        self.tally.event(event);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        self.report.lost(ts_ns, lost);
    }

    fn surveyed(&mut self, survey: &Survey, _filter: &Filter, now_ns: u64) {
        // Only the kernel's counters matter here.
        self.tally.surveyed(survey, now_ns, |_| false);
    }

    fn due_ns(&self) -> Option<u64> {
        self.schedule.due_ns()
    }

    fn wants_look(&self) -> bool {
        true
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        if scene.moment == Moment::Begin && self.args.periods.interval.is_none() {
            self.since_ns = scene.now_ns;
        }
        if !self.schedule.prints(scene.now_ns, scene.moment) {
            return;
        }
        let mut rows = self.tally.ledger.take();
        let left_out = rows.split_off(rows.len().min(self.args.top));
        let interval_ns = scene.now_ns.saturating_sub(std::mem::replace(&mut self.since_ns, scene.now_ns));
        let resets = Resets {
            at_ns: scene.now_ns,
            interval_ns,
            rows,
            left_out: left_out.iter().map(|row| row.count).sum(),
            reconciled: scene.counts_all().then(|| self.tally.ledger.reconciled()),
            reasons: self.reasons,
        };
        self.report.page(&Page::Resets(&resets));
    }

    fn full(&self) -> bool {
        self.schedule.is_over()
    }

    fn end(&mut self, summary: &Summary) {
        self.report.summary(summary);
    }

    fn resize(&mut self, columns: u16) {
        self.report.resize(columns);
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        self.report.take(out);
    }
}
