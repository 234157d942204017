//! Counts for a metrics endpoint: of each service, from the start on, never going back, and of a bounded number.
//!
//! It stands beside a [`Tally`], which knows the minisocks and whose service a port is. What is there is counted anew for
//! each scrape, as there; what happens is counted as it comes.

use std::{array, sync::Arc};

use super::{Matrix, Tally, key::Facts};
use crate::model::{
    cause::Cause,
    container::CgroupPath,
    event::{Event, Kind, Role},
    socket::Socket,
    state::State,
};

mod buckets;
mod services;

pub use buckets::Buckets;
pub use services::Label;
use services::{Paths, Services};

/// Upper bounds of the time in a state, in ns: from a tenth of a millisecond to an hour.
const DURATIONS_NS: &[u64] = &[
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
];
/// Upper bounds of the time that a handshake takes, in ns; the kernel sends a SYN again after 1, 3, 7 and 15 s.
const HANDSHAKES_NS: &[u64] = &[
    10_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    3_000_000_000,
    7_000_000_000,
    15_000_000_000,
];

/// Counts for metrics.
#[derive(Debug)]
pub struct Meter {
    services: Services,
    times: Times,
}

/// How long things took, of all services together.
#[derive(Clone, Debug)]
struct Times {
    /// By the number of the state.
    states: [Buckets; State::COUNT],
    client: Buckets,
    server: Buckets,
}

/// All counts at a time.
#[derive(Clone, Debug)]
pub struct Counts {
    /// By service; the first is all that has no label of its own.
    pub services: Vec<Service>,
    times: Times,
}

/// What is counted of a service, this host's or others'.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is called.
    pub label: Label,
    /// This host's end of the connections to its own service.
    pub server: Side,
    /// This host's end of connections to the service of others.
    pub client: Side,
    /// Transitions, by the numbers of the states left and entered.
    pub transitions: Box<Matrix>,
    /// RSTs, by what they have in common.
    pub resets: Vec<Resets>,
    /// Segments sent again.
    pub retransmits: u64,
}

/// What is counted of one role.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Whether there ever was anything to count.
    pub shown: bool,
    /// Sockets by the number of their state, at the last count.
    pub sockets: [u64; State::COUNT],
    /// How long the socket that has been there longest is in CLOSE_WAIT, in ns; 0 if there is none.
    pub oldest_close_wait_ns: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections ended, in the order of [`Cause::ALL`].
    pub closed: [u64; Cause::ALL.len()],
}

/// RSTs of one direction and reason.
#[derive(Clone, Debug)]
pub struct Resets {
    /// Whether this host sent them.
    pub sent: bool,
    /// The kernel's reason, if it gave one.
    pub reason: Option<Arc<str>>,
    /// How many.
    pub count: u64,
}

impl Meter {
    /// Nothing has happened yet. So many `labels` are given at most, to ports, or, with `by_comm`, to pairs of a port and
    /// the owner's name.
    #[must_use]
    pub fn new(labels: usize, by_comm: bool) -> Self {
        Self {
            services: Services::new(labels, by_comm),
            times: Times {
                states: array::from_fn(|_| Buckets::new(DURATIONS_NS)),
                client: Buckets::new(HANDSHAKES_NS),
                server: Buckets::new(HANDSHAKES_NS),
            },
        }
    }

    /// Labels have the container or unit, too, by the path of a cgroup's id.
    #[must_use]
    pub fn by_container(mut self, path: impl Fn(u64) -> Option<CgroupPath> + 'static) -> Self {
        self.services.paths = Some(Paths(Box::new(path)));
        self
    }

    /// Takes the next event. `tally` has taken it before.
    pub fn event(&mut self, event: &Event, tally: &Tally) {
        let facts = Facts::from(event);
        match event.kind {
            Kind::Transition => self.transition(event, &facts, tally),
            Kind::RstSent | Kind::RstReceived => {
                // A port scan is answered with RSTs of no socket; it must not use up the labels.
                let (service, side) = self.services.of(&facts, tally, event.id.is_some());
                side(service).shown |= event.id.is_some();
                service.reset(event.kind == Kind::RstSent, event.reason.as_ref());
            }
            Kind::Retransmit => self.services.of(&facts, tally, event.id.is_some()).0.retransmits += 1,
            Kind::Connection => {}
        }
    }

