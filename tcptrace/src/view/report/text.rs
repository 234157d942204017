//! Reports for people.

use std::fmt::Write as _;

use super::{
    COLUMNS, Cgroups, Page, Report, Resets, ip,
    rows::{explanation, sorted},
    table::{Column, cut, lay_out},
};
use crate::{
    kernel::clock::Clock,
    model::{
        event::{Owner, printable},
        loss::Loss,
        state::State,
        tally::{By, Distribution, Key, Matrix, Reconciled, Reset, Table, Times},
    },
    view::{Summary, cell},
};

/// The columns of the bars of a distribution.
const BAR: u64 = 40;

/// How text looks.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    /// Columns of the terminal; `None` where there is none.
    pub columns: Option<u16>,
    /// All columns, whatever the room.
    pub wide: bool,
    /// Bold headings.
    pub color: bool,
    /// Names above the columns.
    pub header: bool,
    /// A line with the time above each page, because several come.
    pub repeated: bool,
}

/// Pages as text.
pub struct Text {
    clock: Clock,
    options: Options,
    cgroups: Cgroups,
    pages: u64,
    out: String,
}

impl Text {
    /// Times are those of the clock.
    #[must_use]
    pub fn new(clock: Clock, options: Options, cgroups: Cgroups) -> Self {
        Self { clock, options, cgroups, pages: 0, out: String::new() }
    }

    fn room(&self) -> Option<usize> {
        self.options.columns.filter(|_| !self.options.wide).map(usize::from)
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn bold(&mut self, line: &str) {
        if self.options.color && !line.is_empty() {
            let bold = anstyle::Style::new().bold();
            let _ = writeln!(self.out, "{bold}{line}{bold:#}");
        } else {
            self.line(line);
        }
    }

    fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) {
        let header = self.options.header;
        let lines = lay_out(columns, rows, self.room(), header);
        for (index, line) in lines.iter().enumerate() {
            if header && index == 0 {
                self.bold(line);
            } else {
                self.line(line);
            }
        }
    }

    /// The line above a page that is one of several.
    fn heading(&mut self, at_ns: u64, interval_ns: u64) {
        if self.pages > 0 {
            self.line("");
        }
        self.pages += 1;
        if !self.options.repeated {
            return;
        }
        let mut line = String::new();
        cell::time_of_day(&mut line, self.clock.wall_ns(at_ns));
        if interval_ns > 0 && self.pages > 1 {
            let _ = write!(line, "  the last {}", duration(interval_ns));
        }
        self.line(&line);
    }

    fn ports(&mut self, table: &Table) {
        self.heading(table.at_ns, table.interval_ns);
        let total = table.rows.len() + table.other.iter().len() > 1;
        let Self { cgroups, .. } = self;
        let (columns, rows) = ports(table, total, &mut |key| label(key, cgroups));
        if rows.is_empty() {
            self.line("no socket, and nothing happened");
        } else {
            self.table(&columns, &rows);
        }
    }

    fn key(&mut self, key: &Key) -> String {
        label(key, &mut self.cgroups)
    }

    fn times(&mut self, times: &Times, table: &Table) {
        self.heading(table.at_ns, table.interval_ns);
        let all = sorted(times, table);
        if all.is_empty() {
            self.line("no connection left a state whose beginning was seen");
        }
        for (index, (key, state, of, distribution)) in all.into_iter().enumerate() {
            if index > 0 {
                self.line("");
            }
            let mut heading = match key {
                Key::Server { .. } => format!("port {}", self.key(key)),
                Key::Other => "all others".to_owned(),
                _ => self.key(key),
            };
            if let Some(owner) = of.filter(|_| !matches!(key, Key::Comm(_))) {
                let _ = write!(heading, " {}", owner.comm);
            }
            let _ = write!(
                heading,
                " {state}: count {}, mean {}, p50 {}, p90 {}, p99 {}, max {}",
                distribution.count(),
                micros(distribution.mean_us()),
                micros(whole(distribution.percentile_us(50.0))),
                micros(whole(distribution.percentile_us(90.0))),
                micros(whole(distribution.percentile_us(99.0))),
                micros(whole(distribution.max_us())),
            );
            self.paragraph(&heading);
            self.bars(distribution);
        }
    }

