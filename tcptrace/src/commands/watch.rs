//! What all watching commands do: source, tracker and view in one loop, and now and then a look at the sockets that
//! exist.
//!
//! While such a survey is taken, records wait in memory: fed after it, they are newer than what it found or already in
//! it, so nothing is missed between the two and nothing counted twice.

use std::{io, num::NonZeroU64, time::Duration};

use anyhow::Context as _;
use tcptrace_common::record::{CloseDetail, Record};
use tokio::time::{Instant, sleep_until};

use super::{
    replay,
    sink::{Known, Moment, Plan, Scene, Sink, Start, admits},
    stop::Stop,
    survey::{Checked, Surveyor},
};
use crate::{
    kernel::{
        attach::{Settings, Sight},
        cgroup::Paths,
        clock,
        clock::Clock,
        survey::ephemeral_ports,
        usage,
    },
    model::{
        event::{Event, Kind, OwnerSource, printable},
        filter::{Filter, Verdict},
        found::Survey,
        gate::Gate,
        loss::Loss,
        tracker::{Fate, Tracker},
    },
    source::{
        decode::Decoded,
        live::{Batch, Live},
    },
    view::{Summary, output::Output},
};

/// How long a reader that does not read may hold up the end.
const GRACE: Duration = Duration::from_secs(2);

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What it came to.
    pub summary: Summary,
    /// Whether the reader of the output went away first.
    pub cut_short: bool,
}

/// How long the end waits for what was asked of the host.
const PATIENCE: Duration = Duration::from_secs(2);
/// Records that wait for a survey at most (60 MB); more wait in the ring.
const BACKLOG: usize = 300_000;
/// How often the sockets that exist are compared with those that are known, when there is a reason: records were lost,
/// or connections lack an owner.
const RECONCILE: Duration = Duration::from_secs(10);
/// The same without a reason.
const RECONCILE_IDLE: Duration = Duration::from_mins(1);

/// Watches until it is told to stop, or plays a recording.
pub async fn run<S: Sink>(
    plan: Plan<'_>,
    sink: impl FnOnce(&Start<'_>) -> anyhow::Result<S>,
) -> anyhow::Result<Outcome> {
    let shared = plan.shared;
    if let Some(path) = &shared.from {
        return Box::pin(replay::run(plan, path, sink)).await;
    }
    let filter = shared.filter()?;
    let mut output = Output::stdout().context("cannot use stdout")?;
    let mut stop = Stop::new().context("cannot listen for signals")?;
    let settings = Settings {
        ring_bytes: shared.buffer,
        retransmits: plan.retransmits,
        filter: filter.clone(),
        tolerant: false,
    };
    let (mut source, Sight { reasons, .. }) = Live::open(&settings)?;
    // No thread has been started yet.
    if !shared.keep_privileges {
        source.attached().drop_privileges();
    }
    let clock = Clock::now();
    let paths = if filter.containers.is_empty() { Paths::default() } else { Paths::exact() };
    for name in filter.containers.iter().filter(|name| !paths.has(name)) {
        log::warn!("no container or unit is called {} yet; waiting for it", printable(name));
    }
    let sink = sink(&Start {
        clock,
        now_ns: clock::monotonic_ns(),
        output: &output,
        attached: Some(source.attached()),
        paths: &paths,
        reasons: !reasons.is_empty(),
        host: usage::host(),
        ephemeral: ephemeral_ports(),
    })?;
    stop.after(shared.duration);
    let mut stream = Stream {
        tracker: Tracker::new(reasons, plan.raw, plan.whole).limited_to(shared.max_sockets),
        surveyor: Surveyor::begin(filter.netns.clone(), sink.counts_sockets()),
        backlog: Vec::new(),
        begun: false,
        lost: false,
        reconcile_at: Instant::now() + RECONCILE,
        reconcile_idle_at: Instant::now() + RECONCILE_IDLE,
        looked: false,
        shown: Shown::new(plan, filter, clock, paths, sink),
    };
    let finished = match watch(&mut stream, &mut source, &mut output, &mut stop).await {
        Ok(()) => finish(&mut stream, &mut source, &mut output).await,
        Err(error) => Err(error),
    };
    outcome(finished, stream.shown.summary(clock::monotonic_ns()))
}

/// How a run ended that came to its end, or to an error of its output.
pub(super) fn outcome(finished: io::Result<()>, summary: Summary) -> anyhow::Result<Outcome> {
    match finished {
        Ok(()) => Ok(Outcome { summary, cut_short: false }),
        // Whoever read has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome { summary, cut_short: true }),
        Err(error) => Err(unwritable(&error)),
    }
}

/// Shows what happens until it is time to stop.
async fn watch<S: Sink>(
    stream: &mut Stream<S>,
    source: &mut Live,
    output: &mut Output,
    stop: &mut Stop,
) -> io::Result<()> {
    let mut more = false;
    stream.shown.sink.take(output.buffer());
    while !stream.shown.full() {
        let (wake_at, prints) = (stream.wake_at(), stream.shown.sink.prints());
        tokio::select! {
            biased;
            () = stop.asked() => break,
            answer = stream.surveyor.answer() => stream.answered(answer),
            () = stream.shown.sink.input() => {}
            next = next(output, source, more, wake_at, prints) => next?,
        }
        if let Some(columns) = output.columns() {
            stream.shown.sink.resize(columns);
        }
        more = stream.shown.sink.has_room() && stream.pump(source);
        stream.draw();
        stream.ask();
        stream.shown.sink.take(output.buffer());
        // Other tasks of the runtime, the signals among them, get their turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Takes the probes out of the kernel and shows what was still in the ring.
async fn finish<S: Sink>(stream: &mut Stream<S>, source: &mut Live, output: &mut Output) -> io::Result<()> {
    source.detach();
    while stream.pump(source) && !stream.shown.full() {}
    let (records, bytes) = source.carried();
    log::info!("the ring carried {records} records in {bytes} bytes");
    let _ = tokio::time::timeout(PATIENCE, stream.settle()).await;
    stream.time_out();
    let Stream { tracker, shown, .. } = stream;
    shown.end(Known::Tracker(tracker), clock::monotonic_ns(), output).await
}

/// Writes what is left, as long as somebody reads.
async fn write_rest(output: &mut Output) -> io::Result<()> {
    match tokio::time::timeout(GRACE, output.flush()).await {
        Ok(flushed) => flushed,
        Err(_elapsed) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{} bytes of output that nobody reads were left out", output.unwritten()),
        )),
    }
}

/// Why the output could not be written, and what helps.
pub(super) fn unwritable(error: &io::Error) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or write to another file system"
        }
        io::ErrorKind::TimedOut => "read the output faster, or filter it (-L, -p, --state)",
        _ => "check where stdout goes",
    };
    anyhow::anyhow!("cannot write the output\nwhy: {error}\nfix: {fix}")
}

