//! Sockets that were there before, and those that a lost record left behind.

use rustc_hash::{FxHashMap, FxHashSet};
use tcptrace_common::record::{Record, Tuple};

use super::{Conn, Fate, Key, Tracker, own_id, reversed};
use crate::model::{
    cause::{Cause, Verdict},
    close,
    event::{Event, Id, Kind, OwnerSource, Role},
    found::{Form, Found, Survey},
    socket::Socket,
    state::State,
};

/// In how many surveys in a row a connection may be missing before it counts as gone: one that ends while a survey is
/// taken is missing there, and its record comes right after.
const MISSES: u8 = 2;

impl Tracker {
    /// Takes over what a survey found: sockets not known yet, and owners. Live records win: whatever was fed before the
    /// survey began is older than it, and whatever is fed after may be older or newer, and is right.
    ///
    /// Hands on every connection that is open, as it is; a new one that nobody wants ([`Fate::Forget`]) is not kept.
    pub fn adopt(&mut self, survey: &Survey, now_ns: u64, open: &mut impl FnMut(Event) -> Fate) {
        // Where the kernel gives no cookies, live sockets are known by their address only.
        let by_tuple: FxHashMap<Tuple, Key> = if self.own_ids > 0 {
            self.conns.iter().map(|(key, conn)| (conn.tuple, *key)).collect()
        } else {
            FxHashMap::default()
        };
        // Listeners first: they tell the roles of the others.
        for found in survey.sockets.iter().filter(|found| found.state == State::LISTEN) {
            self.adopt_listener(found, &by_tuple);
        }
        for found in &survey.sockets {
            let wanted = match found.form {
                Form::Socket => found.state != State::LISTEN,
                Form::Minisock => found.state == State::FIN_WAIT2,
                Form::Request => false,
            };
            if wanted {
                self.adopt_connection(found, &by_tuple, now_ns, open);
            }
        }
    }

    fn known(&self, found: &Found, by_tuple: &FxHashMap<Tuple, Key>) -> Option<Key> {
        let by_cookie = (found.cookie != 0 && self.conns.contains_key(&found.cookie)).then_some(found.cookie);
        by_cookie.or_else(|| by_tuple.get(&found.tuple).copied())
    }

    fn adopt_listener(&mut self, found: &Found, by_tuple: &FxHashMap<Tuple, Key>) {
        if let Some(key) = self.known(found, by_tuple) {
            if let Some(conn) = self.conns.get_mut(&key) {
                conn.owner = conn.owner.or(found.owner);
                conn.missed = 0;
            }
            return;
        }
        if self.is_full() {
            self.turned_away += 1;
            return;
        }
        let id = self.id_of(found);
        let conn = Conn { id, role: Some(Role::Listener), ..Conn::found(found) };
        let key = if found.cookie == 0 { id.0 } else { found.cookie };
        self.listeners.entry((found.tuple.netns, found.tuple.lport)).or_default().push((found.tuple, key));
        self.conns.insert(key, conn);
    }

    fn adopt_connection(
        &mut self,
        found: &Found,
        by_tuple: &FxHashMap<Tuple, Key>,
        now_ns: u64,
        open: &mut impl FnMut(Event) -> Fate,
    ) {
        if let Some(key) = self.known(found, by_tuple) {
            let Some(conn) = self.conns.get_mut(&key) else { return };
            let better = conn.owner.is_none_or(|owner| owner.source == OwnerSource::Listener);
            if better && found.owner.is_some() {
                conn.owner = found.owner;
            }
            if conn.ending.is_some() || conn.state == State::CLOSE {
                return;
            }
            if conn.state == found.state {
                conn.missed = 0;
            } else if found.form == Form::Minisock {
                // That the full socket is gone is for `reconcile` to count, once.
            } else if conn.missed < MISSES {
                conn.missed += 1;
            } else {
                conn.state = found.state;
                conn.since_ns = None;
                conn.at_latest_ns = Socket::found(found, now_ns).at_latest_ns;
                conn.missed = 0;
            }
            open(as_open(conn, found, now_ns));
            return;
        }
        let id = self.id_of(found);
        let at_latest_ns = Socket::found(found, now_ns).at_latest_ns;
        let mut conn = Conn { id, at_latest_ns, ..Conn::found(found) };
        conn.role = if self.listens(&found.tuple) {
            Some(Role::Server)
        } else {
            found.counters.as_ref().and_then(|counters| close::role_by_counters(found.state, counters))
        };
        if unaccepted(found) && conn.role == Some(Role::Server) {
            conn.owner = conn.owner.or_else(|| self.listeners_owner(&found.tuple));
        }
        if open(as_open(&conn, found, now_ns)) == Fate::Forget || found.form == Form::Minisock {
            return;
        }
        if self.is_full() {
            self.turned_away += 1;
        } else if found.cookie == 0 {
            self.strangers.insert(found.tuple, conn);
        } else {
            self.conns.insert(found.cookie, conn);
        }
    }

