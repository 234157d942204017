//! Comma-separated values, RFC 4180: a header, then a line per event. What is absent is empty.

use super::{
    Summary, View, digits,
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
    cell: String,
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
        Self { clock, time: TimeText::default(), opened: TimeText::default(), writer, cell: String::new() }
    }

    fn row<'a>(&mut self, ts_ns: u64, get: impl Fn(&Field) -> Option<Value<'a>>, lost: Option<u64>) {
        let _ = self.writer.write_field(self.time.render(self.clock.wall_ns(ts_ns)));
        let values = FIELDS.iter().map(get).chain([lost.map(Value::Number)]);
        for value in values {
            self.cell.clear();
            let cell = &mut self.cell;
            match value {
                None => {}
                // A table is looked at on terminals, too; JSON has the name as it is.
                Some(Value::Name(name)) => cell.push_str(&printable(name)),
                Some(Value::Time(ns)) => cell.push_str(self.opened.render(self.clock.wall_ns(ns))),
                Some(Value::States(history)) => {
                    for (index, (state, ns)) in history.times().enumerate() {
                        cell.push_str(if index > 0 { " " } else { "" });
                        cell.push_str(state.name());
                        cell.push('=');
                        digits::micros(cell, ns);
                    }
                }
                Some(value) => value.write(cell),
            }
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
