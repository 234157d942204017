//! `tcptrace trace`: the stream.

use std::{io, num::NonZeroU64, time::Duration};

use anyhow::Context as _;

use super::stop::Stop;
use crate::{
    cli::{Color, Format, Shared, Trace},
    kernel::{attach::Settings, cgroup::Paths, clock, clock::Clock},
    model::{
        event::Event,
        gate::Gate,
        tracker::{Fate, Tracker},
    },
    source::{
        decode::Decoded,
        live::{Batch, Live},
    },
    view::{
        Csv, Json, Summary, Text, View,
        output::Output,
        text::{TextOptions, TimeStyle},
    },
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

/// Watches until it is told to stop.
pub async fn run(args: &Trace) -> anyhow::Result<Outcome> {
    let shared = &args.shared;
    let filter = shared.filter()?;
    let mut output = Output::stdout().context("cannot use stdout")?;
    let mut stop = Stop::new().context("cannot listen for signals")?;
    let settings =
        Settings { ring_bytes: shared.buffer, retransmits: args.retransmits, filter: filter.clone() };
    let (mut source, reasons) = Live::open(&settings)?;
    let clock = Clock::now();
    stop.after(shared.duration);
    let mut stream = Stream {
        tracker: Tracker::new(reasons, args.raw),
        shown: Shown {
            gate: Gate::new(filter),
            // A path costs a look-up per event, so only who asks for it pays.
            cgroups: (shared.output != Format::Text || !shared.cgroup.is_empty()).then(Paths::default),
            view: view(shared, clock, &output),
            events: 0,
            lost: 0,
            limit: shared.count,
        },
    };
    log::info!("watching; Ctrl-C ends it");

    let finished = match watch(&mut stream, &mut source, &mut output, &mut stop).await {
        Ok(()) => finish(&mut stream, &mut source, &mut output, clock).await,
        Err(error) => Err(error),
    };
    let summary = stream.shown.summary(clock);
    match finished {
        Ok(()) => Ok(Outcome { summary, cut_short: false }),
        // Whoever read has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome { summary, cut_short: true }),
        Err(error) => Err(unwritable(&error)),
    }
}

/// Shows what happens until it is time to stop.
async fn watch(
    stream: &mut Stream,
    source: &mut Live,
    output: &mut Output,
    stop: &mut Stop,
) -> io::Result<()> {
    let mut more = false;
    stream.shown.view.take(output.buffer());
    while !stream.shown.full() {
        tokio::select! {
            biased;
            () = stop.asked() => break,
            next = next(output, source, more) => next?,
        }
        if let Some(columns) = output.columns() {
            stream.shown.view.resize(columns);
        }
        more = stream.pump(source);
        stream.shown.view.take(output.buffer());
        // Other tasks of the runtime, the signals among them, get their turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Takes the probes out of the kernel and shows what was still in the ring.
async fn finish(stream: &mut Stream, source: &mut Live, output: &mut Output, clock: Clock) -> io::Result<()> {
    source.detach();
    while stream.pump(source) && !stream.shown.full() {}
    stream.time_out();
    let left_out = stream.shown.gate.left_out();
    if left_out > 0 {
        log::warn!(
            "{left_out} events were left out: too many connections whose owner or user was not known yet"
        );
    }
    let summary = stream.shown.summary(clock);
    stream.shown.view.summary(&summary);
    stream.shown.view.take(output.buffer());
    match tokio::time::timeout(GRACE, output.flush()).await {
        Ok(flushed) => flushed,
        Err(_elapsed) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{} bytes of output that nobody reads were left out", output.unwritten()),
        )),
    }
}

/// Why the output could not be written, and what helps.
fn unwritable(error: &io::Error) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or write to another file system"
        }
        io::ErrorKind::TimedOut => "read the output faster, or filter it (-L, -p, --state)",
        _ => "check where stdout goes",
    };
    anyhow::anyhow!("cannot write the output\nwhy: {error}\nfix: {fix}")
}

/// Writes what waits, then comes back when it is time to look into the ring.
async fn next(output: &mut Output, source: &mut Live, more: bool) -> io::Result<()> {
    output.flush().await?;
    if more {
        return Ok(());
    }
    tokio::select! {
        () = output.closed() => Err(io::ErrorKind::BrokenPipe.into()),
        waited = source.wait() => waited,
    }
}

/// From the source to the view.
struct Stream {
    tracker: Tracker,
    shown: Shown,
}

impl Stream {
    /// Takes what the source has through to the view. Returns whether there may be more.
    fn pump(&mut self, source: &mut Live) -> bool {
        let Self { tracker, shown, .. } = self;
        let Batch { more, now_ns, lost } = source.drain(|Decoded { record, detail }| {
            tracker.feed(record, detail, &mut |event| shown.pass(event));
            !shown.full()
        });
        tracker.tick(now_ns, &mut |event| shown.pass(event));
        if lost.total() > 0 {
            shown.lost += lost.total();
            shown.view.lost(now_ns, &lost);
        }
        more
    }

    /// Shows what was held for a record that will not come any more.
    fn time_out(&mut self) {
        let Self { tracker, shown, .. } = self;
        tracker.tick(u64::MAX, &mut |event| shown.pass(event));
    }
}

/// What comes out of the tracker and is wanted, on its way to the view.
struct Shown {
    gate: Gate,
    cgroups: Option<Paths>,
    view: Box<dyn View>,
    events: u64,
    lost: u64,
    limit: Option<NonZeroU64>,
}

impl Shown {
    fn full(&self) -> bool {
        self.limit.is_some_and(|limit| self.events >= limit.get())
    }

    fn pass(&mut self, mut event: Event) -> Fate {
        let Self { gate, cgroups, view, events, limit, .. } = self;
        if let Some(cgroups) = cgroups {
            event.cgroup_path = event.cgroup.and_then(|id| cgroups.get(id));
        }
        gate.pass(event, &mut |event| {
            if limit.is_none_or(|limit| *events < limit.get()) {
                *events += 1;
                view.event(&event);
            }
        })
    }

    fn summary(&self, clock: Clock) -> Summary {
        let ts_ns = clock::monotonic_ns();
        Summary {
            ts_ns,
            events: self.events,
            lost: self.lost,
            elapsed_us: clock.since_start_ns(ts_ns) / 1000,
        }
    }
}

fn view(shared: &Shared, clock: Clock, output: &Output) -> Box<dyn View> {
    let header = !shared.no_header;
    match shared.output {
        Format::Json => Box::new(Json::new(clock)),
        Format::Csv => Box::new(Csv::new(clock, header)),
        Format::Text => Box::new(Text::new(
            clock,
            TextOptions {
                wide: shared.wide,
                time: match (shared.time_of_day, shared.time_since_start) {
                    (true, _) => TimeStyle::Clock,
                    (_, true) => TimeStyle::SinceStartKept,
                    _ => TimeStyle::SinceStart,
                },
                color: match shared.color {
                    Color::Always => true,
                    Color::Never => false,
                    Color::Auto => {
                        anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
                    }
                },
                header,
                columns: output.columns(),
            },
        )),
    }
}
