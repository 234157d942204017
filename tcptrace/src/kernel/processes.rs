//! Which process has which socket open, by /proc/*/fd.

use std::{ffi::CStr, fs, path::PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};

use crate::model::{
    event::{Comm, Owner, OwnerSource},
    health::Descriptors,
};

/// What a look through all descriptors found.
#[derive(Default)]
pub(super) struct Holders {
    /// Owners of the sockets that were asked for, by inode number.
    pub(super) owners: FxHashMap<u64, Owner>,
    /// Network namespaces that a descriptor keeps, by inode number.
    pub(super) namespaces: Vec<(u32, PathBuf)>,
    /// Processes whose descriptors may not be looked at.
    pub(super) closed: usize,
}

/// A process that holds a wanted socket.
#[derive(Clone, Copy)]
struct Holder {
    pid: u32,
    comm: Comm,
    /// When it was started, in the kernel's ticks since boot.
    started: u64,
}

impl Holder {
    fn read(pid: u32) -> Option<Self> {
        let (comm, started) = name_and_start(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, comm, started })
    }

    /// Whether this is the better owner of a socket that both hold: who passes sockets on when a service starts (process
    /// 1) does not serve them, and of a parent and its children the parent is it.
    fn before(&self, other: &Self) -> bool {
        (self.pid == 1, self.started, self.pid) < (other.pid == 1, other.started, other.pid)
    }
}

/// From /proc/PID/stat: the command name, and when the process was started, in the kernel's ticks since boot.
#[must_use]
pub fn name_and_start(stat: &[u8]) -> Option<(Comm, u64)> {
    // `PID (COMM) STATE ...`; the name may hold anything.
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let mut comm = Comm::default();
    comm.0.iter_mut().zip(stat.get(open + 1..close)?).for_each(|(to, from)| *to = *from);
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    // Field 22 of proc(5); the state is field 3.
    let started = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some((comm, started))
}

/// How many descriptors a process has open, and may have. `None`: it is gone, or does not let itself be looked at.
#[must_use]
pub fn descriptors(pid: u32) -> Option<Descriptors> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let directory = format!("/proc/{pid}/fd");
    // Since 6.2 its size is their number (proc_fd_getattr() in fs/proc/fd.c), and 0 before.
    let open = match fs::metadata(&directory).ok()?.len() {
        0 => counted(&directory)?,
        open => open,
    };
    Some(Descriptors { open, limit: Descriptors::limit_in(&limits) })
}

/// How many entries a directory has.
fn counted(directory: &str) -> Option<u64> {
    u64::try_from(fs::read_dir(directory).ok()?.count()).ok()
}

/// Numbers of all processes.
pub(super) fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Looks through all descriptors of all processes. What vanishes meanwhile is not there.
pub(super) fn look(wanted: &FxHashSet<u64>, source: OwnerSource) -> Holders {
    let mut holders: FxHashMap<u64, Holder> = FxHashMap::default();
    let mut found = Holders::default();
    for pid in all() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                found.closed += 1;
                continue;
            }
            Err(_) => continue,
        };
        let Ok(entries) = Dir::read_from(&directory) else { continue };
        let mut holder = None;
        let mut buffer = Vec::with_capacity(64);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Ok(link) = readlinkat(&directory, name, buffer) else {
                buffer = Vec::with_capacity(64);
                continue;
            };
            if let Some(ino) = number_in(&link, "socket:[") {
                if wanted.contains(&ino)
                    && let Some(holder) = *holder.get_or_insert_with(|| Holder::read(pid))
                {
                    let best = holders.entry(ino).or_insert(holder);
                    if holder.before(best) {
                        *best = holder;
                    }
                }
            } else if let Some(ino) = number_in(&link, "net:[").and_then(|ino| u32::try_from(ino).ok()) {
                let path = format!("/proc/{pid}/fd/{}", name.to_string_lossy());
                found.namespaces.push((ino, PathBuf::from(path)));
            }
            buffer = link.into_bytes();
            buffer.clear();
        }
    }
    let owner = |holder: Holder| Owner { pid: holder.pid, comm: holder.comm, source };
    found.owners = holders.into_iter().map(|(ino, holder)| (ino, owner(holder))).collect();
    found
}

/// The number in a link such as `socket:[123]`.
#[must_use]
pub fn number_in(link: &CStr, prefix: &str) -> Option<u64> {
    let digits = link.to_bytes().strip_prefix(prefix.as_bytes())?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        io::{Read as _, Write as _},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn links_are_read() {
        assert_eq!(number_in(c"socket:[4711]", "socket:["), Some(4711));
        for link in [c"socket:[x]", c"socket:[1", c"/dev/null", c"net:[12]"] {
            assert_eq!(number_in(link, "socket:["), None, "{link:?}");
        }
    }

    #[test]
    fn the_longest_running_holder_owns_but_not_process_1() {
        let holder = |pid, started| Holder { pid, comm: Comm::default(), started };
        assert!(holder(20, 5).before(&holder(10, 6)));
        assert!(holder(20, 5).before(&holder(1, 0)));
        assert!(holder(20, 5).before(&holder(21, 5)));
        assert!(!holder(1, 0).before(&holder(20, 5)));
    }

    #[test]
    fn this_process_has_a_name_and_a_start() {
        let own = Holder::read(std::process::id()).unwrap();
        let comm = fs::read("/proc/self/comm").unwrap();
        assert_eq!(own.comm.bytes(), comm.trim_ascii_end());
        assert!(own.started > 0);
        let descriptors = descriptors(std::process::id()).unwrap();
        assert!(descriptors.open > 2 && descriptors.limit.is_none_or(|limit| limit >= descriptors.open));
        assert_eq!(super::descriptors(u32::MAX), None);
    }

    #[test]
    fn descriptors_are_counted() {
        // Of another process: in this one other tests open and close some.
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        // It has begun.
        to.write_all(b"x").unwrap();
        from.read_exact(&mut [0]).unwrap();
        let told = descriptors(child.id()).unwrap().open;
        let entries = counted(&format!("/proc/{}/fd", child.id()));
        drop(to);
        child.wait().unwrap();
        assert!(told >= 3);
        assert_eq!(entries, Some(told));
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        use std::os::linux::fs::MetadataExt as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let ino = fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().st_ino();
        let found = look(&FxHashSet::from_iter([ino]), OwnerSource::Fd);
        assert_eq!(found.owners.get(&ino).unwrap().pid, std::process::id());
        assert_eq!(found.owners.len(), 1);
    }
}
