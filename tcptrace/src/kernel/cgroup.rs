//! Control groups: from a path to the id that the kernel reports, and back.

use std::{
    collections::HashMap,
    fs,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::KernelError;
use crate::model::{event::printable, filter::Cgroup};

/// How often an unknown id may make us read the whole tree again.
const SCAN_PAUSE: Duration = Duration::from_secs(1);

/// Where the cgroup2 tree is mounted; `None` where it is not.
fn root() -> Option<PathBuf> {
    tree(&fs::read_to_string("/proc/self/mounts").ok()?)
}

/// Where /proc/self/mounts, given as text, has the cgroup2 tree.
#[must_use]
pub fn tree(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (path, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// The cgroup of a path, given from the cgroup root (`/system.slice/nginx.service`) or as it is in the file
/// system (`/sys/fs/cgroup/system.slice/nginx.service`).
pub fn resolve(path: &str) -> Result<Cgroup, KernelError> {
    let missing = |why: String| KernelError::NotFound {
        what: "cgroup",
        name: printable(path).into_owned(),
        why: printable(&why).into_owned(),
        remedy: "give a cgroup2 path as /proc/PID/cgroup shows it (what follows 0::), or the directory itself",
    };
    let root = root().ok_or_else(|| missing("no cgroup2 tree is mounted".to_owned()))?;
    let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(path));
    let below = below.strip_prefix("/").unwrap_or(below);
    let directory = root.join(below);
    let metadata =
        fs::metadata(&directory).map_err(|error| missing(format!("{}: {error}", directory.display())))?;
    if !metadata.is_dir() {
        return Err(missing(format!("{} is no directory", directory.display())));
    }
    let level = u32::try_from(below.components().count()).unwrap_or(u32::MAX);
    Ok(Cgroup { id: metadata.st_ino(), level, path: name(below) })
}

/// The path below the root, beginning with `/`.
fn name(below: &Path) -> Arc<str> {
    Arc::from(format!("/{}", below.to_string_lossy()))
}

/// The paths of cgroups by id. A cgroup that is gone keeps the path it had.
#[derive(Debug, Default)]
pub struct Paths {
    known: HashMap<u64, Option<Arc<str>>>,
    scanned: Option<Instant>,
}

impl Paths {
    /// The path below the cgroup root, beginning with `/`.
    pub fn get(&mut self, id: u64) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        if self.scanned.is_some_and(|at| at.elapsed() < SCAN_PAUSE) {
            return None;
        }
        self.scanned = Some(Instant::now());
        // What a scan did not find is not there any more, or never will be.
        self.known.retain(|_, path| path.is_some());
        if let Some(root) = root() {
            self.scan(&root, Path::new(""));
        }
        self.known.entry(id).or_default().clone()
    }

    fn scan(&mut self, root: &Path, below: &Path) {
        let directory = root.join(below);
        let Ok(metadata) = fs::metadata(&directory) else { return };
        self.known.insert(metadata.st_ino(), Some(name(below)));
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.scan(root, &below.join(entry.file_name()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_root_has_a_path_and_an_id() {
        let found = resolve("/").unwrap();
        assert_eq!((found.level, &*found.path), (0, "/"));
        assert_eq!(Paths::default().get(found.id).as_deref(), Some("/"));
        let error = resolve("/no/such/cgroup").unwrap_err().to_string();
        assert!(error.contains("/no/such/cgroup") && error.contains("fix: "), "{error}");
    }
}
