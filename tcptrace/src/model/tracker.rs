//! The one place that knows connections: records in, events out.
//!
//! Records of one socket arrive in the order in which they happened; records of different sockets are
//! ordered by their place in the ring, never by time. Any record may be missing (lost, or from before the
//! start), so nothing is taken for granted but what the record itself says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use rustc_hash::{FxHashMap, FxHashSet};
use slab::Slab;
use tcptrace_common::record::{self, CloseDetail, NO_REASON, Record, Tuple, flags};

use self::ending::{Closing, Ending};
use super::{
    cause::Resets,
    close,
    event::{Comm, Event, History, Id, Kind, Owner, OwnerSource, Role},
    socket::Socket,
    state::State,
};

mod ending;
mod survey;

pub use ending::Doubt;

/// How long a closed connection is remembered, in ns, for the RST that its close sends: the kernel reports
/// it a moment after CLOSE.
pub const AFTERLIFE_NS: u64 = 50_000_000;

/// How much later, in ns, the second probe of transitions may report what the first has reported.
const AGAIN_NS: u64 = 100_000_000;

/// `ECONNABORTED`: the socket was killed from outside (`ss -K`), so the task is not its owner.
const ECONNABORTED: i32 = 103;

/// What the running kernel calls its RST reasons, by number.
pub type Reasons = BTreeMap<i32, Arc<str>>;

/// What becomes of a connection that an event was handed on of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// More is to come of it.
    Keep,
    /// The kernel side will not report it again, because the filter refuses it.
    Forget,
}

/// A socket, from the first record of it to [`AFTERLIFE_NS`] after its last.
#[derive(Debug)]
struct Conn {
    id: Id,
    tuple: Tuple,
    /// The state that the last record left it in.
    state: State,
    /// The state before that.
    previous: Option<State>,
    /// When it entered `state`; `None` if that was not seen.
    since_ns: Option<u64>,
    /// If that was not seen: it has been there since then at least.
    at_latest_ns: Option<u64>,
    role: Option<Role>,
    owner: Option<Owner>,
    uid: Option<u32>,
    /// Id of its cgroup; 0 when unknown.
    cgroup: u64,
    /// The RSTs since the last transition.
    resets: Resets,
    /// The reason of the last that this end sent.
    reason: Option<Arc<str>>,
    /// Surveys in a row that did not show it as it is known here.
    missed: u8,
    /// Its time so far; only kept where whole connections are told.
    history: Option<Box<History>>,
    /// What is still to be told of its end, in [`Tracker::endings`].
    ending: Option<usize>,
}

/// How the table finds a socket: by cookie, or by address where the kernel gives no cookie. Kernel addresses
/// have the top bit set, cookies count from 1, so the two cannot meet.
type Key = u64;

/// Knows every connection of which a record came in and which has not ended.
#[derive(Debug, Default)]
pub struct Tracker {
    conns: FxHashMap<Key, Conn>,
    /// Children that were reported under their listener's name (before 6.15), by socket address.
    newborn: FxHashMap<u64, Record>,
    /// Who listens, by network namespace and port.
    listeners: FxHashMap<(u32, u16), Vec<(Tuple, Key)>>,
    /// Ended connections in the order in which they will be forgotten.
    ended: VecDeque<(u64, Key)>,
    /// What is still to be told of ends. Large, rare and short-lived, so it has a place of its own, used again and again.
    endings: Slab<Ending>,
    /// How many ended connections still have something to tell.
    untold: usize,
    /// Connections that may have found no room for a minisock: their last transition waits for sock_diag.
    rooms: FxHashSet<Key>,
    /// Orphans: only sock_diag can tell what became of them.
    doubts: FxHashSet<Key>,
    /// The same by their ends as the peer sees them.
    orphans: FxHashMap<Tuple, Key>,
    /// Found sockets whose names in the table are not known yet: the source has no cookies.
    strangers: FxHashMap<Tuple, Conn>,
    reasons: Reasons,
    /// How many ids of our own were given out.
    own_ids: u64,
    /// Report the kernel's own words: CLOSE where a minisock takes over, and self transitions.
    raw: bool,
    /// Tell whole connections, too.
    whole: bool,
    /// Sockets remembered at most, if that is limited.
    limit: Option<usize>,
    /// Sockets that there was no room for since this was last asked.
    turned_away: u64,
}

impl Tracker {
    /// An empty tracker. With `raw` it repeats the kernel's own words. With `whole` it tells whole connections when
    /// they end, beside what happens to them.
    #[must_use]
    pub fn new(reasons: Reasons, raw: bool, whole: bool) -> Self {
        Self { reasons, raw, whole, ..Self::default() }
    }

