//! Tables that are printed now and then: what `hist` and `rst` show.
//!
//! What a row says is listed once, as fields ([`rows`]), for JSON and CSV; the text is laid out for people ([`text`]).

mod rows;
pub(super) mod table;
pub mod text;

use std::{fmt::Write as _, io::Write as _, net::IpAddr};

pub(super) use self::rows::explanation;
use self::rows::{Cell, Fields};
use super::{Summary, fields::TimeText};
use crate::{
    kernel::clock::Clock,
    model::{
        container::CgroupPath,
        event::printable,
        loss::Loss,
        state::State,
        tally::{Matrix, Reconciled, Reset, Table, Times},
    },
};

/// The states in the order of columns.
pub const COLUMNS: [State; 10] = [
    State::LISTEN,
    State::SYN_SENT,
    State::SYN_RECV,
    State::ESTABLISHED,
    State::FIN_WAIT1,
    State::FIN_WAIT2,
    State::TIME_WAIT,
    State::CLOSE_WAIT,
    State::LAST_ACK,
    State::CLOSING,
];

/// What is printed.
#[derive(Clone, Copy, Debug)]
pub enum Page<'a> {
    /// Sockets by state and what happened, a row for each port, or whatever makes a row.
    Ports(&'a Table),
    /// Time spent in states, with the table that names the rows' owners.
    Times(&'a Times, &'a Table),
    /// Transitions, by the state left and the state entered.
    Matrix(&'a Matrix, &'a Table),
    /// The ledger of RSTs.
    Resets(&'a Resets),
}

/// What the page of RSTs shows.
#[derive(Clone, Debug)]
pub struct Resets {
    /// When it was made, `CLOCK_MONOTONIC` in ns.
    pub at_ns: u64,
    /// The time that its rates are of, in ns.
    pub interval_ns: u64,
    /// The ledger.
    pub rows: Vec<Reset>,
    /// RSTs in rows that are not shown.
    pub left_out: u64,
    /// What the kernel's own counters say; `None` where a filter makes the comparison void.
    pub reconciled: Option<Vec<Reconciled>>,
    /// Whether this kernel reports RSTs that belong to no socket (6.10 on).
    pub reasons: bool,
}

/// Names of cgroups, by id.
pub type Cgroups = Box<dyn FnMut(u64) -> Option<CgroupPath>>;

/// Writes pages in one format, into memory: [`take`](Self::take) moves them on.
pub trait Report {
    /// A page.
    fn page(&mut self, page: &Page<'_>);

    /// Records were lost before `ts_ns`.
    fn lost(&mut self, ts_ns: u64, lost: &Loss);

    /// The end.
    fn summary(&mut self, summary: &Summary);

    /// The terminal has so many columns now.
    fn resize(&mut self, _columns: u16) {}

    /// Appends what was written since this was last called.
    fn take(&mut self, out: &mut Vec<u8>);
}

/// Pages as JSON, an object per row.
pub struct Json {
    clock: Clock,
    time: TimeText,
    cgroups: Cgroups,
    out: Vec<u8>,
}

impl Json {
    /// Times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock, cgroups: Cgroups) -> Self {
        Self { clock, time: TimeText::default(), cgroups, out: Vec::new() }
    }

    fn object(&mut self, ts_ns: u64, fields: &Fields) {
        let Self { clock, time, out, .. } = self;
        // Memory takes every byte, here and below.
        let _ = write!(out, "{{\"ts\":\"{}\"", time.render(clock.wall_ns(ts_ns)));
        for (name, cell) in fields {
            let Some(cell) = cell else { continue };
            let _ = write!(out, ",\"{name}\":");
            let _ = match cell {
                Cell::Number(number) => write!(out, "{number}"),
                Cell::Signed(number) => write!(out, "{number}"),
                Cell::Micros(ns) => write!(out, "{}.{:03}", ns / 1000, ns % 1000),
                Cell::Mean(us) => write!(out, "{us:.3}"),
                Cell::Flag => write!(out, "true"),
                Cell::Time(ns) => write!(out, "\"{}\"", time.render(clock.wall_ns(*ns))),
                Cell::Addr(addr) => write!(out, "\"{addr}\""),
                Cell::Text(text) => serde_json::to_writer(&mut *out, text).map_err(Into::into),
                Cell::Sockets(sockets) => write!(out, "{{{}}}", sockets_of(sockets)),
                Cell::Powers(powers) => write!(out, "[{}]", powers_of(powers)),
            };
        }
        out.extend_from_slice(b"}\n");
    }
}

fn sockets_of(sockets: &[u64; State::COUNT]) -> String {
    let counts = COLUMNS.iter().map(|state| (state, sockets.get(usize::from(state.number()))));
    let pairs: Vec<String> =
        counts.map(|(state, count)| format!("\"{state}\":{}", count.copied().unwrap_or(0))).collect();
    pairs.join(",")
}

fn powers_of(powers: &[(u64, u64, u64)]) -> String {
    let mut text = String::new();
    for (from, to, count) in powers {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{{\"from_us\":{from},\"to_us\":{to},\"count\":{count}}}");
    }
    text
}

impl Report for Json {
    fn page(&mut self, page: &Page<'_>) {
        let (ts_ns, rows) = rows::of(page, &mut self.cgroups);
        for fields in &rows {
            self.object(ts_ns, fields);
        }
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        self.object(ts_ns, &rows::lost(lost));
    }

    fn summary(&mut self, summary: &Summary) {
        self.object(summary.ts_ns, &rows::summary(summary));
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }
}

/// Pages as CSV, a line per row.
pub struct Csv {
    clock: Clock,
    time: TimeText,
    cgroups: Cgroups,
    /// Names of the columns, once the first page was there.
    columns: Vec<String>,
    header: bool,
    /// Losses before the first page, which brings the header.
    early: Vec<(u64, Loss)>,
    writer: csv::Writer<Vec<u8>>,
}

impl Csv {
    /// Times are those of the clock; with a header if wanted.
    #[must_use]
    pub fn new(clock: Clock, header: bool, cgroups: Cgroups) -> Self {
        let writer = csv::WriterBuilder::new().flexible(false).from_writer(Vec::new());
        Self {
            clock,
            time: TimeText::default(),
            cgroups,
            columns: Vec::new(),
            header,
            early: Vec::new(),
            writer,
        }
    }

    /// Names and values, with what JSON has as an object spread over columns.
    fn spread(&mut self, fields: &Fields) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (name, cell) in fields {
            let text = match cell {
                None => String::new(),
                Some(Cell::Number(number)) => number.to_string(),
                Some(Cell::Signed(number)) => number.to_string(),
                Some(Cell::Micros(ns)) => format!("{}.{:03}", ns / 1000, ns % 1000),
                Some(Cell::Mean(us)) => format!("{us:.3}"),
                Some(Cell::Flag) => "true".to_owned(),
                Some(Cell::Time(ns)) => self.time.render(self.clock.wall_ns(*ns)).to_owned(),
                Some(Cell::Addr(addr)) => addr.to_string(),
                // As in the other table, see `view::csv`.
                Some(Cell::Text(text)) => printable(text).into_owned(),
                Some(Cell::Sockets(sockets)) => {
                    for state in COLUMNS {
                        let count = sockets.get(usize::from(state.number())).copied().unwrap_or(0);
                        all.push((state.name().to_owned(), count.to_string()));
                    }
                    continue;
                }
                Some(Cell::Powers(powers)) => {
                    let pairs: Vec<String> =
                        powers.iter().map(|(from, to, count)| format!("{from}-{to}={count}")).collect();
                    pairs.join(" ")
                }
            };
            all.push(((*name).to_owned(), text));
        }
        all
    }

    fn row(&mut self, ts_ns: u64, fields: &Fields) {
        let spread = self.spread(fields);
        let ts = self.time.render(self.clock.wall_ns(ts_ns)).to_owned();
        let value = |column: &String| spread.iter().find(|(name, _)| name == column).map(|(_, text)| &**text);
        let values = self.columns.iter().map(|column| value(column).unwrap_or_default());
        // Memory takes every byte.
        let _ = self.writer.write_record([&*ts].into_iter().chain(values));
    }

    /// The columns are those of all rows of the first page's kind.
    fn begin(&mut self, page: &Page<'_>) {
        if !self.columns.is_empty() {
            return;
        }
        for fields in rows::kinds(page) {
            for (name, _) in self.spread(&fields) {
                if !self.columns.contains(&name) {
                    self.columns.push(name);
                }
            }
        }
        self.columns.extend(Loss::default().counts().map(|(name, _)| name.to_owned()));
        if self.header {
            let _ =
                self.writer.write_record(["ts"].into_iter().chain(self.columns.iter().map(|name| &**name)));
        }
        for (ts_ns, lost) in std::mem::take(&mut self.early) {
            self.row(ts_ns, &rows::lost(&lost));
        }
    }
}

impl Report for Csv {
    fn page(&mut self, page: &Page<'_>) {
        self.begin(page);
        let (ts_ns, rows) = rows::of(page, &mut self.cgroups);
        for fields in &rows {
            self.row(ts_ns, fields);
        }
    }

    fn lost(&mut self, ts_ns: u64, lost: &Loss) {
        if self.columns.is_empty() {
            self.early.push((ts_ns, *lost));
        } else {
            self.row(ts_ns, &rows::lost(lost));
        }
    }

    fn summary(&mut self, _summary: &Summary) {}

    fn take(&mut self, out: &mut Vec<u8>) {
        let writer = csv::WriterBuilder::new().from_writer(Vec::new());
        let written = std::mem::replace(&mut self.writer, writer);
        out.append(&mut written.into_inner().unwrap_or_default());
    }
}

/// An address as people write it.
fn ip(addr: tcptrace_common::record::Addr) -> IpAddr {
    crate::model::event::ip(addr)
}
