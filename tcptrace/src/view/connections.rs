//! Connections for people: a line for each, in the habit of tcplife.
//!
//! As in the stream, a line is never wrapped: on a terminal too narrow for all columns they give way in the order of
//! [`GIVE_WAY`]. A file or a pipe gets every column.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::{
    Summary, View,
    cell::{CONTAINER, address, container, cut, first, millis, or_dash, pad, seconds, time_of_day},
    digits::{hex, number},
    text::{TextOptions, TimeStyle},
};
use crate::{
    kernel::clock::Clock,
    model::{
        cause::Cause,
        event::{Event, Role},
        loss::Loss,
        state::State,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Time,
    Pid,
    Comm,
    Laddr,
    Lport,
    Raddr,
    Rport,
    TxKb,
    RxKb,
    Ms,
    Role,
    Cause,
    Rtt,
    Retransmits,
    Hit,
    Netns,
    Id,
    Container,
    States,
}

const NARROW: [Column; 13] = [
    Column::Pid,
    Column::Comm,
    Column::Laddr,
    Column::Lport,
    Column::Raddr,
    Column::Rport,
    Column::TxKb,
    Column::RxKb,
    Column::Ms,
    Column::Role,
    Column::Cause,
    Column::Rtt,
    Column::Retransmits,
];

/// What `-w` adds.
const MORE: [Column; 5] = [Column::Hit, Column::Netns, Column::Id, Column::Container, Column::States];

/// In which order columns give way on a narrow terminal; what is not here stays.
const GIVE_WAY: [Column; 14] = [
    Column::States,
    Column::Id,
    Column::Netns,
    Column::Hit,
    Column::Container,
    Column::Retransmits,
    Column::Rtt,
    Column::Laddr,
    Column::Pid,
    Column::Role,
    Column::TxKb,
    Column::RxKb,
    Column::Lport,
    Column::Comm,
];

/// Connections as text.
pub struct Connections {
    options: TextOptions,
    clock: Clock,
    columns: Vec<Column>,
    out: String,
    line: String,
    cell: String,
}

impl Connections {
    /// A list whose times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock, options: TextOptions) -> Self {
        let mut list = Self {
            options,
            clock,
            columns: Vec::new(),
            out: String::new(),
            line: String::new(),
            cell: String::new(),
        };
        list.lay_out();
        if list.options.header {
            list.header();
        }
        list
    }

    fn width(&self, column: Column) -> usize {
        let wide = self.options.wide;
        match column {
            Column::Time if self.options.time == TimeStyle::Clock => 12,
            Column::Laddr | Column::Raddr if wide => 39,
            Column::Laddr | Column::Raddr => 15,
            Column::Comm if wide => 15,
            Column::Cause if self.options.verbose => 29,
            Column::Cause => 18,
            Column::Time | Column::Ms | Column::Id => 8,
            Column::Pid | Column::Rtt => 7,
            Column::Lport | Column::Rport => 5,
            Column::TxKb | Column::RxKb | Column::Role => 6,
            Column::Retransmits => 4,
            Column::Hit => 11,
            Column::Comm | Column::Netns => 10,
            Column::Container => CONTAINER,
            Column::States => 0,
        }
    }

    fn title(&self, column: Column) -> &'static str {
        match column {
            Column::Time if self.options.time == TimeStyle::Clock => "TIME",
            Column::Time => "TIME(s)",
            Column::Pid => "PID",
            Column::Comm => "COMM",
            Column::Laddr => "LADDR",
            Column::Lport => "LPORT",
            Column::Raddr => "RADDR",
            Column::Rport => "RPORT",
            Column::TxKb => "TX_KB",
            Column::RxKb => "RX_KB",
            Column::Ms => "MS",
            Column::Role => "ROLE",
            Column::Cause => "CAUSE",
            Column::Rtt => "RTT_MS",
            Column::Retransmits => "RETR",
            Column::Hit => "IN",
            Column::Netns => "NETNS",
            Column::Id => "ID",
            Column::Container => "CONTAINER",
            Column::States => "MS PER STATE",
        }
    }

    fn lay_out(&mut self) {
        let asked = self.options.time != TimeStyle::SinceStart;
        self.columns = [Column::Time].into_iter().filter(|_| asked).chain(NARROW).collect();
        if self.options.wide {
            self.columns.extend(MORE);
        }
        let Some(room) = self.options.columns.map(usize::from) else { return };
        for column in GIVE_WAY {
            let needed: usize = self.columns.iter().map(|column| self.width(*column) + 1).sum();
            // The times per state need about forty columns more.
            let list = if self.columns.contains(&Column::States) { 40 } else { 0 };
            if needed + list <= room + 1 {
                break;
            }
            self.columns.retain(|kept| *kept != column);
        }
    }

    fn header(&mut self) {
        for index in 0..self.columns.len() {
            let column = self.columns[index];
            self.cell.clear();
            self.cell.push_str(self.title(column));
            self.put(column);
        }
        self.end_line(Style::new().bold());
    }

    /// Puts the cell into the line: numbers to the right of their column.
    fn put(&mut self, column: Column) {
        let width = self.width(column);
        if is_number(column) {
            let columns = width.saturating_sub(self.cell.len());
            pad(&mut self.line, "", columns);
            self.line.push_str(&self.cell);
        } else {
            pad(&mut self.line, &self.cell, width);
        }
        self.line.push(' ');
    }

    fn end_line(&mut self, style: Style) {
        let room = self.options.columns.map_or(usize::MAX, usize::from);
        let line = self.line.trim_end();
        let (end, more) = cut(line, room);
        let shown = &line[..end];
        if self.options.color && style != Style::new() {
            let _ = writeln!(self.out, "{style}{shown}{more}{style:#}");
        } else {
            let _ = writeln!(self.out, "{shown}{more}");
        }
        self.line.clear();
    }

    fn fill(&mut self, column: Column, event: &Event) {
        self.cell.clear();
        let (verbose, comm) = (self.options.verbose, self.width(Column::Comm));
        let room = if self.options.columns.is_some() { self.width(column) } else { usize::MAX };
        let cell = &mut self.cell;
        match column {
            Column::Time if self.options.time == TimeStyle::Clock => {
                time_of_day(cell, self.clock.wall_ns(event.ts_ns));
            }
            Column::Time => seconds(cell, self.clock.since_start_ns(event.ts_ns)),
            Column::Pid => or_dash(cell, event.owner, |cell, owner| number(cell, owner.pid)),
            Column::Comm => or_dash(cell, event.owner, |cell, owner| {
                cell.push_str(first(&owner.comm.text(), comm));
            }),
            Column::Laddr => address(cell, event.laddr(), room),
            Column::Raddr => address(cell, event.raddr(), room),
            Column::Lport => or_dash(cell, Some(event.tuple.lport).filter(|port| *port != 0), number),
            Column::Rport => or_dash(cell, Some(event.tuple.rport).filter(|port| *port != 0), number),
            Column::TxKb => or_dash(cell, event.totals.map(|totals| kilobytes(totals.tx_bytes)), number),
            Column::RxKb => or_dash(cell, event.totals.map(|totals| kilobytes(totals.rx_bytes)), number),
            Column::Ms => {
                let ns = event.history.as_ref().and_then(|history| history.duration_ns);
                or_dash(cell, ns, millis);
            }
            Column::Role => cell.push_str(event.role.map_or("-", Role::name)),
            Column::Cause => match (event.verdict, event.new) {
                (Some(verdict), _) => {
                    cell.push_str(verdict.cause.name());
                    cell.push_str(if verbose && verdict.inferred { " (inferred)" } else { "" });
                }
                // It is open, in this state.
                (None, Some(state)) => ["(", state.name(), ")"].iter().for_each(|part| cell.push_str(part)),
                (None, None) => cell.push('-'),
            },
            Column::Rtt => {
                let srtt_us = event.totals.map(|totals| totals.srtt_us).filter(|srtt_us| *srtt_us > 0);
                or_dash(cell, srtt_us.map(|srtt_us| u64::from(srtt_us) * 1000), millis);
            }
            Column::Retransmits => or_dash(cell, event.totals.map(|totals| totals.retransmits), number),
            Column::Hit => cell.push_str(event.prev_state.map_or("-", State::name)),
            Column::Netns => number(cell, event.tuple.netns),
            Column::Id => or_dash(cell, event.id, |cell, id| hex(cell, id.0)),
            Column::Container => container(cell, event),
            Column::States => {
                for (state, ns) in event.history.iter().flat_map(|history| history.times()) {
                    cell.push_str(state.name());
                    cell.push(' ');
                    millis(cell, ns);
                    cell.push(' ');
                }
            }
        }
    }
}

