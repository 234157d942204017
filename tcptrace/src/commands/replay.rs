//! A recording in place of the kernel: what was told then is told again, at once, by the time of its rows.

use std::{io, path::Path};

use anyhow::Context as _;

use super::{
    sink::{Known, Moment, Plan, Sink, Start},
    stop::Stop,
    watch::{Outcome, Shown, outcome},
};
use crate::{
    kernel::{cgroup::Paths, clock::Clock, survey::ephemeral_ports},
    model::{
        event::{Event, Kind},
        found::{Form, Found, Survey},
        health::Health,
        loss::Loss,
        socket::Socket,
        standing::Standing,
        state::{State, TIME_WAIT_NS},
    },
    recording::{Recording, Row},
    view::output::Output,
};

/// Plays the recording to its end, or until it is told to stop.
pub(super) async fn run<S: Sink>(
    plan: Plan<'_>,
    path: &Path,
    sink: impl FnOnce(&Start<'_>) -> anyhow::Result<S>,
) -> anyhow::Result<Outcome> {
    let filter = plan.shared.recorded_filter()?;
    let mut output = Output::stdout().context("cannot use stdout")?;
    let mut stop = Stop::new().context("cannot listen for signals")?;
    let mut recording = Recording::open(path)?;
    let start_ns = recording.start_ns();
    let clock = Clock::fixed(start_ns, start_ns.into());
    let paths = Paths::recorded();
    let origin = recording.origin();
    let sink = sink(&Start {
        clock,
        now_ns: start_ns,
        output: &output,
        reasons: origin.is_none_or(|origin| origin.reasons),
        attached: None,
        // Lines of JSON do not tell.
        host: origin.map_or_else(Default::default, |origin| (origin.host.clone(), origin.kernel.clone())),
        ephemeral: origin.map_or_else(ephemeral_ports, |origin| origin.ephemeral.clone()),
        paths: &paths,
    })?;
    let until_ns = plan.shared.duration.map_or(u64::MAX, |duration| {
        start_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    });
    let wants_whole = plan.whole;
    let standing = Standing::limited_to(plan.shared.max_sockets);
    let mut replay = Replay {
        retransmits: plan.retransmits,
        shown: Shown::new(plan, filter, clock, paths.clone(), sink),
        standing,
        paths,
        begun: false,
        stood: false,
        happened: false,
        whole: false,
        namespaces: Vec::new(),
        snapshot: None,
        now_ns: start_ns,
    };
    // Lines of JSON tell of no sockets that were there.
    if recording.origin().is_none() {
        replay.begin();
    }
    let played = replay.play(&mut recording, &mut output, &mut stop, until_ns).await;
    let finished = match played {
        Ok(played) => replay.finish(played, &mut output, &mut stop, until_ns).await,
        Err(Halt::Output(error)) => Err(error),
        Err(Halt::Recording(error)) => return Err(error),
    };
    // A recording has both, lines of JSON have what their command told.
    if recording.origin().is_none() && replay.happened != replay.whole && replay.whole != wants_whole {
        let (missing, command) = if wants_whole {
            ("whole connections", "conns")
        } else {
            ("what happens to connections", "trace")
        };
        anyhow::bail!(
            "cannot read {missing} from {}\nwhy: its lines are those of another command\nfix: give what {command} -o json has written, or a folder of record, which has all",
            path.display()
        );
    }
    let summary = replay.shown.summary(replay.now_ns);
    outcome(finished, summary)
}

/// How far a recording was played.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Played {
    /// To its end.
    End,
    /// To where nothing more was wanted.
    Asked,
    /// To where the time is over that was asked for.
    Beyond,
}

/// Why a recording is not played to its end.
enum Halt {
    /// It cannot be written what it says.
    Output(io::Error),
    /// It cannot be read.
    Recording(anyhow::Error),
}

