//! `tcptrace hist`: how many sockets each port has in each state, and what happens there.

use super::{
    periods::{Count, Printer},
    sink::{Plan, Scene, wanted},
    watch::{self, Outcome},
};
use crate::{
    cli::Hist,
    kernel::cgroup::Paths,
    model::{
        event::Event,
        filter::Filter,
        found::Survey,
        socket::Socket,
        tally::{By, Tally},
    },
    view::report::{Page, Report},
};

/// Counts until it is told to stop.
pub async fn run(args: &Hist) -> anyhow::Result<Outcome> {
    watch::run(Plan::new(&args.shared), |start| {
        let tables = Tables {
            args,
            paths: (args.by == By::Container).then(|| start.paths.clone()),
            tally: Tally::new(args.by, start.ephemeral.clone(), args.time_in_state)
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
    /// Where the cgroups of one container are counted as one.
    paths: Option<Paths>,
}

impl<'a> Tables<'a> {
    /// The sockets that are wanted.
    fn sockets(&self, scene: &Scene<'a>) -> impl Iterator<Item = Socket> + Clone + use<'a> {
        let paths = self.paths.clone();
        scene.sockets().map(move |socket| Socket { cgroup: home(paths.as_ref(), socket.cgroup), ..socket })
    }
}

/// The cgroup that a socket of a cgroup is counted in; 0 is unknown.
fn home(paths: Option<&Paths>, cgroup: u64) -> u64 {
    paths.filter(|_| cgroup != 0).map_or(cgroup, |paths| paths.home(cgroup))
}

impl Count for Tables<'_> {
    fn event(&mut self, event: &Event) {
        match (&self.paths, event.cgroup) {
            (Some(paths), Some(cgroup)) => {
                let cgroup = Some(paths.home(cgroup));
                self.tally.event(&Event { cgroup, ..event.clone() });
            }
            _ => self.tally.event(event),
        }
    }

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.tally.surveyed(survey, now_ns, |socket| wanted(filter, socket, now_ns));
    }

    fn turned_away(&mut self) -> u64 {
        self.tally.take_turned_away()
    }

    fn begin(&mut self, scene: &Scene<'_>) {
        // What was there at the beginning is what growth is counted from.
        let sockets = self.sockets(scene);
        self.tally.table(sockets, self.args.sort, self.args.top, scene.now_ns);
    }

    fn print(&mut self, scene: &Scene<'_>, report: &mut dyn Report) {
        let sockets = self.sockets(scene);
        let Self { args, tally, .. } = self;
        let table = tally.table(sockets, args.sort, args.top, scene.now_ns);
        let page = match tally.times() {
            Some(times) => Page::Times(times, &table),
            None if args.matrix => Page::Matrix(tally.matrix(), &table),
            None => Page::Ports(&table),
        };
        report.page(&page);
    }
}
