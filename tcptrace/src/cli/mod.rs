//! The command line: words and flags, nothing done yet.

mod args;
mod serve;
mod values;

pub use args::{
    Cli, Color, Command, Conns, Doctor, Explain, Format, Hist, Periods, Probes, Record, Rst, Shared, Top,
    Trace,
};
pub use serve::Serve;
