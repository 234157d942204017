//! One JSON object per line.

use serde::ser::{SerializeMap as _, Serializer as _};

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
    out: Vec<u8>,
}

impl Json {
    /// A stream whose times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, time: TimeText::default(), out: Vec::new() }
    }

    fn object<'a>(&mut self, ts_ns: u64, fields: impl Iterator<Item = (&'a str, Value)>) {
        let time = self.time.render(self.clock.wall_ns(ts_ns));
        let mut serializer = serde_json::Serializer::new(&mut self.out);
        // Memory takes every byte, and no value fails to be written.
        let _ = serializer.serialize_map(None).and_then(|mut map| {
            map.serialize_entry("ts", time)?;
            for (name, value) in fields {
                map.serialize_entry(name, &value)?;
            }
            map.end()
        });
        self.out.push(b'\n');
    }
}

impl View for Json {
    fn event(&mut self, event: &Event) {
        let values = FIELDS.iter().filter_map(|field| Some((field.name, (field.get)(event)?)));
        self.object(event.ts_ns, values);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        let fields = [("kind", Value::Word("lost")), ("lost", Value::Number(lost.total()))];
        self.object(ts_ns, fields.into_iter());
    }

    fn summary(&mut self, summary: &Summary) {
        let fields = [
            ("kind", Value::Word("summary")),
            ("events", Value::Number(summary.events)),
            ("lost", Value::Number(summary.lost)),
            ("elapsed_us", Value::Number(summary.elapsed_us)),
        ];
        self.object(summary.ts_ns, fields.into_iter());
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }
}