/// Writes what waits, then comes back when it is time to look into the ring, or at `wake_at`. Whose sink `prints` has no
/// more to do once nobody reads.
async fn next(
    output: &mut Output,
    source: &mut Live,
    more: bool,
    wake_at: Option<Instant>,
    prints: bool,
) -> io::Result<()> {
    output.flush().await?;
    if more {
        return Ok(());
    }
    let woken = async {
        match wake_at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = output.closed(), if prints => Err(io::ErrorKind::BrokenPipe.into()),
        waited = source.wait() => waited,
        () = woken => Ok(()),
    }
}

/// What an answer of the [`Surveyor`] is.
pub(super) enum Answer {
    /// The sockets that exist.
    Survey(Survey),
    /// The minisocks and requests that exist.
    Look(Survey),
    /// What has become of minisocks.
    Checked(Checked),
}

/// From the source to the view.
struct Stream<S> {
    tracker: Tracker,
    surveyor: Surveyor,
    /// Records that wait for a survey.
    backlog: Vec<(Record, Option<CloseDetail>)>,
    /// The first survey is in.
    begun: bool,
    /// Records were lost since the last survey.
    lost: bool,
    reconcile_at: Instant,
    /// The same where nothing asks for it.
    reconcile_idle_at: Instant,
    /// The host was looked at for what is to be drawn.
    looked: bool,
    shown: Shown<S>,
}

impl<S: Sink> Stream<S> {
    /// Takes what the source has through to the view. Returns whether there may be more.
    fn pump(&mut self, source: &mut Live) -> bool {
        let Self { tracker, shown, backlog, surveyor, .. } = self;
        let waits = surveyor.surveys();
        if waits && backlog.len() >= BACKLOG {
            return false;
        }
        let Batch { more, now_ns, mut lost } = source.drain(|Decoded { record, detail }| {
            if waits {
                backlog.push((*record, detail.copied()));
                return backlog.len() < BACKLOG;
            }
            tracker.feed(record, detail, &mut |event| shown.pass(event));
            !shown.full()
        });
        if !waits {
            tracker.tick(now_ns, &mut |event| shown.pass(event));
        }
        self.lost |= lost.total() > 0;
        lost.beyond = tracker.take_turned_away() + shown.sink.turned_away();
        if !lost.is_none() {
            shown.lose(now_ns, &lost);
        }
        more
    }