    /// Compares the table with a survey that was taken after all that was fed, and gives up what is gone: the record of
    /// its end was lost. `survey` must be whole for its namespaces. Returns how many those were.
    pub fn reconcile(&mut self, survey: &Survey, now_ns: u64, emit: &mut impl FnMut(Event) -> Fate) -> u64 {
        let (full, small): (Vec<_>, Vec<_>) =
            survey.sockets.iter().partition(|found| found.form == Form::Socket);
        let cookies: FxHashSet<u64> = full.iter().map(|found| found.cookie).collect();
        let tuples: FxHashSet<Tuple> = full.iter().map(|found| found.tuple).collect();
        let waits = |found: &&&Found| found.state == State::TIME_WAIT;
        let waiting: FxHashSet<Tuple> = small.iter().filter(waits).map(|found| found.tuple).collect();
        let namespaces: FxHashSet<u32> = survey.namespaces.iter().copied().collect();
        let mut gone = Vec::new();
        for (key, conn) in &mut self.conns {
            let told = conn.ending.is_some() || conn.state == State::CLOSE;
            if told || !namespaces.contains(&conn.tuple.netns) {
                continue;
            }
            if !cookies.contains(key) && !tuples.contains(&conn.tuple) {
                conn.missed = conn.missed.saturating_add(1);
                if conn.missed >= MISSES {
                    gone.push(*key);
                }
            }
        }
        self.strangers.retain(|tuple, _| tuples.contains(tuple) || !namespaces.contains(&tuple.netns));
        let count = gone.len() as u64;
        for key in gone {
            let Some(conn) = self.conns.remove(&key) else { continue };
            self.orphans.remove(&reversed(&conn.tuple));
            if conn.role == Some(Role::Listener) {
                self.stop_listening(&conn.tuple, key);
            } else if self.whole {
                let mut history = conn.history.unwrap_or_default();
                history.visited |= 1 << conn.state.number();
                // Only who closed first, and in order, waits.
                let (new, cause) = if waiting.contains(&conn.tuple) {
                    (State::TIME_WAIT, Cause::LocalFin)
                } else {
                    (State::CLOSE, Cause::Unknown)
                };
                emit(Event {
                    new: Some(new),
                    prev_state: Some(conn.state),
                    verdict: Some(Verdict::inferred(cause)),
                    history: Some(history),
                    closed: true,
                    ..bare(&Conn { history: None, ..conn }, now_ns)
                });
            }
        }
        count
    }

    /// Whether owners of connections may be learned from a survey: somebody has accepted, or was there before.
    #[must_use]
    pub fn lacks_owners(&self) -> bool {
        self.conns.values().any(|conn| {
            conn.role != Some(Role::Listener)
                && conn.ending.is_none()
                && conn.state != State::CLOSE
                && conn.owner.is_none_or(|owner| owner.source == OwnerSource::Listener)
        })
    }

    /// A record came of a socket that was found without a cookie.
    pub(super) fn recognise(&mut self, record: &Record, key: Key) {
        if let Some(conn) = self.strangers.remove(&record.tuple) {
            self.conns.insert(key, conn);
        }
    }

    fn listens(&self, tuple: &Tuple) -> bool {
        let at = |listener: &Tuple| listener.laddr == tuple.laddr || listener.laddr.is_unspecified();
        self.listeners
            .get(&(tuple.netns, tuple.lport))
            .is_some_and(|listeners| listeners.iter().any(|(tuple, _)| at(tuple)))
    }

    fn id_of(&mut self, found: &Found) -> Id {
        if found.cookie == 0 { own_id(&mut self.own_ids) } else { Id(found.cookie) }
    }
}

impl Conn {
    fn found(found: &Found) -> Self {
        Self {
            owner: found.owner,
            uid: found.uid,
            cgroup: found.cgroup,
            ..Self::new(found.tuple, found.state)
        }
    }
}

/// An open connection as its line.
fn as_open(conn: &Conn, found: &Found, now_ns: u64) -> Event {
    let mut history = conn.history.clone().unwrap_or_default();
    history.visited |= 1 << found.state.number();
    history.spend(found.state, conn.since_ns.map(|since_ns| now_ns.saturating_sub(since_ns)));
    history.duration_ns = match history.opened_ns {
        Some(opened_ns) => Some(now_ns.saturating_sub(opened_ns)),
        None => age_ns(found),
    };
    Event {
        new: Some(found.state),
        totals: found
            .counters
            .as_ref()
            .map(|counters| close::totals_so_far(found.state, counters, conn.role)),
        history: Some(history),
        unaccepted: unaccepted(found),
        ..bare(conn, now_ns)
    }
}

/// Whether nobody has accepted the connection yet: it has no file, and it is not one that was closed.
fn unaccepted(found: &Found) -> bool {
    found.ino == 0 && matches!(found.state, State::SYN_RECV | State::ESTABLISHED | State::CLOSE_WAIT)
}

/// How long the connection has been established, where the kernel still knows: as long as one direction carried no
/// payload, its clock shows the handshake (tcp_create_openreq_child(), tcp_finish_connect()).
fn age_ns(found: &Found) -> Option<u64> {
    let counters = found.counters.as_ref()?;
    if matches!(found.state, State::SYN_SENT | State::SYN_RECV) {
        return None;
    }
    let ms = match (counters.data_segs_out, counters.data_segs_in) {
        (0, _) => counters.last_data_sent_ms,
        (_, 0) => counters.last_data_recv_ms,
        _ => return None,
    };
    Some(u64::from(ms) * 1_000_000)
}

/// What a line says of a connection that no record came of.
fn bare(conn: &Conn, ts_ns: u64) -> Event {
    Event {
        id: Some(conn.id),
        role: conn.role,
        owner: conn.owner,
        uid: conn.uid,
        cgroup: (conn.cgroup != 0).then_some(conn.cgroup),
        ..Event::new(ts_ns, Kind::Connection, conn.tuple)
    }
}
