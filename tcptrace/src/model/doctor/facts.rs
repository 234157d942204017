//! What a judgement rests on: counts of what stands and of what happened, already grouped. Gathered by
//! [`Watch`](super::Watch) and by the command; judged by the rules, which read nothing else.

use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;
use tcptrace_common::record::{Addr, Tuple};

use super::group::{Counted, Group, sum};
use crate::model::{
    cause::Cause,
    event::Owner,
    health::{Descriptors, Health, Snmp},
    state::State,
};

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// How long was watched, in ns.
    pub watched_ns: u64,
    /// Whether a filter keeps some connections out, so that the kernel's own counters are of more than was seen.
    pub filtered: bool,
    /// The network namespaces that could be read.
    pub namespaces: Vec<Namespace>,
    /// What stands: sockets by group and state.
    pub standing: Vec<Standing>,
    /// What stood at the beginning, by group and state, where none of it is left: growth is not counted from nothing.
    pub gone: Vec<Standing>,
    /// Local ports in use, by where their connections go; only where they are many, or ran out.
    pub destinations: Vec<Destination>,
    /// Who listens, whatever a filter says: whether somebody does is a matter of others, too.
    pub listeners: Vec<Listener>,
    /// Connections that ended, by group, cause and the state that the end met.
    pub ends: Vec<Ends>,
    /// Times of connections that clients here opened, by group.
    pub lives: Vec<Lives>,
    /// Segments that no connection of this host was for, and that it answered with RSTs.
    pub strays: Vec<Stray>,
    /// Segments sent again, by group and state.
    pub retransmits: Vec<Retransmits>,
    /// Listeners that closed and opened again.
    pub restarts: Vec<Restarts>,
    /// Connections both ends of which are here and got a RST that neither sent; an example.
    pub severed: (u64, Option<Tuple>),
    /// Descriptors of the processes that own sockets, as far as they were asked for.
    pub processes: FxHashMap<u32, Descriptors>,
}

/// A network namespace at the beginning and at the end of the time watched.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// At the beginning.
    pub first: Health,
    /// At the end.
    pub latest: Health,
}

impl Namespace {
    /// Its inode number.
    #[must_use]
    pub fn netns(&self) -> u32 {
        self.latest.counters.netns
    }

    /// What the kernel counted meanwhile.
    #[must_use]
    pub fn counted(&self) -> Snmp {
        self.latest.counters.since(&self.first.counters)
    }

    /// The ports that the kernel hands out, but for those that are reserved.
    #[must_use]
    pub fn ports(&self) -> Option<RangeInclusive<u16>> {
        let range = self.latest.sysctls.all("ip_local_port_range")?;
        let port = |at: usize| range.get(at).and_then(|port| u16::try_from(*port).ok());
        Some(port(0)?..=port(1)?)
    }

    /// Those that are reserved, in ranges from first to last.
    fn reserved(&self) -> impl Iterator<Item = (u16, u16)> {
        let ranges = self.latest.sysctls.all("ip_local_reserved_ports").unwrap_or_default();
        ranges.chunks_exact(2).filter_map(|range| {
            let port = |at: usize| range.get(at).and_then(|port| u16::try_from(*port).ok());
            Some((port(0)?, port(1)?))
        })
    }

    /// Whether the kernel hands the port out.
    #[must_use]
    pub fn hands_out(&self, port: u16) -> bool {
        let reserved = self.reserved().any(|(first, last)| (first..=last).contains(&port));
        self.ports().is_some_and(|ports| ports.contains(&port)) && !reserved
    }

    /// How many ports the kernel hands out; 0 where that is not known.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        let Some(ports) = self.ports().filter(|ports| !ports.is_empty()) else { return 0 };
        let (mut next, end) = (u32::from(*ports.start()), u32::from(*ports.end()) + 1);
        let mut reserved: Vec<(u16, u16)> = self.reserved().collect();
        reserved.sort_unstable();
        let mut count = 0;
        for (first, last) in reserved {
            count += u32::from(first).min(end).saturating_sub(next);
            next = next.max(u32::from(last) + 1);
        }
        (count + end.saturating_sub(next)).into()
    }
}

