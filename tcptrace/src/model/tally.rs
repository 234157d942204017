//! Counts of what is there and of what happens: the one model behind `hist`, `rst` and `top`.
//!
//! Sockets are counted anew for every table, by going through those that the tracker knows, so a count cannot drift;
//! only what happens is counted as it comes.

use std::{cmp::Reverse, ops::RangeInclusive};

use rustc_hash::{FxHashMap, FxHashSet};
use tcptrace_common::record::Tuple;

use self::key::Facts;
use super::{
    event::{Event, Id, Kind, Owner, Role},
    found::Survey,
    socket::Socket,
    state::State,
};

mod key;
pub mod ledger;
pub mod meter;
mod small;
pub mod times;

pub use key::{By, Key, Ports, Service};
pub use ledger::{Ledger, Reconciled, Reset, ResetKey};
pub use small::Small;
pub use times::{Distribution, Times};

/// Rows kept at most; what has none is counted in [`Key::Other`].
const ROWS: usize = 4096;
/// Processes of a row that are told apart.
const OWNERS: usize = 64;

/// Counts what happens.
#[derive(Debug)]
pub struct Tally {
    by: By,
    ports: Ports,
    small: Small,
    /// What happened since the last table, by row.
    happened: FxHashMap<Key, Happened>,
    /// When the last table was made; `None` before the first.
    since_ns: Option<u64>,
    /// Transitions, by the numbers of the states left and entered.
    matrix: Matrix,
    /// Time spent in states; only kept where it is asked for.
    times: Option<Times>,
    /// RSTs.
    pub ledger: Ledger,
}

/// Transitions counted, by the numbers of the states left and entered.
pub type Matrix = [[u64; State::COUNT]; State::COUNT];

/// What happened in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Happened {
    opened: u64,
    closed: u64,
    rst: u64,
    /// How many sockets were in CLOSE_WAIT in the last table.
    close_wait: u64,
    owner: Option<Owner>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it stands for.
    pub key: Key,
    /// Sockets by the number of their state.
    pub sockets: [u64; State::COUNT],
    /// Connections opened since the last table.
    pub opened: u64,
    /// Connections ended since the last table; one in TIME_WAIT has ended.
    pub closed: u64,
    /// RSTs sent and received since the last table.
    pub rst: u64,
    /// How many more sockets are in CLOSE_WAIT than in the last table.
    pub close_wait_growth: i64,
    /// How long the one that has been there longest is in CLOSE_WAIT, in ns; at least, if it was there before.
    pub oldest_close_wait_ns: Option<u64>,
    /// Whose the sockets are: the listener's owner, or that of most.
    pub owner: Option<Owner>,
    /// How many processes the sockets belong to.
    pub owners: usize,
}

impl Row {
    fn new(key: Key) -> Self {
        Self {
            key,
            sockets: [0; State::COUNT],
            opened: 0,
            closed: 0,
            rst: 0,
            close_wait_growth: 0,
            oldest_close_wait_ns: None,
            owner: None,
            owners: 0,
        }
    }

    /// Sockets in a state.
    #[must_use]
    pub fn in_state(&self, state: State) -> u64 {
        self.sockets.get(usize::from(state.number())).copied().unwrap_or(0)
    }

    /// Sockets in any state.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sockets.iter().sum()
    }

    /// Whether there is nothing and nothing has happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total() + self.opened + self.closed + self.rst == 0 && self.close_wait_growth == 0
    }

    /// Adds another row's counts.
    fn add(&mut self, other: &Self) {
        self.sockets.iter_mut().zip(other.sockets).for_each(|(sum, count)| *sum += count);
        self.opened += other.opened;
        self.closed += other.closed;
        self.rst += other.rst;
        self.close_wait_growth += other.close_wait_growth;
        self.oldest_close_wait_ns = self.oldest_close_wait_ns.max(other.oldest_close_wait_ns);
        self.owners += other.owners;
    }
}

