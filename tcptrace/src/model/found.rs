//! Sockets as they were found: what sock_diag shows of those that exist, beside what the probes report of
//! those that change.

use tcptrace_common::record::Tuple;

use super::{event::Owner, health::Health, state::State};

/// What a found socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A full socket, or a listener.
    Socket,
    /// A minisock: what is left of a connection in TIME_WAIT, or of an orphan in FIN_WAIT2.
    Minisock,
    /// A request: a SYN that a listener has answered, and no child yet. Its state is SYN_RECV.
    Request,
}

/// One socket of a [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its cookie; 0 where the source has none (/proc/net/tcp).
    pub cookie: u64,
    /// Its ends; a listener's peer is unspecified with port 0.
    pub tuple: Tuple,
    /// Its state; of a minisock that of the connection, FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    /// What it is.
    pub form: Form,
    /// Inode number of its file; 0 when it has none: orphans, minisocks, requests, and what nobody has accepted.
    pub ino: u64,
    /// Its user; `None` for minisocks and requests.
    pub uid: Option<u32>,
    /// Id of its cgroup; 0 when unknown.
    pub cgroup: u64,
    /// The process that has it open. Of several the one that has run longest, but not process 1 if there is another:
    /// who passes sockets on at the start of a service does not serve them.
    pub owner: Option<Owner>,
    /// How long its timer has to run, in ms: for a minisock the time that is left to it.
    pub expires_ms: Option<u32>,
    /// Bytes that the application has not read; of a listener the connections that wait to be accepted.
    pub receive_queue: u32,
    /// Bytes that the peer has not acknowledged; of a listener how many connections may wait (0 where that is not told).
    pub send_queue: u32,
    /// Which timer runs (`idiag_timer`), see [`timer`].
    pub timer: u8,
    /// How often in a row what the timer is for went unanswered: a segment, a keepalive or a window probe; of a
    /// request how often its SYN-ACK was sent again.
    pub retransmits: u8,
    /// Packets dropped; of a listener SYNs and handshakes.
    pub drops: u32,
    /// What only a full socket that does not listen has.
    pub counters: Option<Counters>,
}

/// Values of [`Found::timer`] (net/ipv4/inet_diag.c, inet_sk_diag_fill()).
pub mod timer {
    /// A segment is to be sent again.
    pub const RETRANSMIT: u8 = 1;
    /// The peer's window is closed, and probed.
    pub const WINDOW_PROBE: u8 = 4;
}

/// A connection's counters, from `struct tcp_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that the peer acknowledged; with our SYN if we sent one, and our FIN.
    pub bytes_acked: u64,
    /// Bytes received in order; with the peer's FIN.
    pub bytes_received: u64,
    /// Payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// Payload bytes sent again.
    pub bytes_retrans: u64,
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Smoothed round-trip time in µs; 0 when never measured.
    pub srtt_us: u32,
    /// Segments sent again over the connection's life.
    pub total_retrans: u32,
    /// Segments with payload received.
    pub data_segs_in: u32,
    /// Segments with payload sent.
    pub data_segs_out: u32,
    /// ms since payload was last sent; since the connection was established if none ever was.
    pub last_data_sent_ms: u32,
    /// ms since payload was last received; since the connection was established if none ever was.
    pub last_data_recv_ms: u32,
    /// ms since the last segment that acknowledged something or could have.
    pub last_ack_recv_ms: u32,
}

impl Found {
    /// One of which nothing more is known.
    #[must_use]
    pub fn new(tuple: Tuple, state: State, form: Form) -> Self {
        Self {
            cookie: 0,
            tuple,
            state,
            form,
            ino: 0,
            uid: None,
            cgroup: 0,
            owner: None,
            expires_ms: None,
            receive_queue: 0,
            send_queue: 0,
            timer: 0,
            retransmits: 0,
            drops: 0,
            counters: None,
        }
    }

    /// For how many ms it has been in CLOSE_WAIT at least: the peer's FIN acknowledges, too (tcp_ack()), and after it
    /// only what answers our data does.
    #[must_use]
    pub fn quiet_ms(&self) -> Option<u32> {
        let counters = self.counters.as_ref().filter(|_| self.state == State::CLOSE_WAIT)?;
        Some(counters.last_ack_recv_ms)
    }
}

/// The sockets that existed, in every network namespace that could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Them, in no order.
    pub sockets: Vec<Found>,
    /// Inode numbers of the network namespaces that were read whole: what is not in `sockets` was not there.
    pub namespaces: Vec<u32>,
    /// The kernel's counters and settings, of the namespaces that have them.
    pub health: Vec<Health>,
}

/// What has become of a minisock that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// There, in this state, FIN_WAIT2 or TIME_WAIT, with so many ms to go.
    There {
        /// FIN_WAIT2 or TIME_WAIT.
        state: State,
        /// What is left of its time, in ms.
        expires_ms: u32,
    },
    /// Gone.
    Gone,
    /// Cannot be told: its network namespace cannot be reached.
    Unknown,
}
