//! `tcptrace trace`: the stream.

use std::{io, num::NonZeroU64, time::Duration};

use anyhow::Context as _;

use super::stop::Stop;
use crate::{
    cli::{Color, Format, Shared, Trace},
    kernel::{attach::Settings, cgroup::Paths, clock, clock::Clock},
    model::{event::Event, gate::Gate, tracker::Tracker},
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

/// Watches until it is told to stop.
pub async fn run(args: &Trace) -> anyhow::Result<Summary> {
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
        gate: Gate::new(filter),
        // A path costs a look-up per event, so only who asks for it pays.
        cgroups: (shared.output != Format::Text || !shared.cgroup.is_empty()).then(Paths::default),
        view: view(shared, clock, &output),
        events: 0,
        lost: 0,
        limit: shared.count,
    };
    log::info!("watching; Ctrl-C ends it");

    let mut more = false;
    let finished = loop {
        tokio::select! {
            biased;
            () = stop.asked() => break Ok(()),
            next = next(&mut output, &mut source, more) => if let Err(error) = next { break Err(error) },
        }
        if let Some(columns) = output.columns() {
            stream.view.resize(columns);
        }
        more = stream.pump(&mut source);
        stream.view.take(output.buffer());
        if stream.full() {
            break Ok(());
        }
        // Other tasks of the runtime, the signals among them, get their turn.
        tokio::task::yield_now().await;
    };
    source.detach();
    let summary = match finished {
        Ok(()) => {
            while stream.pump(&mut source) && !stream.full() {}
            let summary = stream.summary(clock);
            stream.view.summary(&summary);
            stream.view.take(output.buffer());
            match tokio::time::timeout(GRACE, output.flush()).await {
                Ok(flushed) => flushed.map(|()| summary),
                Err(_elapsed) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} bytes of output that nobody reads were left out", output.unwritten()),
                )),
            }
        }
        Err(error) => Err(error),
    };
    match summary {
        // Whoever read has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(stream.summary(clock)),
        summary => summary.map_err(|error| unwritable(&error)),
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

struct Stream {
    tracker: Tracker,
    gate: Gate,
    cgroups: Option<Paths>,
    view: Box<dyn View>,
    events: u64,
    lost: u64,
    limit: Option<NonZeroU64>,
}

impl Stream {
    fn full(&self) -> bool {
        self.limit.is_some_and(|limit| self.events >= limit.get())
    }

    /// Takes what the source has through to the view. Returns whether there may be more.
    fn pump(&mut self, source: &mut Live) -> bool {
        let Self { tracker, gate, cgroups, view, events, limit, .. } = self;
        let open = |events: u64| limit.is_none_or(|limit| events < limit.get());
        let mut show = |mut event: Event| {
            if let Some(cgroups) = cgroups {
                event.cgroup_path = event.cgroup.and_then(|id| cgroups.get(id));
            }
            gate.pass(event, &mut |event| {
                if open(*events) {
                    *events += 1;
                    view.event(&event);
                }
            });
            open(*events)
        };
        let mut go_on = true;
        let Batch { more, now_ns, lost } = source.drain(|Decoded { record, detail }| {
            tracker.feed(record, detail, &mut |event| go_on &= show(event));
            go_on
        });
        tracker.tick(now_ns, &mut |event| {
            show(event);
        });
        if lost.total() > 0 {
            self.lost += lost.total();
            self.view.lost(now_ns, &lost);
        }
        more
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