/// From the rows to the view.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Replay<S> {
    shown: Shown<S>,
    standing: Standing,
    paths: Paths,
    /// Retransmits are wanted.
    retransmits: bool,
    /// The sockets that were there are known.
    begun: bool,
    /// Sockets that existed at the same time have been told.
    stood: bool,
    /// It has told what happened to connections, and whole ones.
    happened: bool,
    whole: bool,
    /// The network namespaces that were looked at before the snapshot.
    namespaces: Vec<u32>,
    /// Sockets that existed at the same time, as far as they are read.
    snapshot: Option<Vec<Event>>,
    /// The time of the last row, in ns since 1970.
    now_ns: u64,
}

impl<S: Sink> Replay<S> {
    async fn play(
        &mut self,
        recording: &mut Recording,
        output: &mut Output,
        stop: &mut Stop,
        until_ns: u64,
    ) -> Result<Played, Halt> {
        let mut rows = Vec::new();
        while recording.read(&mut rows).map_err(|error| Halt::Recording(error.into()))? {
            for row in rows.drain(..) {
                if row.ts_ns() > until_ns {
                    return Ok(Played::Beyond);
                }
                if !matches!(row, Row::Socket(_)) {
                    // Those of a snapshot, if there was one, are complete.
                    self.stand();
                }
                if self.pass_time(row.ts_ns(), output, stop).await.map_err(Halt::Output)? {
                    return Ok(Played::Asked);
                }
                self.row(row);
            }
            self.lose_beyond();
            if self.turn(output, stop).await.map_err(Halt::Output)? {
                return Ok(Played::Asked);
            }
        }
        Ok(Played::End)
    }

    /// Writes what there is, and hears whoever has something to say. Returns whether it is to stop.
    async fn turn(&mut self, output: &mut Output, stop: &mut Stop) -> io::Result<bool> {
        self.shown.sink.take(output.buffer());
        tokio::select! {
            biased;
            () = stop.asked() => return Ok(true),
            () = self.shown.sink.input() => {}
            written = output.flush() => written?,
        }
        if let Some(columns) = output.columns() {
            self.shown.sink.resize(columns);
        }
        // Other tasks of the runtime, the signals among them, get their turn.
        tokio::task::yield_now().await;
        Ok(false)
    }

