//! Why a connection ended: a closed set, and every ended connection gets exactly one.
//!
//! The rules follow what the kernel does on its way to CLOSE; docs/causes.md has them as a table.

use tcptrace_common::record::{CloseDetail, Record, flags};

use super::{event::Role, state::State};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// This end closed first, in order.
    LocalFin,
    /// The peer closed first, in order.
    PeerFin,
    /// Both closed at once.
    SimultaneousClose,
    /// The peer, or somebody in between, sent a RST.
    PeerRst,
    /// Closed with data that the application had not read.
    LocalAbortUnread,
    /// Closed with SO_LINGER 0.
    LocalAbortLinger,
    /// Given up by this host for another reason: disconnected, TCP_LINGER2, killed, data after close, out of memory.
    LocalAbortOther,
    /// The SYN was answered by a RST.
    Refused,
    /// The SYNs were not answered.
    ConnectTimeout,
    /// Data was not acknowledged in time.
    Timeout,
    /// Keepalive probes were not answered.
    KeepaliveTimeout,
    /// ICMP said that there is no way.
    Unreachable,
    /// The peer never closed its half.
    FinWait2Timeout,
    /// The server's side never reached ESTABLISHED.
    HandshakeFailed,
    /// The listener closed before anybody accepted.
    ListenerClosed,
    /// There was no local port, or this one was taken for this peer.
    NoLocalPort,
    /// It ended out of sight.
    Unknown,
}

impl Cause {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 17] = [
        Self::LocalFin,
        Self::PeerFin,
        Self::SimultaneousClose,
        Self::PeerRst,
        Self::LocalAbortUnread,
        Self::LocalAbortLinger,
        Self::LocalAbortOther,
        Self::Refused,
        Self::ConnectTimeout,
        Self::Timeout,
        Self::KeepaliveTimeout,
        Self::Unreachable,
        Self::FinWait2Timeout,
        Self::HandshakeFailed,
        Self::ListenerClosed,
        Self::NoLocalPort,
        Self::Unknown,
    ];

    /// The name, everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalFin => "local_fin",
            Self::PeerFin => "peer_fin",
            Self::SimultaneousClose => "simultaneous_close",
            Self::PeerRst => "peer_rst",
            Self::LocalAbortUnread => "local_abort_unread",
            Self::LocalAbortLinger => "local_abort_linger",
            Self::LocalAbortOther => "local_abort_other",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Timeout => "timeout",
            Self::KeepaliveTimeout => "keepalive_timeout",
            Self::Unreachable => "unreachable",
            Self::FinWait2Timeout => "fin_wait2_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::ListenerClosed => "listener_closed",
            Self::NoLocalPort => "no_local_port",
            Self::Unknown => "unknown",
        }
    }

    /// Whether this host gave the connection up with a RST, which the kernel reports after CLOSE.
    #[must_use]
    pub fn sends_reset(self) -> bool {
        matches!(
            self,
            Self::LocalAbortUnread | Self::LocalAbortLinger | Self::LocalAbortOther | Self::ListenerClosed
        )
    }
}

impl std::str::FromStr for Cause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = text.to_ascii_lowercase().replace('-', "_");
        Self::ALL.into_iter().find(|cause| cause.name() == wanted).ok_or_else(|| {
            format!("there is no cause {text}; the causes are {}", Self::ALL.map(Self::name).join(" "))
        })
    }
}

/// A cause, and how it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub cause: Cause,
    /// Whether it was concluded from circumstances, rather than read from what the kernel says.
    pub inferred: bool,
}

impl Verdict {
    /// Read from the kernel.
    #[must_use]
    pub fn read(cause: Cause) -> Self {
        Self { cause, inferred: false }
    }

    /// Concluded.
    #[must_use]
    pub fn inferred(cause: Cause) -> Self {
        Self { cause, inferred: true }
    }

    /// `kernel` or `inferred`.
    #[must_use]
    pub fn source(self) -> &'static str {
        if self.inferred { "inferred" } else { "kernel" }
    }
}

/// The RSTs of a socket since its last transition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resets {
    /// The kernel gave the connection up for a RST, or for data after close.
    pub received: bool,
    /// This host sent one by itself.
    pub sent: bool,
    /// The kernel's reason for that one says that keepalive ran out; `None`: the kernel gives no reason.
    pub keepalive: Option<bool>,
}

impl Resets {
    /// Whether there was any.
    #[must_use]
    pub fn any(self) -> bool {
        self.received || self.sent
    }
}

const ETIMEDOUT: i32 = 110;
const ECONNABORTED: i32 = 103;
const RCV_SHUTDOWN: u8 = 1;
const SHUTDOWN_MASK: u8 = 3;

/// Whether what looks like a peer's RST may be data that came after this end had closed: the kernel treats both alike
/// in these states (tcp_rcv_state_process()), and only the RST that follows tells.
#[must_use]
pub fn may_be_data_after_close(old: State, record: &Record, resets: Resets) -> bool {
    resets.received
        && record.shutdown & RCV_SHUTDOWN != 0
        && matches!(old, State::FIN_WAIT1 | State::FIN_WAIT2 | State::CLOSING | State::LAST_ACK)
}

