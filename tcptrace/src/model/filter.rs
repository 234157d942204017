//! Which connections the user wants to see.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;
use tcptrace_common::{
    filter::{self as kernel, BLOCKS, PORTS, VALUES, tests},
    record::Addr,
};

use super::{
    event::{Event, OwnerSource},
    state::State,
};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, on an IPv6 socket too.
    V4,
    /// IPv6.
    V6,
}

/// A cgroup and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The cgroup's id.
    pub id: u64,
    /// Levels below the root.
    pub level: u32,
    /// Path below the cgroup root, beginning with `/`.
    pub path: Arc<str>,
}

/// Tests are combined with AND, the values of a test with OR; an empty test lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The owner's process id.
    pub pids: Vec<u32>,
    /// The owner's command name, whole.
    pub comms: Vec<String>,
    /// This host's port.
    pub lports: Vec<RangeInclusive<u16>>,
    /// The peer's port.
    pub rports: Vec<RangeInclusive<u16>>,
    /// Either port.
    pub ports: Vec<RangeInclusive<u16>>,
    /// This host's address.
    pub laddrs: Vec<IpNet>,
    /// The peer's address.
    pub raddrs: Vec<IpNet>,
    /// Either address.
    pub addrs: Vec<IpNet>,
    /// Address family.
    pub family: Option<Family>,
    /// Network namespaces by inode number.
    pub netns: Vec<u32>,
    /// The socket's user.
    pub uids: Vec<u32>,
    /// The socket's cgroup.
    pub cgroups: Vec<Cgroup>,
    /// The socket's container, or systemd unit, as [`CgroupPath::is_called`] takes it.
    pub containers: Vec<String>,
    /// The state left or entered, or that a RST met.
    pub states: Vec<State>,
}

/// What a filter says of a connection, as far as an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is wanted.
    Admit,
    /// It is not.
    Refuse,
    /// A later event of the connection will tell.
    Undecided,
}

impl Verdict {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Refuse, _) | (_, Self::Refuse) => Self::Refuse,
            (Self::Undecided, _) | (_, Self::Undecided) => Self::Undecided,
            (Self::Admit, Self::Admit) => Self::Admit,
        }
    }
}

/// The results of several tests, all of which must pass.
#[derive(Default)]
struct Tests {
    open: bool,
    failed: bool,
}

impl Tests {
    /// Adds a test, if it is on; `None`: cannot be told yet.
    fn add(&mut self, on: bool, passed: Option<bool>) {
        self.open |= on && passed.is_none();
        self.failed |= on && passed == Some(false);
    }

    fn verdict(&self) -> Verdict {
        match (self.failed, self.open) {
            (true, _) => Verdict::Refuse,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Admit,
        }
    }
}

impl Filter {
    /// Judges the connection of an event. The states are no matter of the connection: see
    /// [`shows`](Self::shows).
    #[must_use]
    pub fn judge(&self, event: &Event) -> Verdict {
        self.judge_socket(event).and(self.judge_owner(event))
    }

    /// As [`judge`](Self::judge), by what the kernel side tests too. What this refuses may not be reported again.
    #[must_use]
    pub fn judge_socket(&self, event: &Event) -> Verdict {
        let mut tests = Tests::default();
        // What is missing at the end will not come any more.
        let unknown = if event.closed { Some(false) } else { None };
        let (laddr, raddr) = (event.laddr(), event.raddr());
        let (lport, rport) = (event.tuple.lport, event.tuple.rport);

        tests.add(self.family.is_some(), Some((self.family == Some(Family::V4)) == event.tuple.is_v4()));
        tests.add(!self.netns.is_empty(), Some(self.netns.contains(&event.tuple.netns)));
        tests.add(!self.laddrs.is_empty(), Some(within(&self.laddrs, laddr)));
        tests.add(!self.raddrs.is_empty(), Some(within(&self.raddrs, raddr)));
        tests.add(!self.addrs.is_empty(), Some(within(&self.addrs, laddr) || within(&self.addrs, raddr)));
        tests.add(!self.rports.is_empty(), Some(rport != 0 && among(&self.rports, rport)));
        let local = |ports: &[RangeInclusive<u16>]| {
            if lport == 0 { unknown } else { Some(among(ports, lport)) }
        };
        tests.add(!self.lports.is_empty(), local(&self.lports));
        let either = if rport != 0 && among(&self.ports, rport) { Some(true) } else { local(&self.ports) };
        tests.add(!self.ports.is_empty(), either);
        let cgroup = event.cgroup.is_some_and(|id| {
            self.cgroups.iter().any(|cgroup| cgroup.id == id || cgroup.holds(event.cgroup_path.as_deref()))
        });
        tests.add(!self.cgroups.is_empty(), Some(cgroup));
        let container = match (event.cgroup, &event.cgroup_path) {
            (_, Some(path)) => Some(self.containers.iter().any(|wanted| path.is_called(wanted))),
            (Some(_), None) => unknown,
            (None, None) => Some(false),
        };
        tests.add(!self.containers.is_empty(), container);
        // Until it is accepted a connection shows its listener's user.
        let uid = match event.uid {
            Some(uid) if self.uids.contains(&uid) => Some(true),
            Some(_) if event.unaccepted => unknown,
            _ => Some(false),
        };
        tests.add(!self.uids.is_empty(), uid);
        tests.verdict()
    }

