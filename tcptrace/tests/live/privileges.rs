//! Which rights tcptrace takes, and which it keeps.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio, id},
};

use crate::{
    close::{one_connection, story_of},
    support::{
        event::Event,
        host::{KERNEL, sysctl},
        netns::scenario,
        process::await_that,
        tables::Tables,
        tcp::{Pair, close_in_order, pair},
        trace::{Trace, command},
    },
};

/// Bits of linux/capability.h.
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// Permitted, effective and inheritable capabilities of all threads, and whether they can get new ones.
pub(crate) fn rights(pid: u32) -> BTreeSet<(u64, u64, u64, bool)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok())
        .map(|status| {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                u64::from_str_radix(line.trim(), 16).unwrap()
            };
            (field("CapPrm:"), field("CapEff:"), field("CapInh:"), field("NoNewPrivs:") == 0)
        })
        .collect()
}

#[test]
fn what_is_not_needed_any_more_is_dropped() {
    scenario(|net| {
        let kept = DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN;
        let trace = Trace::of(net, &[]);
        assert_eq!(rights(trace.process().pid()), BTreeSet::from([(kept, kept, 0, false)]));
        // What goes on all the time goes on with these.
        let hist = Tables::start(&net.inode().to_string(), &["hist", "0.2"]);
        assert_eq!(rights(hist.process().pid()), BTreeSet::from([(kept, kept, 0, false)]));
        let Pair { listener, client, server, ends } = pair();
        hist.until("the owner", |table| {
            let of_port = |row: &&Event| row.port("port") == ends.listener.lport;
            table.iter().find(of_port).is_some_and(|row| row.number("pid") == Some(id().into()))
        });
        close_in_order(client, server);
        drop(listener);
        hist.stop();
        trace.tells(&story_of(&ends));
    });
}

#[test]
fn they_are_kept_when_asked_for() {
    scenario(|net| {
        let trace = Trace::of(net, &["--keep-privileges"]);
        assert_eq!(rights(trace.process().pid()), rights(id()));
        trace.stop();
    });
}

/// A user with two capabilities sees all that happens; owners of what was there before are another matter.
#[test]
fn two_capabilities_are_enough() {
    scenario(|net| {
        // Where that user may read it.
        let program = std::env::temp_dir().join(format!("tcptrace-of-all-{}", id()));
        fs::copy(env!("CARGO_BIN_EXE_tcptrace"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut setpriv = Command::new("setpriv");
        // Before 5.11 the ring counts against RLIMIT_MEMLOCK, which only root may raise.
        let capabilities = if KERNEL.cookies { "+bpf,+perfmon" } else { "+bpf,+perfmon,+sys_resource" };
        setpriv
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")])
            .arg("--")
            .arg(&program)
            .args(command(&["-N", &net.inode().to_string()]).get_args())
            .stdin(Stdio::null());
        let trace = Trace::start(&mut setpriv);
        fs::remove_file(&program).unwrap();
        let [(permitted, effective, 0, false)] =
            rights(trace.process().pid()).into_iter().collect::<Vec<_>>()[..]
        else {
            panic!("{:x?}", rights(trace.process().pid()));
        };
        // Old kernels want CAP_BPF for every look into a map, if the host does not let everybody use bpf(2).
        assert!(
            permitted == effective && (permitted == 0 || permitted == BPF && !KERNEL.stray_resets),
            "{permitted:x}"
        );
        let ends = one_connection();
        trace.tells(&story_of(&ends));
    });
}

/// Memory and descriptors at two moments of one long run. `TCPTRACE_SOAK` says how many connections; the first fifth of
/// them is to warm up.
#[test]
#[expect(clippy::print_stdout, reason = "the numbers are of interest, whether it fails or not")]
fn a_long_run_holds_steady() {
    let connections: u64 = std::env::var("TCPTRACE_SOAK").map_or(50_000, |count| count.parse().unwrap());
    scenario(|net| {
        // Where there is no room for more in TIME_WAIT, each end waits for sock_diag, which is asked now and then only.
        sysctl("ipv4/tcp_max_tw_buckets", "2000000");
        let mut conns = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        // What it prints is compared elsewhere; kept here it would be the memory of this process.
        conns.args(["conns", "-v", "-c", "1000000000", "-N", &net.inode().to_string()]);
        conns.args(["-o", "json", "--cause", "keepalive_timeout"]);
        let trace = Trace::start(&mut conns);
        let pid = trace.process().pid();
        crate::crowd::churn(connections / 5);
        let (warm, descriptors) = (resident(pid), open_files(pid));
        crate::crowd::churn(connections - connections / 5);
        await_that("no more descriptors than before", || open_files(pid) <= descriptors);
        let end = resident(pid);
        println!("{connections} connections: {warm} KiB after a fifth, {end} KiB at the end");
        assert!(end * 100 <= warm * 105, "{warm} KiB after a fifth, {end} KiB at the end");
        trace.process().signal(rustix::process::Signal::INT);
        let log = trace.ended();
        assert!(log.status.success(), "{}", log.stderr);
        println!("{:?}", log.summary);
    });
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