impl View for Connections {
    fn event(&mut self, event: &Event) {
        for index in 0..self.columns.len() {
            let column = self.columns[index];
            self.fill(column, event);
            self.put(column);
        }
        self.end_line(style(event));
    }

    fn lost(&mut self, _ts_ns: u64, lost: &Loss) {
        let _ = match (lost.total(), lost.gaps) {
            (0, 0) => write!(self.line, "LOST: {} sockets are beyond --max-sockets", lost.beyond),
            (0, gaps) => write!(self.line, "LOST: {gaps} connections ended unseen; how is unknown"),
            (lost, _) => {
                write!(self.line, "LOST {lost}: records of connections are missing; see tcptrace trace")
            }
        };
        self.end_line(AnsiColor::Red.on_default().bold());
    }

    /// Said on stderr.
    fn summary(&mut self, _summary: &Summary) {}

    fn resize(&mut self, columns: u16) {
        if self.options.columns.is_some_and(|before| before != columns) {
            self.options.columns = Some(columns);
            self.lay_out();
        }
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.out.as_bytes());
        self.out.clear();
    }
}

fn is_number(column: Column) -> bool {
    matches!(column, Column::TxKb | Column::RxKb | Column::Ms | Column::Rtt | Column::Retransmits)
}

/// Units of 1024 bytes, rounded up: what carried payload never shows as 0.
fn kilobytes(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}

fn style(event: &Event) -> Style {
    match (event.verdict.map(|verdict| verdict.cause), event.new) {
        (Some(Cause::LocalFin | Cause::PeerFin | Cause::SimultaneousClose), _) => Style::new(),
        (Some(Cause::Unknown), _) | (None, Some(State::CLOSE_WAIT)) => AnsiColor::Yellow.on_default(),
        (Some(_), _) => AnsiColor::Red.on_default(),
        (None, _) => AnsiColor::Green.on_default(),
    }
}
