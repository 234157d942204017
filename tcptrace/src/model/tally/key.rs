//! What a row stands for.

use std::ops::RangeInclusive;

use rustc_hash::FxHashSet;
use tcptrace_common::record::{Addr, Tuple};

use crate::model::{
    cause::Cause,
    event::{Comm, Event, Owner, Role},
    socket::Socket,
    state::State,
};

/// What makes a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The service's port: that of the listener; of a client's connections the peer's, and whose they are.
    #[default]
    Port,
    /// The owner's process.
    Pid,
    /// The owner's name.
    Comm,
    /// The cgroup.
    Cgroup,
    /// The container, or the systemd unit.
    Container,
    /// The network namespace.
    Netns,
    /// The peer's address.
    Raddr,
    /// Why the connection ended.
    Cause,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Port,
        Self::Pid,
        Self::Comm,
        Self::Cgroup,
        Self::Container,
        Self::Netns,
        Self::Raddr,
        Self::Cause,
    ];

    /// The name, as `--by` takes it and as JSON calls a row's kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Pid => "pid",
            Self::Comm => "comm",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Netns => "netns",
            Self::Raddr => "raddr",
            Self::Cause => "cause",
        }
    }
}

/// A row's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A service of this host.
    Server {
        /// Inode number of the network namespace.
        netns: u32,
        /// Its port; `None`: one of those that the kernel hands out, which stand for no service.
        port: Option<u16>,
    },
    /// What a process of this host has open to the services of others.
    Client {
        /// Inode number of the network namespace.
        netns: u32,
        /// Their port; `None` as above.
        port: Option<u16>,
        /// The process's name, when known.
        comm: Option<Comm>,
    },
    /// A process.
    Pid(Option<u32>),
    /// Processes of one name.
    Comm(Option<Comm>),
    /// A cgroup, by its id; 0 is unknown.
    Cgroup(u64),
    /// A container or unit, by the id of one of its cgroups, which whoever reads the host gives to all of them; 0 is unknown.
    Container(u64),
    /// A network namespace, by its inode number.
    Netns(u32),
    /// A peer.
    Raddr(Addr),
    /// A cause; `None`: the connection has not ended.
    Cause(Option<Cause>),
    /// All that has no row of its own.
    Other,
}

/// Tells service ports from those that the kernel hands out.
#[derive(Clone, Debug)]
pub struct Ports {
    /// `net.ipv4.ip_local_port_range`.
    ephemeral: RangeInclusive<u16>,
    /// The ports that somebody listens on, by network namespace.
    listening: FxHashSet<(u32, u16)>,
}

/// Whose service a connection uses, and the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Whether it is this end's.
    pub ours: bool,
    /// The port; `None`: one of those that the kernel hands out.
    pub port: Option<u16>,
}

impl Ports {
    /// Nobody listens yet.
    #[must_use]
    pub fn new(ephemeral: RangeInclusive<u16>) -> Self {
        Self { ephemeral, listening: FxHashSet::default() }
    }

    /// Somebody listens there.
    pub fn listens(&mut self, tuple: &Tuple) {
        self.listening.insert((tuple.netns, tuple.lport));
    }

    /// Only these are listened on.
    pub fn replace<'a>(&mut self, listeners: impl Iterator<Item = &'a Tuple>) {
        self.listening.clear();
        listeners.for_each(|tuple| self.listens(tuple));
    }

    /// Which end of a connection is the service. Without a role: the end where somebody listens, or whose port is not
    /// one of those that the kernel hands out, or is the smaller.
    #[must_use]
    pub fn service(&self, tuple: &Tuple, role: Option<Role>) -> Service {
        let Tuple { lport, rport, netns, .. } = *tuple;
        let listening = |port| self.listening.contains(&(netns, port));
        let handed_out = |port| self.ephemeral.contains(&port) && !listening(port);
        let ours = match role {
            Some(Role::Server | Role::Listener) => true,
            Some(Role::Client) => false,
            None if rport == 0 || listening(lport) => true,
            None if lport == 0 => false,
            None => match (handed_out(lport), handed_out(rport)) {
                (false, true) => true,
                (true, false) => false,
                _ => lport <= rport,
            },
        };
        // Whoever listened is a service, even if nobody listens any more.
        let certain = matches!(role, Some(Role::Server | Role::Listener));
        let port = if ours { lport } else { rport };
        Service { ours, port: (certain || !handed_out(port)).then_some(port) }
    }
}

/// What a row is chosen by.
pub(super) struct Facts<'a> {
    pub(super) tuple: &'a Tuple,
    pub(super) role: Option<Role>,
    pub(super) owner: Option<Owner>,
    pub(super) cgroup: u64,
    pub(super) cause: Option<Cause>,
}

impl<'a> From<&'a Socket> for Facts<'a> {
    fn from(socket: &'a Socket) -> Self {
        let Socket { tuple, role, owner, cgroup, .. } = socket;
        let listens = socket.state == State::LISTEN;
        let role = if listens { Some(Role::Listener) } else { *role };
        Self { tuple, role, owner: *owner, cgroup: *cgroup, cause: None }
    }
}

impl<'a> From<&'a Event> for Facts<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            tuple: &event.tuple,
            role: event.role,
            owner: event.owner,
            cgroup: event.cgroup.unwrap_or(0),
            cause: event.verdict.map(|verdict| verdict.cause),
        }
    }
}

impl Key {
    pub(super) fn of(by: By, facts: &Facts<'_>, ports: &Ports) -> Self {
        let Facts { tuple, role, owner, cgroup, cause } = facts;
        let netns = tuple.netns;
        match by {
            By::Port => {
                let Service { ours, port } = ports.service(tuple, *role);
                if ours {
                    Self::Server { netns, port }
                } else {
                    Self::Client { netns, port, comm: owner.map(|owner| owner.comm) }
                }
            }
            By::Pid => Self::Pid(owner.map(|owner| owner.pid)),
            By::Comm => Self::Comm(owner.map(|owner| owner.comm)),
            By::Cgroup => Self::Cgroup(*cgroup),
            By::Container => Self::Container(*cgroup),
            By::Netns => Self::Netns(netns),
            By::Raddr => Self::Raddr(tuple.raddr),
            By::Cause => Self::Cause(*cause),
        }
    }

    /// Inode number of the network namespace, if the row is of one.
    #[must_use]
    pub fn netns(&self) -> Option<u32> {
        match self {
            Self::Server { netns, .. } | Self::Client { netns, .. } | Self::Netns(netns) => Some(*netns),
            _ => None,
        }
    }

    /// The port, if the row is of one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Server { port, .. } | Self::Client { port, .. } => *port,
            _ => None,
        }
    }

    /// The role, if the row is of one.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Server { .. } => Some(Role::Server),
            Self::Client { .. } => Some(Role::Client),
            _ => None,
        }
    }
}