    /// The same, remembering so many sockets at most. What happens to others is told as far as the record itself says it;
    /// whole connections are not.
    #[must_use]
    pub fn limited_to(self, sockets: usize) -> Self {
        Self { limit: Some(sockets), ..self }
    }

    /// How many sockets there was no room for since this was last asked.
    pub fn take_turned_away(&mut self) -> u64 {
        std::mem::take(&mut self.turned_away)
    }

    /// Whether there is no room for one more.
    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.len() >= limit)
    }

    /// How many sockets are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len() + self.newborn.len() + self.strangers.len()
    }

    /// The sockets that exist, as far as they are full sockets: neither minisocks nor requests.
    pub fn sockets(&self) -> impl Iterator<Item = Socket> + Clone {
        let live = |conn: &&Conn| conn.state != State::CLOSE && conn.ending.is_none();
        self.conns.values().chain(self.strangers.values()).filter(live).map(Conn::socket)
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.endings.is_empty()
    }

    /// Takes the next record, with its detail if it is a CLOSE, and hands on what it means.
    pub fn feed(
        &mut self,
        record: &Record,
        detail: Option<&CloseDetail>,
        emit: &mut impl FnMut(Event) -> Fate,
    ) {
        self.forget(record.ts_ns, emit);
        match record.kind {
            record::Kind::TRANSITION | record::Kind::CLOSE => self.transition(record, detail, emit),
            record::Kind::RST_SENT => self.rst_sent(record, emit),
            record::Kind::RST_RECEIVED => _ = emit(self.rst_received(record)),
            record::Kind::RETRANSMIT | record::Kind::RETRANSMIT_SYNACK => _ = emit(self.retransmit(record)),
            _ => {}
        }
    }

    /// Lets time pass: ended connections are forgotten, and children whose second record did not come are
    /// reported as far as they are known.
    pub fn tick(&mut self, now_ns: u64, emit: &mut impl FnMut(Event) -> Fate) {
        self.forget(now_ns, emit);
        let late = |record: &&Record| now_ns.saturating_sub(record.ts_ns) > AFTERLIFE_NS;
        let mut late: Vec<(u64, u64)> =
            self.newborn.values().filter(late).map(|record| (record.ts_ns, record.sk)).collect();
        late.sort_unstable();
        for (_, sk) in late {
            if let Some(record) = self.newborn.remove(&sk) {
                // The cookie is the listener's.
                self.step(&Record { cookie: 0, ..record }, None, emit);
            }
        }
    }

    fn transition(
        &mut self,
        record: &Record,
        detail: Option<&CloseDetail>,
        emit: &mut impl FnMut(Event) -> Fate,
    ) {
        let from_listener = record.old == State::LISTEN.number() && record.new == State::SYN_RECV.number();
        if from_listener && record.tuple.rport == 0 {
            // Up to 6.14 the child is still a copy of its listener here, cookie and all. Its next record
            // comes with the same packet and has its own name.
            if let Some(orphan) = self.newborn.insert(record.sk, *record) {
                self.step(&Record { cookie: 0, ..orphan }, None, emit);
            }
            return;
        }
        if let Some(birth) = self.newborn.remove(&record.sk) {
            let birth = if record.old == State::SYN_RECV.number() {
                Record { tuple: record.tuple, cookie: record.cookie, ..birth }
            } else {
                // The record between was lost, and the address is another socket's now.
                Record { cookie: 0, ..birth }
            };
            self.step(&birth, None, emit);
        }
        self.step(record, detail, emit);
    }

    fn step(&mut self, record: &Record, detail: Option<&CloseDetail>, emit: &mut impl FnMut(Event) -> Fate) {
        let (Some(old), Some(new)) = (State::from_kernel(record.old), State::from_kernel(record.new)) else {
            return;
        };
        let birth = matches!(
            (old, new),
            (State::CLOSE, State::SYN_SENT | State::LISTEN) | (State::LISTEN, State::SYN_RECV)
        );
        let key = self.key(record);
        if let Some(conn) = self.conns.get(&key) {
            if old != new && conn.has_just_made(old, new, record) {
                return;
            }
            if birth || conn.state == State::CLOSE && old != State::CLOSE {
                self.bury(key, emit);
            }
        }
        if !birth && !self.strangers.is_empty() && !self.conns.contains_key(&key) {
            self.recognise(record, key);
        }
        let listener = if old == State::LISTEN && new == State::SYN_RECV {
            self.listeners_owner(&record.tuple)
        } else {
            None
        };
        if self.is_full() && !self.conns.contains_key(&key) {
            self.turned_away += u64::from(birth || old == State::LISTEN);
            self.pass_by(old, new, record, emit);
            return;
        }
        let whole = self.whole;
        let own_ids = &mut self.own_ids;
        let conn = self.conns.entry(key).or_insert_with(|| Conn {
            id: if record.cookie != 0 { Id(record.cookie) } else { own_id(own_ids) },
            owner: listener,
            ..Conn::new(record.tuple, old)
        });
        conn.tuple = complete(record.tuple, &conn.tuple);
        conn.role = role_of(old, new).or(conn.role);
        conn.uid = Some(record.uid);
        conn.cgroup = record.cgroup;
        conn.missed = 0;
        if let Some(owner) = owner_in(record, detail, new) {
            let better = match owner.source {
                OwnerSource::Connect | OwnerSource::Listen => true,
                _ => conn.owner.is_none_or(|owner| owner.source == OwnerSource::Listener),
            };
            if better {
                conn.owner = Some(owner);
            }
        }

        // close() on a socket that was shut down before reports its state once more.
        let repeated = old == new;
        let in_state_ns = conn
            .since_ns
            .filter(|_| conn.state == old && !repeated)
            .map(|since_ns| record.ts_ns.saturating_sub(since_ns));
        if whole && new != State::LISTEN && (birth || old != State::LISTEN) {
            let history = conn.history.get_or_insert_default();
            if birth {
                history.opened_ns = Some(record.ts_ns);
            } else {
                history.spend(old, in_state_ns);
            }
        }
        if new == State::CLOSE
            && old != State::LISTEN
            && let Some(detail) = detail
        {
            self.close(key, &Closing { old, record, detail, in_state_ns }, emit);
            return;
        }
        if !repeated {
            conn.enter(old, new, record.ts_ns);
        }
        if !repeated || self.raw {
            let event = Event {
                kind: Kind::Transition,
                old: Some(old),
                new: Some(new),
                in_state_ns,
                totals: detail.map(|detail| close::totals(old, record, detail, conn.role)),
                ..event_of(record, Some(conn))
            };
            // Listeners are kept for the sake of their children.
            if emit(event) == Fate::Forget && conn.role != Some(Role::Listener) && new != State::CLOSE {
                self.conns.remove(&key);
                return;
            }
        }
        if new == State::LISTEN && !repeated && conn.tuple.lport != 0 {
            let tuple = conn.tuple;
            self.listeners.entry((tuple.netns, tuple.lport)).or_default().push((tuple, key));
        }
        if new == State::CLOSE {
            if old == State::LISTEN {
                let tuple = conn.tuple;
                self.stop_listening(&tuple, key);
            }
            self.ended.push_back((record.ts_ns, key));
        }
    }

    /// Tells a transition of a socket that there is no room for.
    fn pass_by(&self, old: State, new: State, record: &Record, emit: &mut impl FnMut(Event) -> Fate) {
        let id = (record.cookie != 0).then_some(Id(record.cookie));
        if old != new || self.raw {
            let (old, new) = (Some(old), Some(new));
            emit(Event { kind: Kind::Transition, id, old, new, ..event_of(record, None) });
        }
    }

    /// Where the record's socket stands in the table, or would stand.
    fn key(&self, record: &Record) -> Key {
        // Before 5.12 a socket may be given its cookie by somebody else halfway through.
        let by_address = record.cookie == 0 || (self.own_ids > 0 && self.conns.contains_key(&record.sk));
        if by_address { record.sk } else { record.cookie }
    }

    /// The socket begins a new connection, or its memory a new socket.
    fn bury(&mut self, key: Key, emit: &mut impl FnMut(Event) -> Fate) {
        self.finish(key, emit);
        if let Some(conn) = self.conns.remove(&key) {
            self.doubts.remove(&key);
            self.rooms.remove(&key);
            self.orphans.remove(&reversed(&conn.tuple));
            if conn.role == Some(Role::Listener) {
                self.stop_listening(&conn.tuple, key);
            }
        }
    }

    fn stop_listening(&mut self, tuple: &Tuple, key: Key) {
        let port = (tuple.netns, tuple.lport);
        if let Some(listeners) = self.listeners.get_mut(&port) {
            listeners.retain(|(_, listener)| *listener != key);
            if listeners.is_empty() {
                self.listeners.remove(&port);
            }
        }
    }

    /// The owner of the listener that a child with these ends came from. Of several processes that share the
    /// port (SO_REUSEPORT) it could be any: then it is nobody until one of them acts.
    fn listeners_owner(&self, child: &Tuple) -> Option<Owner> {
        let listeners = self.listeners.get(&(child.netns, child.lport))?;
        let exact = listeners.iter().any(|(tuple, _)| tuple.laddr == child.laddr);
        let mut owners = listeners
            .iter()
            .filter(
                |(tuple, _)| {
                    if exact { tuple.laddr == child.laddr } else { tuple.laddr.is_unspecified() }
                },
            )
            .map(|(_, key)| self.conns.get(key)?.owner);
        let first = owners.next()??;
        owners
            .all(|owner| owner.is_some_and(|owner| owner.pid == first.pid))
            .then_some(Owner { source: OwnerSource::Listener, ..first })
    }

    fn rst_sent(&mut self, record: &Record, emit: &mut impl FnMut(Event) -> Fate) {
        let reason = self.reason(record);
        let key = self.key(record);
        let state = State::from_kernel(record.old);
        let listener = state == Some(State::LISTEN);
        let conn = if record.sk == 0 { None } else { self.conns.get_mut(&key) };
        let Some(conn) = conn else {
            // A minisock keeps its connection's cookie.
            let id = (record.cookie != 0 && !listener).then_some(Id(record.cookie));
            let prev_state = state.filter(|state| *state != State::CLOSE);
            emit(Event { kind: Kind::RstSent, id, reason, prev_state, ..event_of(record, None) });
            return;
        };
        if listener {
            // The packet belongs to a connection that the listener does not know; only its owner is the same.
            let Event { owner, .. } = event_of(record, Some(conn));
            emit(Event { kind: Kind::RstSent, reason, prev_state: state, owner, ..event_of(record, None) });
            return;
        }
        conn.resets.sent = true;
        conn.reason.clone_from(&reason);
        conn.resets.keepalive = reason.as_deref().and_then(says_keepalive);
        // Closed a moment ago: the RST is part of that.
        let prev_state = if state == Some(State::CLOSE) { conn.previous } else { state };
        let event =
            Event { kind: Kind::RstSent, reason: reason.clone(), prev_state, ..event_of(record, Some(conn)) };
        self.tell_with_reset(key, record, event, reason.as_ref(), emit);
    }

    fn rst_received(&mut self, record: &Record) -> Event {
        let key = self.key(record);
        let prev_state = State::from_kernel(record.old);
        let mut conn = self.conns.get_mut(&key);
        if let Some(conn) = &mut conn {
            conn.resets.received = true;
        }
        let known = Event { kind: Kind::RstReceived, prev_state, ..event_of(record, conn.as_deref()) };
        Event { id: known.id.or((record.cookie != 0).then_some(Id(record.cookie))), ..known }
    }

    fn retransmit(&self, record: &Record) -> Event {
        let synack = record.kind == record::Kind::RETRANSMIT_SYNACK;
        let conn = self.conns.get(&self.key(record));
        let known = Event {
            kind: Kind::Retransmit,
            prev_state: State::from_kernel(record.old),
            // The kernel counts this one when it is sent (inet_rtx_syn_ack()), after the record.
            retransmits: u32::try_from(record.reason).ok().filter(|_| synack).map(|before| before + 1),
            ..event_of(record, conn)
        };
        let known = if synack {
            // A request has no record of its own before.
            Event { role: Some(Role::Server), owner: self.listeners_owner(&record.tuple), ..known }
        } else {
            known
        };
        Event { id: known.id.or((record.cookie != 0).then_some(Id(record.cookie))), ..known }
    }

    fn reason(&self, record: &Record) -> Option<Arc<str>> {
        (record.reason != NO_REASON).then(|| {
            self.reasons
                .get(&record.reason)
                .cloned()
                .unwrap_or_else(|| Arc::from(format!("REASON_{}", record.reason)))
        })
    }
}

