//! What is measured: tcptrace's commands, and the tools that it is compared with.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::field;
use crate::host::{Workspace, program_path};

/// A tool with its arguments.
pub(super) struct Subject {
    /// What the tables call it.
    pub(super) name: &'static str,
    /// What it is compared as, and whose lines are counted how.
    pub(super) kind: Kind,
    program: PathBuf,
    args: Vec<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// tcptrace's program that does nothing.
    Empty,
    /// A command of tcptrace.
    Ours,
    /// Somebody else's.
    Peer,
}

/// The commands of tcptrace, in the order of the tables.
const OURS: [(&str, &[&str]); 9] = [
    ("an empty program", &["empty"]),
    ("tcptrace, text", &["trace", "-v"]),
    ("tcptrace, JSON", &["trace", "-v", "-o", "json"]),
    ("tcptrace, CSV", &["trace", "-v", "-o", "csv"]),
    ("tcptrace -r, JSON", &["trace", "-v", "-r", "-o", "json"]),
    ("tcptrace -L 1 (no match)", &["trace", "-v", "-L", "1"]),
    ("tcptrace conns", &["conns", "-v"]),
    ("tcptrace hist 1", &["hist", "-v", "1"]),
    ("tcptrace rst 1", &["rst", "-v", "1"]),
];

const PRINTF: &str = "tracepoint:sock:inet_sock_set_state { printf(\"%s %d %d %d %d\\n\", comm, args->sport, args->dport, args->oldstate, args->newstate); }";
const COUNT: &str = "tracepoint:sock:inet_sock_set_state { @[args->oldstate, args->newstate] = count(); }";

/// The tools that tcptrace is compared with: program, Debian's package, name, arguments.
const PEERS: [(&str, &str, &str, &[&str]); 4] = [
    ("tcpstates", "libbpf-tools", "libbpf-tools tcpstates", &[]),
    ("tcplife", "libbpf-tools", "libbpf-tools tcplife", &[]),
    ("bpftrace", "bpftrace", "bpftrace printf", &["-e", PRINTF]),
    ("bpftrace", "bpftrace", "bpftrace count", &["-e", COUNT]),
];

/// Debian's packages with the peers.
pub(super) fn packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = PEERS.iter().map(|(_, package, ..)| *package).collect();
    packages.dedup();
    packages
}

/// All that can be measured here.
pub(super) fn all(tcptrace: &Path) -> Vec<Subject> {
    let ours = OURS.iter().map(|(name, args)| Subject {
        name,
        kind: if *args == ["empty"] { Kind::Empty } else { Kind::Ours },
        program: tcptrace.to_owned(),
        args: args.to_vec(),
    });
    let peers = PEERS.iter().filter_map(|(program, _, name, args)| {
        let program = program_path(program)?;
        Some(Subject { name, kind: Kind::Peer, program, args: args.to_vec() })
    });
    ours.chain(peers).collect()
}

/// Runs a command with tracefs where the peers look for it; in a mount namespace of its own nothing stays mounted.
pub(super) const WITH_TRACEFS: [&str; 7] = [
    "unshare",
    "--mount",
    "--",
    "sh",
    "-c",
    "mount -t tracefs none /sys/kernel/tracing && exec \"$@\"",
    "peer",
];

/// A subject at work.
pub(super) struct Running {
    child: Child,
    /// Where it prints, unless into a pipe.
    pub(super) stdout: PathBuf,
    stderr: PathBuf,
}

/// How long a tool may take to attach, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

impl Subject {
    /// Whether its name holds one of `only`, if there are any.
    pub(super) fn is_wanted(&self, only: &[String]) -> bool {
        only.is_empty() || only.iter().any(|part| self.name.contains(part.as_str()))
    }

