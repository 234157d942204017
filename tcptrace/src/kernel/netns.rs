//! Network namespaces by the names that people use.

use std::{
    io,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::KernelError;
use crate::model::event::printable;

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";

/// The inode number of a network namespace given as an inode number, a name under /run/netns, a path, or
/// `pid:N`.
pub fn resolve(name: &str) -> Result<u32, KernelError> {
    if let Ok(inode) = name.parse() {
        return Ok(inode);
    }
    let path = match name.strip_prefix("pid:") {
        Some(pid) => {
            pid.parse::<u32>().map_err(|_| missing(name, "what follows pid: is no number"))?;
            PathBuf::from(format!("/proc/{pid}/ns/net"))
        }
        None if name.contains('/') => PathBuf::from(name),
        None => PathBuf::from(NAMED).join(name),
    };
    let metadata = std::fs::metadata(&path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
            _ => format!("{} cannot be read: {error}", path.display()),
        };
        missing(name, &why)
    })?;
    let inode = metadata.st_ino();
    if !is_netns(&path, inode) {
        return Err(missing(name, &format!("{} is no network namespace", path.display())));
    }
    u32::try_from(inode).map_err(|_| missing(name, "its inode number is too large for one"))
}

/// The inode number of this process's network namespace.
pub fn own() -> Result<u32, KernelError> {
    resolve("/proc/self/ns/net")
}

/// Whether a file is a network namespace: a link of the kernel's to one, or a place where one is mounted.
fn is_netns(path: &Path, inode: u64) -> bool {
    let own_name = format!("net:[{inode}]");
    if std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == own_name.as_str()) {
        return true;
    }
    mounts(&mountinfo()).any(|(root, _)| root == own_name)
}

/// What is mounted where, to this process.
pub(super) fn mountinfo() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// Of each mount in /proc/self/mountinfo, given as text, its root in its file system (`net:[123]` for a network
/// namespace), and the place.
pub fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &str)> {
    mountinfo.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(3);
        Some((words.next()?, words.next()?))
    })
}

fn missing(name: &str, why: &str) -> KernelError {
    KernelError::NotFound {
        what: "network namespace",
        name: printable(name).into_owned(),
        why: printable(why).into_owned(),
        remedy: "give an inode number, a name that `ip netns list` shows, a path such as /proc/123/ns/net, or pid:123",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn names_of_this_process_agree() {
        let inode = std::fs::metadata("/proc/self/ns/net").unwrap().st_ino();
        let own = format!("pid:{}", std::process::id());
        for name in ["/proc/self/ns/net", &own, &inode.to_string()] {
            assert_eq!(u64::from(resolve(name).unwrap()), inode, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        for name in ["no-such-netns", "pid:x", "pid:4000000000", "/nowhere/net"] {
            let error = resolve(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("fix: "), "{error}");
        }
    }
}
