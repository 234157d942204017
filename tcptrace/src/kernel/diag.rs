//! Asking the kernel for sockets: sock_diag over netlink (net/ipv4/inet_diag.c), for the network namespace that the
//! calling thread is in.
//!
//! The messages are read here, because netlink-packet-sock-diag drops what is left of a minisock's time, and refuses
//! the shorter `struct tcp_info` of older kernels.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use tcptrace_common::record::{Addr, Tuple};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::model::{
    found::{Counters, Form, Found, Whereabouts},
    state::State,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_DUMP: u16 = 0x300;
/// Attributes: `struct tcp_info`, the socket's memory, and its cgroup (5.8 on).
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// Asks for the first two.
const EXTENSIONS: u8 = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_SKMEMINFO - 1);
/// `SK_MEMINFO_DROPS`, the place of `sk_drops` among the numbers of INET_DIAG_SKMEMINFO.
const MEMORY_DROPS: usize = 8;
/// `idiag_timer` of a minisock.
const TIMER_TIME_WAIT: u8 = 3;
/// Bits of `idiag_states`: all states that are shown; those of minisocks; those of minisocks and requests. Not bit 13,
/// which stands for sockets that are only bound (TCP_BOUND_INACTIVE, 6.8 on).
pub(super) const ALL_STATES: u32 = 0x1ffe;
pub(super) const MINISOCK_STATES: u32 = 1 << 5 | 1 << 6;
pub(super) const SMALL_STATES: u32 = MINISOCK_STATES | 1 << 3 | 1 << 12;
/// As much as the kernel puts into one message of a dump (netlink_dump()), and more.
const BUFFER_BYTES: usize = 1 << 17;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MessageHeader {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
    pid: u32,
}