impl Conn {
    /// A socket of which nothing is known but its ends and its state.
    fn new(tuple: Tuple, state: State) -> Self {
        Self {
            id: Id(0),
            tuple,
            state,
            previous: None,
            since_ns: None,
            at_latest_ns: None,
            role: None,
            owner: None,
            uid: None,
            cgroup: 0,
            resets: Resets::default(),
            reason: None,
            missed: 0,
            history: None,
            ending: None,
        }
    }

    /// Whether this is the last transition once more: both probes of transitions may report it where the kernel moves a
    /// task to another CPU between them, as it may from 7.x on. No socket makes the same twice in a row; by address
    /// alone it could be another. A listener's child is born in softirq, which stays where it is.
    fn has_just_made(&self, old: State, new: State, record: &Record) -> bool {
        let just = self.since_ns.is_some_and(|since_ns| record.ts_ns.saturating_sub(since_ns) < AGAIN_NS);
        let is_it = self.id == Id(record.cookie) && old != State::LISTEN;
        just && is_it && (self.previous, self.state) == (Some(old), new)
    }

    fn socket(&self) -> Socket {
        Socket {
            id: Some(self.id),
            tuple: self.tuple,
            state: self.state,
            since_ns: self.since_ns,
            at_latest_ns: self.at_latest_ns,
            role: self.role,
            owner: self.owner,
            uid: self.uid,
            cgroup: self.cgroup,
        }
    }

