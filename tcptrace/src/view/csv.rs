//! Comma-separated values, RFC 4180: a header, then a line per event. What is absent is empty.

use std::io::Write as _;

use super::{
    Summary, View,
    fields::{FIELDS, Field, TimeText, Value},
};
use crate::{
    kernel::clock::Clock,
    model::{
        event::{Event, printable},
        loss::Loss,
    },
};

/// The stream as CSV.
pub struct Csv {
    clock: Clock,
    time: TimeText,
    opened: TimeText,
    writer: csv::Writer<Vec<u8>>,
    cell: Vec<u8>,
}

impl Csv {
    /// A stream whose times are those of the clock, with a header if wanted.
    #[must_use]
    pub fn new(clock: Clock, header: bool) -> Self {
        let mut writer = csv::Writer::from_writer(Vec::new());
        if header {
            // Memory takes every byte, here and below.
            let names = FIELDS.iter().map(|field| field.name);
            let _ = writer.write_record(["ts"].into_iter().chain(names).chain(["lost"]));
        }
        Self { clock, time: TimeText::default(), opened: TimeText::default(), writer, cell: Vec::new() }
    }

    fn row(&mut self, ts_ns: u64, get: impl Fn(&Field) -> Option<Value>, lost: Option<u64>) {
        let _ = self.writer.write_field(self.time.render(self.clock.wall_ns(ts_ns)));
        let values = FIELDS.iter().map(get).chain([lost.map(Value::Number)]);
        for value in values {
            self.cell.clear();
            let cell = &mut self.cell;
            let _ = match value {
                None => Ok(()),
                Some(Value::Number(number)) => write!(cell, "{number}"),
                Some(Value::Micros(ns)) => write!(cell, "{}.{:03}", ns / 1000, ns % 1000),
                Some(Value::Word(word)) => write!(cell, "{word}"),
                // A table is looked at on terminals, too; JSON has the name as it is.
                Some(Value::Name(name)) => write!(cell, "{}", printable(&name)),
                Some(Value::Comm(comm)) => write!(cell, "{comm}"),
                Some(Value::Id(id)) => write!(cell, "{id}"),
                Some(Value::Addr(addr)) => write!(cell, "{addr}"),
                Some(Value::Errno(errno)) => write!(cell, "E{errno}"),
                Some(Value::Time(ns)) => {
                    write!(cell, "{}", self.opened.render(self.clock.wall_ns(ns)))
                }
                Some(Value::States(history)) => {
                    history.times().enumerate().try_for_each(|(index, (state, ns))| {
                        let space = if index > 0 { " " } else { "" };
                        write!(cell, "{space}{state}={}.{:03}", ns / 1000, ns % 1000)
                    })
                }
            };
            let _ = self.writer.write_field(&self.cell);
        }
        let _ = self.writer.write_record(None::<&[u8]>);
    }
}

impl View for Csv {
    fn event(&mut self, event: &Event) {
        self.row(event.ts_ns, |field| (field.get)(event), None);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        let kind = |field: &Field| (field.name == "kind").then_some(Value::Word("lost"));
        self.row(ts_ns, kind, Some(lost.total()));
    }

    /// A table has no room for it; stderr has.
    fn summary(&mut self, _summary: &Summary) {}

    fn take(&mut self, out: &mut Vec<u8>) {
        let full = std::mem::replace(&mut self.writer, csv::Writer::from_writer(Vec::new()));
        out.append(&mut full.into_inner().unwrap_or_default());
    }
}
