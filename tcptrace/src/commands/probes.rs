//! `tcptrace probes`: what this kernel lets tcptrace see, the proof, and the cost.

use std::{
    io,
    net::TcpListener,
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
        attach::{self, Settings, Sight},
        clock, netns, usage,
    },
    model::{
        event::Event,
        loss::Loss,
        tracker::{Fate, Tracker},
    },
    source::{decode::Decoded, live::Live},
    view::{
        output::print,
        probes::{self, Check, Cost, Findings},
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
    // Keeping statistics takes rights that are gone afterwards.
    let statistics = attach::statistics();
    live.attached().drop_privileges();
    let (checks, cost) = match ground.make_connections() {
        Ok((made, listener)) => {
            let checks = see(&mut live, &made, &sight).await?;
            let cost = statistics.and_then(|_kept| cost(&mut live, &listener));
            (checks, cost)
        }
        Err(error) => {
            let wrong = Some(format!("they cannot be made: {error}"));
            (vec![Check { name: "connections on 127.0.0.1", events: 0, wrong }], Err(error))
        }
    };
    let cost = cost.unwrap_or_else(|error| {
        log::warn!("the cost cannot be measured: {error}");
        Cost::default()
    });
    let probes = live.attached().probes();
    Ok(Findings { probes, checks, cost: Cost { memory: usage::memory(), ..cost }, sight })
}

/// Reads until everything was seen, or too long.
async fn see(live: &mut Live, made: &Made, sight: &Sight) -> io::Result<Vec<Check>> {
    let mut tracker = Tracker::new(sight.reasons.clone(), false, false);
    let mut events: Vec<Event> = Vec::new();
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
        let checks = made.check(&events, sight.stray_resets);
        if checks.iter().all(|check| check.wrong.is_none()) || Instant::now() >= deadline {
            return Ok(checks);
        }
        live.wait().await?;
    }
}

/// Measures what an event costs in the kernel, which keeps statistics.
fn cost(live: &mut Live, listener: &TcpListener) -> io::Result<Cost> {
    let before = runs(&live.attached().probes());
    churn(listener, CHURN)?;
    let after = runs(&live.attached().probes());
    live.detach();
    let mut lost = Loss::default();
    loop {
        let batch = live.drain(|_| true);
        lost += batch.lost;
        if !batch.more {
            break;
        }
    }
    let (runs, run_time) = (after.0 - before.0, after.1.saturating_sub(before.1));
    Ok(Cost { runs, run_time, lost: lost.total(), memory: 0 })
}

/// How often all programs ran, and for how long.
fn runs(probes: &[attach::Probe]) -> (u64, Duration) {
    let runs = probes.iter().filter_map(|probe| Some(probe.state.as_ref().ok()?.runs));
    runs.fold((0, Duration::ZERO), |sum, (count, time)| (sum.0 + count, sum.1 + time))
}