    /// As bcc's print_log2_hist() does.
    fn bars(&mut self, distribution: &Distribution) {
        let powers: Vec<_> = distribution.powers().collect();
        let most = powers.iter().map(|(.., count)| *count).max().unwrap_or(0).max(1);
        let line = format!("{:>15} {:<11} : {:<8} {}", "usecs", "", "count", "distribution");
        self.line(&cut(line, self.room()));
        for (from, to, count) in powers {
            let stars = usize::try_from(count * BAR / most).unwrap_or(0);
            let bar = "*".repeat(stars);
            let line = format!("{from:>12} -> {to:<10} : {count:<8} |{bar:<40}|");
            self.line(&cut(line, self.room()));
        }
    }

    fn matrix(&mut self, matrix: &Matrix, table: &Table) {
        self.heading(table.at_ns, table.interval_ns);
        if matrix.iter().flatten().all(|count| *count == 0) {
            self.line("no transition");
            return;
        }
        let has = |old: State, new: State| counted(matrix, old, new) > 0;
        let left: Vec<State> = order().filter(|old| State::all().any(|new| has(*old, new))).collect();
        let entered: Vec<State> = order().filter(|new| State::all().any(|old| has(old, *new))).collect();
        let mut columns = vec![Column { names: ("FROM \\ TO", "FROM\\TO"), right: false, gives_way: 0 }];
        columns.extend(entered.iter().map(|state| Column {
            names: (state.name(), short(*state)),
            right: true,
            gives_way: 0,
        }));
        columns.push(Column { names: ("SUM", "SUM"), right: true, gives_way: 0 });
        let cell = |count: u64| if count == 0 { ".".to_owned() } else { count.to_string() };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for old in &left {
            let counts: Vec<u64> = entered.iter().map(|new| counted(matrix, *old, *new)).collect();
            let mut cells = vec![old.name().to_owned()];
            cells.extend(counts.iter().map(|count| cell(*count)));
            cells.push(counts.iter().sum::<u64>().to_string());
            rows.push(cells);
        }
        let sum = |new: &State| left.iter().map(|old| counted(matrix, *old, *new)).sum::<u64>();
        let sums: Vec<u64> = entered.iter().map(sum).collect();
        let mut cells = vec!["sum".to_owned()];
        cells.extend(sums.iter().map(ToString::to_string));
        cells.push(sums.iter().sum::<u64>().to_string());
        rows.push(cells);
        let lines = lay_out(&columns, &rows, None, true);
        let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        if self.room().is_none_or(|room| widest <= room) {
            self.table(&columns, &rows);
        } else {
            self.transitions(matrix);
        }
    }

    /// The matrix where there is no room for it: a line for each transition, most frequent first.
    fn transitions(&mut self, matrix: &Matrix) {
        let pairs = order().flat_map(|old| order().map(move |new| (old, new)));
        let mut counts: Vec<_> = pairs.map(|(old, new)| (counted(matrix, old, new), old, new)).collect();
        counts.retain(|(count, ..)| *count > 0);
        counts.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        let columns = ["FROM", "TO", "COUNT"];
        let columns =
            columns.map(|name| Column { names: (name, name), right: name == "COUNT", gives_way: 0 });
        let rows: Vec<_> = counts
            .iter()
            .map(|(count, old, new)| vec![old.to_string(), new.to_string(), count.to_string()])
            .collect();
        self.table(&columns, &rows);
    }

    fn resets(&mut self, resets: &Resets) {
        self.heading(resets.at_ns, resets.interval_ns);
        let (columns, rows) = ledger(resets, self.clock);
        if rows.is_empty() {
            self.line("no RST");
        } else {
            self.table(&columns, &rows);
        }
        if resets.left_out > 0 {
            self.paragraph(&format!("{} more RSTs, in rows that are not shown (--top)", resets.left_out));
        }
        self.meanings(resets);
        self.reconciliation(resets);
    }

