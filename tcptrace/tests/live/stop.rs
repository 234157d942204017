//! How a run ends: by itself, by a signal, by a reader that goes away or does not read, by a full disk. And that
//! nothing stays in the kernel.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{io::ioctl_fionread, process::Signal};
use serde_json::Value;

use crate::{
    close::{one_connection, story_of},
    crowd::churn,
    support::{
        host::{KERNEL, run},
        netns::{Netns, scenario},
        process::{Pipes, Process, await_that, lines_of},
        trace::{Trace, await_attached},
    },
};

/// What "promptly" and "within a few seconds" mean on a host that is busy with other tests.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn after_some_events() {
    for count in [1, 7, 12] {
        scenario(|net| {
            let trace = Trace::of(net, &["-c", &count.to_string()]);
            one_connection();
            one_connection();
            let log = trace.ended();
            assert!(log.status.success(), "{}\n{}", log.status, log.stderr);
            assert_eq!(log.events.len(), count);
            assert_eq!(log.summary.number("events"), Some(count as u64));
        });
    }
}

#[test]
fn after_some_time() {
    scenario(|net| {
        let trace = Trace::of(net, &["-d", "400ms"]);
        one_connection();
        let log = trace.ended();
        assert!(log.status.success(), "{}\n{}", log.status, log.stderr);
        assert_eq!((log.summary.number("events"), log.events.len()), (Some(12), 12));
        assert!(log.summary.number("elapsed_us") >= Some(400_000), "{:?}", log.summary);
    });
}

/// Whatever happened before the signal is told, even if it is still in the ring.
#[test]
fn by_signals() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        scenario(|net| {
            let trace = Trace::of(net, &[]);
            one_connection();
            trace.process().signal(signal);
            let log = trace.ended();
            assert!(log.status.success(), "{signal:?}: {}\n{}", log.status, log.stderr);
            assert_eq!((log.summary.number("events"), log.events.len()), (Some(12), 12), "{signal:?}");
            assert_eq!(log.summary.number("lost"), Some(0), "{signal:?}");
        });
    }
}

/// The ids of the BPF programs that a process holds (bpf_prog_show_fdinfo()).
fn programs_of(pid: u32) -> BTreeSet<u64> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let infos = infos.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    infos
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect()
}

/// The ids of all BPF programs in the kernel.
fn programs() -> BTreeSet<u64> {
    let list: Value = serde_json::from_str(&run("bpftool", &["prog", "list", "-j"])).unwrap();
    list.as_array().unwrap().iter().map(|program| program["id"].as_u64().unwrap()).collect()
}

/// Links and programs have no name in a file system: they are gone with their descriptors.
#[test]
fn by_kill_nothing_stays_attached() {
    scenario(|net| {
        let trace = Trace::of(net, &["-r"]);
        let ours = programs_of(trace.process().pid());
        let transitions = if KERNEL.no_recursion { 2 } else { 1 };
        assert_eq!(ours.len(), transitions + 4, "transitions, two for RSTs and two for retransmits");
        assert!(ours.is_subset(&programs()), "bpftool shows what /proc shows");
        trace.process().signal(Signal::KILL);
        // The kernel frees them a moment after the process is gone.
        await_that("the programs are gone", || ours.is_disjoint(&programs()));
    });
}

/// Starts tcptrace with a stdout of one's own. What it says on stderr comes when it has ended.
fn start_into(net: &Netns, format: &str, stdout: Stdio) -> (Process, Pipes, impl Fn() -> String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["-v", "--no-header", "-o", format, "-N", &net.inode().to_string()]);
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let (process, mut pipes) = Process::start(&mut command);
    let stderr = lines_of(pipes.stderr.take().unwrap());
    await_attached(&stderr);
    let said = move || {
        stderr.wait(|lines| lines.closed);
        stderr.lock().lines.join("\n")
    };
    (process, pipes, said)
}

