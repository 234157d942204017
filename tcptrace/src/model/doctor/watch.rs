//! Gathers facts from what happens and from looks at the host.

use std::hash::Hash;

use rustc_hash::{FxHashMap, FxHashSet};
use tcptrace_common::record::{Addr, Tuple};

use super::{
    facts::{Destination, Ends, Facts, Listener, Lives, Namespace, Restarts, Retransmits, Standing},
    group::Group,
    strays::Strays,
};
use crate::model::{
    cause::Cause,
    close,
    event::{Event, Kind, Owner, Role},
    found::{Form, Found, Survey, timer},
    socket::Socket,
    state::State,
    tally::{Service, Tally},
};

/// Groups kept at most. A new one beyond that loses its peer, then all but its network namespace.
const GROUPS: usize = 8192;
/// Destinations with fewer ports in use are none of interest.
const FEW: u64 = 50;

/// Connections of which it is known when something was said last, at most.
const QUIET: usize = 65_536;
/// What was not seen for so long before the period that ends is gone, in ns: looks at a busy host can be minutes apart.
const GONE_NS: u64 = 300_000_000_000;

/// Where connections go: from an address to an address and a port, in a network namespace.
type Route = (u32, Addr, Addr, u16);

/// What is gathered, since [`begin`](Self::begin).
#[derive(Debug, Default)]
pub struct Watch {
    begun_ns: u64,
    namespaces: FxHashMap<u32, Namespace>,
    /// What the latest look showed of requests, and of full sockets that are not established.
    unsettled: FxHashMap<Tuple, Found>,
    /// Of connections that were established at the beginning, by cookie: when something was said on them last.
    quiet: FxHashMap<u64, Quiet>,
    listeners: FxHashMap<(u64, Tuple), Queue>,
    standing_before: FxHashMap<(Group, State, bool), u64>,
    used_before: FxHashMap<Route, Used>,
    opened: FxHashMap<Route, Opened>,
    ends: FxHashMap<(Group, Cause, Option<State>), Ends>,
    lives: FxHashMap<Group, Lives>,
    retransmits: FxHashMap<(Group, Option<State>), Retransmits>,
    restarts: FxHashMap<(u32, u16), Restarting>,
    strays: Strays,
}

/// When something was said last.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    since_ns: u64,
    tx_bytes: u64,
    rx_bytes: u64,
}

/// A listener's queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    length: u32,
    most: u32,
    /// The most of any other look.
    again: u32,
    backlog: u32,
    drops_before: u32,
    drops: u32,
    /// When it was seen last, `CLOCK_MONOTONIC` in ns.
    seen_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Opened {
    count: u64,
    failed: u64,
    owner: Option<Owner>,
}

#[derive(Debug, Default)]
struct Restarting {
    counts: Restarts,
    /// One closed, and none was opened since.
    closed: bool,
    pids: FxHashSet<u32>,
}

impl Watch {
    /// The time to be judged begins: what stands now is what growth is counted from. `sockets`: the full ones.
    pub fn begin(&mut self, sockets: impl Iterator<Item = Socket>, tally: &Tally, now_ns: u64) {
        let seen_ns = self.begun_ns.saturating_sub(GONE_NS);
        self.begun_ns = now_ns;
        self.forget(seen_ns);
        self.opened.clear();
        self.ends.clear();
        self.lives.clear();
        self.retransmits.clear();
        self.restarts.clear();
        self.strays.begin();
        for namespace in self.namespaces.values_mut() {
            namespace.first = namespace.latest.clone();
        }
        for queue in self.listeners.values_mut() {
            (queue.most, queue.again) = (queue.length, 0);
            queue.drops_before = queue.drops;
        }
        let Counted { standing, used } = self.count(sockets, tally, now_ns);
        self.standing_before = standing.into_iter().map(|(key, standing)| (key, standing.count)).collect();
        self.used_before = used;
    }

    /// Forgets network namespaces that were read last before then, and who listened there: nobody reads them any more.
    fn forget(&mut self, seen_ns: u64) {
        let Self { namespaces, listeners, .. } = self;
        let is_gone = |namespace: &Namespace| namespace.latest.counters.at_ns < seen_ns;
        listeners.retain(|(_, tuple), _| !namespaces.get(&tuple.netns).is_some_and(is_gone));
        namespaces.retain(|_, namespace| !is_gone(namespace));
    }

