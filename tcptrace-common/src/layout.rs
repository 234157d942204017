//! Where the running kernel keeps the fields that the probes read.
//!
//! Rust has no CO-RE. The loader looks every path of [`Layout::FIELDS`] up in the running kernel's BTF
//! and hands the result over as a read-only global. The verifier treats such a global as a constant:
//! an offset costs nothing, and the branch of an [`ABSENT`] field vanishes.

#[cfg(feature = "user")]
use zerocopy::{Immutable, IntoBytes};

/// The value of a field that this kernel does not have.
pub const ABSENT: u16 = u16::MAX;

/// Words of the map in which the probes of transitions leave word for each other; the last is a count.
pub const HANDLED_WORDS: usize = 9;

/// Whether a value of [`Layout`] is not [`ABSENT`].
#[inline(always)]
#[must_use]
pub const fn is_known(value: u16) -> bool {
    value != ABSENT
}

/// How a [`Field`] is looked up and what its value in [`Layout`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Byte offset of a member, by path.
    Offset(&'static str),
    /// Bit offset of a member of one bit (or of a `bool`'s lowest), by path.
    Bit(&'static str),
    /// Value of an enumerator: enum, enumerator.
    Enumerator(&'static str, &'static str),
    /// 1 when the kernel has a function of this name, else absent.
    Function(&'static str),
    /// 1 when the tracepoint has at least so many arguments, else absent.
    Arguments(&'static str, usize),
}

/// One line of the table [`Layout::FIELDS`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name of the field in [`Layout`].
    pub name: &'static str,
    /// What to ask BTF.
    pub lookup: Lookup,
    /// Whether tcptrace can do without. Every kernel from 5.10 to 7.3 has those that it cannot do without.
    pub optional: bool,
}

macro_rules! layout {
    ($( $need:ident $name:ident = $kind:ident($($arg:expr),+); )+) => {
        /// Offsets and features of the running kernel, each [`ABSENT`] or as its [`Lookup`] says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(IntoBytes, Immutable))]
        #[repr(C)]
        pub struct Layout {
            $( #[doc = concat!("`", stringify!($kind), stringify!(($($arg),+)), "`")] pub $name: u16, )+
        }

        impl Layout {
            /// Nothing known. What stands in the object until the loader overrides it.
            pub const NOTHING: Self = Self { $( $name: ABSENT, )+ };

            /// Every field, in order.
            pub const FIELDS: &'static [Field] = &[
                $( Field {
                    name: stringify!($name),
                    lookup: Lookup::$kind($($arg),+),
                    optional: layout!(@$need),
                }, )+
            ];

            /// Builds the layout from a value for each of [`FIELDS`](Self::FIELDS).
            pub fn from_lookup(mut find: impl FnMut(&Field) -> u16) -> Self {
                let mut fields = Self::FIELDS.iter();
                Self { $( $name: fields.next().map_or(ABSENT, &mut find), )+ }
            }
        }
    };
    (@required) => { false };
    (@optional) => { true };
}

layout! {
    // struct sock: the same paths from 5.10 to 7.3.
    required family          = Offset("sock.__sk_common.skc_family");
    required state           = Offset("sock.__sk_common.skc_state");
    required num             = Offset("sock.__sk_common.skc_num");
    required dport           = Offset("sock.__sk_common.skc_dport");
    required daddr           = Offset("sock.__sk_common.skc_daddr");
    required rcv_saddr       = Offset("sock.__sk_common.skc_rcv_saddr");
    optional v6_daddr        = Offset("sock.__sk_common.skc_v6_daddr");
    optional v6_rcv_saddr    = Offset("sock.__sk_common.skc_v6_rcv_saddr");
    required net             = Offset("sock.__sk_common.skc_net.net");
    required cookie          = Offset("sock.__sk_common.skc_cookie");
    required flags           = Offset("sock.__sk_common.skc_flags");
    optional net_refcnt      = Bit("sock.__sk_common.skc_net_refcnt");
    required protocol        = Offset("sock.sk_protocol");
    required shutdown        = Offset("sock.sk_shutdown");
    required lock_owned      = Offset("sock.sk_lock.owned");
    required socket          = Offset("sock.sk_socket");
    required uid             = Offset("sock.sk_uid.val");
    required err             = Offset("sock.sk_err");
    required err_soft        = Offset("sock.sk_err_soft");
    required lingertime      = Offset("sock.sk_lingertime");
    required sock_dead       = Enumerator("sock_flags", "SOCK_DEAD");
    required sock_done       = Enumerator("sock_flags", "SOCK_DONE");
    required sock_keepopen   = Enumerator("sock_flags", "SOCK_KEEPOPEN");
    required sock_linger     = Enumerator("sock_flags", "SOCK_LINGER");

    // The socket's inode: sk_ino from 6.17, before that by way of its file.
    optional sk_ino          = Offset("sock.sk_ino");
    optional socket_file     = Offset("socket.file");
    optional file_inode      = Offset("file.f_inode");
    optional inode_ino       = Offset("inode.i_ino");

    // The socket's cgroup: a pointer from 5.15, before that a word that may hold one.
    optional cgroup          = Offset("sock.sk_cgrp_data.cgroup");
    optional cgroup_val      = Offset("sock.sk_cgrp_data.val");
    optional cgroup_kn       = Offset("cgroup.kn");
    optional cgroup_level    = Offset("cgroup.level");
    optional cgroup_parents  = Offset("cgroup.ancestors");
    optional cgroup_ids      = Offset("cgroup.ancestor_ids");
    optional kn_id           = Offset("kernfs_node.id");

    // The network namespace. The death row was a pointer from 5.17 to 6.0.
    required net_inum        = Offset("net.ns.inum");
    optional tw_refcount     = Offset("net.ipv4.tcp_death_row.tw_refcount");
    optional tw_count        = Offset("net.ipv4.tcp_death_row.tw_count");
    optional tw_max          = Offset("net.ipv4.tcp_death_row.sysctl_max_tw_buckets");
    optional tw_substate     = Offset("inet_timewait_sock.tw_substate");

    // struct tcp_sock, read at CLOSE.
    required sport           = Offset("tcp_sock.inet_conn.icsk_inet.inet_sport");
    required retransmits     = Offset("tcp_sock.inet_conn.icsk_retransmits");
    required probes_out      = Offset("tcp_sock.inet_conn.icsk_probes_out");
    optional user_timeout    = Offset("tcp_sock.inet_conn.icsk_user_timeout");
    required linger2         = Offset("tcp_sock.linger2");
    required rcv_nxt         = Offset("tcp_sock.rcv_nxt");
    required copied_seq      = Offset("tcp_sock.copied_seq");
    required write_seq       = Offset("tcp_sock.write_seq");
    required snd_una         = Offset("tcp_sock.snd_una");
    required snd_wnd         = Offset("tcp_sock.snd_wnd");
    required srtt            = Offset("tcp_sock.srtt_us");
    required total_retrans   = Offset("tcp_sock.total_retrans");
    required bytes_acked     = Offset("tcp_sock.bytes_acked");
    required bytes_received  = Offset("tcp_sock.bytes_received");
    required bytes_sent      = Offset("tcp_sock.bytes_sent");
    required bytes_retrans   = Offset("tcp_sock.bytes_retrans");
    required segs_in         = Offset("tcp_sock.segs_in");
    required segs_out        = Offset("tcp_sock.segs_out");
    optional is_mptcp        = Bit("tcp_sock.is_mptcp");
    optional repair          = Bit("tcp_sock.repair");

    // A request socket that retransmits its SYN-ACK.
    optional num_retrans     = Offset("request_sock.num_retrans");

    // The packet that a RST answers.
    required skb_head        = Offset("sk_buff.head");
    required skb_transport   = Offset("sk_buff.transport_header");
    required skb_network     = Offset("sk_buff.network_header");
    required skb_dev         = Offset("sk_buff.dev");
    required dev_net         = Offset("net_device.nd_net.net");

    // The task on the CPU.
    required task_tgid       = Offset("task_struct.tgid");
    required task_comm       = Offset("task_struct.comm");
    required task_leader     = Offset("task_struct.group_leader");
    required task_flags      = Offset("task_struct.flags");

    // What this kernel's helpers and tracepoints can do.
    optional has_cookie      = Function("bpf_get_socket_ptr_cookie");
    optional has_task_btf    = Function("bpf_get_current_task_btf");
    // Came with the check in __bpf_trace_run() that keeps a program from interrupting itself (6.1).
    optional no_recursion    = Function("bpf_prog_inc_misses_counter");
    optional has_reason      = Arguments("tcp_send_reset", 3);
    optional has_err         = Arguments("tcp_retransmit_skb", 3);
}
