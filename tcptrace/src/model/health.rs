//! What the kernel says of a network namespace as a whole: counters, settings, and the memory that TCP takes.

/// `/proc/sys/net/ipv4/` and below: the settings that say something about the health of TCP.
pub const SYSCTLS: [&str; 24] = [
    "ip_local_port_range",
    RESERVED_PORTS,
    "tcp_abort_on_overflow",
    "tcp_fin_timeout",
    "tcp_keepalive_time",
    "tcp_max_orphans",
    "tcp_max_syn_backlog",
    "tcp_max_tw_buckets",
    "tcp_mem",
    "tcp_orphan_retries",
    "tcp_retries2",
    "tcp_rfc1337",
    "tcp_sack",
    "tcp_syn_retries",
    "tcp_synack_retries",
    "tcp_syncookies",
    "tcp_timestamps",
    "tcp_tw_recycle",
    "tcp_tw_reuse",
    "tcp_window_scaling",
    "../core/somaxconn",
    "../core/netdev_max_backlog",
    "../netfilter/nf_conntrack_count",
    "../netfilter/nf_conntrack_max",
];

/// The one whose numbers are ranges: the first and the last of each.
const RESERVED_PORTS: &str = "ip_local_reserved_ports";

macro_rules! counters {
    ($( $field:ident = $group:literal $name:literal; )+) => {
        /// The kernel's counters of a network namespace (/proc/net/snmp, /proc/net/netstat). What a kernel does not
        /// count is 0.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the kernel's names say it: include/uapi/linux/snmp.h and net/ipv4/proc.c")]
        pub struct Snmp {
            /// Inode number of the network namespace.
            pub netns: u32,
            /// When they were read, `CLOCK_MONOTONIC` in ns.
            pub at_ns: u64,
            $( pub $field: u64, )+
        }

        impl Snmp {
            /// Those in the texts of /proc/net/snmp and /proc/net/netstat, one after the other, read at `at_ns`. `None`
            /// if there are none of TCP.
            #[must_use]
            pub fn parse(text: &str, netns: u32, at_ns: u64) -> Option<Self> {
                let mut counters = Self { netns, at_ns, ..Self::default() };
                let mut lines = text.lines();
                let mut any = false;
                while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                    let Some((group, names)) = names.split_once(": ") else { continue };
                    let values = values.split_once(": ").map_or("", |(_, values)| values);
                    any |= group == "Tcp";
                    if !matches!(group, "Tcp" | "TcpExt") {
                        continue;
                    }
                    for (name, value) in names.split(' ').zip(values.split(' ')) {
                        match (group, name) {
                            $( ($group, $name) => counters.$field = value.parse().unwrap_or(0), )+
                            _ => {}
                        }
                    }
                }
                any.then_some(counters)
            }

            /// How much was counted since an earlier reading.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { netns: self.netns, at_ns: self.at_ns, $( $field: self.$field.saturating_sub(earlier.$field), )+ }
            }
        }
    };
}

counters! {
    active_opens = "Tcp" "ActiveOpens";
    passive_opens = "Tcp" "PassiveOpens";
    estab_resets = "Tcp" "EstabResets";
    in_segs = "Tcp" "InSegs";
    out_segs = "Tcp" "OutSegs";
    retrans_segs = "Tcp" "RetransSegs";
    out_rsts = "Tcp" "OutRsts";
    syncookies_sent = "TcpExt" "SyncookiesSent";
    syncookies_failed = "TcpExt" "SyncookiesFailed";
    listen_overflows = "TcpExt" "ListenOverflows";
    listen_drops = "TcpExt" "ListenDrops";
    req_queue_full_do_cookies = "TcpExt" "TCPReqQFullDoCookies";
    req_queue_full_drop = "TcpExt" "TCPReqQFullDrop";
    time_wait_overflow = "TcpExt" "TCPTimeWaitOverflow";
    abort_on_memory = "TcpExt" "TCPAbortOnMemory";
    memory_pressures = "TcpExt" "TCPMemoryPressures";
    timeouts = "TcpExt" "TCPTimeouts";
}

/// Settings of a network namespace, those of [`SYSCTLS`] that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls(pub Vec<(&'static str, Vec<i64>)>);