    /// A sentence for every reason that was seen.
    fn meanings(&mut self, resets: &Resets) {
        let mut told: Vec<&str> = Vec::new();
        for row in &resets.rows {
            let meaning = explanation(row);
            if told.contains(&meaning) {
                continue;
            }
            if told.is_empty() {
                self.line("");
            }
            told.push(meaning);
            let name = match (&row.key.reason, row.key.prev_state) {
                (Some(reason), _) => reason.to_string(),
                (None, Some(state)) => {
                    format!("{} in {state}", if row.key.sent { "sent" } else { "received" })
                }
                (None, None) => "sent".to_owned(),
            };
            self.paragraph(&format!("{name}: {meaning}"));
        }
    }

    fn reconciliation(&mut self, resets: &Resets) {
        self.line("");
        let Some(all) = &resets.reconciled else {
            self.paragraph("The kernel's own counters are not compared: they know no filter.");
            return;
        };
        let several = all.len() > 1;
        let silent = |compared: &Reconciled| {
            compared.out_rsts == 0 && compared.sent == 0 && compared.estab_resets == 0 && compared.reset == 0
        };
        for compared in all.iter().filter(|compared| !several || !silent(compared)) {
            let Reconciled { netns, out_rsts, sent, estab_resets, reset } = compared;
            let place = if several { format!(" of network namespace {netns}") } else { String::new() };
            self.paragraph(&format!(
                "The kernel's counters{place}: {out_rsts} RSTs sent (TcpOutRsts), {sent} of them seen; {estab_resets} connections that went from ESTABLISHED or CLOSE_WAIT straight to CLOSE (TcpEstabResets), {reset} of them seen."
            ));
            let missed = out_rsts.saturating_sub(*sent);
            if missed > 0 && !resets.reasons {
                self.paragraph(&format!(
                    "{missed} not seen: before 6.10 the kernel does not report RSTs that belong to no socket."
                ));
            } else if missed > 0 {
                self.paragraph(&format!(
                    "{missed} not seen: lost records are counted at the end; the others were counted where no probe is."
                ));
            }
        }
    }

    /// Text in lines that fit the terminal.
    fn paragraph(&mut self, text: &str) {
        let room = self.room().unwrap_or(usize::MAX).max(20);
        let mut line = String::new();
        for word in text.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                let full = std::mem::replace(&mut line, "  ".to_owned());
                self.line(&full);
            } else if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&line);
    }
}

impl Report for Text {
    fn page(&mut self, page: &Page<'_>) {
        match page {
            Page::Ports(table) => self.ports(table),
            Page::Times(times, table) => self.times(times, table),
            Page::Matrix(matrix, table) => self.matrix(matrix, table),
            Page::Resets(resets) => self.resets(resets),
        }
    }

    fn lost(&mut self, _ts_ns: u64, lost: &Loss) {
        let line = match (lost.total(), lost.gaps) {
            (0, 0) => format!("LOST: {} sockets are beyond --max-sockets, and not counted", lost.beyond),
            (0, gaps) => format!("LOST: {gaps} connections ended unseen; they are counted no more"),
            (lost, _) => format!("LOST {lost} events here: the counts of what happened are too low by that"),
        };
        self.line(&line);
    }

    fn summary(&mut self, _summary: &Summary) {}

    fn resize(&mut self, columns: u16) {
        self.options.columns = Some(columns);
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut std::mem::take(&mut self.out).into_bytes());
    }
}

