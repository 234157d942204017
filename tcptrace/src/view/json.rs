//! One JSON object per line.

use super::{
    Summary, View, digits,
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
    out: String,
}

impl Json {
    /// A stream whose times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, time: TimeText::default(), opened: TimeText::default(), out: String::new() }
    }

    fn begin(&mut self, ts_ns: u64) {
        self.out.push_str("{\"ts\":\"");
        self.out.push_str(self.time.render(self.clock.wall_ns(ts_ns)));
        self.out.push('"');
    }

    /// An object of counts.
    fn counts<'a>(&mut self, ts_ns: u64, kind: &str, counts: impl Iterator<Item = (&'a str, u64)>) {
        self.begin(ts_ns);
        self.out.push_str(",\"kind\":");
        bare(&mut self.out, |out| out.push_str(kind));
        for (name, count) in counts {
            self.out.push(',');
            bare(&mut self.out, |out| out.push_str(name));
            self.out.push(':');
            digits::number(&mut self.out, count);
        }
        self.out.push_str("}\n");
    }
}

/// A value as JSON.
fn write(out: &mut String, value: &Value<'_>) {
    match *value {
        // The writer has the clock; see above.
        Value::Number(number) | Value::Time(number) => digits::number(out, number),
        Value::Micros(ns) => micros(out, ns),
        Value::Word(word) => bare(out, |out| out.push_str(word)),
        Value::Name(name) => quoted(out, name),
        Value::Comm(comm) => quoted(out, &comm.text()),
        Value::Id(id) => bare(out, |out| digits::hex(out, id.0)),
        Value::Addr(addr) => bare(out, |out| digits::address(out, addr)),
        Value::Errno(errno) => bare(out, |out| {
            out.push('E');
            digits::number(out, errno);
        }),
        Value::States(history) => {
            out.push('{');
            for (index, (state, ns)) in history.times().enumerate() {
                out.push_str(if index > 0 { ",\"" } else { "\"" });
                out.push_str(state.name());
                out.push_str("\":");
                micros(out, ns);
            }
            out.push('}');
        }
    }
}

/// A string that holds nothing to escape.
fn bare(out: &mut String, write: impl FnOnce(&mut String)) {
    out.push('"');
    write(out);
    out.push('"');
}

/// A string that may hold anything.
fn quoted(out: &mut String, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        bare(out, |out| out.push_str(text));
    } else {
        // A string can always be written.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// Nanoseconds as microseconds, with a decimal at least, as JSON's numbers with decimals are usually written.
fn micros(out: &mut String, ns: u64) {
    digits::micros(out, ns);
    while out.ends_with('0') && !out.ends_with(".0") {
        out.pop();
    }
}

impl View for Json {
    fn event(&mut self, event: &Event) {
        self.begin(event.ts_ns);
        let Self { clock, opened, out, .. } = self;
        for field in FIELDS {
            let Some(value) = (field.get)(event) else { continue };
            out.push_str(field.key);
            if let Value::Time(ns) = value {
                bare(out, |out| out.push_str(opened.render(clock.wall_ns(ns))));
            } else {
                write(out, &value);
            }
        }
        out.push_str("}\n");
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        // Events lost always, the others if there are any.
        let counts = lost.counts().into_iter().filter(|(name, count)| *name == "lost" || *count > 0);
        self.counts(ts_ns, "lost", counts);
    }

    fn summary(&mut self, summary: &Summary) {
        let before = [("events", summary.events)];
        let after = [("elapsed_us", summary.elapsed_us)];
        let counts = before.into_iter().chain(summary.lost.counts()).chain(after);
        self.counts(summary.ts_ns, "summary", counts);
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.out.as_bytes());
        self.out.clear();
    }
}
