//! What the probes cost in the kernel.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Duration,
};

use super::attach::{self, Attached};

/// Has the kernel keep statistics, and reads them of the probes that are attached.
pub struct Runs {
    /// The kernel keeps statistics as long as this is open.
    _kept: OwnedFd,
    programs: Vec<OwnedFd>,
    /// What was told last.
    last: (u64, Duration),
}

impl Runs {
    /// From now on statistics are kept, of all programs on this host: see [`attach::statistics`].
    pub fn begin(attached: &Attached) -> io::Result<Self> {
        Ok(Self { _kept: attach::statistics()?, programs: attached.programs()?, last: (0, Duration::ZERO) })
    }

    /// How often the probes ran since then, and for how long (bpf_prog_show_fdinfo() in kernel/bpf/syscall.c).
    /// It never goes back: while one of them cannot be read, it is what it was.
    #[must_use]
    pub fn total(&mut self) -> (u64, Duration) {
        let mut total = (0, Duration::ZERO);
        for program in &self.programs {
            let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
            let info = fs::read_to_string(path).unwrap_or_default();
            let field =
                |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            total.0 += field("run_cnt:").unwrap_or(0);
            total.1 += Duration::from_nanos(field("run_time_ns:").unwrap_or(0));
        }
        self.last = (self.last.0.max(total.0), self.last.1.max(total.1));
        self.last
    }
}
