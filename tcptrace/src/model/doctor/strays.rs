//! RSTs that tell of something beside their connection: those that no connection here was for, and those that both ends
//! got and neither sent.

use rustc_hash::{FxHashMap, FxHashSet};
use tcptrace_common::record::{Addr, Tuple};

use super::facts::Stray;
use crate::model::{
    event::{Event, Kind},
    tally::{Service, Tally},
};

/// Connections that are remembered at most, of each kind.
const CONNECTIONS: usize = 4096;
/// Ports of a group that are told apart.
const PORTS: usize = 256;

/// Both ends, without the network namespace.
type Ends = (Addr, u16, Addr, u16);

/// What is gathered.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Ends that got a RST.
    reset: FxHashSet<Ends>,
    /// Ends that sent one.
    sent: FxHashSet<Ends>,
    /// Ends that this host gave up with a RST, or had given up before: what still comes for them is no wonder.
    aborted: FxHashSet<Ends>,
    /// Those of the time before: segments are late by more than a moment.
    aborted_before: FxHashSet<Ends>,
    /// Segments that no connection was for.
    unclaimed: FxHashMap<Key, Counts>,
}

/// A service, and who is at the other end.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    netns: u32,
    ours: bool,
    laddr: Addr,
    raddr: Option<Addr>,
    port: u16,
}

#[derive(Debug, Default)]
struct Counts {
    count: u64,
    ports: FxHashSet<u16>,
}

fn ends(tuple: &Tuple) -> Ends {
    (tuple.laddr, tuple.lport, tuple.raddr, tuple.rport)
}

fn remember(set: &mut FxHashSet<Ends>, tuple: &Tuple) {
    if set.len() < CONNECTIONS {
        set.insert(ends(tuple));
    }
}

impl Strays {
    /// The time to be judged begins.
    pub(super) fn begin(&mut self) {
        *self = Self { aborted_before: std::mem::take(&mut self.aborted), ..Self::default() };
    }

    /// Takes what happened.
    pub(super) fn event(&mut self, event: &Event, tally: &Tally) {
        match event.kind {
            Kind::RstReceived => remember(&mut self.reset, &event.tuple),
            Kind::RstSent => {
                remember(&mut self.sent, &event.tuple);
                if event.reason.as_deref() == Some("NO_SOCKET") {
                    self.stray(&event.tuple, tally);
                } else {
                    remember(&mut self.aborted, &event.tuple);
                }
            }
            Kind::Transition if event.verdict.is_some_and(|verdict| verdict.cause.sends_reset()) => {
                remember(&mut self.aborted, &event.tuple);
            }
            _ => {}
        }
    }

    fn stray(&mut self, tuple: &Tuple, tally: &Tally) {
        let ends = ends(tuple);
        if self.aborted.contains(&ends) || self.aborted_before.contains(&ends) {
            return;
        }
        let Tuple { laddr, raddr, lport, rport, netns } = *tuple;
        let service = tally.service(tuple, None);
        // Where both ports could be anything, one that is asked for again and again is a service.
        let ours = service.ours || service == Service { ours: false, port: None };
        let (port, other) = if ours { (lport, rport) } else { (rport, lport) };
        let mut key = Key { netns, ours, laddr, raddr: Some(raddr), port };
        if self.unclaimed.len() >= CONNECTIONS && !self.unclaimed.contains_key(&key) {
            key.raddr = None;
            if self.unclaimed.len() >= 2 * CONNECTIONS && !self.unclaimed.contains_key(&key) {
                return;
            }
        }
        let counts = self.unclaimed.entry(key).or_default();
        counts.count += 1;
        if counts.ports.len() < PORTS {
            counts.ports.insert(other);
        }
    }

    /// Segments that no connection was for.
    pub(super) fn strays(&self) -> Vec<Stray> {
        let stray = |(key, counts): (&Key, &Counts)| {
            let Key { netns, ours, laddr, raddr, port } = *key;
            let connections = counts.ports.len() as u64;
            Stray { netns, ours, laddr, raddr, port, count: counts.count, connections }
        };
        self.unclaimed.iter().map(stray).collect()
    }

    /// Connections both ends of which are here and got a RST that neither sent; an example.
    pub(super) fn severed(&self) -> (u64, Option<Tuple>) {
        // Where not all is known nothing can be said.
        if self.reset.len() >= CONNECTIONS || self.sent.len() >= CONNECTIONS {
            return (0, None);
        }
        let mut pairs = 0;
        let mut example = None;
        for here @ &(laddr, lport, raddr, rport) in &self.reset {
            let there = (raddr, rport, laddr, lport);
            let sent = self.sent.contains(here) || self.sent.contains(&there);
            // Each pair once.
            if self.reset.contains(&there) && !sent && (lport, laddr.octets()) < (rport, raddr.octets()) {
                pairs += 1;
                example = Some(Tuple { laddr, raddr, lport, rport, netns: 0 });
            }
        }
        (pairs, example)
    }
}
