//! The part of the user's filter that the kernel side tests before it writes a record.
//!
//! It may let through what the user side will refuse, never the reverse: it holds a fixed number of
//! values, and it lets an event pass whose facts are not all there yet (a port not yet chosen, a peer
//! not yet known), for the user side to judge by the connection.

#[cfg(feature = "user")]
use zerocopy::{Immutable, IntoBytes};

use crate::record::{Addr, Tuple};

/// Port ranges per test.
pub const PORTS: usize = 8;
/// Address blocks per test.
pub const BLOCKS: usize = 4;
/// Network namespaces, users and cgroups per test.
pub const VALUES: usize = 4;

/// Which tests are on, one bit each, in [`Filter::tests`].
pub mod tests {
    /// [`Filter::family`](super::Filter::family)
    pub const FAMILY: u32 = 1 << 0;
    /// [`Filter::lport`](super::Filter::lport)
    pub const LPORT: u32 = 1 << 1;
    /// [`Filter::rport`](super::Filter::rport)
    pub const RPORT: u32 = 1 << 2;
    /// [`Filter::port`](super::Filter::port)
    pub const PORT: u32 = 1 << 3;
    /// [`Filter::laddr`](super::Filter::laddr)
    pub const LADDR: u32 = 1 << 4;
    /// [`Filter::raddr`](super::Filter::raddr)
    pub const RADDR: u32 = 1 << 5;
    /// [`Filter::addr`](super::Filter::addr)
    pub const ADDR: u32 = 1 << 6;
    /// [`Filter::netns`](super::Filter::netns)
    pub const NETNS: u32 = 1 << 7;
    /// [`Filter::uid`](super::Filter::uid)
    pub const UID: u32 = 1 << 8;
    /// [`Filter::cgroup`](super::Filter::cgroup)
    pub const CGROUP: u32 = 1 << 9;
}

/// Ports from `first` to `last`, both included; empty when `first > last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(IntoBytes, Immutable))]
#[repr(C)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// Addresses that equal `addr` where `mask` has ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(IntoBytes, Immutable))]
#[repr(C)]
pub struct Block {
    /// The block's address; no ones where `mask` has zeros, except in an empty block.
    pub addr: Addr,
    /// The block's mask.
    pub mask: Addr,
}

/// A cgroup and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(IntoBytes, Immutable))]
#[repr(C)]
pub struct Cgroup {
    /// The cgroup's id; 0 for an unused slot.
    pub id: u64,
    /// How far below the root it is.
    pub level: u32,
    /// Keeps the struct free of hidden padding.
    pub unused: u32,
}

/// What an event is the first to tell of a connection, so that the filter must not judge by it: an earlier event
/// passed without, and the user side waits for this one to be done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// This host's port.
    pub port: bool,
    /// The user, which is the listener's until the connection is accepted.
    pub user: bool,
}

impl News {
    /// Of a RST or a retransmit.
    pub const ELSEWHERE: Self = Self { port: false, user: true };
}

impl News {
    /// Of a transition between states by their numbers in include/net/tcp_states.h.
    #[inline(always)]
    #[must_use]
    pub const fn of_transition(old: u8, new: u8) -> Self {
        const SYN_SENT: u8 = 2;
        const CLOSE: u8 = 7;
        const LISTEN: u8 = 10;
        Self {
            // connect() chooses the port after CLOSE -> SYN_SENT, listen() after CLOSE -> LISTEN.
            port: old == SYN_SENT || (old == LISTEN && new == CLOSE),
            // A connection that is wanted for its listener's user is shown whole, whoever accepts it. Only of a
            // connect is the user known from the first event on.
            user: !matches!(old, CLOSE | SYN_SENT) || new == LISTEN,
        }
    }
}

/// The filter. Tests are combined with AND, the values of one test with OR; unused slots match nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(IntoBytes, Immutable))]
#[repr(C)]
pub struct Filter {
    /// Which tests are on, see [`tests`].
    pub tests: u32,
    /// 4 or 6.
    pub family: u32,
    /// This host's port.
    pub lport: [PortRange; PORTS],
    /// The peer's port.
    pub rport: [PortRange; PORTS],
    /// Either port.
    pub port: [PortRange; PORTS],
    /// This host's address.
    pub laddr: [Block; BLOCKS],
    /// The peer's address.
    pub raddr: [Block; BLOCKS],
    /// Either address.
    pub addr: [Block; BLOCKS],
    /// Network namespaces by inode number; 0 is unused.
    pub netns: [u32; VALUES],
    /// Users, where `uid_used` is not 0: every number is a user.
    pub uid: [u32; VALUES],
    /// Which of `uid` are used.
    pub uid_used: [u32; VALUES],
    /// Cgroups.
    pub cgroup: [Cgroup; VALUES],
}