    fn enter(&mut self, old: State, new: State, ts_ns: u64) {
        self.previous = Some(old);
        self.state = new;
        self.since_ns = Some(ts_ns);
        self.at_latest_ns = None;
        self.resets = Resets::default();
        self.reason = None;
    }
}

/// A number of our own for a connection that the kernel gives none.
fn own_id(count: &mut u64) -> Id {
    *count += 1;
    Id(*count | 1 << 63)
}

/// The ends as the peer sees them.
fn reversed(tuple: &Tuple) -> Tuple {
    Tuple { laddr: tuple.raddr, raddr: tuple.laddr, lport: tuple.rport, rport: tuple.lport, ..*tuple }
}

/// Whether the kernel's reason says that keepalive ran out; `None` for reasons that say nothing.
fn says_keepalive(reason: &str) -> Option<bool> {
    // What 6.10 and 6.11 say of every RST that no packet provoked.
    (reason != "NOT_SPECIFIED").then(|| reason == "TCP_KEEPALIVE_TIMEOUT")
}

/// What a transition alone says of the socket's part.
fn role_of(old: State, new: State) -> Option<Role> {
    match (old, new) {
        (State::LISTEN, State::SYN_RECV) => Some(Role::Server),
        (State::LISTEN, _) | (_, State::LISTEN) => Some(Role::Listener),
        (State::SYN_SENT, _) | (_, State::SYN_SENT) => Some(Role::Client),
        _ => None,
    }
}