/// What a table is sorted by; most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// All sockets.
    #[default]
    Sockets,
    /// Those in a state.
    State(State),
    /// Connections opened.
    Opened,
    /// Connections ended.
    Closed,
    /// RSTs.
    Rst,
    /// The age of the oldest CLOSE_WAIT.
    Oldest,
    /// The port; smallest first.
    Port,
}

/// All rows at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What makes a row.
    pub by: By,
    /// When it was made, `CLOCK_MONOTONIC` in ns.
    pub at_ns: u64,
    /// The time that its rates are of, in ns; 0 for the first.
    pub interval_ns: u64,
    /// The rows, sorted.
    pub rows: Vec<Row>,
    /// All that has no row.
    pub other: Option<Row>,
    /// The sum of all.
    pub total: Row,
}

impl Tally {
    /// Nothing has happened yet. `ephemeral`: the ports that the kernel hands out. With `times` it keeps how
    /// long connections stay in their states.
    #[must_use]
    pub fn new(by: By, ephemeral: RangeInclusive<u16>, times: bool) -> Self {
        Self {
            by,
            ports: Ports::new(ephemeral),
            small: Small::default(),
            happened: FxHashMap::default(),
            since_ns: None,
            matrix: Matrix::default(),
            times: times.then(Times::default),
            ledger: Ledger::default(),
        }
    }

    /// The same, keeping so many minisocks and requests at most.
    #[must_use]
    pub fn limited_to(mut self, sockets: usize) -> Self {
        self.small = Small::limited_to(sockets);
        self
    }

    /// How many of those there was no room for since this was last asked: they are not counted.
    pub fn take_turned_away(&mut self) -> u64 {
        self.small.take_turned_away()
    }

    /// Transitions so far.
    #[must_use]
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Time spent in states so far, if it is kept.
    #[must_use]
    pub fn times(&self) -> Option<&Times> {
        self.times.as_ref()
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event) {
        self.small.event(event);
        self.ledger.count(event);
        let (mut opened, mut closed, mut rst) = (0, 0, 0);
        match event.kind {
            Kind::Transition => {
                if event.new == Some(State::LISTEN) {
                    self.ports.listens(&event.tuple);
                }
                if let (Some(old), Some(new)) = (event.old, event.new)
                    && let Some(count) = self
                        .matrix
                        .get_mut(usize::from(old.number()))
                        .and_then(|row| row.get_mut(usize::from(new.number())))
                {
                    *count += 1;
                    let birth = matches!(
                        (old, new),
                        (State::CLOSE, State::SYN_SENT) | (State::LISTEN, State::SYN_RECV)
                    );
                    opened = u64::from(birth);
                }
                closed = u64::from(event.verdict.is_some());
            }
            Kind::RstSent | Kind::RstReceived => {
                rst = 1;
                self.ledger.event(event, &self.ports);
            }
            Kind::Retransmit | Kind::Connection => return,
        }
        let key = Key::of(self.by, &Facts::from(event), &self.ports);
        // An orphan's minisock stays in FIN_WAIT2.
        let left = event.old.filter(|old| event.new != Some(*old));
        if let (Some(times), Some(old), Some(ns)) = (&mut self.times, left, event.in_state_ns) {
            times.add(key, old, ns);
        }
        if opened + closed + rst == 0 {
            return;
        }
        let full = self.happened.len() >= ROWS;
        let key = if full && !self.happened.contains_key(&key) { Key::Other } else { key };
        let row = self.happened.entry(key).or_default();
        row.opened += opened;
        row.closed += closed;
        row.rst += rst;
        row.owner = event.owner.or(row.owner);
    }

    /// Takes what a look at the host found, of minisocks and requests. `wanted` tells whether a socket that nothing is
    /// known of is to be counted.
    pub fn surveyed(&mut self, survey: &Survey, now_ns: u64, wanted: impl FnMut(&Socket) -> bool) {
        self.small.surveyed(survey, now_ns, wanted);
        survey.health.iter().for_each(|health| self.ledger.read(health.counters));
    }