impl Sysctls {
    /// The setting of that name, or the first number of it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i64> {
        self.all(name)?.first().copied()
    }

    /// All numbers of a setting.
    #[must_use]
    pub fn all(&self, name: &str) -> Option<&[i64]> {
        let is_it = |(known, _): &&(&str, Vec<i64>)| known.rsplit('/').next() == Some(name);
        self.0.iter().find(is_it).map(|(_, numbers)| &**numbers)
    }

    /// A setting that cannot be negative.
    #[must_use]
    pub fn count(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|number| u64::try_from(number).ok())
    }
}

/// The numbers of a setting, from its text.
#[must_use]
pub fn numbers(name: &str, text: &str) -> Vec<i64> {
    if name == RESERVED_PORTS {
        let range = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some([first.parse().ok()?, last.parse().ok()?])
        };
        return text.trim().split(',').filter_map(range).flatten().collect();
    }
    text.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The line `TCP:` of /proc/net/sockstat. All but `time_wait` are of the whole host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockstat {
    /// Sockets that their applications have closed and that are not minisocks yet.
    pub orphans: u64,
    /// Minisocks of the network namespace, orphans in FIN_WAIT2 among them.
    pub time_wait: u64,
    /// Pages of memory that TCP takes, to be compared with tcp_mem.
    pub pages: u64,
}

impl Sockstat {
    /// From the text of /proc/net/sockstat.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.lines().find_map(|line| line.strip_prefix("TCP: "))?;
        let mut stat = Self::default();
        let mut words = words.split_ascii_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value = value.parse().unwrap_or(0);
            match name {
                "orphan" => stat.orphans = value,
                "tw" => stat.time_wait = value,
                "mem" => stat.pages = value,
                _ => {}
            }
        }
        Some(stat)
    }
}

/// All of that at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The kernel's counters; they name the network namespace and the time.
    pub counters: Snmp,
    /// Its settings.
    pub sysctls: Sysctls,
    /// Its sockets and their memory.
    pub sockstat: Sockstat,
}

/// A process's descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// How many are open.
    pub open: u64,
    /// How many may be (RLIMIT_NOFILE); `None`: no limit.
    pub limit: Option<u64>,
}

impl Descriptors {
    /// The limit in the text of /proc/PID/limits.
    #[must_use]
    pub fn limit_in(limits: &str) -> Option<u64> {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const SNMP: &str = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm MaxConn OutRsts EstabResets\nTcp: 1 -1 42 7\n";
    const NETSTAT: &str =
        "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: InNoRoutes\nIpExt: 9\n";

    #[test]
    fn counters_are_read_from_both_files() {
        let counters = Snmp::parse(&format!("{SNMP}{NETSTAT}"), 7, 11).unwrap();
        assert_eq!((counters.netns, counters.at_ns), (7, 11));
        assert_eq!((counters.out_rsts, counters.estab_resets), (42, 7));
        assert_eq!((counters.syncookies_sent, counters.listen_overflows, counters.listen_drops), (1, 2, 3));
        assert_eq!(counters.timeouts, 0);
        assert_eq!(Snmp::parse(NETSTAT, 7, 11), None);
        let later = Snmp { out_rsts: 50, ..counters };
        assert_eq!(later.since(&counters).out_rsts, 8);
    }

    #[test]
    fn settings_have_names_without_a_path() {
        let sysctls =
            Sysctls(vec![("../core/somaxconn", vec![4096]), ("tcp_mem", numbers("tcp_mem", "10\t20\t30\n"))]);
        assert_eq!(sysctls.count("somaxconn"), Some(4096));
        assert_eq!(sysctls.all("tcp_mem"), Some(&[10, 20, 30][..]));
        assert_eq!(sysctls.get("tcp_sack"), None);
        assert_eq!(numbers("ip_local_reserved_ports", "8080,9000-9010\n"), [8080, 8080, 9000, 9010]);
        assert!(numbers("ip_local_reserved_ports", "\n").is_empty());
    }

    #[test]
    fn the_rest_is_read() {
        let stat = Sockstat::parse(
            "sockets: used 9\nTCP: inuse 5 orphan 1 tw 2 alloc 7 mem 3\nUDP: inuse 1 mem 4\n",
        );
        assert_eq!(stat, Some(Sockstat { orphans: 1, time_wait: 2, pages: 3 }));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n";
        assert_eq!(Descriptors::limit_in(limits), Some(1024));
        assert_eq!(Descriptors::limit_in("Max open files            unlimited            unlimited\n"), None);
    }
}
