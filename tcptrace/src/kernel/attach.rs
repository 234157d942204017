//! Loads the probes and attaches them.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{
        self, BtfTracePoint, ProgramError, RawTracePoint, raw_trace_point::RawTracePointLink,
        tp_btf::BtfTracePointLink,
    },
    sys::Stats,
};
use aya_log::EbpfLogger;
use tcptrace_common::layout::{ABSENT, HANDLED_WORDS, Layout};
use zerocopy::IntoBytes as _;

use super::{KernelError, layout, privilege};
use crate::model::{filter::Filter, loss::Loss, tracker::Reasons};

/// The kernel side, built by `cargo xtask ebpf` and kept in the repository.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/tcptrace.o"));

/// What to attach and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Size of the ring in bytes; made a power of two.
    pub ring_bytes: u32,
    /// Whether to attach the retransmit probes.
    pub retransmits: bool,
    /// What the user wants to see.
    pub filter: Filter,
    /// Whether to go on where a probe cannot be attached: [`Attached::probes`] says which.
    pub tolerant: bool,
}

/// A probe that is attached as long as this lives.
enum Link {
    Btf(#[expect(dead_code, reason = "held for its drop")] BtfTracePointLink),
    Raw(#[expect(dead_code, reason = "held for its drop")] RawTracePointLink),
}

/// The probes, attached, and what they fill.
pub struct Attached {
    links: Vec<Link>,
    ebpf: Ebpf,
    lost: PerCpuArray<MapData, u64>,
    handled: PerCpuArray<MapData, [u64; HANDLED_WORDS]>,
    bell: Array<MapData, u32>,
    /// Why probes are not attached.
    refused: Vec<(&'static str, String)>,
    logger: EbpfLogger<&'static dyn log::Log>,
}

/// What comes of [`attach`].
pub struct Tap {
    /// The probes.
    pub attached: Attached,
    /// The records.
    pub ring: RingBuf<MapData>,
    /// What this kernel lets be seen.
    pub sight: Sight,
}

/// What the running kernel lets be seen.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The kernel's release.
    pub release: String,
    /// Its names for RST reasons; empty where it gives none.
    pub reasons: Reasons,
    /// Whether RSTs that belong to no socket are reported (6.10 on).
    pub stray_resets: bool,
    /// Whether programs may ask for a socket's cookie (5.12 on).
    pub cookies: bool,
    /// What was asked of BTF, and what of it this kernel does not have.
    pub fields: usize,
    /// The latter: structures' fields, functions and arguments of tracepoints.
    pub absent: Vec<String>,
    /// Size of the ring in bytes.
    pub ring_bytes: u32,
}

/// A probe, and what became of it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The program's name.
    pub name: &'static str,
    /// What it is attached to.
    pub tracepoint: &'static str,
    /// What the kernel says of the program; or why it is not there.
    pub state: Result<Program, String>,
}

/// A program in the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its instructions, after the verifier took out what can never run.
    pub instructions: Option<u32>,
    /// Instructions that the verifier went through, over all paths (5.16 on).
    pub verified: Option<u32>,
    /// How often it ran, and for how long, while the kernel kept statistics ([`statistics`]).
    pub runs: (u64, Duration),
}

/// When a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// The kernel keeps a program from interrupting itself.
    NoRecursion,
    /// Retransmits are asked for.
    Retransmits,
}

/// Every program, the tracepoint that it is for, and when it is attached. The second for transitions takes over from the
/// first where the kernel skips it, so it is attached after it.
const PROGRAMS: [(&str, &str, When); 6] = [
    ("inet_sock_set_state", "inet_sock_set_state", When::Always),
    ("tcp_send_reset", "tcp_send_reset", When::Always),
    ("tcp_receive_reset", "tcp_receive_reset", When::Always),
    ("tcp_retransmit_skb", "tcp_retransmit_skb", When::Retransmits),
    ("tcp_retransmit_synack", "tcp_retransmit_synack", When::Retransmits),
    (AGAIN, "inet_sock_set_state", When::NoRecursion),
];
const AGAIN: &str = "inet_sock_set_state_again";