    /// Counts what is there and what happened since the last table; the first is of no time, and nothing has happened or
    /// grown in it. `sockets`: those that the tracker knows.
    pub fn table(
        &mut self,
        sockets: impl Iterator<Item = Socket> + Clone,
        sort: Sort,
        top: usize,
        now_ns: u64,
    ) -> Table {
        self.listeners(sockets.clone());
        let mut rows = self.count(self.by, sockets, now_ns);
        if self.since_ns.is_none() {
            self.happened.clear();
        }
        for (key, happened) in &self.happened {
            rows.entry(*key).or_insert_with(|| Counting::new(*key)).happened(happened);
        }
        let mut rows: Vec<Row> =
            rows.into_values().map(Counting::row).filter(|row| !row.is_empty()).collect();
        if self.since_ns.is_none() {
            for row in &mut rows {
                row.close_wait_growth = 0;
            }
        }

        // What the next table's growth is counted from.
        self.happened.clear();
        for row in &rows {
            let close_wait = row.in_state(State::CLOSE_WAIT);
            if close_wait > 0 && self.happened.len() < ROWS {
                self.happened.insert(row.key, Happened { close_wait, ..Happened::default() });
            }
        }
        let interval_ns = self.since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns));
        self.since_ns = Some(now_ns);
        table(self.by, rows, sort, top, now_ns, interval_ns)
    }

    /// Counts only what is there, with other rows.
    pub fn standing(
        &self,
        by: By,
        sockets: impl Iterator<Item = Socket>,
        sort: Sort,
        top: usize,
        now_ns: u64,
    ) -> Table {
        let rows = self.count(by, sockets, now_ns).into_values().map(Counting::row).collect();
        table(by, rows, sort, top, now_ns, 0)
    }

    /// Minisocks and requests, those whose time is not over at `now_ns`.
    pub fn minisocks(&self, now_ns: u64) -> impl Iterator<Item = Socket> {
        self.small.sockets(now_ns)
    }

    /// Which end of a connection is the service; see [`Ports::service`].
    #[must_use]
    pub fn service(&self, tuple: &Tuple, role: Option<Role>) -> Service {
        self.ports.service(tuple, role)
    }

    /// Takes over who listens, from the sockets that the tracker knows.
    pub fn listeners(&mut self, sockets: impl Iterator<Item = Socket>) {
        let listener = |socket: &Socket| socket.state == State::LISTEN;
        let listeners: Vec<_> = sockets.filter(listener).map(|socket| socket.tuple).collect();
        self.ports.replace(listeners.iter());
    }

    /// Those of the sockets, and of minisocks and requests, that are counted in a row.
    pub fn of_row<'a>(
        &'a self,
        key: &'a Key,
        sockets: impl Iterator<Item = Socket> + 'a,
        now_ns: u64,
    ) -> impl Iterator<Item = Socket> + 'a {
        let in_row = |socket: &Socket| Key::of(self.by, &Facts::from(socket), &self.ports) == *key;
        sockets.chain(self.small.sockets(now_ns)).filter(in_row)
    }

    /// The socket or minisock of a connection.
    pub fn socket(&self, id: Id, mut sockets: impl Iterator<Item = Socket>, now_ns: u64) -> Option<Socket> {
        let is_it = |socket: &Socket| socket.id == Some(id);
        sockets.find(is_it).or_else(|| self.small.sockets(now_ns).find(is_it))
    }

    fn count(&self, by: By, sockets: impl Iterator<Item = Socket>, now_ns: u64) -> FxHashMap<Key, Counting> {
        let mut rows: FxHashMap<Key, Counting> = FxHashMap::default();
        for socket in sockets.chain(self.small.sockets(now_ns)) {
            let key = Key::of(by, &Facts::from(&socket), &self.ports);
            rows.entry(key).or_insert_with(|| Counting::new(key)).socket(&socket, now_ns);
        }
        rows
    }
}

