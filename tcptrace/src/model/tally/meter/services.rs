//! Which services have a label of their own: a bounded number, each for good.

use std::{fmt, iter};

use rustc_hash::FxHashMap;

use super::{Service, Side};
use crate::model::{
    container::{CgroupPath, Home},
    event::Comm,
    socket::Socket,
    state::State,
    tally::{
        Tally,
        key::{Facts, Service as Whose},
    },
};

/// What a service is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Label {
    /// Its port; `None`: all that has no label of its own.
    pub port: Option<u16>,
    /// The owner's name, where labels have one and it is known.
    pub comm: Option<Comm>,
    /// The container or unit, where labels have one and it is known.
    pub container: Option<Home>,
}

/// Tells the path of a cgroup by its id.
pub(super) struct Paths(pub(super) Box<dyn Fn(u64) -> Option<CgroupPath>>);

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paths")
    }
}

/// Which side of a service an event or socket is.
pub(super) type Choice = fn(&mut Service) -> &mut Side;

/// The counts, by label.
#[derive(Debug)]
pub(super) struct Services {
    by_comm: bool,
    /// Where labels have the container or unit.
    pub(super) paths: Option<Paths>,
    /// How many may have a label of their own.
    limit: usize,
    /// How many of those that have are services of others.
    others: usize,
    /// What has no label of its own.
    rest: Service,
    places: FxHashMap<Label, usize>,
    own: Vec<Service>,
}

impl Services {
    pub(super) fn new(limit: usize, by_comm: bool) -> Self {
        Self {
            by_comm,
            paths: None,
            limit,
            others: 0,
            rest: Service::new(Label::default()),
            places: FxHashMap::default(),
            own: Vec::new(),
        }
    }

    /// The counts of the service that something belongs to, and which side of it that is. `claims`: it may have a label
    /// given to that service. Labels are given to whoever comes first, but services of others get half of them at most:
    /// this host's are not many, and it may well look through all ports of another.
    pub(super) fn of(&mut self, facts: &Facts<'_>, tally: &Tally, claims: bool) -> (&mut Service, Choice) {
        let Self { by_comm, paths, limit, others, rest, places, own } = self;
        let Whose { ours, port } = tally.service(facts.tuple, facts.role);
        let side: Choice = if ours { |service| &mut service.server } else { |service| &mut service.client };
        let comm = facts.owner.map(|owner| owner.comm).filter(|_| *by_comm);
        let path = paths.as_ref().filter(|_| facts.cgroup != 0).and_then(|paths| paths.0(facts.cgroup));
        let label = Label { port, comm, container: path.map(Home) };
        let room = own.len() < *limit && (ours || *others < limit.div_ceil(2));
        if port.is_some() && claims && room && !places.contains_key(&label) {
            *others += usize::from(!ours);
            places.insert(label.clone(), own.len());
            own.push(Service::new(label.clone()));
        }
        (places.get(&label).and_then(|place| own.get_mut(*place)).unwrap_or(rest), side)
    }

    /// Counts what is there: `sockets`, those that the tracker knows, and minisocks.
    pub(super) fn stand(
        &mut self,
        sockets: impl Iterator<Item = Socket> + Clone,
        tally: &Tally,
        now_ns: u64,
    ) {
        for service in iter::once(&mut self.rest).chain(&mut self.own) {
            for side in [&mut service.server, &mut service.client] {
                side.sockets = [0; State::COUNT];
                side.oldest_close_wait_ns = 0;
            }
        }
        // Before all others, for they are why there are labels.
        for socket in sockets.clone().filter(|socket| socket.state == State::LISTEN) {
            self.of(&Facts::from(&socket), tally, true);
        }
        for socket in sockets.chain(tally.minisocks(now_ns)) {
            let (service, side) = self.of(&Facts::from(&socket), tally, true);
            side(service).stands(&socket, now_ns);
        }
    }

    /// All of them; the first is what has no label of its own.
    pub(super) fn all(&self) -> Vec<Service> {
        iter::once(&self.rest).chain(&self.own).cloned().collect()
    }
}