/// `struct inet_diag_sockid`
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SocketId {
    sport: [u8; 2],
    dport: [u8; 2],
    src: [u8; 16],
    dst: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    header: MessageHeader,
    family: u8,
    protocol: u8,
    extensions: u8,
    unused: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Response {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

/// A connection to the kernel's sock_diag in one network namespace.
pub(super) struct Diag {
    socket: OwnedFd,
    /// Inode number of that namespace.
    netns: u32,
    buffer: Vec<u8>,
}

impl Diag {
    /// In the namespace that the calling thread is in, whose inode number is `netns`.
    pub(super) fn open(netns: u32) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Self { socket, netns, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Every TCP socket, minisock and request in one of the states. Errors: those of netlink; see [`is_missing`].
    pub(super) fn dump(&mut self, states: u32, each: &mut impl FnMut(Found)) -> io::Result<()> {
        for family in [AF_INET, AF_INET6] {
            self.dump_family(family, states, each)?;
        }
        Ok(())
    }

    fn dump_family(&mut self, family: u8, states: u32, each: &mut impl FnMut(Found)) -> io::Result<()> {
        let none = SocketId {
            sport: [0; 2],
            dport: [0; 2],
            src: [0; 16],
            dst: [0; 16],
            interface: 0,
            cookie: [u32::MAX; 2],
        };
        self.ask(family, states, none, NLM_F_DUMP)?;
        while self.receive(each)? {}
        Ok(())
    }

    /// Looks for one minisock.
    pub(super) fn find(&mut self, cookie: u64, tuple: &Tuple) -> io::Result<Whereabouts> {
        let v4 = tuple.is_v4();
        let octets = |addr: Addr| {
            let octets = addr.octets();
            let mut found = [0; 16];
            if v4 {
                found[..4].copy_from_slice(&octets[12..]);
            } else {
                found = octets;
            }
            found
        };
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the cookie")]
        let cookie = if cookie == 0 { [u32::MAX; 2] } else { [cookie as u32, (cookie >> 32) as u32] };
        let id = SocketId {
            sport: tuple.lport.to_be_bytes(),
            dport: tuple.rport.to_be_bytes(),
            src: octets(tuple.laddr),
            dst: octets(tuple.raddr),
            interface: 0,
            cookie,
        };
        self.ask(if v4 { AF_INET } else { AF_INET6 }, ALL_STATES, id, 0)?;
        let mut found = Whereabouts::Gone;
        let mut look = |socket: Found| {
            if socket.form == Form::Minisock {
                found = there(&socket);
            }
        };
        match self.receive(&mut look) {
            Ok(_) => Ok(found),
            // ENOENT: there is none; ESTALE: another connection has these ends now.
            Err(error) if matches!(error.raw_os_error(), Some(2 | 116)) => Ok(Whereabouts::Gone),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, family: u8, states: u32, id: SocketId, flags: u16) -> io::Result<()> {
        let len = u32::try_from(size_of::<Request>()).unwrap_or_default();
        let request = Request {
            header: MessageHeader {
                len,
                kind: SOCK_DIAG_BY_FAMILY,
                flags: NLM_F_REQUEST | flags,
                seq: 1,
                pid: 0,
            },
            family,
            protocol: IPPROTO_TCP,
            extensions: EXTENSIONS,
            unused: 0,
            states,
            id,
        };
        send(&self.socket, request.as_bytes(), SendFlags::empty())?;
        Ok(())
    }

    /// Reads what the kernel sends next. Returns whether more will come.
    fn receive(&mut self, each: &mut impl FnMut(Found)) -> io::Result<bool> {
        let (_, len) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
        messages(self.buffer.get(..len).unwrap_or_default(), self.netns, each)
    }
}

/// Reads the messages that the kernel sent in one go, aligned to 4 as in a buffer of [`Diag`]. Returns whether more
/// will come. Errors: those that the messages carry, and `InvalidData` where they are none.
pub fn messages(mut rest: &[u8], netns: u32, each: &mut impl FnMut(Found)) -> io::Result<bool> {
    let mut more = false;
    while let Ok((header, body)) = MessageHeader::ref_from_prefix(rest) {
        let len = usize::try_from(header.len).unwrap_or(0);
        let Some(body) = len.checked_sub(size_of::<MessageHeader>()).and_then(|len| body.get(..len)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match header.kind {
            // The end of a dump may carry an error, too (netlink_dump_done()).
            NLMSG_DONE | NLMSG_ERROR => {
                let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                if header.kind == NLMSG_DONE && code >= 0 {
                    return Ok(false);
                }
                // No errno is i32::MIN, but these are bytes of another's.
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => {
                more = header.flags & 2 != 0;
                if let Some(found) = read(body, netns) {
                    each(found);
                }
            }
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(more)
}

/// Whether the error says that the kernel has no tcp_diag (ENOENT: inet_diag_lock_handler()), or no sock_diag at all
/// (EPROTONOSUPPORT: netlink_create()).
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(2 | 93))
}

/// A minisock's answer.
pub(super) fn there(found: &Found) -> Whereabouts {
    Whereabouts::There { state: found.state, expires_ms: found.expires_ms.unwrap_or(0) }
}

fn read(body: &[u8], netns: u32) -> Option<Found> {
    let (response, mut attributes) = Response::ref_from_prefix(body).ok()?;
    let Response { id, .. } = response;
    let addr = |octets: [u8; 16]| match response.family {
        AF_INET => Addr::from_be32(u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]])),
        _ => Addr::from_octets(octets),
    };
    let (mut counters, mut cgroup, mut drops) = (None, 0, 0);
    while let Some((head, _)) = attributes.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = attributes.get(4..len) else { break };
        match u16::from_ne_bytes([head[2], head[3]]) {
            INET_DIAG_INFO => counters = self::counters(value),
            INET_DIAG_SKMEMINFO => drops = word(value, 4 * MEMORY_DROPS).unwrap_or(0),
            INET_DIAG_CGROUP_ID => cgroup = value.first_chunk().map_or(0, |id| u64::from_ne_bytes(*id)),
            _ => {}
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    let state = State::from_kernel(response.state)?;
    let form = match state {
        State::TIME_WAIT => Form::Minisock,
        _ if response.timer == TIMER_TIME_WAIT => Form::Minisock,
        State::SYN_RECV | State::NEW_SYN_RECV if counters.is_none() => Form::Request,
        _ => Form::Socket,
    };
    let socket = form == Form::Socket;
    let tuple = Tuple {
        laddr: addr(id.src),
        raddr: addr(id.dst),
        lport: u16::from_be_bytes(id.sport),
        rport: u16::from_be_bytes(id.dport),
        netns,
    };
    let state = if form == Form::Request { State::SYN_RECV } else { state };
    Some(Found {
        cookie: u64::from(id.cookie[0]) | u64::from(id.cookie[1]) << 32,
        ino: u64::from(response.inode),
        uid: socket.then_some(response.uid),
        cgroup,
        expires_ms: (response.timer != 0).then_some(response.expires),
        receive_queue: response.receive_queue,
        send_queue: response.send_queue,
        timer: response.timer,
        retransmits: response.retransmits,
        drops,
        counters: counters.filter(|_| socket && state != State::LISTEN),
        ..Found::new(tuple, state, form)
    })
}

/// The number at a place, in the host's byte order.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// From `struct tcp_info` of include/uapi/linux/tcp.h, whose members keep their places; `None` if it is older than all
/// of these (before 4.19).
fn counters(info: &[u8]) -> Option<Counters> {
    let word = |at: usize| word(info, at);
    let long = |at: usize| info.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    Some(Counters {
        unacked: word(24)?,
        last_data_sent_ms: word(44)?,
        last_data_recv_ms: word(52)?,
        last_ack_recv_ms: word(56)?,
        srtt_us: word(68)?,
        total_retrans: word(100)?,
        bytes_acked: long(120)?,
        bytes_received: long(128)?,
        data_segs_in: word(152)?,
        data_segs_out: word(156)?,
        bytes_sent: long(200)?,
        bytes_retrans: long(208)?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A message of that kind with nothing but a number in it.
    fn message(kind: u16, code: i32) -> Vec<u8> {
        let header = MessageHeader { len: 20, kind, flags: 0, seq: 1, pid: 0 };
        [header.as_bytes(), &code.to_ne_bytes()].concat()
    }

    #[test]
    fn an_answer_ends_or_fails() {
        let read = |bytes: &[u8]| messages(bytes, 7, &mut |_| {});
        assert!(!read(&message(NLMSG_DONE, 0)).unwrap());
        assert_eq!(read(&message(NLMSG_ERROR, -2)).unwrap_err().raw_os_error(), Some(2));
        assert_eq!(read(&message(NLMSG_DONE, -105)).unwrap_err().raw_os_error(), Some(105));
        // No errno, but no reason to panic either.
        assert_eq!(read(&message(NLMSG_ERROR, i32::MIN)).unwrap_err().raw_os_error(), Some(i32::MAX));
        assert_eq!(read(&message(0, 0)[..18]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
