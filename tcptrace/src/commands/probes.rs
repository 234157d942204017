//! `tcptrace probes`: what this kernel lets tcptrace see, the proof, and the cost.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    self_test::{Ground, Made, churn},
    watch::unwritable,
};
use crate::{
    cli::{Format, Probes},
    kernel::{
        attach::{self, Settings},
        clock, netns, usage,
    },
    model::{
        event::Event,
        filter::Filter,
        loss::Loss,
        tracker::{Fate, Tracker},
    },
    source::{decode::Decoded, live::Live},
    view::{
        output::print,
        probes::{self, Cost, Findings},
    },
};

/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections by which the cost is measured.
const CHURN: usize = 200;

/// Looks, and prints what was found. Returns whether all that is to be seen was.
pub async fn run(args: &Probes) -> anyhow::Result<bool> {
    if args.output == Format::Csv {
        anyhow::bail!(
            "probes prints no CSV\nwhy: its lines are of several kinds\nfix: tcptrace probes -o json"
        );
    }
    let findings = find(args).await?;
    let text = match args.output {
        Format::Json => probes::json(&findings),
        _ => probes::text(&findings),
    };
    match print(&text) {
        // Whoever reads has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ => Ok(findings.all_seen()),
    }
}

async fn find(args: &Probes) -> anyhow::Result<Findings> {
    let loopback = "cannot make connections on 127.0.0.1 to look at";
    let ground = Ground::take(netns::own()?).context(loopback)?;
    let settings = Settings {
        ring_bytes: args.buffer,
        retransmits: true,
        filter: ground.filter().context(loopback)?,
        tolerant: true,
    };
    let (mut live, sight) = Live::open(&settings)?;
    // Whoever lacks the rights to look at the sockets that exist still sees all that happens.
    live.attached().drop_privileges();
    let mut tracker = Tracker::new(sight.reasons.clone(), false, false);
    let mut events = Vec::new();
    let rsts = sight.stray_resets;
    let checks = match ground.make_connections() {
        Ok(made) => {
            see(&mut live, &mut tracker, &mut events, &made, rsts).await?;
            made.check(&events, rsts)
        }
        Err(error) => vec![probes::Check {
            name: "connections on 127.0.0.1",
            events: 0,
            wrong: Some(format!("they cannot be made: {error}")),
        }],
    };
    let probes = live.attached().probes();
    drop(live);
    let cost = cost(&settings).unwrap_or_else(|error| {
        log::warn!("the cost cannot be measured: {error:#}");
        Cost::default()
    });
    Ok(Findings { probes, checks, cost: Cost { memory: usage::memory(), ..cost }, sight })
}

/// Reads until everything was seen, or too long.
async fn see(
    live: &mut Live,
    tracker: &mut Tracker,
    events: &mut Vec<Event>,
    made: &Made,
    rsts: bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut keep = |event: Event| {
            events.push(event);
            Fate::Keep
        };
        live.drain(|Decoded { record, detail }| {
            tracker.feed(record, detail, &mut keep);
            true
        });
        tracker.tick(clock::monotonic_ns(), &mut keep);
        if made.is_over(events, rsts) || Instant::now() >= deadline {
            return Ok(());
        }
        live.wait().await?;
    }
}

/// Measures what an event costs in the kernel.
fn cost(settings: &Settings) -> anyhow::Result<Cost> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let filter = Filter { ports: vec![port..=port], ..settings.filter.clone() };
    let tap = attach::attach(&Settings { filter, ..settings.clone() })?;
    let statistics = attach::statistics()?;
    let before = runs(&tap.attached.probes());
    churn(&listener, CHURN)?;
    let after = runs(&tap.attached.probes());
    drop(statistics);
    let (count, time) = (after.0 - before.0, after.1.saturating_sub(before.1));
    let mut attached = tap.attached;
    let lost = attached.loss(true, Loss::default()).total();
    Ok(Cost { runs: count, run_time: time, lost, memory: 0 })
}

/// How often all programs ran, and for how long.
fn runs(probes: &[attach::Probe]) -> (u64, Duration) {
    let runs = probes.iter().filter_map(|probe| Some(probe.state.as_ref().ok()?.runs));
    runs.fold((0, Duration::ZERO), |sum, (count, time)| (sum.0 + count, sum.1 + time))
}
