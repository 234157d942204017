//! `tcptrace hist`: how many sockets each port has in each state, and what happens there.

use super::{
    periods::{Count, Printer},
    sink::{Plan, Scene, wanted},
    watch::{self, Outcome},
};
use crate::{
    cli::Hist,
    kernel::survey::ephemeral_ports,
    model::{event::Event, filter::Filter, found::Survey, tally::Tally},
    view::report::{Page, Report},
};

/// Counts until it is told to stop.
pub async fn run(args: &Hist) -> anyhow::Result<Outcome> {
    watch::run(Plan::new(&args.shared), |start| {
        let tables = Tables {
            args,
            tally: Tally::new(args.by, ephemeral_ports(), args.time_in_state)
                .limited_to(args.shared.max_sockets),
        };
        Ok(Printer::new(tables, &args.shared, &args.periods, start))
    })
    .await
}

/// Counts what happens by row.
struct Tables<'a> {
    args: &'a Hist,
    tally: Tally,
}

impl Count for Tables<'_> {
    fn event(&mut self, event: &Event) {
        self.tally.event(event);
    }

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.tally.surveyed(survey, now_ns, |socket| wanted(filter, socket, now_ns));
    }

    fn turned_away(&mut self) -> u64 {
        self.tally.take_turned_away()
    }

    fn begin(&mut self, scene: &Scene<'_>) {
        // What was there at the beginning is what growth is counted from.
        self.tally.table(scene.sockets(), self.args.sort, self.args.top, scene.now_ns);
    }

    fn print(&mut self, scene: &Scene<'_>, report: &mut dyn Report) {
        let Self { args, tally } = self;
        let table = tally.table(scene.sockets(), args.sort, args.top, scene.now_ns);
        let page = match tally.times() {
            Some(times) => Page::Times(times, &table),
            None if args.matrix => Page::Matrix(tally.matrix(), &table),
            None => Page::Ports(&table),
        };
        report.page(&page);
    }
}
