//! What the commands that print tables have in common: when they do so, and in which format.

use super::{
    lines::colored,
    sink::{Moment, Scene, Sink, Start},
};
use crate::{
    cli::{Format, Periods, Shared},
    model::{event::Event, filter::Filter, found::Survey, loss::Loss},
    view::{
        Summary,
        report::{
            Cgroups, Csv, Json, Report,
            text::{Options, Text},
        },
    },
};

/// What counts, and makes a table of it.
pub(super) trait Count {
    /// Takes what happened.
    fn event(&mut self, event: &Event);

    /// The host was looked at; see [`Sink::surveyed`].
    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64);

    /// How many sockets it could not remember; see [`Sink::turned_away`].
    fn turned_away(&mut self) -> u64;

    /// Counting begins here, and nothing is printed yet.
    fn begin(&mut self, scene: &Scene<'_>);

    /// Prints a table.
    fn print(&mut self, scene: &Scene<'_>, report: &mut dyn Report);
}

/// Prints the tables of what counts when they are due.
pub(super) struct Printer<C> {
    count: C,
    schedule: Schedule,
    report: Box<dyn Report>,
}

impl<C> Printer<C> {
    pub(super) fn new(count: C, shared: &Shared, periods: &Periods, start: &Start<'_>) -> Self {
        Self { count, schedule: Schedule::new(periods), report: report(shared, periods, start) }
    }
}

impl<C: Count> Sink for Printer<C> {
    fn event(&mut self, event: &Event) {
        self.count.event(event);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        self.report.lost(ts_ns, lost);
    }

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.count.surveyed(survey, filter, now_ns);
    }

    fn turned_away(&mut self) -> u64 {
        self.count.turned_away()
    }

    fn counts_sockets(&self) -> bool {
        true
    }

    fn due_ns(&self) -> Option<u64> {
        self.schedule.due_ns()
    }

    fn wants_look(&self) -> bool {
        true
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        if self.schedule.prints(scene.now_ns, scene.moment) {
            self.count.print(scene, &mut *self.report);
        } else if scene.moment == Moment::Begin {
            self.count.begin(scene);
        }
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

/// When to print next.
#[derive(Debug)]
struct Schedule {
    /// Time between two tables in ns; `None`: there is one, at the end.
    interval_ns: Option<u64>,
    tables: Option<u64>,
    printed: u64,
    /// `CLOCK_MONOTONIC` in ns.
    next_ns: u64,
}

impl Schedule {
    fn new(periods: &Periods) -> Self {
        let interval =
            periods.interval.map(|interval| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
        Self { interval_ns: interval, tables: periods.tables.map(Into::into), printed: 0, next_ns: 0 }
    }

    /// When the next table is due, `CLOCK_MONOTONIC` in ns; after the end of time there is none.
    fn due_ns(&self) -> Option<u64> {
        (self.interval_ns.is_some() && self.printed > 0 && self.next_ns < u64::MAX).then_some(self.next_ns)
    }

    /// Whether a table is printed now.
    fn prints(&mut self, now_ns: u64, moment: Moment) -> bool {
        let prints = match self.interval_ns {
            None => moment == Moment::End,
            Some(_) => moment != Moment::End && !self.is_over(),
        };
        if let (true, Some(interval_ns)) = (prints, self.interval_ns) {
            // The beat is kept, unless the host was too busy for it.
            let beat_ns = if moment == Moment::Begin { now_ns } else { self.next_ns };
            self.next_ns = beat_ns.saturating_add(interval_ns);
            if self.next_ns <= now_ns {
                self.next_ns = now_ns.saturating_add(interval_ns);
            }
        }
        self.printed += u64::from(prints);
        prints
    }

    /// Whether all tables are printed.
    fn is_over(&self) -> bool {
        self.tables.is_some_and(|tables| self.printed >= tables)
    }
}

/// The report in the format that the user wants.
fn report(shared: &Shared, periods: &Periods, start: &Start<'_>) -> Box<dyn Report> {
    let paths = start.paths.clone();
    let cgroups: Cgroups = Box::new(move |id| paths.get(id));
    match shared.output {
        Format::Json => Box::new(Json::new(start.clock, cgroups)),
        Format::Csv => Box::new(Csv::new(start.clock, !shared.no_header, cgroups)),
        Format::Text => {
            let options = Options {
                columns: start.output.columns(),
                wide: shared.wide,
                color: colored(shared.color),
                header: !shared.no_header,
                repeated: periods.interval.is_some() && periods.tables.is_none_or(|tables| tables.get() > 1),
            };
            if periods.interval.is_none() && !shared.quiet && start.output.columns().is_some() {
                log::warn!(
                    "counting; Ctrl-C prints the result, an interval (such as 1) prints it again and again"
                );
            }
            Box::new(Text::new(start.clock, options, cgroups))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where time ends, so do the tables.
    #[test]
    fn tables_end_with_time() {
        let mut schedule = Schedule { interval_ns: Some(10), tables: None, printed: 0, next_ns: 0 };
        assert!(schedule.prints(u64::MAX - 15, Moment::Begin));
        assert_eq!(schedule.due_ns(), Some(u64::MAX - 5));
        assert!(schedule.prints(u64::MAX - 5, Moment::Due));
        assert_eq!(schedule.due_ns(), None);
    }
}