/// The table of `hist`: its columns, and the cells of each row, with the sum of all if it is wanted.
pub(in crate::view) fn ports(
    table: &Table,
    total: bool,
    name: &mut dyn FnMut(&Key) -> String,
) -> (Vec<Column>, Vec<Vec<String>>) {
    let several = several_namespaces(table.rows.iter().map(|row| &row.key));
    let begun = table.interval_ns > 0;
    let mut columns = vec![Column { names: key_names(table.by), right: false, gives_way: 0 }];
    if several {
        columns.push(Column { names: ("NETNS", "NETNS"), right: true, gives_way: 10 });
    }
    for state in COLUMNS {
        let empty = table.total.in_state(state) == 0;
        columns.push(Column {
            names: (state.name(), short(state)),
            right: true,
            gives_way: if empty { 1 } else { rank(state) },
        });
    }
    for (names, gives_way) in [
        (("OPENED/s", "OPEN/s"), 7),
        (("CLOSED/s", "CLOS/s"), 4),
        (("RST/s", "RST/s"), 8),
        (("CLOSE_WAIT+/s", "CW+/s"), 6),
        (("OLDEST_CLOSE_WAIT", "CW_AGE"), 9),
    ] {
        columns.push(Column { names, right: true, gives_way });
    }
    columns.push(Column { names: ("OWNER", "OWNER"), right: false, gives_way: 0 });

    let total = Some(&table.total).filter(|_| total);
    let mut rows = Vec::new();
    for row in table.rows.iter().chain(&table.other).chain(total) {
        let is_total = std::ptr::eq(row, &raw const table.total);
        let name = if is_total { "total".to_owned() } else { name(&row.key) };
        let mut cells = vec![name];
        if several {
            cells.push(row.key.netns().map_or_else(|| "-".to_owned(), |netns| netns.to_string()));
        }
        cells.extend(COLUMNS.iter().map(|state| row.in_state(*state).to_string()));
        let rate = |count: u64| if begun { rate(count, table.interval_ns) } else { "-".to_owned() };
        let growth = match row.close_wait_growth {
            growth if growth < 0 => format!("-{}", rate(growth.unsigned_abs())),
            growth => rate(growth.unsigned_abs()),
        };
        cells.extend([
            rate(row.opened),
            rate(row.closed),
            rate(row.rst),
            if begun { growth } else { "-".to_owned() },
            row.oldest_close_wait_ns.map_or_else(|| "-".to_owned(), duration),
            if is_total { String::new() } else { owner(row.owner, row.owners) },
        ]);
        rows.push(cells);
    }
    (columns, rows)
}

/// What a row is called.
pub(in crate::view) fn label(key: &Key, cgroups: &mut Cgroups) -> String {
    let port = |port: Option<u16>| port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    match *key {
        Key::Server { port: at, .. } => port(at),
        Key::Client { port: to, .. } => format!("to {}", port(to)),
        Key::Pid(pid) => or_dash(pid.map(|pid| pid.to_string())),
        Key::Comm(comm) => or_dash(comm.map(|comm| comm.to_string())),
        Key::Container(id) => match cgroups(id) {
            Some(path) => printable(path.name()).into_owned(),
            None if id == 0 => "-".to_owned(),
            None => id.to_string(),
        },
        Key::Cgroup(id) => match cgroups(id) {
            Some(path) => printable(&path).into_owned(),
            None if id == 0 => "-".to_owned(),
            None => id.to_string(),
        },
        Key::Netns(netns) => netns.to_string(),
        Key::Raddr(addr) => ip(addr).to_string(),
        Key::Cause(cause) => or_dash(cause.map(|cause| cause.name().to_owned())),
        Key::Other => "other".to_owned(),
    }
}

/// The table of `rst`: its columns, and the cells of each row.
pub(in crate::view) fn ledger(resets: &Resets, clock: Clock) -> (Vec<Column>, Vec<Vec<String>>) {
    let several = several_namespaces_of(resets.rows.iter().map(|row| row.key.netns));
    let begun = resets.interval_ns > 0;
    let fixed = |names, right| Column { names, right, gives_way: 0 };
    let mut columns = vec![
        fixed(("COUNT", "COUNT"), true),
        Column { names: ("RATE/s", "RATE/s"), right: true, gives_way: 2 },
        Column { names: ("LAST", "LAST"), right: false, gives_way: 1 },
        fixed(("DIR", "DIR"), false),
        fixed(("REASON", "REASON"), false),
        fixed(("STATE", "STATE"), false),
        fixed(("PORT", "PORT"), false),
        fixed(("PEER", "PEER"), false),
    ];
    if several {
        columns.push(Column { names: ("NETNS", "NETNS"), right: true, gives_way: 3 });
    }
    columns.push(Column { names: ("OWNER", "OWNER"), right: false, gives_way: 4 });
    let dash = || "-".to_owned();
    let mut rows = Vec::new();
    for row in &resets.rows {
        let Reset { key, owner, count, recent, last_ns } = row;
        let mut last = String::new();
        cell::time_of_day(&mut last, clock.wall_ns(*last_ns));
        let port = match (key.lport, key.rport) {
            (Some(lport), _) => lport.to_string(),
            (None, Some(rport)) => format!("to {rport}"),
            (None, None) => dash(),
        };
        let mut cells = vec![
            count.to_string(),
            if begun { rate(*recent, resets.interval_ns) } else { dash() },
            last,
            if key.sent { "sent" } else { "received" }.to_owned(),
            key.reason.as_ref().map_or_else(dash, ToString::to_string),
            key.prev_state.map_or_else(dash, |state| state.to_string()),
            port,
            key.raddr.map_or_else(|| "several".to_owned(), |addr| ip(addr).to_string()),
        ];
        if several {
            cells.push(key.netns.to_string());
        }
        cells.push(self::owner(*owner, 1));
        rows.push(cells);
    }
    (columns, rows)
}

