//! Control groups: from a path to the id that the kernel reports, and back.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::KernelError;
use crate::model::{container::CgroupPath, event::printable, filter::Cgroup};

/// How often an unknown id may make us read the whole tree again, unless all depends on it.
const SCAN_PAUSE: Duration = Duration::from_secs(1);
/// How many times longer than a walk the pause after it is at least, where a path is wanted soon.
const SCAN_SHARE: u32 = 10;
/// Cgroups that are gone and still remembered, at most.
const GONE: usize = 4096;

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

/// The cgroup of a path that need not be on this host, given as for [`resolve`].
#[must_use]
pub fn named(path: &str) -> Cgroup {
    let below = path.strip_prefix("/sys/fs/cgroup").unwrap_or(path).trim_matches('/');
    // No cgroup has this id.
    Cgroup { id: u64::MAX, level: 0, path: Arc::from(format!("/{below}")) }
}

/// The paths of cgroups by id. A cgroup that is gone keeps the path it had. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Paths(Rc<RefCell<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// What is known by id; `None`: not there any more.
    paths: HashMap<u64, Option<CgroupPath>>,
    /// The first cgroup of each home.
    homes: HashMap<Box<str>, u64>,
    walks: Walks,
    /// No walk before.
    next: Option<Instant>,
}

/// When an unknown id makes us read the whole tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Walks {
    /// Once a second at most.
    #[default]
    Seldom,
    /// As often as takes a tenth of the time at most.
    Soon,
    /// Always.
    AtOnce,
    /// Only what is learned is known.
    Never,
}

impl Paths {
    /// The same, where a connection would be lost whose path is found too late: every new cgroup costs a walk of the tree.
    #[must_use]
    pub fn exact() -> Self {
        Self::walking(Walks::AtOnce)
    }

    /// The same, where a path should be found at once, but a walk for each new cgroup is not worth it on a host with many.
    #[must_use]
    pub fn soon() -> Self {
        Self::walking(Walks::Soon)
    }

    /// Those of another time or host: none but what is learned.
    #[must_use]
    pub fn recorded() -> Self {
        Self::walking(Walks::Never)
    }

    fn walking(walks: Walks) -> Self {
        Self(Rc::new(RefCell::new(Known { walks, ..Known::default() })))
    }

    /// A cgroup has that path.
    pub fn learn(&self, id: u64, path: &CgroupPath) {
        let mut known = self.0.borrow_mut();
        if known.paths.get(&id).and_then(Option::as_ref) != Some(path) {
            known.paths.insert(id, Some(path.clone()));
        }
    }

    /// The path below the cgroup root, beginning with `/`.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<CgroupPath> {
        self.0.borrow_mut().get(id)
    }

    /// Whether there is a cgroup now that a container or unit of this name has.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut known = self.0.borrow_mut();
        known.scan();
        known.paths.values().flatten().any(|path| path.is_called(name))
    }

    /// One cgroup for all of the same container or unit.
    #[must_use]
    pub fn home(&self, id: u64) -> u64 {
        let mut known = self.0.borrow_mut();
        match known.get(id) {
            Some(path) => *known.homes.entry(Box::from(path.home())).or_insert(id),
            None => id,
        }
    }
}

impl Known {
    fn get(&mut self, id: u64) -> Option<CgroupPath> {
        if let Some(known) = self.paths.get(&id) {
            return known.clone();
        }
        let waits = match self.walks {
            Walks::Seldom | Walks::Soon => self.next.is_some_and(|next| Instant::now() < next),
            Walks::AtOnce => false,
            Walks::Never => true,
        };
        if waits {
            return None;
        }
        self.scan();
        // An id is never given twice, so what was not found will not be.
        self.paths.entry(id).or_default().clone()
    }

    /// Reads the whole tree.
    fn scan(&mut self) {
        let began = Instant::now();
        let mut found = HashMap::new();
        if let Some(root) = root() {
            scan(&mut found, &root, Path::new(""));
        }
        if self.paths.len() > found.len() + GONE {
            self.paths.clear();
            self.homes.clear();
        }
        self.paths.extend(found);
        let pause = if self.walks == Walks::Seldom { SCAN_PAUSE } else { began.elapsed() * SCAN_SHARE };
        self.next = Instant::now().checked_add(pause);
    }
}

fn scan(found: &mut HashMap<u64, Option<CgroupPath>>, root: &Path, below: &Path) {
    let directory = root.join(below);
    let Ok(metadata) = fs::metadata(&directory) else { return };
    found.insert(metadata.st_ino(), Some(CgroupPath::from(&*name(below))));
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            scan(found, root, &below.join(entry.file_name()));
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

    #[test]
    fn clones_share_what_they_know() {
        let paths = Paths::exact();
        let root = resolve("/").unwrap().id;
        assert_eq!(paths.home(root), root);
        assert!(paths.clone().0.borrow().paths.contains_key(&root));
        assert!(!paths.has("no-such-unit"));
        // Nobody has this one, and nobody will.
        assert_eq!((paths.get(u64::MAX), paths.home(u64::MAX)), (None, u64::MAX));
    }

    #[test]
    fn what_is_not_looked_for_yet_is_found_later() {
        let root = resolve("/").unwrap().id;
        for (walks, found) in
            [(Walks::Seldom, false), (Walks::Soon, false), (Walks::Never, false), (Walks::AtOnce, true)]
        {
            let next = Instant::now().checked_add(Duration::from_hours(1));
            let mut known = Known { walks, next, ..Known::default() };
            assert_eq!(known.get(root).is_some(), found, "{walks:?}");
            known.next = None;
            assert_eq!(known.get(root).is_some(), walks != Walks::Never, "{walks:?}");
        }
    }
}