    /// Asks the host what only it can tell, when it is time.
    fn ask(&mut self) {
        let Self { tracker, surveyor, .. } = self;
        if surveyor.surveys() {
            return;
        }
        let now = Instant::now();
        // First, because there may be doubts all the time.
        if now >= self.reconcile_at && !surveyor.is_asked() {
            self.reconcile_at = now + RECONCILE;
            if self.lost || now >= self.reconcile_idle_at || tracker.lacks_owners() {
                self.reconcile_idle_at = now + RECONCILE_IDLE;
                // Where an end was lost, TIME_WAIT tells what it was.
                let waiting = std::mem::take(&mut self.lost) || self.shown.sink.counts_sockets();
                surveyor.survey(OwnerSource::Fd, waiting);
            }
        }
        surveyor.check(tracker);
    }

    /// Draws, when it is time: after a look at the host, if that is wanted and may be had.
    fn draw(&mut self) {
        let Self { tracker, shown, surveyor, looked, begun, .. } = self;
        let due = |sink: &S| sink.due_ns().is_some_and(|due_ns| clock::monotonic_ns() >= due_ns);
        if !*begun || surveyor.surveys() || !due(&shown.sink) {
            return;
        }
        if !*looked && shown.sink.wants_look() && surveyor.look(shown.sink.scope(), false) {
            *looked = true;
            return;
        }
        *looked = false;
        shown.draw(Known::Tracker(tracker), clock::monotonic_ns(), Moment::Due);
    }

    /// When there is something to do whatever the source brings.
    fn wake_at(&self) -> Option<Instant> {
        if self.surveyor.surveys() {
            return None;
        }
        let at = |at_ns: u64| {
            let left = at_ns.saturating_sub(clock::monotonic_ns());
            Instant::now() + Duration::from_nanos(left)
        };
        let held = self.tracker.deadline_ns().map(|at_ns| at(at_ns.saturating_add(1_000_000)));
        let due = self.shown.sink.due_ns().map(at);
        [held, due, self.surveyor.check_at()].into_iter().flatten().min()
    }

    /// Takes an answer of the host.
    fn answered(&mut self, answer: Answer) {
        let Self { tracker, shown, .. } = self;
        let now_ns = clock::monotonic_ns();
        match answer {
            Answer::Look(survey) => {
                shown.surveyed(&survey, now_ns);
                self.catch_up();
            }
            Answer::Survey(survey) => {
                let first = !self.begun;
                log::debug!(
                    "a survey found {} sockets; {} records waited",
                    survey.sockets.len(),
                    self.backlog.len()
                );
                shown.surveyed(&survey, now_ns);
                tracker.adopt(&survey, now_ns, &mut |event| shown.open(event, first));
                if first {
                    self.begun = true;
                    log::info!("watching; {} sockets were there; Ctrl-C ends it", survey.sockets.len());
                } else {
                    let gaps = tracker.reconcile(&survey, now_ns, &mut |event| shown.pass(event));
                    if gaps > 0 {
                        shown.lose(now_ns, &Loss { gaps, ..Loss::default() });
                    }
                }
                self.catch_up();
                if first {
                    self.shown.draw(Known::Tracker(&self.tracker), clock::monotonic_ns(), Moment::Begin);
                }
            }
            Answer::Checked(checked) => {
                for (doubt, found) in &checked.answers {
                    tracker.settle(doubt, *found, checked.at_ns, &mut |event| shown.pass(event));
                }
            }
        }
    }

    /// At the end: what was asked is waited for, and what is in doubt is asked once more.
    async fn settle(&mut self) {
        self.take_answers().await;
        self.surveyor.check_now(&self.tracker);
        self.take_answers().await;
        if self.shown.sink.wants_look() {
            self.surveyor.look(self.shown.sink.scope(), true);
            self.take_answers().await;
        }
    }

    async fn take_answers(&mut self) {
        while self.surveyor.is_asked() {
            let answer = self.surveyor.answer().await;
            self.answered(answer);
        }
    }

