//! `tcptrace hist` and `tcptrace rst`, as a child, and the tables that they print.

use std::process::Command;

use rustix::process::Signal;

use super::{event::Event, process::Process, trace::Trace};

/// A command that prints tables.
pub(crate) struct Tables(Trace);

impl Tables {
    /// Watches network namespaces, as `-N` takes them: `args` begin with the command. What was there before is known
    /// when this returns.
    pub(crate) fn start(nets: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(args).args(["-v", "-o", "json", "-N", nets]);
        Self(Trace::start(&mut command))
    }

    /// Waits for a table that satisfies a predicate: the rows that were printed at the same time, the total last.
    /// Returns it.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
        let mut found = Vec::new();
        self.0.until(what, |events| {
            let ends = |event: &Event| matches!(event.kind(), "total");
            let last = events.iter().rposition(ends);
            let Some(table) = last.map(|last| &events[..=last]) else { return false };
            let at = table.last().unwrap().text("ts").unwrap();
            let first = table.iter().position(|event| event.text("ts") == Some(at)).unwrap();
            let table = &table[first..];
            let met = holds(table);
            if met {
                found = table.to_vec();
            }
            met
        });
        found
    }

    pub(crate) fn process(&self) -> &Process {
        self.0.process()
    }

    /// Ends the run as Ctrl-C does; it must end well, and without a loss. Returns everything but the summary.
    pub(crate) fn stop(self) -> Vec<Event> {
        self.0.process().signal(Signal::INT);
        let log = self.0.ended();
        assert!(log.status.success(), "{}\n{}", log.status, log.stderr);
        assert_eq!((log.summary.number("lost"), log.lost), (Some(0), 0), "{:?}\n{}", log.summary, log.stderr);
        log.events
    }
}

/// How many sockets a row has in a state.
pub(crate) fn sockets(row: &Event, state: &str) -> u64 {
    row.field("sockets").unwrap()[state].as_u64().unwrap_or_else(|| panic!("no {state}: {row:?}"))
}
