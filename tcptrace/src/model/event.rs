//! What the tracker says: one event per line of the stream.

use std::{borrow::Cow, fmt, net::IpAddr, net::Ipv6Addr, sync::Arc};

use tcptrace_common::record::{Addr, Tuple};

use super::{cause::Verdict, container::CgroupPath, state::State};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A change of state.
    Transition,
    /// This host sent a RST.
    RstSent,
    /// The kernel dropped the connection because of a RST, or of data after close, which it treats alike.
    RstReceived,
    /// A segment, or a SYN-ACK, was sent again.
    Retransmit,
    /// A whole connection: it has ended, or, without a cause, it is open.
    Connection,
}

impl Kind {
    /// The name in JSON and CSV.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::RstSent => "rst_sent",
            Self::RstReceived => "rst_received",
            Self::Retransmit => "retransmit",
            Self::Connection => "connection",
        }
    }
}

/// Identifies a connection: the socket's cookie, or, where the kernel gives none, a number of our own with
/// the top bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Which part the socket plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sent the SYN.
    Client,
    /// It was made by a listener.
    Server,
    /// It listens.
    Listener,
}

impl Role {
    /// The name in JSON, CSV and text.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Listener => "listener",
        }
    }
}

/// Text that cannot harm a terminal or break a line: what is no printable character becomes `?`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    // Besides control characters those that turn the direction of writing.
    let turning =
        |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let harmful = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER || turning(c);
    // Nearly all are of these alone.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    if text.contains(harmful) { Cow::Owned(text.replace(harmful, "?")) } else { Cow::Borrowed(text) }
}

/// A task's command name as the kernel has it: up to 16 bytes, any of them, NUL at the end.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The bytes before the NUL.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        self.0.get(..end).unwrap_or_default()
    }

    /// As text that cannot harm a terminal: a byte that is no printable character becomes `?`.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match String::from_utf8_lossy(self.bytes()) {
            Cow::Borrowed(text) => printable(text),
            Cow::Owned(text) => Cow::Owned(printable(&text).into_owned()),
        }
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How an owner was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerSource {
    /// It called connect.
    Connect,
    /// It called listen.
    Listen,
    /// It acted on the socket: close, shutdown, or a read or write that held the socket's lock.
    Close,
    /// It had the socket open when tcptrace started.
    Snapshot,
    /// It had the socket open when tcptrace looked later.
    Fd,
    /// It owns the listener that made this connection.
    Listener,
}

impl OwnerSource {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Listen, Self::Close, Self::Snapshot, Self::Fd, Self::Listener];

    /// The name in JSON and CSV.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Close => "close",
            Self::Snapshot => "snapshot",
            Self::Fd => "fd",
            Self::Listener => "listener",
        }
    }
}

/// The process that a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id (tgid).
    pub pid: u32,
    /// Its name, that of its first thread.
    pub comm: Comm,
    /// How this was learned.
    pub source: OwnerSource,
}

/// What is known only once a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// `sk_err`, an errno; 0 for none.
    pub sk_err: i32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Payload bytes that the peer acknowledged.
    pub tx_bytes: u64,
    /// Payload bytes received.
    pub rx_bytes: u64,
    /// Smoothed round-trip time in µs; 0 when never measured.
    pub srtt_us: u32,
}

/// A connection's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When its first record came, `CLOCK_MONOTONIC` in ns; `None` if that was not its birth.
    pub opened_ns: Option<u64>,
    /// From its birth to its end, or until now, in ns.
    pub duration_ns: Option<u64>,
    /// Time spent in each state, in ns, by the state's number, as far as it was seen.
    pub spent_ns: [u64; State::COUNT],
    /// The states it has been in, a bit for each number.
    pub visited: u16,
    /// Those whose time is known.
    pub timed: u16,
}

impl History {
    /// Adds time spent in a state, as far as it was seen.
    pub fn spend(&mut self, state: State, ns: Option<u64>) {
        self.visited |= 1 << state.number();
        if let (Some(ns), Some(spent)) = (ns, self.spent_ns.get_mut(usize::from(state.number()))) {
            *spent = spent.saturating_add(ns);
            self.timed |= 1 << state.number();
        }
    }

    /// Whether it has been in the state.
    #[must_use]
    pub fn has_visited(&self, state: State) -> bool {
        self.visited & 1 << state.number() != 0
    }