    fn transition(&mut self, event: &Event, facts: &Facts<'_>, tally: &Tally) {
        let (Some(old), Some(new)) = (event.old, event.new) else { return };
        let (service, side) = self.services.of(facts, tally, true);
        let row = service.transitions.get_mut(usize::from(old.number()));
        if let Some(count) = row.and_then(|row| row.get_mut(usize::from(new.number()))) {
            *count += 1;
        }
        let side = side(service);
        side.shown = true;
        let birth = matches!((old, new), (State::CLOSE, State::SYN_SENT) | (State::LISTEN, State::SYN_RECV));
        side.opened += u64::from(birth);
        if let Some(count) = event.verdict.and_then(|verdict| side.closed.get_mut(verdict.cause as usize)) {
            *count += 1;
        }
        let Times { states, client, server } = &mut self.times;
        // An orphan's minisock stays in FIN_WAIT2.
        let Some(ns) = event.in_state_ns.filter(|_| old != new) else { return };
        if let Some(times) = states.get_mut(usize::from(old.number())) {
            times.add(ns);
        }
        match (event.role, old, new) {
            (Some(Role::Client), State::SYN_SENT, State::ESTABLISHED) => client.add(ns),
            (Some(Role::Server), State::SYN_RECV, State::ESTABLISHED) => server.add(ns),
            _ => {}
        }
    }

    /// All counts, with what is there at `now_ns`. `sockets`: those that the tracker knows; `tally` knows which of them
    /// listen.
    pub fn counts(
        &mut self,
        sockets: impl Iterator<Item = Socket> + Clone,
        tally: &Tally,
        now_ns: u64,
    ) -> Counts {
        let Self { services, times } = self;
        services.stand(sockets, tally, now_ns);
        Counts { services: services.all(), times: times.clone() }
    }
}

impl Counts {
    /// The states of a connection that end before it does, with the time spent in them.
    pub fn durations(&self) -> impl Iterator<Item = (State, &Buckets)> {
        let left = State::LIFE.into_iter().filter(|state| *state != State::TIME_WAIT);
        left.filter_map(|state| Some((state, self.times.states.get(usize::from(state.number()))?)))
    }

    /// How long handshakes took, by role.
    #[must_use]
    pub fn handshakes(&self) -> [(Role, &Buckets); 2] {
        [(Role::Client, &self.times.client), (Role::Server, &self.times.server)]
    }
}

impl Service {
    fn new(label: Label) -> Self {
        Self {
            label,
            server: Side::default(),
            client: Side::default(),
            transitions: Box::default(),
            resets: Vec::new(),
            retransmits: 0,
        }
    }

    /// What there ever was anything to count of, with the role.
    pub fn sides(&self) -> impl Iterator<Item = (Role, &Side)> {
        [(Role::Server, &self.server), (Role::Client, &self.client)]
            .into_iter()
            .filter(|(_, side)| side.shown)
    }

    fn reset(&mut self, sent: bool, reason: Option<&Arc<str>>) {
        let is_it = |resets: &&mut Resets| resets.sent == sent && resets.reason.as_ref() == reason;
        match self.resets.iter_mut().find(is_it) {
            Some(resets) => resets.count += 1,
            None => self.resets.push(Resets { sent, reason: reason.cloned(), count: 1 }),
        }
    }
}

impl Side {
    /// Counts a socket that is there.
    fn stands(&mut self, socket: &Socket, now_ns: u64) {
        self.shown = true;
        if let Some(count) = self.sockets.get_mut(usize::from(socket.state.number())) {
            *count += 1;
        }
        if socket.state == State::CLOSE_WAIT {
            let age_ns = socket.age_ns(now_ns).unwrap_or(0);
            self.oldest_close_wait_ns = self.oldest_close_wait_ns.max(age_ns);
        }
    }
}

#[cfg(test)]
mod tests;
