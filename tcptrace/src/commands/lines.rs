//! The commands that print a line for every event.

use std::io;

use super::sink::{Sink, Start};
use crate::{
    cli::{Color, Format, Shared},
    kernel::clock::Clock,
    model::{event::Event, loss::Loss},
    view::{
        Csv, Json, Summary, View,
        output::Output,
        text::{TextOptions, TimeStyle},
    },
};

/// A line for every event, in the format that the user wants.
pub struct Lines {
    view: Box<dyn View>,
}

impl Lines {
    /// `text`: the view for people.
    pub fn new(shared: &Shared, start: &Start<'_>, text: fn(Clock, TextOptions) -> Box<dyn View>) -> Self {
        Self { view: view(shared, text, start.clock, start.output) }
    }
}

impl Sink for Lines {
    fn event(&mut self, event: &Event) {
        self.view.event(event);
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        self.view.lost(ts_ns, lost);
    }

    fn end(&mut self, summary: &Summary) {
        self.view.summary(summary);
    }

    fn resize(&mut self, columns: u16) {
        self.view.resize(columns);
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        self.view.take(out);
    }
}

fn view(
    shared: &Shared,
    text: fn(Clock, TextOptions) -> Box<dyn View>,
    clock: Clock,
    output: &Output,
) -> Box<dyn View> {
    let header = !shared.no_header;
    match shared.output {
        Format::Json => Box::new(Json::new(clock)),
        Format::Csv => Box::new(Csv::new(clock, header)),
        Format::Text => text(
            clock,
            TextOptions {
                wide: shared.wide,
                time: match (shared.time_of_day, shared.time_since_start) {
                    (true, _) => TimeStyle::Clock,
                    (_, true) => TimeStyle::SinceStartKept,
                    _ => TimeStyle::SinceStart,
                },
                color: colored(shared.color),
                header,
                columns: output.columns(),
                verbose: shared.verbose > 0,
            },
        ),
    }
}

/// Whether stdout takes colours, and they are wanted.
#[must_use]
pub fn colored(wanted: Color) -> bool {
    match wanted {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
    }
}
