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
}

impl Runs {
    /// From now on statistics are kept, of all programs on this host: see [`attach::statistics`].
    pub fn begin(attached: &Attached) -> io::Result<Self> {
        Ok(Self { _kept: attach::statistics()?, programs: attached.programs()? })
    }

    /// How often the probes ran since then, and for how long (bpf_prog_show_fdinfo() in kernel/bpf/syscall.c).
    #[must_use]
    pub fn total(&self) -> (u64, Duration) {
        let mut total = (0, Duration::ZERO);
        for program in &self.programs {
            let path = format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd());
            let info = fs::read_to_string(path).unwrap_or_default();
            let field =
                |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            total.0 += field("run_cnt:").unwrap_or(0);
            total.1 += Duration::from_nanos(field("run_time_ns:").unwrap_or(0));
        }
        total
    }
}
