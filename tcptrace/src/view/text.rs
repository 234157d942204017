//! The stream for people: a line per event, in columns.
//!
//! A line is never wrapped. On a terminal too narrow for all columns, they give way in the order of
//! [`GIVE_WAY`]; then the line is cut. A file or a pipe gets every column.

use std::{fmt::Write as _, ops::Range};

use anstyle::{AnsiColor, Style};
use tcptrace_common::record::Kind as RecordKind;

use super::{
    Summary, View,
    cell::{CONTAINER, address, container, cut, first, millis, or_dash, pad, seconds, time_of_day},
    digits::{hex, number},
};
use crate::{
    kernel::clock::Clock,
    model::{
        event::{Event, Kind, OwnerSource, Role},
        loss::Loss,
        state::State,
    },
};

/// What stands in the TIME column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeStyle {
    /// Seconds since the start; gives way early.
    #[default]
    SinceStart,
    /// Seconds since the start, asked for.
    SinceStartKept,
    /// HH:MM:SS.mmm, local time, asked for.
    Clock,
}

/// How the text is to look.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the user's")]
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// More and wider columns.
    pub wide: bool,
    /// What stands in the TIME column.
    pub time: TimeStyle,
    /// ANSI colours.
    pub color: bool,
    /// Say more in a line.
    pub verbose: bool,
    /// A header, at once: it shows that the tool is at work.
    pub header: bool,
    /// Columns of the terminal; `None`: no limit.
    pub columns: Option<u16>,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Time,
    Pid,
    Comm,
    Local,
    Remote,
    /// `OLD -> NEW`, or what happened instead.
    What,
    Ms,
    Netns,
    Role,
    Id,
    Container,
    Note,
}

/// In which order columns give way on a narrow terminal. Local gives its address away and keeps the port.
const GIVE_WAY: [Column; 11] = [
    Column::Note,
    Column::Local,
    Column::Time,
    Column::Pid,
    Column::Id,
    Column::Netns,
    Column::Role,
    Column::Container,
    Column::Comm,
    // Cut to its first digits a time would be another.
    Column::Ms,
    Column::Remote,
];

const NARROW: [Column; 8] = [
    Column::Time,
    Column::Pid,
    Column::Comm,
    Column::Local,
    Column::Remote,
    Column::What,
    Column::Ms,
    Column::Note,
];
const WIDE: [Column; 12] = [
    Column::Time,
    Column::Pid,
    Column::Comm,
    Column::Local,
    Column::Remote,
    Column::What,
    Column::Ms,
    Column::Role,
    Column::Netns,
    Column::Id,
    Column::Container,
    Column::Note,
];

/// The stream as text.
pub struct Text {
    options: TextOptions,
    clock: Clock,
    columns: Vec<Column>,
    /// Whether only the port of the local end is shown.
    local_port_only: bool,
    out: String,
    /// The line that is being written.
    line: String,
    /// The cell that is being written.
    cell: String,
}

