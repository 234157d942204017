//! What connections have in common, and sums over that.

use rustc_hash::FxHashMap;
use tcptrace_common::record::Addr;

/// What connections have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Group {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Whether the service is this host's.
    pub ours: bool,
    /// The service's port; `None`: one of those that the kernel hands out.
    pub port: Option<u16>,
    /// The peer; `None`: several.
    pub raddr: Option<Addr>,
    /// The process; `None`: not known, or several.
    pub pid: Option<u32>,
}

impl Group {
    /// The same, whoever the peer is.
    #[must_use]
    pub fn any_peer(self) -> Self {
        Self { raddr: None, ..self }
    }

    /// The same, whoever the process is.
    #[must_use]
    pub fn any_process(self) -> Self {
        Self { pid: None, ..self }
    }

    /// The same, whoever the peer and the process are.
    #[must_use]
    pub fn service(self) -> Self {
        self.any_peer().any_process()
    }

    /// What two groups have in common.
    fn common(self, other: Self) -> Self {
        fn both<T: Copy + PartialEq>(one: Option<T>, other: Option<T>) -> Option<T> {
            if one == other { one } else { None }
        }
        Self {
            netns: if self.netns == other.netns { self.netns } else { 0 },
            ours: self.ours && other.ours,
            port: both(self.port, other.port),
            raddr: both(self.raddr, other.raddr),
            pid: both(self.pid, other.pid),
        }
    }

    /// The same, whatever the port and the process.
    #[must_use]
    pub fn peer_alone(self) -> Self {
        Self { port: None, pid: None, ours: false, ..self }
    }
}

/// Counts that can be summed by what they have in common.
pub trait Counted: Clone {
    /// What they have in common.
    fn group(&self) -> Group;
    /// The place of that.
    fn group_mut(&mut self) -> &mut Group;
    /// How many.
    fn count(&self) -> u64;
    /// Adds others.
    fn add(&mut self, other: &Self);
}

/// Sums by a coarser grouping, most first. A sum's group is what all its parts have in common, which can be more.
pub fn sum<'a, C: Counted + 'a>(
    parts: impl IntoIterator<Item = &'a C>,
    coarser: impl Fn(Group) -> Group,
) -> Vec<C> {
    let mut sums: FxHashMap<Group, C> = FxHashMap::default();
    for part in parts {
        let group = coarser(part.group());
        if let Some(sum) = sums.get_mut(&group) {
            *sum.group_mut() = sum.group().common(part.group());
            sum.add(part);
        } else {
            sums.insert(group, part.clone());
        }
    }
    let mut sums: Vec<C> = sums.into_values().collect();
    sums.sort_by_key(|sum| {
        let Group { netns, ours, port, raddr, pid } = sum.group();
        (std::cmp::Reverse(sum.count()), netns, !ours, port, raddr.map(Addr::octets), pid)
    });
    sums
}
