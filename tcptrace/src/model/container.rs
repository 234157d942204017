//! What the path of a cgroup tells of who runs there: a container, a pod, a systemd unit.
//!
//! From the path alone, as the runtimes and systemd make it; nobody is asked. Container managers nest (a cluster in a
//! container, a container in a pod), and what is innermost counts.

use std::{
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// Digits of a container's id that are shown to people, as docker and crictl do it.
const SHORT: usize = 12;
/// Digits of the ids that docker, containerd, CRI-O and podman make.
const DIGITS: usize = 64;

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 hexadecimal digits; LXC and systemd-nspawn have names instead.
    pub id: Box<str>,
    /// Who made it, where the path tells: below a pod of the cgroupfs driver nobody signs.
    pub runtime: Option<&'static str>,
}

impl Container {
    /// The id as people are shown it; a name whole.
    #[must_use]
    pub fn short(&self) -> &str {
        if is_id(&self.id) { self.id.get(..SHORT).unwrap_or(&self.id) } else { &self.id }
    }
}

/// The path of a cgroup below the cgroup root, with what it tells, which is found out once. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPath(Arc<Told>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    path: Box<str>,
    container: Option<Container>,
    pod: Option<Box<str>>,
    unit: Option<Box<str>>,
}

/// A cgroup for what it belongs to: all of one container, or of one unit, are equal.
#[derive(Clone, Debug)]
pub struct Home(pub CgroupPath);

impl PartialEq for Home {
    fn eq(&self, other: &Self) -> bool {
        self.0.home() == other.0.home()
    }
}

impl Eq for Home {}

impl Hash for Home {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.home().hash(state);
    }
}

impl From<&str> for CgroupPath {
    fn from(path: &str) -> Self {
        Self(Arc::new(tell(path)))
    }
}

impl Deref for CgroupPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.path
    }
}

impl CgroupPath {
    /// The innermost container.
    #[must_use]
    pub fn container(&self) -> Option<&Container> {
        self.0.container.as_ref()
    }

    /// The uid of the Kubernetes pod, with dashes.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        self.0.pod.as_deref()
    }

    /// The innermost systemd unit, outside containers.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.0.unit.as_deref()
    }

    /// Whether it tells neither a container nor a unit.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.container().is_none() && self.unit().is_none()
    }

    /// What people call it: the container, shortened, else the unit without `.service`, else the last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        match (self.container(), self.unit()) {
            (Some(container), _) => container.short(),
            (None, Some(unit)) => service(unit),
            (None, None) => self.last(),
        }
    }

    /// What cgroups of one container, or of one unit, have in common.
    #[must_use]
    pub fn home(&self) -> &str {
        match (self.container(), self.unit()) {
            (Some(container), _) => &container.id,
            (None, Some(unit)) => unit,
            (None, None) => self.last(),
        }
    }

    /// Whether a container or unit is meant by what a user calls it: the beginning of an id of digits, a name whole, a
    /// unit with or without `.service`.
    #[must_use]
    pub fn is_called(&self, wanted: &str) -> bool {
        let container = self.container().is_some_and(|Container { id, .. }| {
            **id == *wanted || (is_id(id) && !wanted.is_empty() && id.starts_with(wanted))
        });
        container || self.unit().is_some_and(|unit| unit == wanted || service(unit) == wanted)
    }

    fn last(&self) -> &str {
        self.rsplit('/').find(|part| !part.is_empty()).unwrap_or("-")
    }
}

fn service(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

fn tell(path: &str) -> Told {
    let mut told = Told { path: Box::from(path), ..Told::default() };
    let mut above = "";
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        // What keeps a machine running is not in it.
        let keeper = parts.peek() == Some(&"supervisor");
        if let Some(pod) = pod(part) {
            told.pod = Some(pod);
        }
        if let Some(container) = container(above, part).filter(|_| !keeper) {
            told.container = Some(container);
            told.unit = None;
        } else if told.container.is_none()
            && let Some(unit) = unit(part)
            // A user's systemd runs in a unit of the host's.
            && (told.unit.is_none() || unit != "init.scope")
        {
            told.unit = Some(Box::from(unit));
        }
        above = part;
    }
    told
}

/// The container that a part of the path, below another, stands for.
fn container(above: &str, part: &str) -> Option<Container> {
    let made = |runtime, id: &str| (!id.is_empty()).then(|| Container { id: Box::from(id), runtime });
    // containerd, told to let systemd make the cgroups, by a runtime that does not: `…slice:cri-containerd:ID`.
    if let Some((_, named)) = part.split_once(".slice:") {
        let (maker, id) = named.split_once(':')?;
        return made(runtime(maker), id).filter(|container| is_id(&container.id));
    }
    let scope = part.strip_suffix(".scope");
    let name = scope.unwrap_or(part);
    if is_id(name) {
        return made((above == "docker").then_some("docker"), name);
    }
    if let Some((maker, id)) = name.rsplit_once('-')
        && is_id(id)
    {
        // Others, crio-conmon and libpod-conmon, watch over a container from outside.
        return runtime(maker).and_then(|maker| made(Some(maker), id));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return made(Some("lxc"), name);
    }
    if matches!(above, "lxc" | "lxc.payload") {
        return made(Some("lxc"), part);
    }
    let nspawn = part.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service"));
    // The machines of others are registered under the same name: `machine-qemu\x2d1\x2dweb.scope`.
    let machine = scope.and_then(|name| name.strip_prefix("machine-"));
    let machine = machine.filter(|name| !name.starts_with("qemu") && !name.starts_with("lxc\\x2d"));
    nspawn.or(machine).and_then(|name| made(Some("systemd-nspawn"), &name.replace("\\x2d", "-")))
}

/// Whose container it is by the word before its id.
fn runtime(maker: &str) -> Option<&'static str> {
    Some(match maker {
        "docker" => "docker",
        "cri-containerd" | "nerdctl" => "containerd",
        "crio" => "cri-o",
        // The latter for a container of a unit (Quadlet).
        "libpod" | "libpod-payload" => "podman",
        _ => return None,
    })
}

/// The uid of the pod that a part of the path stands for: `podUID` by the cgroupfs driver, by systemd's
/// `kubepods-burstable-podUID.slice` with `_` for `-`, which systemd would take for a level.
fn pod(part: &str) -> Option<Box<str>> {
    let slice = part.split_once(".slice").and_then(|(name, _)| name.rsplit_once("-pod"));
    let uid = slice.map(|(_, uid)| uid.replace('_', "-")).or(part.strip_prefix("pod").map(str::to_owned))?;
    // A static pod's is a hash.
    let is_uuid = uid.len() == 36
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let is_hash = uid.len() == 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_uuid || is_hash).then(|| uid.into())
}

/// The systemd unit that a part of the path is named for.
fn unit(part: &str) -> Option<&str> {
    // systemd puts an underscore before a name that the kernel might take for its own.
    let name = part.strip_prefix('_').unwrap_or(part);
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    let kind = kinds.into_iter().find(|kind| name.ends_with(kind))?;
    (name.len() > kind.len()).then_some(name)
}

fn is_id(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
