//! Recordings: Parquet files in folders by host and hour, which `tcptrace record` writes and `--from` reads, and the
//! lines of JSON that `-o json` writes, which it reads, too.
//!
//! A recording has all that a sink is told while it watches, in that order, so that whoever reads it can be told the
//! same again. docs/recordings.md has the columns and what is promised.

mod draft;
pub mod folder;
mod ndjson;
mod parquet;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod write;

use std::{fmt, ops::RangeInclusive, path::Path};

pub use self::{source::Recording, write::FileWriter};
use crate::model::{event::Event, health::Snmp, loss::Loss};

/// The version of the schema that is written. Columns may be added without a new one; a reader takes what it knows.
pub const VERSION: u32 = 1;

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// What happened, or a whole connection that has ended.
    Event(Event),
    /// The sockets that follow are all that exist at this time.
    Snapshot {
        /// It, in ns.
        ts_ns: u64,
    },
    /// A socket that exists, of [`kind`](Event::kind) connection and without a cause. `kernel_new` tells its form: CLOSE a minisock, NEW_SYN_RECV a request.
    Socket(Event),
    /// A network namespace was looked at.
    Namespace {
        /// When, in ns.
        ts_ns: u64,
        /// Its inode number.
        netns: u32,
        /// The kernel's counters of it.
        counters: Option<Snmp>,
    },
    /// Records were lost here.
    Lost {
        /// Before that, in ns.
        ts_ns: u64,
        /// How many.
        lost: Loss,
    },
}

impl Row {
    /// When, in ns of the clock that the row goes by.
    #[must_use]
    pub fn ts_ns(&self) -> u64 {
        match self {
            Self::Event(event) | Self::Socket(event) => event.ts_ns,
            Self::Snapshot { ts_ns } | Self::Namespace { ts_ns, .. } | Self::Lost { ts_ns, .. } => *ts_ns,
        }
    }
}

/// Where a file comes from: what a view has to know beside its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The host's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Whether that kernel reports RSTs that belong to no socket, and gives reasons.
    pub reasons: bool,
    /// The ports that it hands out.
    pub ephemeral: RangeInclusive<u16>,
}

/// A file that cannot be read or written: which, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}\nwhy: {why}\nfix: {fix}")]
pub struct FileError {
    /// `read` or `write`.
    doing: &'static str,
    path: String,
    why: String,
    fix: &'static str,
}

impl FileError {
    fn read(path: &Path, why: impl fmt::Display, fix: &'static str) -> Self {
        Self { doing: "read", path: printable(path), why: why.to_string(), fix }
    }

    fn damaged(path: &Path, why: impl fmt::Display) -> Self {
        Self::read(
            path,
            format!("it is damaged: {why}"),
            "take it out of the folder; other files are not touched by it",
        )
    }

    fn foreign(path: &Path, why: impl fmt::Display) -> Self {
        Self::read(path, why, "give what tcptrace record or tcptrace -o json has written")
    }
}

fn printable(path: &Path) -> String {
    crate::model::event::printable(&path.to_string_lossy()).into_owned()
}
