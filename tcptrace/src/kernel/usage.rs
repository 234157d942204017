//! What tcptrace itself takes, and where it runs.

use rustix::{
    param::page_size,
    system::uname,
    time::{ClockId, clock_gettime},
};

/// CPU time of this process so far, in ns.
#[must_use]
pub fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or(0)
}

/// Resident memory of this process in bytes; 0 where /proc does not tell.
#[must_use]
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * u64::try_from(page_size()).unwrap_or(0)
}

/// The name of this process, as the kernel has it.
#[must_use]
pub fn comm() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim_end_matches('\n').to_owned()
}

/// How many sockets may be in TIME_WAIT in the own network namespace, where the kernel tells.
#[must_use]
pub fn time_wait_limit() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets").ok()?.trim().parse().ok()
}

/// The host's name, and its kernel's release.
#[must_use]
pub fn host() -> (String, String) {
    let names = uname();
    (names.nodename().to_string_lossy().into_owned(), names.release().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        assert!(cpu_ns() > 0 && memory() > 1 << 20);
        assert!(!host().1.is_empty());
    }
}
