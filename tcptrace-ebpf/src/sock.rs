//! Reading `struct sock`.

use aya_ebpf::helpers::bpf_get_socket_cookie;
use tcptrace_common::{
    filter::{News, VALUES, constant, tests},
    record::{Addr, Tuple, flags},
};

use crate::{
    globals::{FILTER, has, layout},
    memory::{Memory, Typed, Untyped},
};

/// `AF_INET6`
const AF_INET6: u16 = 10;
/// `IPPROTO_TCP`. The tracepoints serve MPTCP, SCTP and DCCP too.
const IPPROTO_TCP: u16 = 6;

/// Whether this is plain TCP. An MPTCP connection reports itself and each of its subflows; the subflows
/// are the TCP.
#[inline(always)]
pub(crate) fn is_tcp(sk: impl Memory) -> bool {
    sk.read::<u16>(layout!(protocol)) == IPPROTO_TCP
}

/// The ends of a socket, a minisock or a request: all begin with a `struct sock_common`.
#[inline(always)]
pub(crate) fn tuple<M: Memory>(common: M) -> Tuple {
    let (laddr, raddr) = if has!(v6_daddr) && common.read::<u16>(layout!(family)) == AF_INET6 {
        (Addr(common.read(layout!(v6_rcv_saddr))), Addr(common.read(layout!(v6_daddr))))
    } else {
        (Addr::from_be32(common.read(layout!(rcv_saddr))), Addr::from_be32(common.read(layout!(daddr))))
    };
    Tuple {
        laddr,
        raddr,
        lport: common.read(layout!(num)),
        rport: u16::from_be(common.read(layout!(dport))),
        netns: match common.follow(layout!(net)) {
            Some(net) => net.read(layout!(net_inum)),
            None => 0,
        },
    }
}

/// What every record carries of its socket; all zero without one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    pub(crate) cookie: u64,
    pub(crate) cgroup: u64,
    pub(crate) ino: u64,
    pub(crate) uid: u32,
    pub(crate) flags: u32,
    pub(crate) shutdown: u8,
}

/// The facts of a full socket. The cookie is what the socket has, 0 if none yet.
#[inline(always)]
pub(crate) fn facts<M: Memory>(sk: M) -> Facts {
    let bits = sk.read::<u64>(layout!(flags));
    let bit = |number: u16, flag: u32| if bits >> number & 1 != 0 { flag } else { 0 };
    let mut flags = bit(layout!(sock_dead), flags::DEAD)
        | bit(layout!(sock_done), flags::DONE)
        | bit(layout!(sock_keepopen), flags::KEEPALIVE);
    if bits >> layout!(sock_linger) & 1 != 0 && sk.read::<u64>(layout!(lingertime)) == 0 {
        flags |= flags::LINGER0;
    }
    if sk.read::<i32>(layout!(lock_owned)) != 0 {
        flags |= flags::OWNED;
    }
    if has!(net_refcnt) && !sk.bit(layout!(net_refcnt)) {
        flags |= flags::KERNEL_SOCKET;
    }
    let mut ino = 0;
    if let Some(socket) = sk.follow(layout!(socket)) {
        flags |= flags::SOCKET;
        if has!(sk_ino) {
            ino = sk.read(layout!(sk_ino));
        } else if has!(socket_file)
            && has!(file_inode)
            && has!(inode_ino)
            && let Some(file) = socket.follow(layout!(socket_file))
            && let Some(inode) = file.follow(layout!(file_inode))
        {
            ino = inode.read(layout!(inode_ino));
        }
    }
    Facts {
        cookie: sk.read(layout!(cookie)),
        cgroup: cgroup_id(sk),
        ino,
        uid: sk.read(layout!(uid)),
        flags,
        shutdown: sk.read(layout!(shutdown)),
    }
}