/// Loads and attaches the probes.
pub fn attach(settings: &Settings) -> Result<Tap, KernelError> {
    privilege::check()?;
    privilege::raise_memlock();
    let release = release();
    let layout::Found { layout, reasons, absent, tracepoints } =
        layout::find(&release, &PROGRAMS.map(|(_, tracepoint, _)| tracepoint))?;
    let refused = |what: String, error: &(dyn std::error::Error + 'static)| refusal(what, error, &release);

    let ring_bytes = settings.ring_bytes.max(page_bytes()).checked_next_power_of_two().unwrap_or(1 << 31);
    let ancestors =
        layout.cgroup_level != ABSENT && (layout.cgroup_parents != ABSENT || layout.cgroup_ids != ABSENT);
    let filter = settings.filter.kernel_part(ancestors);
    let log_level = aya_log::Level::Error as u8;
    let mut ebpf = EbpfLoader::new()
        // Nothing in the object is relocated by BTF; without this the kernel's types stay parsed for the whole load.
        .btf(None)
        .map_max_entries("RECORDS", ring_bytes)
        .override_global("LAYOUT", layout.as_bytes(), true)
        .override_global("FILTER", filter.as_bytes(), true)
        .override_global(aya_log::LEVEL, &log_level, true)
        .load(OBJECT)
        .map_err(|error| match error {
            EbpfError::MapError(error) => refused(format!("make a ring of {ring_bytes} bytes"), &error),
            error => KernelError::Object(chain(&error)),
        })?;

    let mut links = Vec::new();
    let mut not_attached = Vec::new();
    // The logger takes its map out, so it comes after the loader and before the programs that use it.
    let logger = EbpfLogger::init(&mut ebpf).map_err(|error| KernelError::Object(error.to_string()))?;
    let btf = types(&tracepoints)?;
    for (name, tracepoint, when) in PROGRAMS {
        let why_not = match when {
            When::NoRecursion if layout.no_recursion == ABSENT => Some("not needed on this kernel"),
            When::Retransmits if !settings.retransmits => Some("not asked for"),
            _ => None,
        };
        if let Some(why_not) = why_not {
            not_attached.push((name, why_not.to_owned()));
            continue;
        }
        let program =
            ebpf.program_mut(name).ok_or_else(|| KernelError::Object(format!("it has no program {name}")))?;
        match start(program, tracepoint, &btf) {
            Ok(link) => links.push(link),
            Err(error) if settings.tolerant => not_attached.push((name, short(&chain(&error)))),
            Err(error) => return Err(refused(format!("run the probe {name}"), &error)),
        }
    }
    let map = |ebpf: &mut Ebpf, name: &str| {
        ebpf.take_map(name).ok_or_else(|| KernelError::Object(format!("it has no map {name}")))
    };
    let probes = if settings.retransmits { "all probes" } else { "all probes but the retransmits'" };
    log::info!("{release}: attached {probes}; the ring has {ring_bytes} bytes");
    let ring = RingBuf::try_from(map(&mut ebpf, "RECORDS")?)
        .map_err(|error| refused("share the ring".to_owned(), &error))?;
    let lost = PerCpuArray::try_from(map(&mut ebpf, "LOST")?)
        .map_err(|error| refused("share the loss counters".to_owned(), &error))?;
    let handled = PerCpuArray::try_from(map(&mut ebpf, "HANDLED")?)
        .map_err(|error| refused("share what was taken over".to_owned(), &error))?;
    let bell = Array::try_from(map(&mut ebpf, "BELL")?)
        .map_err(|error| refused("share the reader's bell".to_owned(), &error))?;
    let sight = Sight {
        cookies: layout.has_cookie != ABSENT,
        stray_resets: layout.has_reason != ABSENT,
        fields: Layout::FIELDS.len(),
        release,
        reasons,
        absent,
        ring_bytes,
    };
    let attached = Attached { links, ebpf, lost, handled, bell, refused: not_attached, logger };
    Ok(Tap { attached, ring, sight })
}

/// Attaches the program that does nothing, for as long as the result lives: what any tracer costs at least.
pub fn attach_empty() -> Result<impl Sized, KernelError> {
    privilege::check()?;
    let refused = |error: &(dyn std::error::Error + 'static)| {
        refusal("run an empty program".to_owned(), error, &release())
    };
    let mut ebpf =
        EbpfLoader::new().btf(None).load(OBJECT).map_err(|error| KernelError::Object(chain(&error)))?;
    let btf = types(&layout::find(&release(), &["inet_sock_set_state"])?.tracepoints)?;
    let program =
        ebpf.program_mut("empty").ok_or_else(|| KernelError::Object("it has no program empty".to_owned()))?;
    let link = start(program, "inet_sock_set_state", &btf).map_err(|error| refused(&error))?;
    Ok((link, ebpf))
}

/// Types as aya wants them.
#[expect(clippy::default_trait_access, reason = "aya does not give out the name of the type")]
fn types(bytes: &[u8]) -> Result<Btf, KernelError> {
    Btf::parse(bytes, Default::default()).map_err(|error| KernelError::Object(chain(&error)))
}

fn start(program: &mut programs::Program, name: &str, btf: &Btf) -> Result<Link, ProgramError> {
    match program {
        programs::Program::RawTracePoint(program) => start_raw(program, name).map(Link::Raw),
        program => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(name, btf)?;
            let link = program.attach()?;
            program.take_link(link).map(Link::Btf)
        }
    }
}

fn start_raw(program: &mut RawTracePoint, name: &str) -> Result<RawTracePointLink, ProgramError> {
    program.load()?;
    let link = program.attach(name)?;
    program.take_link(link)
}