    /// What is left to tell, once there are no more rows.
    async fn finish(
        &mut self,
        played: Played,
        output: &mut Output,
        stop: &mut Stop,
        until_ns: u64,
    ) -> io::Result<()> {
        if played == Played::Asked {
            // More sockets may have been to come.
            self.snapshot = None;
        }
        self.stand();
        self.begin();
        self.lose_beyond();
        let enough = match played {
            Played::End => false,
            Played::Asked => true,
            Played::Beyond => self.pass_time(until_ns, output, stop).await?,
        };
        // Who looks at a screen says when it is over; no time passes meanwhile but what a drawing takes.
        while !enough && self.shown.sink.stays() && !self.shown.full() {
            let due_ns = self.shown.sink.due_ns().unwrap_or(self.now_ns);
            self.now_ns = self.now_ns.max(due_ns);
            self.shown.draw(Known::Standing(&self.standing), self.now_ns, Moment::Due);
            self.shown.sink.take(output.buffer());
            output.flush().await?;
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = self.shown.sink.input() => {}
            }
        }
        self.shown.end(Known::Standing(&self.standing), self.now_ns, output).await
    }

    fn row(&mut self, row: Row) {
        match row {
            Row::Socket(event) => {
                self.learn(&event);
                self.snapshot.get_or_insert_default().push(event);
            }
            Row::Event(event) => {
                self.learn(&event);
                self.standing.event(&event);
                let whole = event.kind == Kind::Connection;
                (self.whole, self.happened) = (self.whole || whole, self.happened || !whole);
                if event.kind != Kind::Retransmit || self.retransmits {
                    self.shown.pass(event);
                }
            }
            Row::Namespace { netns, counters, .. } => {
                if !self.namespaces.contains(&netns) {
                    self.namespaces.push(netns);
                }
                let health = counters.into_iter().map(|counters| Health { counters, ..Health::default() });
                let survey = Survey { health: health.collect(), ..Survey::default() };
                self.shown.surveyed(&survey, self.now_ns);
            }
            Row::Snapshot { .. } => self.snapshot = Some(Vec::new()),
            Row::Lost { ts_ns, lost } => self.shown.lose(ts_ns, &lost),
        }
    }

    /// Draws what is due by then. Returns whether nothing more is wanted.
    async fn pass_time(&mut self, now_ns: u64, output: &mut Output, stop: &mut Stop) -> io::Result<bool> {
        while self.begun
            && !self.shown.full()
            && let Some(due_ns) = self.shown.sink.due_ns().filter(|due_ns| *due_ns <= now_ns)
        {
            // On a screen nothing but the last drawing is seen.
            let at_ns = if self.shown.sink.stays() { now_ns } else { due_ns };
            self.now_ns = self.now_ns.max(at_ns);
            self.shown.draw(Known::Standing(&self.standing), self.now_ns, Moment::Due);
            if self.turn(output, stop).await? {
                return Ok(true);
            }
        }
        // Rows of different sockets may change places.
        self.now_ns = self.now_ns.max(now_ns);
        Ok(self.shown.full())
    }

    /// Tells of the sockets that there was no room for.
    fn lose_beyond(&mut self) {
        let beyond = self.standing.take_turned_away() + self.shown.sink.turned_away();
        if beyond > 0 {
            self.shown.lose(self.now_ns, &Loss { beyond, ..Loss::default() });
        }
    }

    /// The sockets that were read are all that exist.
    fn stand(&mut self) {
        let Some(snapshot) = self.snapshot.take() else { return };
        let mut survey = Survey { namespaces: std::mem::take(&mut self.namespaces), ..Survey::default() };
        let first = !std::mem::replace(&mut self.stood, true);
        let mut full = Vec::new();
        for event in snapshot {
            let Some(state) = event.new else { continue };
            match form(&event) {
                Form::Socket => {
                    let since_ns = event.in_state_ns.map(|ns| event.ts_ns.saturating_sub(ns));
                    full.push(Socket { since_ns, ..Socket::entered(&event, state) });
                    if state != State::LISTEN {
                        // How long it has been in its state a line of an open connection does not tell.
                        self.shown.open(Event { in_state_ns: None, ..event }, first);
                    }
                }
                form => survey.sockets.push(found(&event, state, form)),
            }
        }
        self.standing.replace(full.into_iter());
        self.shown.surveyed(&survey, self.now_ns);
        self.begin();
    }

    /// What was there at the beginning is known.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.shown.draw(Known::Standing(&self.standing), self.now_ns, Moment::Begin);
        }
    }

    fn learn(&mut self, event: &Event) {
        if let (Some(id), Some(path)) = (event.cgroup, &event.cgroup_path) {
            self.paths.learn(id, path);
        }
    }
}

/// What a row of a socket stands for.
fn form(event: &Event) -> Form {
    match event.kernel_new {
        Some(State::CLOSE) => Form::Minisock,
        Some(State::NEW_SYN_RECV) => Form::Request,
        _ => Form::Socket,
    }
}

/// A minisock or a request as it would be found.
fn found(event: &Event, state: State, form: Form) -> Found {
    let left = |passed_ns| TIME_WAIT_NS.saturating_sub(passed_ns).div_ceil(1_000_000);
    let expires_ms = event.in_state_ns.and_then(|ns| u32::try_from(left(ns)).ok());
    Found {
        cookie: event.id.map_or(0, |id| id.0),
        uid: event.uid,
        cgroup: event.cgroup.unwrap_or(0),
        owner: event.owner,
        expires_ms: expires_ms.filter(|_| state == State::TIME_WAIT),
        ..Found::new(event.tuple, state, form)
    }
}