    /// Takes what a look or a survey found, at `now_ns`.
    pub fn surveyed(&mut self, survey: &Survey, now_ns: u64) {
        for health in &survey.health {
            let known = self.namespaces.entry(health.counters.netns);
            let first = || Namespace { first: health.clone(), latest: health.clone() };
            known.or_insert_with(first).latest = health.clone();
        }
        self.unsettled.clear();
        if survey.sockets.iter().any(|found| found.state == State::ESTABLISHED) {
            // A survey of all: who is not in it is gone.
            self.quiet.clear();
        }
        for found in survey.sockets.iter().filter(|found| found.form != Form::Minisock) {
            match found.state {
                State::LISTEN => self.listener(found, now_ns),
                State::ESTABLISHED => self.quiet(found, now_ns),
                _ => _ = self.unsettled.insert(found.tuple, found.clone()),
            }
        }
        let read = |netns| survey.namespaces.contains(&netns);
        self.listeners.retain(|(_, tuple), queue| queue.seen_ns == now_ns || !read(tuple.netns));
    }

    fn listener(&mut self, found: &Found, now_ns: u64) {
        // One that is new here has dropped nothing before, as far as is known.
        let new = Queue { drops_before: found.drops, ..Queue::default() };
        let queue = self.listeners.entry((found.cookie, found.tuple)).or_insert(new);
        queue.length = found.receive_queue;
        let least = queue.most.min(found.receive_queue);
        queue.again = queue.again.max(least);
        queue.most = queue.most.max(found.receive_queue);
        queue.backlog = found.send_queue;
        queue.drops = found.drops;
        queue.seen_ns = now_ns;
    }

    fn quiet(&mut self, found: &Found, now_ns: u64) {
        let Some(counters) = &found.counters else { return };
        let ms = u64::from(counters.last_data_sent_ms.min(counters.last_data_recv_ms));
        let totals = close::totals_so_far(found.state, counters, None);
        let quiet = Quiet {
            since_ns: now_ns.saturating_sub(ms.saturating_mul(1_000_000)),
            tx_bytes: totals.tx_bytes,
            rx_bytes: totals.rx_bytes,
        };
        if self.quiet.len() < QUIET {
            self.quiet.insert(found.cookie, quiet);
        }
    }

    /// Cookies of those of which it is known when something was said last.
    #[cfg(test)]
    pub(super) fn silent(&self) -> Vec<u64> {
        let mut cookies: Vec<u64> = self.quiet.keys().copied().collect();
        cookies.sort_unstable();
        cookies
    }

    /// Takes what happened.
    pub fn event(&mut self, event: &Event, tally: &Tally) {
        self.strays.event(event, tally);
        match event.kind {
            Kind::Transition => self.transition(event, tally),
            Kind::Retransmit => self.retransmit(event, tally),
            Kind::RstSent | Kind::RstReceived | Kind::Connection => {}
        }
    }

    fn transition(&mut self, event: &Event, tally: &Tally) {
        let (Some(old), Some(new)) = (event.old, event.new) else { return };
        match (old, new) {
            (State::CLOSE, State::SYN_SENT) => {
                let opened = entry(&mut self.opened, route(&event.tuple));
                if let Some(opened) = opened {
                    opened.count += 1;
                    opened.owner = event.owner.or(opened.owner);
                }
            }
            (State::CLOSE, State::LISTEN) | (State::LISTEN, State::CLOSE) => self.listens(event, new),
            _ => {}
        }
        if event.role == Some(Role::Client) {
            self.live(event, old, new, tally);
        }
        let Some(verdict) = event.verdict else { return };
        if verdict.cause == Cause::NoLocalPort
            && let Some(opened) = entry(&mut self.opened, route(&event.tuple))
        {
            opened.failed += 1;
            opened.owner = event.owner.or(opened.owner);
        }
        let quiet = event.id.and_then(|id| self.quiet.remove(&id.0));
        let idle_ns = quiet.and_then(|quiet| {
            let totals = event.totals?;
            // A client's SYN counts as a byte where the role is not known.
            let silent = totals.rx_bytes == quiet.rx_bytes && totals.tx_bytes.abs_diff(quiet.tx_bytes) <= 1;
            silent.then(|| event.ts_ns.saturating_sub(quiet.since_ns))
        });
        let group = group_of(&event.tuple, event.role, event.owner, tally);
        let key = |group| (group, verdict.cause, Some(old));
        let ends = bounded(&mut self.ends, group, key, |group| Ends {
            group,
            cause: Some(verdict.cause),
            hit: Some(old),
            ..Ends::default()
        });
        ends.seconds.take(event.ts_ns);
        ends.count += 1;
        ends.owner = event.owner.or(ends.owner);
        ends.example = ends.example.or(Some(event.tuple));
        if let Some(ns) = event.in_state_ns {
            ends.ages.take(ns);
        }
        if let Some(ns) = idle_ns {
            ends.idle.take(ns);
        }
    }

