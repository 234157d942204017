//! One JSON object per line.

use super::{
    Summary, View,
    fields::{FIELDS, TimeText, Value},
};
use crate::{
    kernel::clock::Clock,
    model::{event::Event, loss::Loss},
};

/// The stream as JSON.
pub struct Json {
    clock: Clock,
    time: TimeText,
    /// For the times inside an object, which would make `time` begin anew.
    opened: TimeText,
    out: Vec<u8>,
}

impl Json {
    /// A stream whose times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, time: TimeText::default(), opened: TimeText::default(), out: Vec::new() }
    }

    fn object<'a>(&mut self, ts_ns: u64, fields: impl Iterator<Item = (&'a str, Value)>) {
        let Self { clock, time, opened, out } = self;
        // The names and the time hold nothing that JSON would escape; going through a serializer for each name
        // costs as much as all the values.
        out.extend_from_slice(b"{\"ts\":\"");
        out.extend_from_slice(time.render(clock.wall_ns(ts_ns)).as_bytes());
        out.push(b'"');
        for (name, value) in fields {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            if let Value::Time(ns) = value {
                out.push(b'"');
                out.extend_from_slice(opened.render(clock.wall_ns(ns)).as_bytes());
                out.push(b'"');
                continue;
            }
            // Memory takes every byte, and no value fails to be written.
            let _ = serde_json::to_writer(&mut *out, &value);
        }
        out.extend_from_slice(b"}\n");
    }
}

impl View for Json {
    fn event(&mut self, event: &Event) {
        let values = FIELDS.iter().filter_map(|field| Some((field.name, (field.get)(event)?)));
        self.object(event.ts_ns, values);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        // Events lost always, the others if there are any.
        let counts = lost.counts().into_iter().filter(|(name, count)| *name == "lost" || *count > 0);
        let counts = counts.map(|(name, count)| (name, Value::Number(count)));
        self.object(ts_ns, [("kind", Value::Word("lost"))].into_iter().chain(counts));
    }

    fn summary(&mut self, summary: &Summary) {
        let before = [("kind", Value::Word("summary")), ("events", Value::Number(summary.events))];
        let counts = summary.lost.counts().map(|(name, count)| (name, Value::Number(count)));
        let after = [("elapsed_us", Value::Number(summary.elapsed_us))];
        self.object(summary.ts_ns, before.into_iter().chain(counts).chain(after));
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }
}
