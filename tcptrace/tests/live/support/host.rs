//! The host: what its kernel can do, its programs, and the settings and counters of the namespace that the
//! calling thread is in.

use std::{collections::HashMap, fs, process::Command, sync::LazyLock};

use tcptrace::kernel::btf::Btf;

/// What not every kernel since 5.10 has.
#[expect(clippy::struct_excessive_bools, reason = "each is a feature of its own")]
pub(crate) struct Features {
    /// RSTs carry their reason: 6.11, or the stable kernels that took the reasons over.
    pub(crate) reasons: bool,
    /// RSTs that no full socket stands behind are reported (trace_tcp_send_reset() since 6.10).
    pub(crate) stray_resets: bool,
    /// Sockets are given a cookie by the probe (bpf_get_socket_cookie() in tracing programs since 5.12).
    pub(crate) cookies: bool,
    /// CONFIG_MPTCP=y.
    pub(crate) mptcp: bool,
    /// A program that is at work is not run once more on the same CPU (__bpf_trace_run() since 6.1).
    pub(crate) no_recursion: bool,
}

/// What the running kernel has, by its BTF and never by its version.
pub(crate) static KERNEL: LazyLock<Features> = LazyLock::new(|| {
    let bytes = fs::read("/sys/kernel/btf/vmlinux")
        .expect("the live tests need a kernel with CONFIG_DEBUG_INFO_BTF=y, and sysfs on /sys");
    let btf = Btf::parse(&bytes).unwrap();
    Features {
        reasons: btf.enum_value("sk_rst_reason", "SK_RST_REASON_TCP_STATE").is_some(),
        stray_resets: btf.tracepoint_args("tcp_send_reset").is_some_and(|count| count >= 3),
        cookies: btf.has_function("bpf_get_socket_ptr_cookie"),
        mptcp: btf.has_struct("mptcp_sock"),
        no_recursion: btf.has_function("bpf_prog_inc_misses_counter"),
    }
});

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("the live tests need the program {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}\n{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Sets a sysctl, which the kernel must have.
pub(crate) fn sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{name}"), value)
        .unwrap_or_else(|error| panic!("/proc/sys/net/{name} = {value}: {error}"));
}

/// Sets a sysctl where the kernel has it.
pub(crate) fn sysctl_if_any(name: &str, value: &str) {
    if fs::exists(format!("/proc/sys/net/{name}")).unwrap() {
        sysctl(name, value);
    }
}

/// Makes 192.0.2.0/24 (TEST-NET-1) a place that never answers: a route leads there, over `lo`, so packets come
/// back, but the addresses are not this host's, and tcp_v4_send_reset() sends no RST for what was not routed
/// here.
pub(crate) fn add_black_hole() {
    run("ip", &["route", "add", "192.0.2.0/24", "dev", "lo"]);
}

/// The counters in the `Tcp:` lines of /proc/net/snmp.
pub(crate) fn tcp_counters() -> HashMap<String, i64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names.split(' ').map(str::to_owned).zip(values.split(' ').map(|value| value.parse().unwrap())).collect()
}

/// A counter of the namespace's in /proc/net/snmp or /proc/net/netstat, 0 where the kernel does not have it.
pub(crate) fn counter(name: &str) -> u64 {
    let file = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    let text = file("snmp") + &file("netstat");
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some((_, value)) = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name) {
            // The first field of all may be negative, and is none that a test asks for.
            return value.parse().unwrap();
        }
    }
    0
}

/// A socket of the namespace's, by /proc/net/tcp.
pub(crate) struct Socket {
    pub(crate) lport: u16,
    /// As the kernel numbers them: 6 is TIME_WAIT.
    pub(crate) state: u8,
    /// 1: to send again, 3: a minisock's, 4: to probe a window.
    pub(crate) timer: u8,
}

/// The namespace's IPv4 sockets.
pub(crate) fn sockets() -> Vec<Socket> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let hex = |text: &str| u16::from_str_radix(text, 16).unwrap();
    let socket = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let small = |text: &str| u8::from_str_radix(text, 16).unwrap();
        Socket {
            lport: hex(words[1].split_once(':').unwrap().1),
            state: small(words[3]),
            timer: small(words[5].split_once(':').unwrap().0),
        }
    };
    table.lines().skip(1).map(socket).collect()
}