/// How often a state followed another.
pub(super) fn counted(matrix: &Matrix, old: State, new: State) -> u64 {
    let row = matrix.get(usize::from(old.number()));
    row.and_then(|row| row.get(usize::from(new.number()))).copied().unwrap_or(0)
}

/// The states in the order of the matrix: from nothing through a life to nothing.
fn order() -> impl Iterator<Item = State> {
    [State::CLOSE, State::LISTEN].into_iter().chain(State::LIFE).chain([State::NEW_SYN_RECV])
}

/// A state's name in six characters at most.
#[must_use]
pub fn short(state: State) -> &'static str {
    match state {
        State::LISTEN => "LSTN",
        State::SYN_SENT => "SYNS",
        State::SYN_RECV => "SYNR",
        State::ESTABLISHED => "ESTAB",
        State::FIN_WAIT1 => "FINW1",
        State::FIN_WAIT2 => "FINW2",
        State::TIME_WAIT => "TIMEW",
        State::CLOSE_WAIT => "CLOSEW",
        State::LAST_ACK => "LACK",
        State::CLOSING => "CLSNG",
        State::CLOSE => "CLOSE",
        _ => "NEWSYN",
    }
}

/// Which state's column gives way when there is no room for all, although there are sockets in it: those that last the
/// shortest first.
fn rank(state: State) -> u8 {
    match state {
        State::CLOSING => 2,
        State::LAST_ACK | State::FIN_WAIT1 => 3,
        State::LISTEN => 5,
        State::SYN_SENT | State::SYN_RECV | State::FIN_WAIT2 => 11,
        _ => 0,
    }
}

fn key_names(by: By) -> (&'static str, &'static str) {
    let name = match by {
        By::Port => "PORT",
        By::Pid => "PID",
        By::Comm => "COMM",
        By::Cgroup => "CGROUP",
        By::Container => "CONTAINER",
        By::Netns => "NETNS",
        By::Raddr => "PEER",
        By::Cause => "CAUSE",
    };
    (name, name)
}

fn several_namespaces<'a>(keys: impl Iterator<Item = &'a Key>) -> bool {
    let ports = keys.filter(|key| !matches!(key, Key::Netns(_)));
    several_namespaces_of(ports.filter_map(Key::netns))
}

fn several_namespaces_of(mut namespaces: impl Iterator<Item = u32>) -> bool {
    let first = namespaces.next();
    namespaces.any(|netns| Some(netns) != first)
}

/// The owner, and how many more there are.
#[must_use]
pub fn owner(owner: Option<Owner>, owners: usize) -> String {
    let Some(owner) = owner else { return "-".to_owned() };
    let more = if owners > 1 { format!(" +{}", owners - 1) } else { String::new() };
    format!("{}/{}{more}", owner.comm, owner.pid)
}

/// Events per second, with a decimal where they are few.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown to two digits")]
pub fn rate(count: u64, interval_ns: u64) -> String {
    let rate = count as f64 * 1e9 / interval_ns.max(1) as f64;
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 0.05 => "<0.1".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A time as people say it, in two units at most.
#[must_use]
pub fn duration(ns: u64) -> String {
    let tenths = ns / 100_000_000;
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..10 => format!("{}.{}s", tenths / 10, tenths % 10),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to three digits")]
fn whole(us: u64) -> f64 {
    us as f64
}

/// A time in µs, ms or s, to three digits.
fn micros(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1e3 => (us, "us"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    match value {
        value if value < 9.995 => format!("{value:.2} {unit}"),
        value if value < 99.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}
