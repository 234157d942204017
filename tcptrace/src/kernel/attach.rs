//! Loads the probes and attaches them.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Btf, Ebpf, EbpfError, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::{
        BtfTracePoint, Program, ProgramError, RawTracePoint, raw_trace_point::RawTracePointLink,
        tp_btf::BtfTracePointLink,
    },
};
use aya_log::EbpfLogger;
use tcptrace_common::layout::ABSENT;
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
    busy: PerCpuArray<MapData, u64>,
    bell: Array<MapData, u32>,
    logger: EbpfLogger<&'static dyn log::Log>,
}

/// What comes of [`attach`].
pub struct Tap {
    /// The probes.
    pub attached: Attached,
    /// The records.
    pub ring: RingBuf<MapData>,
    /// The running kernel's names for RST reasons.
    pub reasons: Reasons,
}

/// The probes that every command needs.
const PROBES: [&str; 3] = ["inet_sock_set_state", "tcp_send_reset", "tcp_receive_reset"];
/// Takes over from the first where the kernel skips it; attached after it.
const AGAIN: (&str, &str) = ("inet_sock_set_state_again", "inet_sock_set_state");
/// The probes that are attached when asked for.
const RETRANSMIT_PROBES: [&str; 2] = ["tcp_retransmit_skb", "tcp_retransmit_synack"];

/// Loads and attaches the probes.
pub fn attach(settings: &Settings) -> Result<Tap, KernelError> {
    privilege::check()?;
    privilege::raise_memlock();
    let release = release();
    let layout::Found { layout, reasons } = layout::find(&release)?;
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
    let wanted = PROBES.iter().chain(RETRANSMIT_PROBES.iter().filter(|_| settings.retransmits));
    // The logger takes its map out, so it comes after the loader and before the programs that use it.
    let logger = EbpfLogger::init(&mut ebpf).map_err(|error| KernelError::Object(error.to_string()))?;
    let btf = Btf::from_sys_fs().map_err(|error| refused("show its types".to_owned(), &error))?;
    for name in wanted {
        let program =
            ebpf.program_mut(name).ok_or_else(|| KernelError::Object(format!("it has no program {name}")))?;
        let link = start(program, name, &btf)
            .map_err(|error| refused(format!("run the probe on {name}"), &error))?;
        links.push(link);
    }
    if layout.no_recursion != ABSENT {
        let (name, tracepoint) = AGAIN;
        let program =
            ebpf.program_mut(name).ok_or_else(|| KernelError::Object(format!("it has no program {name}")))?;
        let link = start(program, tracepoint, &btf)
            .map_err(|error| refused(format!("run the second probe on {tracepoint}"), &error))?;
        links.push(link);
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
    let busy = PerCpuArray::try_from(map(&mut ebpf, "BUSY")?)
        .map_err(|error| refused("share what was taken over".to_owned(), &error))?;
    let bell = Array::try_from(map(&mut ebpf, "BELL")?)
        .map_err(|error| refused("share the reader's bell".to_owned(), &error))?;
    Ok(Tap { attached: Attached { links, ebpf, lost, busy, bell, logger }, ring, reasons })
}

fn start(program: &mut Program, name: &str, btf: &Btf) -> Result<Link, ProgramError> {
    match program {
        Program::RawTracePoint(program) => start_raw(program, name).map(Link::Raw),
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
            let programs = self.ebpf.programs().filter(|(name, _)| *name != AGAIN.0);
            let skipped: u64 = programs.filter_map(|(_, program)| recursion_misses(program)).sum();
            let taken_over = self.busy.get(&1, 0).map_or(0, |per_cpu| per_cpu.iter().sum());
            loss.skipped = skipped.saturating_sub(taken_over);
        }
        loss
    }
}

/// How often the kernel skipped a program because it was running on that CPU already (5.12 on: from the
/// program's fdinfo, bpf_prog_show_fdinfo() in kernel/bpf/syscall.c).
fn recursion_misses(program: &Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
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