impl Text {
    /// A stream whose times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock, options: TextOptions) -> Self {
        let mut text = Self {
            options,
            clock,
            columns: Vec::new(),
            local_port_only: false,
            out: String::new(),
            line: String::new(),
            cell: String::new(),
        };
        text.lay_out();
        if text.options.header {
            text.header();
        }
        text
    }

    fn width(&self, column: Column) -> usize {
        let wide = self.options.wide;
        match column {
            Column::Time if self.options.time == TimeStyle::Clock => 12,
            Column::Time | Column::Ms | Column::Role | Column::Id => 8,
            Column::Pid => 7,
            Column::Comm if wide => 15,
            Column::Comm => 12,
            Column::Local if self.local_port_only => 6,
            Column::Local | Column::Remote if wide => 47,
            Column::Local | Column::Remote => 21,
            // A RST with the longest reason and state.
            Column::What if wide => 51,
            Column::What => 27,
            Column::Netns => 10,
            Column::Container => CONTAINER,
            Column::Note => 0,
        }
    }

    fn title(&self, column: Column) -> &'static str {
        match column {
            Column::Time if self.options.time == TimeStyle::Clock => "TIME",
            Column::Time => "TIME(s)",
            Column::Pid => "PID",
            Column::Comm => "COMM",
            Column::Local if self.local_port_only => "LPORT",
            Column::Local => "LADDR:LPORT",
            Column::Remote => "RADDR:RPORT",
            Column::What => "OLD         -> NEW",
            Column::Ms => "MS",
            Column::Netns => "NETNS",
            Column::Role => "ROLE",
            Column::Id => "ID",
            Column::Container => "CONTAINER",
            Column::Note => "CAUSE",
        }
    }

    /// Chooses the columns that fit.
    fn lay_out(&mut self) {
        self.columns = if self.options.wide { WIDE.to_vec() } else { NARROW.to_vec() };
        self.local_port_only = false;
        let Some(room) = self.options.columns.map(usize::from) else { return };
        let kept = self.options.time != TimeStyle::SinceStart;
        let mut order: Vec<Column> =
            GIVE_WAY.into_iter().filter(|column| !kept || *column != Column::Time).collect();
        if kept {
            order.push(Column::Time);
        }
        for column in order {
            let needed: usize = self.columns.iter().map(|column| self.width(*column) + 1).sum();
            if needed <= room + 1 {
                break;
            }
            match column {
                Column::Local => self.local_port_only = true,
                _ => self.columns.retain(|kept| *kept != column),
            }
        }
    }

    fn header(&mut self) {
        for index in 0..self.columns.len() {
            let column = self.columns[index];
            let (title, width) = (self.title(column), self.width(column));
            let _ = write!(self.line, "{title:<width$} ");
        }
        self.end_line(0..usize::MAX, Style::new().bold());
    }

    /// Cuts the line in `self.line` at the terminal's edge, paints the given part of it, and writes it.
    fn end_line(&mut self, part: Range<usize>, style: Style) {
        let line = self.line.trim_end();
        let room = self.options.columns.map_or(usize::MAX, usize::from);
        let (end, more) = cut(line, room);
        let part = part.start.min(end)..part.end.min(end);
        let (before, painted, after) =
            (&line[..part.start], &line[part.start..part.end], &line[part.end..end]);
        if self.options.color && style != Style::new() && !painted.is_empty() {
            let _ = writeln!(self.out, "{before}{style}{painted}{style:#}{after}{more}");
        } else {
            for text in [before, painted, after, more, "\n"] {
                self.out.push_str(text);
            }
        }
        self.line.clear();
    }

    fn fill(&mut self, column: Column, event: &Event) {
        self.cell.clear();
        let room = if self.options.columns.is_some() { self.width(column) } else { usize::MAX };
        let cell = &mut self.cell;
        match column {
            Column::Time if self.options.time == TimeStyle::Clock => {
                time_of_day(cell, self.clock.wall_ns(event.ts_ns));
            }
            Column::Time => seconds(cell, self.clock.since_start_ns(event.ts_ns)),
            Column::Pid => or_dash(cell, event.owner, |cell, owner| number(cell, owner.pid)),
            Column::Comm => or_dash(cell, event.owner, |cell, owner| {
                cell.push_str(first(&owner.comm.text(), self.options.comm_width()));
            }),
            Column::Local if self.local_port_only => match event.tuple.lport {
                0 => cell.push('-'),
                port => {
                    cell.push(':');
                    number(cell, port);
                }
            },
            Column::Local => end(cell, event.laddr(), event.tuple.lport, room),
            Column::Remote if event.tuple.rport == 0 => cell.push('-'),
            Column::Remote => end(cell, event.raddr(), event.tuple.rport, room),
            Column::What => what(cell, event),
            Column::Ms => match event.in_state_ns {
                Some(ns) => millis(cell, ns),
                None if event.kind == Kind::Transition => cell.push('-'),
                None => {}
            },
            Column::Netns => number(cell, event.tuple.netns),
            Column::Role => cell.push_str(event.role.map_or("-", Role::name)),
            Column::Id => or_dash(cell, event.id, |cell, id| hex(cell, id.0)),
            Column::Container => container(cell, event),
            Column::Note => note(cell, event),
        }
    }
}

impl TextOptions {
    fn comm_width(&self) -> usize {
        if self.wide { 15 } else { 12 }
    }
}

impl View for Text {
    fn event(&mut self, event: &Event) {
        let mut painted = 0..0;
        for index in 0..self.columns.len() {
            let column = self.columns[index];
            self.fill(column, event);
            let (start, width) = (self.line.len(), self.width(column));
            if let (Column::Note, Some(room)) = (column, self.options.columns)
                && self.line.chars().count() + self.cell.chars().count() > usize::from(room)
            {
                break;
            }
            pad(&mut self.line, &self.cell, width);
            self.line.push(' ');
            if column == Column::What {
                painted = start..self.line.len();
            }
        }
        self.end_line(painted, style(event));
    }