/// The owner, if the task on the CPU is it.
fn owner_in(record: &Record, detail: Option<&CloseDetail>, new: State) -> Option<Owner> {
    let has = |flag| record.flags & flag != 0;
    let killed = detail.is_some_and(|detail| detail.sk_err == ECONNABORTED);
    if !has(flags::OWNED) || has(flags::KTHREAD) || has(flags::KERNEL_SOCKET) || killed {
        return None;
    }
    let source = match new {
        State::SYN_SENT => OwnerSource::Connect,
        State::LISTEN => OwnerSource::Listen,
        _ => OwnerSource::Close,
    };
    Some(Owner { pid: record.task_pid, comm: Comm(record.task_comm_bytes()), source })
}

/// The ends, with what this record does not tell taken from an earlier one.
fn complete(tuple: Tuple, known: &Tuple) -> Tuple {
    if tuple.lport == 0 { Tuple { lport: known.lport, ..tuple } } else { tuple }
}

/// What every event of a record has in common.
fn event_of(record: &Record, conn: Option<&Conn>) -> Event {
    let has = |flag| record.flags & flag != 0;
    // Minisocks have neither user nor cgroup, and no RST without a socket has.
    let small = record.kind == record::Kind::RST_SENT
        && State::from_kernel(record.new)
            .is_none_or(|state| matches!(state, State::TIME_WAIT | State::NEW_SYN_RECV));
    let full = record.sk != 0 && !small;
    let tuple = conn.map_or(record.tuple, |conn| complete(record.tuple, &conn.tuple));
    Event {
        id: conn.map(|conn| conn.id),
        role: conn.and_then(|conn| conn.role),
        owner: conn.and_then(|conn| conn.owner),
        uid: full.then_some(record.uid),
        unaccepted: full && !has(flags::SOCKET) && !has(flags::DEAD),
        task_pid: Some(record.task_pid),
        task_comm: Comm(record.task_comm_bytes()),
        cgroup: (record.cgroup != 0).then_some(record.cgroup),
        closed: conn.map_or(small || record.cookie == 0, |conn| conn.state == State::CLOSE),
        ..Event::new(record.ts_ns, Kind::Transition, tuple)
    }
}

#[cfg(test)]
mod tests;