    /// Takes the records that waited through to the view.
    fn catch_up(&mut self) {
        let Self { tracker, shown, backlog, .. } = self;
        for (record, detail) in std::mem::take(backlog) {
            if shown.full() {
                break;
            }
            tracker.feed(&record, detail.as_ref(), &mut |event| shown.pass(event));
        }
    }

    /// Shows what was held for a record that will not come any more.
    fn time_out(&mut self) {
        self.catch_up();
        let Self { tracker, shown, .. } = self;
        tracker.tick(u64::MAX, &mut |event| shown.pass(event));
    }
}

/// What comes out of the tracker, or of a recording, and is wanted, on its way to the sink.
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(super) struct Shown<S> {
    gate: Gate,
    clock: Clock,
    paths: Paths,
    /// Whether events have the paths of their cgroups.
    with_paths: bool,
    pub(super) sink: S,
    /// Events handed on, and how many may be.
    events: u64,
    limit: Option<NonZeroU64>,
    lost: Loss,
    happens: bool,
    whole: bool,
    open: bool,
    shows: Box<dyn Fn(&Event) -> bool>,
}

impl<S: Sink> Shown<S> {
    pub(super) fn new(plan: Plan<'_>, filter: Filter, clock: Clock, paths: Paths, sink: S) -> Self {
        let Plan { shared, happens, whole, open, shows, .. } = plan;
        let with_paths = plan.paths || filter.needs_paths();
        Self {
            gate: Gate::new(filter),
            clock,
            // A path costs a look-up per event, so only who asks for it pays; rows of a recording have theirs.
            with_paths: with_paths && shared.from.is_none(),
            paths,
            sink,
            events: 0,
            limit: shared.count,
            lost: Loss::default(),
            happens,
            whole,
            open,
            shows,
        }
    }

    pub(super) fn full(&self) -> bool {
        self.limit.is_some_and(|limit| self.events >= limit.get()) || self.sink.full()
    }

    pub(super) fn surveyed(&mut self, survey: &Survey, now_ns: u64) {
        self.sink.surveyed(survey, self.gate.filter(), now_ns);
    }

    pub(super) fn pass(&mut self, event: Event) -> Fate {
        let event = self.with_path(event);
        let Self { gate, sink, events, limit, happens, whole, shows, .. } = self;
        gate.pass(event, &mut |event| {
            let room = limit.is_none_or(|limit| *events < limit.get());
            let wanted = if event.kind == Kind::Connection { *whole } else { *happens };
            if wanted && room && shows(&event) {
                *events += 1;
                sink.event(&event);
            }
        })
    }

    /// A connection that a survey found open.
    pub(super) fn open(&mut self, event: Event, first: bool) -> Fate {
        let event = self.with_path(event);
        let filter = self.gate.filter();
        let fate = if filter.judge_socket(&event) == Verdict::Refuse { Fate::Forget } else { Fate::Keep };
        if first && self.open && admits(filter, &event) && (self.shows)(&event) && !self.full() {
            self.events += 1;
            self.sink.event(&event);
        }
        fate
    }

    pub(super) fn lose(&mut self, ts_ns: u64, lost: &Loss) {
        self.lost += *lost;
        self.sink.lost(ts_ns, lost);
    }

    pub(super) fn draw(&mut self, known: Known<'_>, now_ns: u64, moment: Moment) {
        let summary = self.summary(now_ns);
        let Self { gate, paths, .. } = self;
        self.sink.draw(&Scene { known, filter: gate.filter(), paths, now_ns, summary, moment });
    }

    /// Nothing comes any more.
    pub(super) async fn end(&mut self, known: Known<'_>, now_ns: u64, output: &mut Output) -> io::Result<()> {
        let left_out = self.gate.left_out();
        if left_out > 0 {
            log::warn!(
                "{left_out} events were left out: too many connections whose owner or user was not known yet"
            );
        }
        self.draw(known, now_ns, Moment::End);
        let summary = self.summary(now_ns);
        self.sink.end(&summary);
        self.sink.take(output.buffer());
        write_rest(output).await
    }

    fn with_path(&self, event: Event) -> Event {
        if !self.with_paths {
            return event;
        }
        Event { cgroup_path: event.cgroup.and_then(|id| self.paths.get(id)), ..event }
    }

    pub(super) fn summary(&self, ts_ns: u64) -> Summary {
        Summary {
            ts_ns,
            events: self.events,
            lost: self.lost,
            elapsed_us: self.clock.since_start_ns(ts_ns) / 1000,
        }
    }
}
