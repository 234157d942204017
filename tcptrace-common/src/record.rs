//! The records that the probes write into the ring buffer.
//!
//! There are two sizes: a [`Record`] for everything, and a [`CloseRecord`], a `Record` followed by a
//! [`CloseDetail`], for [`Kind::CLOSE`]. With the ring's own 8-byte header a `Record` fills two cache
//! lines exactly.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record reports. A plain byte with named values, not an enum: bytes that come from a ring
/// may hold anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(transparent)]
pub struct Kind(pub u8);

impl Kind {
    /// `sock:inet_sock_set_state`, except to CLOSE.
    pub const TRANSITION: Self = Self(0);
    /// `sock:inet_sock_set_state` to CLOSE; a [`CloseRecord`].
    pub const CLOSE: Self = Self(1);
    /// `tcp:tcp_send_reset`.
    pub const RST_SENT: Self = Self(2);
    /// `tcp:tcp_receive_reset`.
    pub const RST_RECEIVED: Self = Self(3);
    /// `tcp:tcp_retransmit_skb`.
    pub const RETRANSMIT: Self = Self(4);
    /// `tcp:tcp_retransmit_synack`.
    pub const RETRANSMIT_SYNACK: Self = Self(5);

    /// How many kinds there are; they number `0..COUNT`.
    pub const COUNT: usize = 6;
}

/// An IP address in network byte order; IPv4 as IPv4-mapped IPv6 (`::ffff:a.b.c.d`), so that one
/// comparison serves both families. Two words and not 16 bytes, because the BPF back end would copy
/// bytes one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Addr(pub [u64; 2]);

/// `::ffff:0:0` as the second word of an [`Addr`], without the IPv4 address.
const MAPPED: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
/// The bits of the second word that tell an IPv4-mapped address.
const MAPPED_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

impl Addr {
    /// An IPv4 address, given as the kernel's `__be32` is in memory.
    #[inline(always)]
    #[must_use]
    pub const fn from_be32(be32: u32) -> Self {
        let [a, b, c, d] = be32.to_ne_bytes();
        Self([0, MAPPED | u64::from_ne_bytes([0, 0, 0, 0, a, b, c, d])])
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] & MAPPED_MASK == MAPPED
    }

    /// Whether this is `0.0.0.0` or `::`: no address chosen, or any address.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] == 0 && (self.0[1] == 0 || self.0[1] == MAPPED)
    }

    /// The 16 bytes of the address in network order.
    #[cfg(feature = "user")]
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        zerocopy::transmute!(self)
    }

    /// The reverse of [`octets`](Self::octets).
    #[cfg(feature = "user")]
    #[must_use]
    pub fn from_octets(octets: [u8; 16]) -> Self {
        zerocopy::transmute!(octets)
    }
}

/// Both ends of a connection, and where it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Tuple {
    /// This host's address.
    pub laddr: Addr,
    /// The peer's address.
    pub raddr: Addr,
    /// This host's port, host byte order; 0 while none is chosen.
    pub lport: u16,
    /// The peer's port, host byte order; 0 for a listener.
    pub rport: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
}

impl Tuple {
    /// Whether this is IPv4 traffic, on an IPv6 socket too. An unbound IPv6 socket has `::` as its own
    /// address, so either end may tell.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.laddr.is_v4() || self.raddr.is_v4()
    }
}

/// Facts about the socket or the task, one bit each, in [`Record::flags`].
pub mod flags {
    /// The task on the CPU holds the socket (`sk->sk_lock.owned`): this is process context, and the
    /// task acts on its own socket.
    pub const OWNED: u32 = 1 << 0;
    /// A `struct socket` is attached (`sk->sk_socket`): neither orphaned nor still waiting for `accept`.
    pub const SOCKET: u32 = 1 << 1;
    /// `SOCK_DEAD`: the application has closed it.
    pub const DEAD: u32 = 1 << 2;
    /// `SOCK_DONE`: the peer's FIN has arrived.
    pub const DONE: u32 = 1 << 3;
    /// `SOCK_KEEPOPEN`: keepalive is on.
    pub const KEEPALIVE: u32 = 1 << 4;
    /// `SOCK_LINGER` with a time of 0: `close` sends a RST.
    pub const LINGER0: u32 = 1 << 5;
    /// The task on the CPU is a kernel thread (`PF_KTHREAD`).
    pub const KTHREAD: u32 = 1 << 6;
    /// The addresses come from the packet, not from the socket, which may be a listener, or a minisock, or
    /// none at all.
    pub const PACKET: u32 = 1 << 7;
    /// The socket holds no reference on its network namespace: it belongs to the kernel (NFS, SMC …).
    pub const KERNEL_SOCKET: u32 = 1 << 8;
}

/// [`Record::reason`] where the kernel gives no reason.
pub const NO_REASON: i32 = -1;