    fn live(&mut self, event: &Event, old: State, new: State, tally: &Tally) {
        let Some(ns) = event.in_state_ns else { return };
        let opened = old == State::SYN_SENT && new == State::ESTABLISHED;
        let left = old == State::ESTABLISHED;
        if !opened && !left {
            return;
        }
        let group = group_of(&event.tuple, event.role, event.owner, tally);
        let lives =
            bounded(&mut self.lives, group, |group| group, |group| Lives { group, ..Lives::default() });
        lives.owner = event.owner.or(lives.owner);
        if opened {
            lives.handshake.take(ns);
        } else {
            lives.count += 1;
            lives.established.take(ns);
        }
    }

    fn listens(&mut self, event: &Event, new: State) {
        let Tuple { netns, lport, .. } = event.tuple;
        if lport == 0 {
            return;
        }
        if new == State::CLOSE {
            let closed = self.listeners.keys().find(|(_, tuple)| *tuple == event.tuple).copied();
            closed.and_then(|closed| self.listeners.remove(&closed));
        } else {
            let cookie = event.id.map_or(0, |id| id.0);
            self.listeners.insert((cookie, event.tuple), Queue::default());
        }
        let others = self.listeners.keys().any(|(_, tuple)| (tuple.netns, tuple.lport) == (netns, lport));
        let Some(restarting) = entry(&mut self.restarts, (netns, lport)) else { return };
        let counts = &mut restarting.counts;
        (counts.netns, counts.port) = (netns, lport);
        counts.owner = event.owner.or(counts.owner);
        if new == State::CLOSE {
            // Of several that share the port, or have one of its addresses each, the last counts for all.
            restarting.closed = !others;
        } else if std::mem::take(&mut restarting.closed) {
            counts.count += 1;
            if let Some(owner) = event.owner
                && restarting.pids.len() < GROUPS
            {
                restarting.pids.insert(owner.pid);
            }
            counts.processes = restarting.pids.len() as u64;
        }
    }

    fn retransmit(&mut self, event: &Event, tally: &Tally) {
        let synack = event.retransmits.is_some();
        let state = if synack { Some(State::SYN_RECV) } else { event.prev_state };
        let group = group_of(&event.tuple, event.role, event.owner, tally);
        let key = |group| (group, state);
        let new = |group| Retransmits { group, state, ..Retransmits::default() };
        let retransmits = bounded(&mut self.retransmits, group, key, new);
        retransmits.seconds.take(event.ts_ns);
        retransmits.count += 1;
        retransmits.owner = event.owner.or(retransmits.owner);
        retransmits.example = retransmits.example.or(Some(event.tuple));
    }

    /// What is known at `now_ns`. `sockets`: the full ones. What only the host can tell is still to be added.
    #[must_use]
    pub fn facts(&self, sockets: impl Iterator<Item = Socket> + Clone, tally: &Tally, now_ns: u64) -> Facts {
        let owners: FxHashMap<Tuple, Option<Owner>> = sockets
            .clone()
            .filter(|socket| socket.state == State::LISTEN)
            .map(|socket| (socket.tuple, socket.owner))
            .collect();
        let Counted { standing, used } = self.count(sockets, tally, now_ns);
        let mut namespaces: Vec<Namespace> = self.namespaces.values().cloned().collect();
        namespaces.sort_by_key(Namespace::netns);
        let before = |key: &(Group, State, bool)| self.standing_before.get(key).copied().unwrap_or(0);
        let gone = self.standing_before.iter().filter(|(key, _)| !standing.contains_key(key));
        let gone = gone.map(|(&(group, state, minisocks), &before)| Standing {
            group,
            state: Some(state),
            minisocks,
            before,
            ..Standing::default()
        });
        let listener = |(&(_, tuple), queue): (&(u64, Tuple), &Queue)| Listener {
            tuple,
            owner: owners.get(&tuple).copied().flatten(),
            wanted: owners.contains_key(&tuple),
            queue: queue.length,
            most: queue.most,
            again: queue.again,
            backlog: queue.backlog,
            drops: u64::from(queue.drops.saturating_sub(queue.drops_before)),
        };
        Facts {
            watched_ns: now_ns.saturating_sub(self.begun_ns),
            namespaces,
            gone: gone.collect(),
            standing: standing
                .into_iter()
                .map(|(key, standing)| Standing { before: before(&key), ..standing })
                .collect(),
            destinations: self.destinations(used),
            listeners: self.listeners.iter().map(listener).collect(),
            ends: self.ends.values().cloned().collect(),
            lives: self.lives.values().cloned().collect(),
            strays: self.strays.strays(),
            retransmits: self.retransmits.values().cloned().collect(),
            restarts: self.restarts.values().map(|restarting| restarting.counts).collect(),
            severed: self.strays.severed(),
            ..Facts::default()
        }
    }

