//! `tcptrace hist`: how many sockets each port has in each state, and what happens there.

use super::{
    periods::{Schedule, report},
    watch::{self, Moment, Outcome, Plan, Scene, Sink, wanted},
};
use crate::{
    cli::Hist,
    kernel::survey::ephemeral_ports,
    model::{event::Event, filter::Filter, found::Survey, loss::Loss, tally::Tally},
    view::{
        Summary,
        report::{Page, Report},
    },
};

/// Counts until it is told to stop.
pub async fn run(args: &Hist) -> anyhow::Result<Outcome> {
    let plan = Plan {
        shared: &args.shared,
        retransmits: false,
        raw: false,
        whole: false,
        open: false,
        shows: Box::new(|_| true),
    };
    watch::run(plan, |start| {
        Ok(Tables {
            args,
            tally: Tally::new(args.by, ephemeral_ports(), args.time_in_state),
            schedule: Schedule::new(&args.periods),
            report: report(&args.shared, &args.periods, start),
        })
    })
    .await
}

/// Counts, and prints tables now and then.
struct Tables<'a> {
    args: &'a Hist,
    tally: Tally,
    schedule: Schedule,
    report: Box<dyn Report>,
}

impl Sink for Tables<'_> {
    fn event(&mut self, event: &Event) {
        self.tally.event(event);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        self.report.lost(ts_ns, lost);
    }

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.tally.surveyed(survey, now_ns, |socket| wanted(filter, socket, now_ns));
    }

    fn due_ns(&self) -> Option<u64> {
        self.schedule.due_ns()
    }

    fn wants_look(&self) -> bool {
        true
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        let prints = self.schedule.prints(scene.now_ns, scene.moment);
        let Self { args, tally, report, .. } = self;
        // What was there at the beginning is what growth is counted from.
        if !prints && scene.moment != Moment::Begin {
            return;
        }
        let table = tally.table(scene.sockets(), args.sort, args.top, scene.now_ns);
        if !prints {
            return;
        }
        let page = match tally.times() {
            Some(times) => Page::Times(times, &table),
            None if args.matrix => Page::Matrix(tally.matrix(), &table),
            None => Page::Ports(&table),
        };
        report.page(&page);
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