macro_rules! counted {
    ($kind:ty, |$sum:ident, $other:ident| $add:expr) => {
        impl Counted for $kind {
            fn group(&self) -> Group {
                self.group
            }

            fn group_mut(&mut self) -> &mut Group {
                &mut self.group
            }

            fn count(&self) -> u64 {
                self.count
            }

            fn add(&mut self, $other: &Self) {
                let $sum = self;
                $sum.count += $other.count;
                $add;
            }
        }
    };
}

/// Ages kept of a group at most.
const AGES: usize = 10_000;
/// Examples kept.
const EXAMPLES: usize = 3;

/// Sockets of a group in a state.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// What they have in common.
    pub group: Group,
    /// Their state; of several that of the first.
    pub state: Option<State>,
    /// Whether they are minisocks, in FIN_WAIT2 those of orphans.
    pub minisocks: bool,
    /// How many.
    pub count: u64,
    /// How many at the beginning.
    pub before: u64,
    /// Whose they are.
    pub owner: Option<Owner>,
    /// How long they have been in the state, in ns: exactly, or at least; in no order, of so many as are kept.
    pub ages_ns: Vec<u64>,
    /// Those whose peer's window is closed.
    pub window_closed: u64,
    /// Those that have sent something again and wait for an answer.
    pub unanswered: u64,
    /// Bytes that their applications have not read, where the peer has closed.
    pub unread: u64,
    /// Those whose applications have not read to the peer's FIN, as far as is known.
    pub behind: u64,
    /// Those whose applications have.
    pub at_end: u64,
    /// Those that have no file: no application has accepted them, or it has closed them.
    pub unaccepted: u64,
    /// Some of them.
    pub examples: Vec<Tuple>,
}

counted!(Standing, |sum, other| {
    sum.before += other.before;
    sum.window_closed += other.window_closed;
    sum.unanswered += other.unanswered;
    sum.unread += other.unread;
    sum.behind += other.behind;
    sum.at_end += other.at_end;
    sum.unaccepted += other.unaccepted;
    sum.owner = sum.owner.or(other.owner);
    let room = AGES.saturating_sub(sum.ages_ns.len());
    sum.ages_ns.extend(other.ages_ns.iter().take(room));
    let room = EXAMPLES.saturating_sub(sum.examples.len());
    sum.examples.extend(other.examples.iter().take(room));
});

impl Standing {
    /// One more of them.
    pub(super) fn one(&mut self, age_ns: u64, example: Tuple) {
        self.count += 1;
        if self.ages_ns.len() < AGES {
            self.ages_ns.push(age_ns);
        }
        if self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }

    /// How many have been in the state for so long, in ns: of more than ages are kept of as large a part as of those.
    #[must_use]
    pub fn older_than(&self, ns: u64) -> u64 {
        let old = self.ages_ns.iter().filter(|age| **age >= ns).count() as u64;
        let known = self.ages_ns.len() as u64;
        if known < self.count { (old * self.count).checked_div(known).unwrap_or(0) } else { old }
    }

    /// How long that one has which has been in the state longest, in ns.
    #[must_use]
    pub fn oldest_ns(&self) -> u64 {
        self.ages_ns.iter().copied().max().unwrap_or(0)
    }

    /// How many more than at the beginning.
    #[must_use]
    pub fn growth(&self) -> u64 {
        self.count.saturating_sub(self.before)
    }
}

/// Local ports whose connections go to the same place: each can be used once.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// From here.
    pub laddr: Addr,
    /// To there.
    pub raddr: Addr,
    /// That port.
    pub rport: u16,
    /// In this network namespace.
    pub netns: u32,
    /// Ports in use.
    pub used: u64,
    /// Those of them in TIME_WAIT.
    pub time_wait: u64,
    /// Ports in use at the beginning.
    pub before: u64,
    /// Those of them in TIME_WAIT.
    pub time_wait_before: u64,
    /// Connections begun meanwhile.
    pub opened: u64,
    /// Connections for which there was no port.
    pub failed: u64,
    /// Who opens them.
    pub owner: Option<Owner>,
}