/// Sorts, and sums what has no row.
fn table(by: By, mut rows: Vec<Row>, sort: Sort, top: usize, at_ns: u64, interval_ns: u64) -> Table {
    let mut total = Row::new(Key::Other);
    for row in &rows {
        total.add(row);
    }
    let nameless = |row: &Row| match row.key {
        Key::Other => true,
        // A connection that has not ended has no cause, and nothing has happened to it.
        Key::Cause(cause) => cause.is_none(),
        _ => false,
    };
    let mut rest: Vec<Row> = rows.extract_if(.., |row| nameless(row)).collect();
    sort_rows(&mut rows, sort);
    if rows.len() > top {
        rest.extend(rows.split_off(top));
    }
    let other = rest.into_iter().reduce(|mut sum, row| {
        sum.add(&row);
        sum
    });
    let other = other.map(|row| Row { key: Key::Other, owner: None, ..row });
    Table { by, at_ns, interval_ns, rows, other, total }
}

/// Sorts rows; those that are alike by port.
pub fn sort_rows(rows: &mut [Row], sort: Sort) {
    let weight = |row: &Row| match sort {
        Sort::Sockets => row.total(),
        Sort::State(state) => row.in_state(state),
        Sort::Opened => row.opened,
        Sort::Closed => row.closed,
        Sort::Rst => row.rst,
        Sort::Oldest => row.oldest_close_wait_ns.map_or(0, |ns| ns + 1),
        Sort::Port => 0,
    };
    let place = |row: &Row| {
        let text = row.owner.map_or([0; 16], |owner| owner.comm.0);
        let server = matches!(row.key, Key::Server { .. });
        (!server, row.key.port().unwrap_or(u16::MAX), row.key.netns(), text, row.owner.map(|owner| owner.pid))
    };
    rows.sort_by_cached_key(|row| {
        let alike = place(row);
        if sort == Sort::Port { (alike.1, Reverse(0), alike) } else { (0, Reverse(weight(row)), alike) }
    });
}

/// A row while it is counted.
struct Counting {
    row: Row,
    close_wait_before: u64,
    listener: Option<Owner>,
    /// Sockets by process, as far as there is room.
    owners: Vec<(Owner, u64)>,
    more_owners: FxHashSet<u32>,
}

impl Counting {
    fn new(key: Key) -> Self {
        Self {
            row: Row::new(key),
            close_wait_before: 0,
            listener: None,
            owners: Vec::new(),
            more_owners: FxHashSet::default(),
        }
    }

    fn socket(&mut self, socket: &Socket, now_ns: u64) {
        let Self { row, listener, owners, more_owners, .. } = self;
        if let Some(count) = row.sockets.get_mut(usize::from(socket.state.number())) {
            *count += 1;
        }
        if socket.state == State::CLOSE_WAIT {
            row.oldest_close_wait_ns = row.oldest_close_wait_ns.max(socket.age_ns(now_ns));
        }
        let Some(owner) = socket.owner else { return };
        if socket.state == State::LISTEN {
            *listener = listener.or(Some(owner));
        }
        if let Some((_, count)) = owners.iter_mut().find(|(known, _)| known.pid == owner.pid) {
            *count += 1;
        } else if owners.len() < OWNERS {
            owners.push((owner, 1));
        } else {
            more_owners.insert(owner.pid);
        }
    }

    fn happened(&mut self, happened: &Happened) {
        let Happened { opened, closed, rst, close_wait, owner } = *happened;
        self.row.opened += opened;
        self.row.closed += closed;
        self.row.rst += rst;
        self.close_wait_before += close_wait;
        self.row.owner = owner;
    }

    fn row(self) -> Row {
        let Self { mut row, close_wait_before, listener, owners, more_owners } = self;
        let most = owners.iter().max_by_key(|(owner, count)| (*count, Reverse(owner.pid)));
        row.owner = listener.or(most.map(|(owner, _)| *owner)).or(row.owner);
        row.owners = owners.len() + more_owners.len();
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        row.close_wait_growth = signed(row.in_state(State::CLOSE_WAIT)) - signed(close_wait_before);
        row
    }
}

#[cfg(test)]
mod tests;
