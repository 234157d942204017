//! From the kernel's clock to the wall's.

use rustix::time::{ClockId, clock_gettime};

/// Turns `CLOCK_MONOTONIC` into the time of day. The difference is read once: when somebody sets the clock, the
/// stream's times still run evenly.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// `CLOCK_REALTIME` - `CLOCK_MONOTONIC` in ns.
    offset_ns: i128,
    /// `CLOCK_MONOTONIC` at the start, in ns.
    start_ns: u64,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        let start_ns = monotonic_ns();
        let wall = clock_gettime(ClockId::Realtime);
        let wall_ns = i128::from(wall.tv_sec) * 1_000_000_000 + i128::from(wall.tv_nsec);
        Self { offset_ns: wall_ns - i128::from(start_ns), start_ns }
    }

    /// A clock of given readings, in ns.
    #[must_use]
    pub fn fixed(start_ns: u64, wall_ns: i128) -> Self {
        Self { offset_ns: wall_ns - i128::from(start_ns), start_ns }
    }

    /// Time of day in ns since 1970.
    #[must_use]
    pub fn wall_ns(&self, monotonic_ns: u64) -> i128 {
        i128::from(monotonic_ns) + self.offset_ns
    }

    /// Time since the start in ns; 0 for what came before.
    #[must_use]
    pub fn since_start_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_sub(self.start_ns)
    }
}

/// `CLOCK_MONOTONIC` in ns, the clock of `bpf_ktime_get_ns()`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or(0)
}