/// One kernel event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct Record {
    /// `CLOCK_MONOTONIC` in ns.
    pub ts_ns: u64,
    /// Address of the kernel's socket; 0 where there is none. Recycled within microseconds.
    pub sk: u64,
    /// Socket cookie; 0 where the kernel gives none. At LISTEN -> SYN_RECV before 6.15 it is still the
    /// listener's.
    pub cookie: u64,
    /// Id of the cgroup that the socket was made in; 0 when unknown.
    pub cgroup: u64,
    /// Inode number of the socket's file; 0 when it has none.
    pub ino: u64,
    /// Addresses, ports and network namespace.
    pub tuple: Tuple,
    /// `sk_uid`. A child has its listener's until it is accepted.
    pub uid: u32,
    /// Process (tgid) on the CPU. It is the owner only with [`flags::OWNED`].
    pub task_pid: u32,
    /// Command name of the thread on the CPU: 16 bytes as they are in memory, NUL at the end. Words, for the
    /// reason given at [`Addr`].
    pub task_comm: [u64; 2],
    /// See [`flags`].
    pub flags: u32,
    /// RST_SENT: `enum sk_rst_reason`, or [`NO_REASON`]. RETRANSMIT: what the attempt returned, 0 or a
    /// negative errno. RETRANSMIT_SYNACK: SYN-ACKs sent again before this one.
    pub reason: i32,
    /// What happened.
    pub kind: Kind,
    /// The state that was left; for other kinds than transitions, the state at that moment (0: no socket).
    pub old: u8,
    /// The state that was entered. For other kinds as `old`, but TIME_WAIT for every minisock, which may stand
    /// for a connection in FIN_WAIT2.
    pub new: u8,
    /// `sk_shutdown`: 1 = RCV_SHUTDOWN, 2 = SEND_SHUTDOWN.
    pub shutdown: u8,
    /// Keeps the struct free of hidden padding.
    pub unused: u32,
}

impl Record {
    /// The bytes of [`task_comm`](Self::task_comm).
    #[cfg(feature = "user")]
    #[must_use]
    pub fn task_comm_bytes(&self) -> [u8; 16] {
        zerocopy::transmute!(self.task_comm)
    }
}

/// What is known of a socket at the moment it goes to CLOSE. Most of it is gone a moment later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CloseDetail {
    /// `bytes_acked`: bytes the peer acknowledged, SYN (active opens only) and FIN included.
    pub bytes_acked: u64,
    /// `bytes_received`: bytes received in order, the peer's FIN included.
    pub bytes_received: u64,
    /// `bytes_sent`: payload bytes sent, retransmissions included.
    pub bytes_sent: u64,
    /// `bytes_retrans`: payload bytes sent again.
    pub bytes_retrans: u64,
    /// `sk_err`: the error waiting for the application, an errno; 0 for none.
    pub sk_err: i32,
    /// `sk_err_soft`: an error that did not end the connection by itself (ICMP), an errno.
    pub sk_err_soft: i32,
    /// `linger2` (TCP_LINGER2) in jiffies; negative: never wait in FIN_WAIT2.
    pub linger2: i32,
    /// `icsk_user_timeout` (TCP_USER_TIMEOUT) in ms; 0 for none.
    pub user_timeout_ms: u32,
    /// Bytes that the application never read (`rcv_nxt - copied_seq`), the peer's FIN included.
    pub unread: u32,
    /// Bytes written and not acknowledged by the peer (`write_seq - snd_una`), our FIN included.
    pub unacked: u32,
    /// `snd_wnd`: the peer's last window in bytes.
    pub snd_wnd: u32,
    /// `srtt_us`: smoothed round-trip time in eighths of a µs; 0 when never measured.
    pub srtt_8us: u32,
    /// `total_retrans`: segments sent again over the connection's life.
    pub total_retrans: u32,
    /// `segs_in`.
    pub segs_in: u32,
    /// `segs_out`.
    pub segs_out: u32,
    /// Minisocks in the network namespace, this one included; [`UNKNOWN`] where the kernel does not tell.
    pub tw_count: u32,
    /// `tcp_max_tw_buckets`; [`UNKNOWN`] where the kernel does not tell.
    pub tw_max: u32,
    /// `icsk_retransmits`: timeouts in a row without an answer.
    pub retransmits: u8,
    /// `icsk_probes_out`: keepalive or window probes in a row without an answer.
    pub probes_out: u8,
    /// 1 when this is a subflow of an MPTCP connection.
    pub mptcp: u8,
    /// 1 when the socket is in repair mode (TCP_REPAIR): it closes without a word to the peer.
    pub repair: u8,
}

/// [`CloseDetail::tw_count`] and [`CloseDetail::tw_max`] where the kernel does not tell.
pub const UNKNOWN: u32 = u32::MAX;

/// A [`Record`] of [`Kind::CLOSE`] as it stands in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
#[repr(C)]
pub struct CloseRecord {
    /// As for every event.
    pub record: Record,
    /// What only CLOSE has.
    pub detail: CloseDetail,
}