/// A listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listener {
    /// Where it listens.
    pub tuple: Tuple,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Connections that wait to be accepted.
    pub queue: u32,
    /// The most that were seen waiting.
    pub most: u32,
    /// The most that were seen waiting in any other look.
    pub again: u32,
    /// How many may wait; 0 where that is not known.
    pub backlog: u32,
    /// SYNs and handshakes that it dropped meanwhile.
    pub drops: u64,
    /// Whether a filter lets it through.
    pub wanted: bool,
}

/// Times that are alike or not, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many are known.
    pub count: u64,
    /// The shortest.
    pub least_ns: u64,
    /// The longest.
    pub most_ns: u64,
    /// All together.
    pub sum_ns: u64,
}

impl Spread {
    /// One more.
    pub fn take(&mut self, ns: u64) {
        self.add(&Self { count: 1, least_ns: ns, most_ns: ns, sum_ns: ns });
    }

    fn add(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.least_ns = if self.count == 0 { other.least_ns } else { self.least_ns.min(other.least_ns) };
        self.most_ns = self.most_ns.max(other.most_ns);
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// The mean, if any is known.
    #[must_use]
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.count)
    }
}

/// Different seconds in which something happened: 64 are told apart, later ones fall on earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds(u64);

impl Seconds {
    /// Something happened then, in ns.
    pub fn take(&mut self, at_ns: u64) {
        self.0 |= 1 << (at_ns / 1_000_000_000 % 64);
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u64 {
        self.0.count_ones().into()
    }
}

/// Connections that ended alike.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// What they have in common.
    pub group: Group,
    /// Why they ended.
    pub cause: Option<Cause>,
    /// The state that the end met.
    pub hit: Option<State>,
    /// How many.
    pub count: u64,
    /// In which seconds.
    pub seconds: Seconds,
    /// Whose they were.
    pub owner: Option<Owner>,
    /// How long they were in that state.
    pub ages: Spread,
    /// How long nothing had been said on them, of those that were there before.
    pub idle: Spread,
    /// One of them.
    pub example: Option<Tuple>,
}

counted!(Ends, |sum, other| {
    sum.seconds.add(other.seconds);
    sum.owner = sum.owner.or(other.owner);
    sum.ages.add(&other.ages);
    sum.idle.add(&other.idle);
    sum.example = sum.example.or(other.example);
});

/// Times of connections that a client here opened.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    /// What they have in common.
    pub group: Group,
    /// How many were left (in ESTABLISHED) meanwhile.
    pub count: u64,
    /// Whose they were.
    pub owner: Option<Owner>,
    /// From SYN to ESTABLISHED: a round trip.
    pub handshake: Spread,
    /// How long they were in ESTABLISHED.
    pub established: Spread,
}

counted!(Lives, |sum, other| {
    sum.owner = sum.owner.or(other.owner);
    sum.handshake.add(&other.handshake);
    sum.established.add(&other.established);
});

/// Segments sent again.
#[derive(Clone, Debug, Default)]
pub struct Retransmits {
    /// What their connections have in common.
    pub group: Group,
    /// The state of the connection; SYN_RECV for a SYN-ACK.
    pub state: Option<State>,
    /// How many.
    pub count: u64,
    /// In which seconds.
    pub seconds: Seconds,
    /// Whose the connections are.
    pub owner: Option<Owner>,
    /// One of them.
    pub example: Option<Tuple>,
}

counted!(Retransmits, |sum, other| {
    sum.seconds.add(other.seconds);
    sum.owner = sum.owner.or(other.owner);
    sum.example = sum.example.or(other.example);
});

/// A port whose listener closed and opened again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The port.
    pub port: u16,
    /// How often a listener was opened after one had closed.
    pub count: u64,
    /// Whose the last was.
    pub owner: Option<Owner>,
    /// Different processes that opened one.
    pub processes: u64,
}

