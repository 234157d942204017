//! What a command makes of what [`watch`](super::watch) brings it.

use std::ops::RangeInclusive;

use crate::{
    cli::{Format, Shared},
    kernel::{attach::Attached, cgroup::Paths, clock::Clock, survey::Scope},
    model::{
        event::Event,
        filter::{Filter, Verdict},
        found::Survey,
        loss::Loss,
        socket::Socket,
        standing::Standing,
        tracker::Tracker,
    },
    view::{Summary, output::Output},
};

/// What a command makes of what happens.
pub trait Sink {
    /// What the user wants to see happened: what [`Plan::happens`] and [`Plan::whole`] ask for.
    fn event(&mut self, event: &Event);

    /// Records were lost here, before `ts_ns`.
    fn lost(&mut self, ts_ns: u64, lost: &Loss);

    /// The host was looked at. What it says of minisocks and requests holds at `now_ns`.
    fn surveyed(&mut self, _survey: &Survey, _filter: &Filter, _now_ns: u64) {}

    /// How many sockets it could not remember since this was last asked.
    fn turned_away(&mut self) -> u64 {
        0
    }

    /// Whether it counts sockets, those in TIME_WAIT among them.
    fn counts_sockets(&self) -> bool {
        false
    }

    /// When it wants to be drawn, `CLOCK_MONOTONIC` in ns.
    fn due_ns(&self) -> Option<u64> {
        None
    }

    /// Whether the host is to be looked at before it is drawn.
    fn wants_look(&self) -> bool {
        false
    }

    /// What of the host it is to be.
    fn scope(&self) -> Scope {
        Scope::Small
    }

    /// It is time to draw: at the beginning, when it is due, and at the end.
    fn draw(&mut self, _scene: &Scene<'_>) {}

    /// Comes back when the user has said something. Cancel-safe.
    fn input(&mut self) -> impl Future<Output = ()> {
        std::future::pending()
    }

    /// Whether it can take more now. What it cannot take waits in the ring.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether what it is for goes to stdout: then it is over once nobody reads that any more.
    fn prints(&self) -> bool {
        true
    }

    /// Whether it has had enough.
    fn full(&self) -> bool {
        false
    }

    /// Whether it goes on when a recording is over, until the user has had enough.
    fn stays(&self) -> bool {
        false
    }

    /// The stream ends.
    fn end(&mut self, summary: &Summary);

    /// The terminal has so many columns now.
    fn resize(&mut self, _columns: u16) {}

    /// Appends what was written since this was last called.
    fn take(&mut self, out: &mut Vec<u8>);
}

/// What there is to draw from.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub(super) known: Known<'a>,
    pub(super) filter: &'a Filter,
    pub(super) paths: &'a Paths,
    /// Now, `CLOCK_MONOTONIC` in ns.
    pub now_ns: u64,
    /// How it went so far.
    pub summary: Summary,
    /// When in the run that is.
    pub moment: Moment,
}

/// Who knows the full sockets that exist.
#[derive(Clone, Copy)]
pub(super) enum Known<'a> {
    /// Of the host that is watched.
    Tracker(&'a Tracker),
    /// Of a recording.
    Standing(&'a Standing),
}

impl<'a> Known<'a> {
    fn sockets(self) -> impl Iterator<Item = Socket> + Clone + use<'a> {
        let (tracker, standing) = match self {
            Self::Tracker(tracker) => (Some(tracker.sockets()), None),
            Self::Standing(standing) => (None, Some(standing.sockets())),
        };
        tracker.into_iter().flatten().chain(standing.into_iter().flatten())
    }
}

/// When something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The sockets that were there are known now.
    Begin,
    /// It was due.
    Due,
    /// The end.
    End,
}

impl<'a> Scene<'a> {
    /// Whether no filter but one of network namespaces keeps anything from being counted.
    #[must_use]
    pub fn counts_all(&self) -> bool {
        *self.filter == Filter { netns: self.filter.netns.clone(), ..Filter::default() }
    }

    /// The full sockets that the user wants to see.
    pub fn sockets(&self) -> impl Iterator<Item = Socket> + Clone + use<'a> {
        let Self { filter, paths, now_ns, .. } = *self;
        let all = *filter == Filter::default();
        self.known.sockets().filter(move |socket| {
            let path = || paths.get(socket.cgroup).filter(|_| socket.cgroup != 0);
            let event =
                || Event { cgroup_path: filter.needs_paths().then(path).flatten(), ..socket.event(now_ns) };
            all || admits(filter, &event())
        })
    }
}

/// Whether a socket is one that the user wants to see.
#[must_use]
pub fn wanted(filter: &Filter, socket: &Socket, now_ns: u64) -> bool {
    admits(filter, &socket.event(now_ns))
}

/// Whether an event is one that the user wants to see.
pub(super) fn admits(filter: &Filter, event: &Event) -> bool {
    filter.judge(event) == Verdict::Admit && filter.shows(event)
}

/// What a command wants of the loop.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Plan<'a> {
    /// The shared flags.
    pub shared: &'a Shared,
    /// Attach the retransmit probes.
    pub retransmits: bool,
    /// Repeat the kernel's own words.
    pub raw: bool,
    /// Tell what happens to connections.
    pub happens: bool,
    /// Tell whole connections.
    pub whole: bool,
    /// Begin with the connections that are open.
    pub open: bool,
    /// Look up the paths of cgroups.
    pub paths: bool,
    /// What else a line must be to be shown.
    pub shows: Box<dyn Fn(&Event) -> bool>,
}

impl<'a> Plan<'a> {
    /// For who wants all that happens, but for what is asked for by name.
    #[must_use]
    pub fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            retransmits: false,
            raw: false,
            happens: true,
            whole: false,
            open: false,
            paths: shared.output != Format::Text || shared.wide,
            shows: Box::new(|_| true),
        }
    }
}

/// What a [`Sink`] is made of.
pub struct Start<'a> {
    /// Tells the time of day.
    pub clock: Clock,
    /// Now, `CLOCK_MONOTONIC` in ns.
    pub now_ns: u64,
    /// Where it will be shown.
    pub output: &'a Output,
    /// The probes; a recording has none.
    pub attached: Option<&'a Attached>,
    /// The paths of cgroups.
    pub paths: &'a Paths,
    /// Whether the kernel reports RSTs that belong to no socket, and gives reasons (6.10 on).
    pub reasons: bool,
    /// The name and the kernel of the host that is shown.
    pub host: (String, String),
    /// The ports that its kernel hands out.
    pub ephemeral: RangeInclusive<u16>,
}