impl Filter {
    /// A filter that lets everything pass.
    pub const ALL: Self = {
        let ports = [PortRange { first: 1, last: 0 }; PORTS];
        // An address bit where the mask has none: equal to nothing.
        let blocks = [Block { addr: Addr([1, 1]), mask: Addr([0, 0]) }; BLOCKS];
        Self {
            tests: 0,
            family: 0,
            lport: ports,
            rport: ports,
            port: ports,
            laddr: blocks,
            raddr: blocks,
            addr: blocks,
            netns: [0; VALUES],
            uid: [0; VALUES],
            uid_used: [0; VALUES],
            cgroup: [Cgroup { id: 0, level: 0, unused: 0 }; VALUES],
        }
    };

    /// Whether a test is on.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, test: u32) -> bool {
        constant(&self.tests) & test != 0
    }

    /// Whether the addresses, ports and network namespace may belong to a wanted connection.
    #[inline(always)]
    #[must_use]
    pub fn admits_tuple(&self, tuple: &Tuple, news: News) -> bool {
        let Tuple { laddr, raddr, lport, rport, netns } = tuple;
        // What is not there yet is for the user side to judge by the connection. A listener has no peer,
        // and its children before 6.15 look like it.
        let lport_open = *lport == 0 || news.port;
        let rport_open = *rport == 0;
        let laddr_open = laddr.is_unspecified();
        if self.has(tests::NETNS) && !has_value(&self.netns, *netns) {
            return false;
        }
        if self.has(tests::FAMILY) && tuple.is_v4() != (constant(&self.family) == 4) {
            // An IPv6 listener on `::` may have IPv4 children.
            if !(rport_open && laddr_open) {
                return false;
            }
        }
        if self.has(tests::LPORT) && !lport_open && !has_port(&self.lport, *lport) {
            return false;
        }
        if self.has(tests::RPORT) && !rport_open && !has_port(&self.rport, *rport) {
            return false;
        }
        if self.has(tests::PORT)
            && !(lport_open || rport_open || has_port(&self.port, *lport) || has_port(&self.port, *rport))
        {
            return false;
        }
        if self.has(tests::LADDR) && !laddr_open && !has_addr(&self.laddr, laddr) {
            return false;
        }
        if self.has(tests::RADDR) && !rport_open && !has_addr(&self.raddr, raddr) {
            return false;
        }
        if self.has(tests::ADDR)
            && !(laddr_open || rport_open || has_addr(&self.addr, laddr) || has_addr(&self.addr, raddr))
        {
            return false;
        }
        true
    }

    /// Whether the user may be wanted. `unaccepted`: nobody has accepted the connection yet.
    #[inline(always)]
    #[must_use]
    pub fn admits_uid(&self, uid: u32, unaccepted: bool, news: News) -> bool {
        if !self.has(tests::UID) || unaccepted || news.user {
            return true;
        }
        let mut i = 0;
        while i < VALUES {
            if constant(&self.uid_used[i]) != 0 && constant(&self.uid[i]) == uid {
                return true;
            }
            i += 1;
        }
        false
    }
}

#[inline(always)]
fn has_value(values: &[u32; VALUES], value: u32) -> bool {
    let mut i = 0;
    while i < VALUES {
        if constant(&values[i]) == value {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
fn has_port(ranges: &[PortRange; PORTS], port: u16) -> bool {
    let mut i = 0;
    while i < PORTS {
        if constant(&ranges[i].first) <= port && port <= constant(&ranges[i].last) {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
fn has_addr(blocks: &[Block; BLOCKS], addr: &Addr) -> bool {
    let mut i = 0;
    while i < BLOCKS {
        let Block { addr: block, mask } = &blocks[i];
        if addr.0[0] & constant(&mask.0[0]) == constant(&block.0[0])
            && addr.0[1] & constant(&mask.0[1]) == constant(&block.0[1])
        {
            return true;
        }
        i += 1;
    }
    false
}

/// Reads a value that the loader has put in place of the one the compiler sees.
#[inline(always)]
pub fn constant<T: Copy>(value: &T) -> T {
    #[expect(
        unsafe_code,
        reason = "only a volatile read keeps the compiler from folding the global's initial value"
    )]
    // SAFETY: a reference is valid for a read.
    unsafe {
        core::ptr::from_ref(value).read_volatile()
    }
}
