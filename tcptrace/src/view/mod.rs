//! What the user sees. A view takes events and writes them in its format; only [`output`] touches stdout.

mod cell;
mod connections;
mod csv;
mod diagram;
mod digits;
pub mod doctor;
pub mod errno;
pub mod explain;
pub mod fields;
mod json;
pub mod metrics;
pub mod output;
pub mod probes;
pub mod report;
pub mod terminal;
pub mod text;
pub mod top;

pub use connections::Connections;
pub use csv::Csv;
pub use json::Json;
pub use text::Text;

use crate::model::{event::Event, loss::Loss};

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// When it ended, `CLOCK_MONOTONIC` in ns.
    pub ts_ns: u64,
    /// Events shown.
    pub events: u64,
    /// What was lost.
    pub lost: Loss,
    /// From start to end, in µs.
    pub elapsed_us: u64,
}

/// Writes a stream in one format, into memory: [`take`](Self::take) moves it on.
pub trait View {
    /// One line of the stream.
    fn event(&mut self, event: &Event);

    /// Records were lost here, before `ts_ns`.
    fn lost(&mut self, ts_ns: u64, lost: &Loss);

    /// The stream ends.
    fn summary(&mut self, summary: &Summary);

    /// The terminal has so many columns now.
    fn resize(&mut self, _columns: u16) {}

    /// Appends what was written since this was last called.
    fn take(&mut self, out: &mut Vec<u8>);
}

#[cfg(test)]
pub(crate) mod tests;