/// `tcptrace | head -1`: the pipe is closed while nothing happens, and nobody has to wait for the next event.
#[test]
fn by_a_reader_that_has_read_enough() {
    scenario(|net| {
        let (mut process, pipes, said) = start_into(net, "json", Stdio::piped());
        // The command goes at once, so that the pipe's other end is head's alone.
        let (mut head, head_pipes) = Process::start(
            Command::new("head").args(["-n", "1"]).stdin(pipes.stdout.unwrap()).stdout(Stdio::piped()),
        );
        one_connection();
        let line = BufReader::new(head_pipes.stdout.unwrap()).lines().next().unwrap().unwrap();
        assert!(line.contains(r#""new":"LISTEN""#), "{line}");
        let since = Instant::now();
        assert!(head.wait().success());
        assert!(process.wait().success(), "{}", said());
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    });
}

/// The same when all has been read: only the pipe itself can tell that it is closed.
#[test]
fn by_a_reader_that_goes_away() {
    for format in ["json", "text", "csv"] {
        scenario(|net| {
            let (mut process, pipes, said) = start_into(net, format, Stdio::piped());
            one_connection();
            let mut lines = BufReader::new(pipes.stdout.unwrap()).lines();
            for _ in 0..12 {
                lines.next().unwrap().unwrap();
            }
            let since = Instant::now();
            drop(lines);
            assert!(process.wait().success(), "{format}: {}", said());
            assert!(since.elapsed() < SOON, "{format}: {:?}", since.elapsed());
        });
    }
}

/// Nobody reads the pipe, and it is full: a signal still ends the run, and it says that output is missing.
#[test]
fn by_a_signal_while_nobody_reads() {
    scenario(|net| {
        let (mut process, pipes, said) = start_into(net, "json", Stdio::piped());
        let pipe = pipes.stdout.unwrap();
        churn(300);
        // Pipes hold 64 KiB; a line has some hundred bytes.
        await_that("the pipe is full", || ioctl_fionread(pipe.as_fd()).unwrap() > 60_000);
        let since = Instant::now();
        process.signal(Signal::TERM);
        let status = process.wait();
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        let said = said();
        assert_eq!(status.code(), Some(1), "{status}\n{said}");
        assert!(said.contains("output"), "{said}");
    });
}

#[test]
fn by_a_full_disk() {
    scenario(|net| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (mut process, _, said) = start_into(net, "json", full.into());
        one_connection();
        let status = process.wait();
        let said = said();
        assert_eq!(status.code(), Some(1), "{status}\n{said}");
        assert!(said.contains("No space left on device"), "{said}");
    });
}

/// A ring of one page holds some thirty records. What finds no room is counted, to the last one, and --strict
/// makes a failure of it.
#[test]
fn with_losses() {
    for (args, code) in [(&["--strict", "--buffer", "4K"] as &[_], 3), (&["--buffer", "4K"], 0)] {
        scenario(|net| {
            let trace = Trace::of(net, args);
            let generated = churn(2_000);
            trace.process().signal(Signal::TERM);
            let log = trace.ended();
            assert_eq!(log.status.code(), Some(code), "{}\n{}", log.status, log.stderr);
            assert!(log.lost > 0, "nothing was lost: {:?}", log.summary);
            assert_eq!(log.summary.number("lost"), Some(log.lost), "{:?}", log.summary);
            assert_eq!(log.summary.number("events"), Some(log.events.len() as u64), "{:?}", log.summary);
            // What becomes of an orphan is told, but no event of the kernel's.
            let reported = log.events.iter().filter(|event| event.field("task_pid").is_some()).count();
            assert_eq!(reported as u64 + log.lost, generated, "{:?}", log.summary);
        });
    }
}

/// --strict has nothing to say where nothing is lost.
#[test]
fn without_losses() {
    scenario(|net| {
        let trace = Trace::of(net, &["--strict"]);
        let ends = one_connection();
        trace.tells(&story_of(&ends));
    });
}