    fn judge_owner(&self, event: &Event) -> Verdict {
        let mut tests = Tests::default();
        let owner = |wanted: &dyn Fn(u32, &[u8]) -> bool| match &event.owner {
            Some(owner) if wanted(owner.pid, owner.comm.bytes()) => Some(true),
            // Whoever accepts the connection may be another.
            Some(owner) if owner.source == OwnerSource::Listener && !event.closed => None,
            None if event.id.is_some() && !event.closed => None,
            _ => Some(false),
        };
        tests.add(!self.pids.is_empty(), owner(&|pid, _| self.pids.contains(&pid)));
        let named = |_, comm: &[u8]| self.comms.iter().any(|wanted| wanted.as_bytes() == comm);
        tests.add(!self.comms.is_empty(), owner(&named));
        tests.verdict()
    }

    /// Whether an event of a wanted connection is to be shown.
    #[must_use]
    pub fn shows(&self, event: &Event) -> bool {
        self.states.is_empty()
            || [event.old, event.new, event.kernel_new, event.prev_state]
                .into_iter()
                .flatten()
                .any(|state| self.states.contains(&state))
            || event
                .history
                .as_ref()
                .is_some_and(|history| self.states.iter().any(|state| history.has_visited(*state)))
    }

    /// Whether it judges by the paths of cgroups.
    #[must_use]
    pub fn needs_paths(&self) -> bool {
        !self.cgroups.is_empty() || !self.containers.is_empty()
    }

    /// Whether the verdict on a connection may change while it lives: its owner and its user may.
    #[must_use]
    pub fn follows_owners(&self) -> bool {
        !self.pids.is_empty() || !self.comms.is_empty() || !self.uids.is_empty()
    }

    /// The part of the filter that the kernel side tests. What does not fit its tables it lets pass.
    /// `cgroups`: whether this kernel lets it look at a cgroup's ancestors.
    #[must_use]
    pub fn kernel_part(&self, cgroups: bool) -> kernel::Filter {
        let mut part = kernel::Filter::ALL;
        let mut on = |test, used: bool| {
            if used {
                part.tests |= test;
            }
        };
        on(tests::FAMILY, self.family.is_some());
        on(tests::LPORT, fits(&self.lports, PORTS));
        on(tests::RPORT, fits(&self.rports, PORTS));
        on(tests::PORT, fits(&self.ports, PORTS));
        on(tests::LADDR, fits(&self.laddrs, BLOCKS));
        on(tests::RADDR, fits(&self.raddrs, BLOCKS));
        on(tests::ADDR, fits(&self.addrs, BLOCKS));
        on(tests::NETNS, fits(&self.netns, VALUES));
        on(tests::UID, fits(&self.uids, VALUES));
        on(tests::CGROUP, cgroups && fits(&self.cgroups, VALUES));
        part.family = if self.family == Some(Family::V4) { 4 } else { 6 };
        fill(&mut part.lport, &self.lports, range);
        fill(&mut part.rport, &self.rports, range);
        fill(&mut part.port, &self.ports, range);
        fill(&mut part.laddr, &self.laddrs, block);
        fill(&mut part.raddr, &self.raddrs, block);
        fill(&mut part.addr, &self.addrs, block);
        fill(&mut part.netns, &self.netns, |netns| *netns);
        fill(&mut part.uid, &self.uids, |uid| *uid);
        fill(&mut part.uid_used, &self.uids, |_| 1);
        fill(&mut part.cgroup, &self.cgroups, |cgroup| kernel::Cgroup {
            id: cgroup.id,
            level: cgroup.level,
            unused: 0,
        });
        part
    }
}

impl Cgroup {
    /// Whether a cgroup of that path is it, or below it.
    fn holds(&self, path: Option<&str>) -> bool {
        let below = |rest: &str| self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        path.and_then(|path| path.strip_prefix(&*self.path)).is_some_and(below)
    }
}

fn among(ranges: &[RangeInclusive<u16>], port: u16) -> bool {
    ranges.iter().any(|range| range.contains(&port))
}

fn within(blocks: &[IpNet], addr: IpAddr) -> bool {
    blocks.iter().any(|block| block.contains(&addr))
}

fn fits<T>(values: &[T], room: usize) -> bool {
    (1..=room).contains(&values.len())
}

fn fill<T, U>(slots: &mut [U], values: &[T], convert: impl Fn(&T) -> U) {
    for (slot, value) in slots.iter_mut().zip(values) {
        *slot = convert(value);
    }
}

fn range(range: &RangeInclusive<u16>) -> kernel::PortRange {
    kernel::PortRange { first: *range.start(), last: *range.end() }
}

fn block(net: &IpNet) -> kernel::Block {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut mask = octets(net.netmask());
    if matches!(net, IpNet::V4(_)) {
        // The mapped prefix must match whole.
        mask[..12].fill(0xff);
    }
    kernel::Block { addr: Addr::from_octets(octets(net.network())), mask: Addr::from_octets(mask) }
}

// `tests` are the kernel side's.
#[cfg(test)]
#[path = "filter/tests.rs"]
mod unit_tests;