/// The cause of a transition from `old` to CLOSE, after which the connection is in `after`, CLOSE or TIME_WAIT.
#[must_use]
pub fn of_close(
    old: State,
    after: State,
    record: &Record,
    detail: &CloseDetail,
    role: Option<Role>,
    resets: Resets,
) -> Verdict {
    use Cause as C;
    let has = |flag| record.flags & flag != 0;
    let err = detail.sk_err;
    if resets.received {
        return Verdict::read(match old {
            State::SYN_SENT => C::Refused,
            State::SYN_RECV if role == Some(Role::Server) => C::HandshakeFailed,
            _ => C::PeerRst,
        });
    }
    // tcp_abort(): `ss -K` and bpf_sock_destroy().
    if err == ECONNABORTED {
        return Verdict::read(C::LocalAbortOther);
    }
    match old {
        State::SYN_SENT => return of_connect(record, detail),
        State::SYN_RECV if role != Some(Role::Client) => return Verdict::read(C::HandshakeFailed),
        _ => {}
    }
    // The payload of what nobody read; the counter includes the peer's FIN, and the FIN comes last.
    let unread = detail.unread.saturating_sub(u32::from(has(flags::DONE)));
    let closing = record.shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK;
    if has(flags::OWNED) && closing && !has(flags::DEAD) {
        // The order of __tcp_close().
        if unread > 0 {
            return Verdict::read(C::LocalAbortUnread);
        }
        if has(flags::LINGER0) {
            return Verdict::read(C::LocalAbortLinger);
        }
    }
    if is_fatal(record, detail) {
        let keepalive = resets.sent
            && resets.keepalive.unwrap_or(has(flags::KEEPALIVE) && detail.probes_out > 0 && err == ETIMEDOUT);
        return match () {
            () if keepalive => Verdict { cause: C::KeepaliveTimeout, inferred: resets.keepalive.is_none() },
            () if err == ETIMEDOUT => Verdict::read(C::Timeout),
            () => Verdict::read(C::Unreachable),
        };
    }
    match (old, after) {
        (State::FIN_WAIT2, State::TIME_WAIT) => return Verdict::read(C::LocalFin),
        (State::CLOSING, State::TIME_WAIT) => return Verdict::read(C::SimultaneousClose),
        _ => {}
    }
    if resets.sent {
        // tcp_keepalive_timer(): its time in FIN_WAIT2 was up.
        let late = old == State::FIN_WAIT2 && has(flags::DEAD) && detail.linger2 >= 0 && !has(flags::OWNED);
        return if late { Verdict::read(C::FinWait2Timeout) } else { Verdict::read(C::LocalAbortOther) };
    }
    match old {
        State::LAST_ACK => Verdict::read(C::PeerFin),
        // No room for a minisock.
        State::FIN_WAIT2 if (has(flags::DONE) || has(flags::DEAD)) && detail.linger2 >= 0 => {
            Verdict::read(C::LocalFin)
        }
        State::CLOSING => Verdict::read(C::SimultaneousClose),
        // inet_child_forget() in inet_csk_listen_stop().
        State::ESTABLISHED | State::CLOSE_WAIT
            if !has(flags::SOCKET) && !has(flags::DEAD) && !has(flags::OWNED) =>
        {
            Verdict::read(C::ListenerClosed)
        }
        // tcp_disconnect() by connect(AF_UNSPEC), and TCP_LINGER2 < 0, stand in the socket.
        State::FIN_WAIT2 if detail.linger2 < 0 => Verdict::read(C::LocalAbortOther),
        _ if has(flags::OWNED) && !closing => Verdict::read(C::LocalAbortOther),
        _ => Verdict::inferred(C::LocalAbortOther),
    }
}

/// Whether the socket's error is what ended the connection. One that waits for the application may be older
/// (IP_RECVERR). A timer that met the socket in use runs in process context (tcp_release_cb()).
fn is_fatal(record: &Record, detail: &CloseDetail) -> bool {
    let err = detail.sk_err;
    err != 0 && (record.flags & flags::OWNED == 0 || err == ETIMEDOUT || err == detail.sk_err_soft)
}

/// The cause of SYN_SENT -> CLOSE without a RST.
fn of_connect(record: &Record, detail: &CloseDetail) -> Verdict {
    use Cause as C;
    let owned = record.flags & flags::OWNED != 0;
    if is_fatal(record, detail) {
        let timeout = detail.sk_err == ETIMEDOUT;
        return Verdict::read(if timeout { C::ConnectTimeout } else { C::Unreachable });
    }
    match () {
        // inet_hash_connect() found none: the `failure` label of tcp_v4_connect().
        () if owned && record.tuple.lport == 0 => Verdict::read(C::NoLocalPort),
        // The same with a port that was bound: nothing was ever sent, and nobody closed it.
        () if owned && detail.segs_out == 0 && record.shutdown == 0 => Verdict::inferred(C::NoLocalPort),
        // The application gave up while its SYNs went unanswered.
        () if detail.segs_in == 0 && (detail.retransmits > 0 || detail.total_retrans > 0) => {
            Verdict::inferred(C::ConnectTimeout)
        }
        () if owned => Verdict::read(C::LocalAbortOther),
        () => Verdict::inferred(C::LocalAbortOther),
    }
}

#[cfg(test)]
mod tests;