    fn destinations(&self, used: FxHashMap<Route, Used>) -> Vec<Destination> {
        let mut used = used;
        for (route, opened) in &self.opened {
            if opened.failed > 0 {
                used.entry(*route).or_default();
            }
        }
        let destination = |(route, used): (Route, Used)| {
            let (netns, laddr, raddr, rport) = route;
            let opened = self.opened.get(&route).copied().unwrap_or_default();
            let before = self.used_before.get(&route).copied().unwrap_or_default();
            let interesting = used.all >= FEW || opened.failed > 0;
            interesting.then_some(Destination {
                laddr,
                raddr,
                rport,
                netns,
                used: used.all,
                time_wait: used.time_wait,
                before: before.all,
                time_wait_before: before.time_wait,
                opened: opened.count,
                failed: opened.failed,
                owner: opened.owner.or(used.owner),
            })
        };
        used.into_iter().filter_map(destination).collect()
    }

    /// Counts what stands.
    fn count(&self, sockets: impl Iterator<Item = Socket>, tally: &Tally, now_ns: u64) -> Counted {
        let mut counted = Counted::default();
        let full = sockets.map(|socket| (socket, false));
        let small = tally.minisocks(now_ns).map(|socket| (socket, true));
        for (socket, minisock) in full.chain(small) {
            if socket.state == State::LISTEN {
                continue;
            }
            let Service { ours, .. } = tally.service(&socket.tuple, socket.role);
            if !ours && socket.tuple.lport != 0 && socket.tuple.rport != 0 {
                let used = counted.used.entry(route(&socket.tuple)).or_default();
                used.all += 1;
                used.time_wait += u64::from(socket.state == State::TIME_WAIT);
                used.owner = socket.owner.or(used.owner);
            }
            let group = group_of(&socket.tuple, socket.role, socket.owner, tally);
            let key = |group| (group, socket.state, minisock);
            let standing = bounded(&mut counted.standing, group, key, |group| Standing {
                group,
                state: Some(socket.state),
                minisocks: minisock,
                ..Standing::default()
            });
            // What was there before tcptrace looked has been there for that long at least.
            let watched_ns = now_ns.saturating_sub(self.begun_ns);
            standing.one(socket.age_ns(now_ns).unwrap_or(watched_ns), socket.tuple);
            standing.owner = socket.owner.or(standing.owner);
            if let Some(found) = self.unsettled.get(&socket.tuple).filter(|found| found.state == socket.state)
            {
                standing.window_closed += u64::from(found.timer == timer::WINDOW_PROBE);
                standing.unanswered += u64::from(found.timer == timer::RETRANSMIT && found.retransmits > 0);
                // The peer's FIN counts as a byte.
                standing.unread += u64::from(found.receive_queue.saturating_sub(1));
                standing.behind += u64::from(found.receive_queue > 0);
                standing.at_end += u64::from(found.receive_queue == 0);
                standing.unaccepted += u64::from(found.ino == 0);
            }
        }
        counted
    }
}

/// What stands.
#[derive(Default)]
struct Counted {
    standing: FxHashMap<(Group, State, bool), Standing>,
    used: FxHashMap<Route, Used>,
}

/// Local ports in use.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    all: u64,
    time_wait: u64,
    owner: Option<Owner>,
}

fn route(tuple: &Tuple) -> Route {
    (tuple.netns, tuple.laddr, tuple.raddr, tuple.rport)
}

fn group_of(tuple: &Tuple, role: Option<Role>, owner: Option<Owner>, tally: &Tally) -> Group {
    let Service { ours, port } = tally.service(tuple, role);
    // Whoever is connected to is a service, whatever its port.
    let port = port.or((role == Some(Role::Client)).then_some(tuple.rport));
    let pid = owner.map(|owner| owner.pid);
    Group { netns: tuple.netns, ours, port, raddr: Some(tuple.raddr), pid }
}

/// The entry, if there is room for it.
fn entry<K: Eq + Hash, V: Default>(map: &mut FxHashMap<K, V>, key: K) -> Option<&mut V> {
    let room = map.len() < GROUPS || map.contains_key(&key);
    room.then(|| map.entry(key).or_default())
}

/// The entry of a group, or, where there are too many, of one that is less exact.
fn bounded<K: Eq + Hash, V>(
    map: &mut FxHashMap<K, V>,
    group: Group,
    key: impl Fn(Group) -> K,
    new: impl FnOnce(Group) -> V,
) -> &mut V {
    let full = map.len() >= GROUPS;
    let exact = [group, group.any_peer()].into_iter().find(|group| !full || map.contains_key(&key(*group)));
    let group = match exact {
        Some(group) => group,
        None if map.len() < 2 * GROUPS => group.any_peer(),
        None => Group { netns: group.netns, ..Group::default() },
    };
    map.entry(key(group)).or_insert_with(|| new(group))
}