/// As [`facts`], and gives the socket a cookie if it has none.
#[inline(always)]
pub(crate) fn facts_with_cookie(sk: Typed) -> Facts {
    let mut facts = facts(sk);
    if has!(has_cookie) && facts.cookie == 0 {
        // SAFETY: the verifier knows `sk` as a struct sock.
        facts.cookie = unsafe { bpf_get_socket_cookie(sk.0.cast_mut().cast()) };
    }
    facts
}

/// The id of the cgroup that the socket was made in, 0 when unknown.
#[inline(always)]
fn cgroup_id<M: Memory>(sk: M) -> u64 {
    if !has!(cgroup_kn) || !has!(kn_id) {
        return 0;
    }
    if has!(cgroup) {
        return sk.follow(layout!(cgroup)).map_or(0, id_of);
    }
    cgroup(sk).map_or(0, id_of)
}

#[inline(always)]
fn id_of<M: Memory>(cgroup: M) -> u64 {
    cgroup.follow(layout!(cgroup_kn)).map_or(0, |kn| kn.read(layout!(kn_id)))
}

/// The cgroup that the socket was made in, for what the verifier has no type for.
#[inline(always)]
fn cgroup<M: Memory>(sk: M) -> Option<Untyped> {
    let address = if has!(cgroup) {
        sk.read::<u64>(layout!(cgroup))
    } else if has!(cgroup_val) {
        // Up to 5.14 the word holds a net_cls class or a net_prio index when a low bit is set
        // (sock_cgroup_ptr() in include/linux/cgroup.h).
        match sk.read::<u64>(layout!(cgroup_val)) {
            value if value & 3 != 0 => 0,
            value => value,
        }
    } else {
        0
    };
    if address == 0 { None } else { Some(Untyped(address)) }
}

/// Whether a socket with these ends may be wanted.
#[inline(always)]
pub(crate) fn admitted<M: Memory>(tuple: &Tuple, sk: M, news: News) -> bool {
    // Without a filter this is all that the verifier leaves.
    constant(&FILTER.tests) == 0
        || FILTER.admits_tuple(tuple, news) && admits_uid(sk, news) && admits_cgroup(sk)
}

/// Whether a RST that no socket stands behind may be wanted.
#[inline(always)]
pub(crate) fn admitted_without_socket(tuple: &Tuple) -> bool {
    constant(&FILTER.tests) == 0
        || FILTER.admits_tuple(tuple, News::default())
            && !FILTER.has(tests::UID)
            && !FILTER.has(tests::CGROUP)
}

#[inline(always)]
fn admits_uid<M: Memory>(sk: M, news: News) -> bool {
    if !FILTER.has(tests::UID) {
        return true;
    }
    let dead = sk.read::<u64>(layout!(flags)) >> layout!(sock_dead) & 1 != 0;
    let unaccepted = !dead && sk.follow(layout!(socket)).is_none();
    FILTER.admits_uid(sk.read(layout!(uid)), unaccepted, news)
}

#[inline(always)]
fn admits_cgroup<M: Memory>(sk: M) -> bool {
    if !FILTER.has(tests::CGROUP) {
        return true;
    }
    let Some(cgroup) = cgroup(sk) else { return false };
    let level = cgroup.read::<u32>(layout!(cgroup_level));
    let mut i = 0;
    while i < VALUES {
        let wanted = &FILTER.cgroup[i];
        let (id, wanted_level) = (constant(&wanted.id), constant(&wanted.level));
        if id != 0 && wanted_level <= level && ancestor(cgroup, wanted_level) == id {
            return true;
        }
        i += 1;
    }
    false
}

/// The id of the cgroup's ancestor at a level, itself included.
#[inline(always)]
fn ancestor(cgroup: Untyped, level: u32) -> u64 {
    let index = u64::from(level) * 8;
    if has!(cgroup_parents) {
        Untyped(cgroup.0 + index).follow(layout!(cgroup_parents)).map_or(0, id_of)
    } else if has!(cgroup_ids) {
        Untyped(cgroup.0 + index).read(layout!(cgroup_ids))
    } else {
        0
    }
}