/// Segments from a peer that no connection of this host was for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stray {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The peer asks for a service here; otherwise it is the service that the segments come from.
    pub ours: bool,
    /// Where they came to.
    pub laddr: Addr,
    /// From whom; `None`: several.
    pub raddr: Option<Addr>,
    /// The service's port.
    pub port: u16,
    /// RSTs that were sent.
    pub count: u64,
    /// Different ports of the other end: so many connections.
    pub connections: u64,
}

impl Facts {
    /// The sum of what stands in any of the states, by a coarser grouping, most first.
    pub fn standing(&self, states: &[State], coarser: impl Fn(Group) -> Group) -> Vec<Standing> {
        let wanted = |standing: &&Standing| standing.state.is_some_and(|state| states.contains(&state));
        let mut gone: FxHashMap<Group, u64> = FxHashMap::default();
        for part in self.gone.iter().filter(wanted) {
            *gone.entry(coarser(part.group)).or_default() += part.before;
        }
        let mut sums = sum(self.standing.iter().filter(wanted), &coarser);
        for sum in &mut sums {
            sum.before += gone.get(&coarser(sum.group)).copied().unwrap_or(0);
        }
        sums
    }

    /// How many connections a service has, but for those in TIME_WAIT, or had until they ended meanwhile.
    #[must_use]
    pub fn connections(&self, service: Group) -> u64 {
        let stands = |part: &&Standing| {
            part.state != Some(State::TIME_WAIT) && part.group.service() == service.service()
        };
        // What was never opened is none.
        let ended =
            |part: &&Ends| part.hit != Some(State::SYN_SENT) && part.group.service() == service.service();
        let stand: u64 = self.standing.iter().filter(stands).map(|part| part.count).sum();
        stand + self.ends.iter().filter(ended).map(|part| part.count).sum::<u64>()
    }

    /// The sum of what ended for any of the causes, by a coarser grouping, most first.
    pub fn ends(&self, causes: &[Cause], coarser: impl Fn(Group) -> Group) -> Vec<Ends> {
        let wanted = |ends: &&Ends| ends.cause.is_some_and(|cause| causes.contains(&cause));
        sum(self.ends.iter().filter(wanted), coarser)
    }

    /// Processes whose connections pile up, those with most first, so many at most.
    #[must_use]
    pub fn suspects(&self, most: usize) -> Vec<u32> {
        let by_process =
            self.standing(&[State::CLOSE_WAIT], |group| Group { pid: group.pid, ..Group::default() });
        by_process.iter().filter_map(|standing| standing.group.pid).take(most).collect()
    }

    /// Whether that host was seen to answer: the address is alive, whatever one of its ports does.
    #[must_use]
    pub fn answers(&self, peer: &Group) -> bool {
        let is_peer = |group: Group| group.netns == peer.netns && group.raddr == peer.raddr;
        let silent = [State::SYN_SENT, State::SYN_RECV];
        let stands = self
            .standing
            .iter()
            .any(|part| is_peer(part.group) && part.state.is_some_and(|state| !silent.contains(&state)));
        let ended = self.ends.iter().any(|part| {
            is_peer(part.group) && (part.cause == Some(Cause::Refused) || part.hit != Some(State::SYN_SENT))
        });
        stands || ended || self.lives.iter().any(|part| is_peer(part.group))
    }

    /// The network namespace of that number.
    #[must_use]
    pub fn namespace(&self, netns: u32) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.netns() == netns)
    }

    /// The listeners that are to be judged.
    pub fn wanted_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| listener.wanted || !self.filtered)
    }

    /// The network namespace that was read last: what is the host's is true there.
    #[must_use]
    pub fn newest(&self) -> Option<&Namespace> {
        self.namespaces.iter().max_by_key(|namespace| namespace.latest.counters.at_ns)
    }

    /// So many in the time watched, by second.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people, compared with thresholds")]
        let (count, seconds) = (count as f64, self.watched_ns.max(1) as f64 / 1e9);
        count / seconds
    }
}