    /// The states whose time is known, in the order of a life, with that time in ns.
    pub fn times(&self) -> impl Iterator<Item = (State, u64)> {
        State::LIFE
            .into_iter()
            .filter(|state| self.timed & 1 << state.number() != 0)
            .map(|state| (state, self.spent_ns.get(usize::from(state.number())).copied().unwrap_or(0)))
    }
}

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC` in ns.
    pub ts_ns: u64,
    /// What happened.
    pub kind: Kind,
    /// The connection; `None` for a RST that belongs to none.
    pub id: Option<Id>,
    /// Addresses, ports, network namespace. Port 0 is not known (yet).
    pub tuple: Tuple,
    /// The state that was left; only for transitions.
    pub old: Option<State>,
    /// The state the connection is in now; for transitions and connections.
    pub new: Option<State>,
    /// What the kernel called the new state, where that differs.
    pub kernel_new: Option<State>,
    /// Time spent in `old`, in ns; `None` when its beginning was not seen.
    pub in_state_ns: Option<u64>,
    /// Client, server or listener, when known.
    pub role: Option<Role>,
    /// The process that the socket belongs to, when known.
    pub owner: Option<Owner>,
    /// The socket's user; `None` without a socket.
    pub uid: Option<u32>,
    /// Whether the user may still change, because nobody has accepted the connection yet.
    pub unaccepted: bool,
    /// Process (tgid) that was on the CPU; 0 is the idle task; `None` for what no probe reported.
    pub task_pid: Option<u32>,
    /// Name of that process.
    pub task_comm: Comm,
    /// Id of the cgroup that the socket was made in.
    pub cgroup: Option<u64>,
    /// Path of that cgroup below the cgroup root; filled in by the kernel module.
    pub cgroup_path: Option<CgroupPath>,
    /// The kernel's reason for a RST.
    pub reason: Option<Arc<str>>,
    /// For RSTs and retransmits: the state the connection was in. For connections: the state that the end met.
    pub prev_state: Option<State>,
    /// For retransmits of a SYN-ACK: how often so far.
    pub retransmits: Option<u32>,
    /// When the connection left the kernel's full socket.
    pub totals: Option<Totals>,
    /// Why the connection ended: on its last transition, and on its line.
    pub verdict: Option<Verdict>,
    /// For connections: all about its time.
    pub history: Option<Box<History>>,
    /// Whether the socket is closed now, so that what is not known of it will not be learned any more.
    pub closed: bool,
}

impl Event {
    /// An event of which nothing more is known.
    #[must_use]
    pub fn new(ts_ns: u64, kind: Kind, tuple: Tuple) -> Self {
        Self {
            ts_ns,
            kind,
            id: None,
            tuple,
            old: None,
            new: None,
            kernel_new: None,
            in_state_ns: None,
            role: None,
            owner: None,
            uid: None,
            unaccepted: false,
            task_pid: None,
            task_comm: Comm::default(),
            cgroup: None,
            cgroup_path: None,
            reason: None,
            prev_state: None,
            retransmits: None,
            totals: None,
            verdict: None,
            history: None,
            closed: false,
        }
    }

    /// This host's address; IPv4-mapped addresses as IPv4.
    #[must_use]
    pub fn laddr(&self) -> IpAddr {
        ip(self.tuple.laddr)
    }

    /// The peer's address; IPv4-mapped addresses as IPv4.
    #[must_use]
    pub fn raddr(&self) -> IpAddr {
        ip(self.tuple.raddr)
    }
}

/// The address as the standard library has it; IPv4-mapped as IPv4.
#[must_use]
pub fn ip(addr: Addr) -> IpAddr {
    Ipv6Addr::from(addr.octets()).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comm_cannot_reach_the_terminal_as_control_bytes() {
        let comm = |text: &[u8]| {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            Comm(bytes).to_string()
        };
        assert_eq!(comm(b"nginx"), "nginx");
        assert_eq!(comm(b"a\x1b[31mred"), "a?[31mred");
        assert_eq!(comm(b"new\nline"), "new?line");
        assert_eq!(comm(b"\xff\xfe"), "??");
        assert_eq!(comm("żółw".as_bytes()), "żółw");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(ip(Addr::from_be32(u32::from_ne_bytes([10, 0, 0, 5]))).to_string(), "10.0.0.5");
        assert_eq!(ip(Addr([0, 0])).to_string(), "::");
    }
}