    /// The command, on the CPUs of `cpus` (as taskset takes them).
    fn command(&self, cpus: &str) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", cpus]).stdin(Stdio::null());
        if self.kind == Kind::Peer {
            command.args(WITH_TRACEFS);
        }
        command.arg(&self.program).args(&self.args);
        command
    }

    fn spawn(&self, workspace: &Workspace, cpus: &str, piped: bool) -> Result<Running> {
        let dir = workspace.target_dir()?.join("bench");
        fs::create_dir_all(&dir)?;
        let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
        let mut command = self.command(cpus);
        command.stdout(if piped { Stdio::piped() } else { File::create(&stdout)?.into() });
        command.stderr(File::create(&stderr)?);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Running { child, stdout, stderr })
    }

    /// Starts it, printing into a file, and waits until it is attached.
    pub(super) fn start(&self, workspace: &Workspace, cpus: &str) -> Result<Running> {
        let running = self.spawn(workspace, cpus, false)?;
        running.wait_until_attached().with_context(|| self.name.to_owned())?;
        Ok(running)
    }

    /// Starts it, printing into a pipe.
    pub(super) fn start_piped(&self, workspace: &Workspace, cpus: &str) -> Result<(Running, ChildStdout)> {
        let mut running = self.spawn(workspace, cpus, true)?;
        let pipe = running.child.stdout.take().context("no stdout")?;
        Ok((running, pipe))
    }
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until no descriptor of a probe has been added for a while.
    fn wait_until_attached(&self) -> Result<()> {
        let began = Instant::now();
        let (mut count, mut since) = (0, Instant::now());
        while began.elapsed() < PATIENCE {
            let now = self.descriptors(&["bpf_link", "perf_event", "bpf-raw-tracepoint"]);
            if now != count {
                (count, since) = (now, Instant::now());
            } else if count > 0 && since.elapsed() > Duration::from_millis(300) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("it attaches nothing: {}", fs::read_to_string(&self.stderr).unwrap_or_default());
    }

    fn descriptors(&self, kinds: &[&str]) -> usize {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten().flatten();
        let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.filter(|link| kinds.iter().any(|kind| link.to_string_lossy().contains(kind))).count()
    }

    /// Runs of its programs, and ns that they took; counted while the kernel keeps statistics.
    pub(super) fn programs(&self) -> (u64, u64) {
        let infos = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).into_iter().flatten().flatten();
        let (mut runs, mut ns) = (0, 0);
        let mut seen = Vec::new();
        for info in infos.filter_map(|info| fs::read_to_string(info.path()).ok()) {
            let value =
                |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
            let (Some(count), Some(time), Some(id)) =
                (value("run_cnt:"), value("run_time_ns:"), value("prog_id:"))
            else {
                continue;
            };
            if !seen.contains(&id) {
                seen.push(id);
                runs += count;
                ns += time;
            }
        }
        (runs, ns)
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        for task in tasks {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let on_cpu = read("schedstat");
            usage.cpu_ns += on_cpu.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
            usage.wakeups += field(&read("status"), "voluntary_ctxt_switches:");
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        usage.rss_kib = field(&status, "VmRSS:");
        usage.anon_kib = field(&status, "RssAnon:");
        usage
    }

    /// Interrupts it. Returns what it said on stderr.
    pub(super) fn stop(mut self) -> Result<String> {
        let pid = Pid::from_child(&self.child);
        let began = Instant::now();
        kill_process(pid, Signal::INT)?;
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                self.child.kill()?;
                self.child.wait()?;
                bail!("it did not end when interrupted");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(fs::read_to_string(&self.stderr)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Stopped already, unless something failed; then nothing is left behind either.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// Time on a CPU, all threads, in ns.
    pub(super) cpu_ns: u64,
    /// How often a thread went to sleep of its own will, to be woken.
    pub(super) wakeups: u64,
    /// Resident memory in KiB.
    pub(super) rss_kib: u64,
    /// Of that, what no file and no shared mapping stands behind.
    pub(super) anon_kib: u64,
}