impl Attached {
    /// Takes the probes out of the kernel. What is in the ring stays readable.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// Every probe, and what became of it.
    #[must_use]
    pub fn probes(&self) -> Vec<Probe> {
        let state = |name: &str| {
            if let Some((_, why)) = self.refused.iter().find(|(refused, _)| *refused == name) {
                return Err(why.clone());
            }
            let info = self.ebpf.program(name).ok_or("it is not in the object")?.info();
            let info = info.map_err(|error| short(&chain(&error)))?;
            Ok(Program {
                // An instruction has 8 bytes.
                instructions: info.size_translated().map(|bytes| bytes / 8),
                verified: info.verified_instruction_count(),
                runs: (info.run_count(), info.run_time()),
            })
        };
        PROGRAMS.map(|(name, tracepoint, _)| Probe { name, tracepoint, state: state(name) }).into()
    }

    /// The programs that are loaded, by descriptors of the caller's own.
    pub(super) fn programs(&self) -> io::Result<Vec<OwnedFd>> {
        let loaded = self.ebpf.programs().filter_map(|(_, program)| program.fd().ok());
        loaded.map(|fd| fd.as_fd().try_clone_to_owned()).collect()
    }

    /// Whether the maps can be read with the rights that the process has now: before 5.19 that took `CAP_BPF` where
    /// sysctl `kernel.unprivileged_bpf_disabled` is set (__sys_bpf()).
    fn is_readable(&self) -> bool {
        self.lost.get(&0, 0).is_ok()
    }

    /// Gives up all rights that are not needed any more. What else the process is to start it starts after this: each
    /// thread has rights of its own, from the one that started it.
    pub fn drop_privileges(&self) {
        privilege::drop_rest(|| self.is_readable());
    }

    /// Has the next event make the ring readable.
    pub fn set_bell(&mut self) {
        if let Err(error) = self.bell.set(0, 1, 0) {
            log::debug!("the reader cannot ask to be woken: {error}");
        }
    }

    /// What was lost since the start, but for what only the reader can know. `thorough` adds what the kernel
    /// skipped, which costs a few system calls more.
    #[must_use]
    pub fn loss(&mut self, thorough: bool, before: Loss) -> Loss {
        self.logger.flush();
        let mut loss = before;
        for (kind, count) in (0..).zip(loss.full.iter_mut()) {
            if let Ok(per_cpu) = self.lost.get(&kind, 0) {
                *count = per_cpu.iter().sum();
            }
        }
        if thorough {
            // What the second is skipped for matters only if the first was, too.
            let programs = self.ebpf.programs().filter(|(name, _)| *name != AGAIN);
            let skipped: u64 = programs.filter_map(|(_, program)| recursion_misses(program)).sum();
            let count = |words: &[u64; HANDLED_WORDS]| words.last().copied().unwrap_or(0);
            let taken_over =
                self.handled.get(&0, 0).map_or(0, |per_cpu| per_cpu.iter().map(count).sum::<u64>());
            loss.skipped = skipped.saturating_sub(taken_over);
        }
        loss
    }
}

/// How often the kernel skipped a program because it was running on that CPU already (5.12 on: from the
/// program's fdinfo, bpf_prog_show_fdinfo() in kernel/bpf/syscall.c).
fn recursion_misses(program: &programs::Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

/// Has the kernel keep statistics of all programs on this host, as long as the descriptor is open. They cost every run of
/// each some 20 to 40 ns.
pub fn statistics() -> io::Result<OwnedFd> {
    aya::sys::enable_stats(Stats::RunTime).map_err(io::Error::other)
}

/// What the kernel said, with the remedy that fits.
fn refusal(what: String, error: &(dyn std::error::Error + 'static), release: &str) -> KernelError {
    let mut errno = None;
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).or(errno);
        source = error.source();
    }
    let remedy = match errno.map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            "run as root outside any container or seccomp filter that denies bpf(2); under lockdown=confidentiality no tool may read the kernel"
        }
        Some(rustix::io::Errno::NOMEM | rustix::io::Errno::AGAIN) => {
            "ask for a smaller ring (--buffer 1M), or raise the memory limit (ulimit -l, or the cgroup's memory.max)"
        }
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            "kernels from 5.10 on with CONFIG_BPF_SYSCALL=y are supported; if yours is, report this with the output of `tcptrace -v`"
        }
        _ => "report this with the output of `tcptrace -v` and `uname -a`",
    };
    log::info!("{what}: {}", chain(error));
    KernelError::Refused {
        what,
        why: short(&chain(error)),
        remedy: remedy.to_owned(),
        release: release.to_owned(),
    }
}

/// An error with all its causes, on one line. What a cause repeats of the one before is said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// Without the verifier's log, which `-v` shows.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split(" Verifier output").next().unwrap_or(line).trim_end_matches(['.', ':']).to_owned()
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn page_bytes() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(4096)
}