    fn lost(&mut self, _ts_ns: u64, lost: &Loss) {
        let of = |kinds: &[RecordKind]| -> u64 {
            kinds.iter().filter_map(|kind| lost.full.get(usize::from(kind.0))).sum()
        };
        let causes = [
            (of(&[RecordKind::TRANSITION, RecordKind::CLOSE]), "transitions found the ring full"),
            (of(&[RecordKind::RST_SENT, RecordKind::RST_RECEIVED]), "RSTs found the ring full"),
            (of(&[RecordKind::RETRANSMIT, RecordKind::RETRANSMIT_SYNACK]), "retransmits found the ring full"),
            (lost.skipped, "skipped by the kernel"),
            (lost.unreadable, "unreadable"),
            (lost.gaps, "connections ended unseen"),
            (lost.beyond, "sockets beyond --max-sockets"),
        ];
        let _ = write!(self.line, "LOST {}:", lost.total());
        let mut comma = "";
        for (count, cause) in causes.iter().filter(|(count, _)| *count > 0) {
            let _ = write!(self.line, "{comma} {count} {cause}");
            comma = ",";
        }
        if lost.full.iter().any(|count| *count > 0) {
            self.line.push_str("; --buffer makes it larger");
        }
        self.end_line(0..usize::MAX, AnsiColor::Red.on_default().bold());
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

/// `10.0.0.5:443`, `[2001:db8::1]:443`. An address too long for its column loses its middle.
fn end(cell: &mut String, ip: std::net::IpAddr, port: u16, room: usize) {
    let mut buffer = itoa::Buffer::new();
    let port = if port == 0 { "-" } else { buffer.format(port) };
    let (open, close) = if ip.is_ipv6() { ("[", "]:") } else { ("", ":") };
    cell.push_str(open);
    address(cell, ip, room.saturating_sub(open.len() + close.len() + port.len()));
    cell.push_str(close);
    cell.push_str(port);
}

fn what(cell: &mut String, event: &Event) {
    let state = |state: Option<State>| state.map_or("-", State::name);
    match event.kind {
        Kind::Transition => {
            pad(cell, state(event.old), 11);
            cell.push_str(" -> ");
            cell.push_str(state(event.new));
        }
        Kind::RstSent | Kind::RstReceived => {
            pad(cell, if event.kind == Kind::RstSent { "RST >" } else { "RST <" }, 12);
            if let Some(reason) = &event.reason {
                cell.push_str(reason);
                cell.push(' ');
            }
            if let Some(state) = event.prev_state {
                cell.push_str("in ");
                cell.push_str(state.name());
            }
        }
        Kind::Retransmit => {
            cell.push_str("RETRANSMIT  ");
            if let Some(count) = event.retransmits {
                cell.push_str("SYN-ACK #");
                number(cell, count);
            } else {
                cell.push_str("in ");
                cell.push_str(state(event.prev_state));
            }
        }
        // Another view's.
        Kind::Connection => {}
    }
}

fn note(cell: &mut String, event: &Event) {
    if let Some(verdict) = event.verdict {
        cell.push_str(verdict.cause.name());
        cell.push_str(if verdict.inferred { "?" } else { "" });
    } else if event.kernel_new.is_some() && event.new == Some(State::FIN_WAIT2) {
        cell.push_str("orphan, waits for the peer's FIN");
    } else if event.owner.is_some_and(|owner| owner.source == OwnerSource::Listener)
        && event.kind == Kind::RstSent
        && event.unaccepted
    {
        cell.push_str("never accepted");
    }
}

fn style(event: &Event) -> Style {
    match (event.kind, event.new) {
        (Kind::RstSent | Kind::RstReceived, _) => AnsiColor::Red.on_default(),
        (Kind::Retransmit, _) | (_, Some(State::CLOSE_WAIT)) => AnsiColor::Yellow.on_default(),
        (_, Some(State::ESTABLISHED)) => AnsiColor::Green.on_default(),
        (_, Some(State::LISTEN)) => AnsiColor::Cyan.on_default(),
        _ => Style::new(),
    }
}
