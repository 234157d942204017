//! `tcptrace serve`: what is counted, for Prometheus, over HTTP.
//!
//! HTTP has a thread of its own, which asks for an [`Exposition`] and gets one, once a second at most; what clients do costs the
//! tracing no more than that.

use anyhow::Context as _;

use self::{door::Door, page::Publisher};
use super::{
    sink::{Plan, Scene, Sink, Start, wanted},
    watch::{self, Outcome},
};
use crate::{
    cli::{Format, Serve as Args},
    kernel::{runs::Runs, survey::ephemeral_ports, usage},
    model::{event::Event, filter::Filter, found::Survey, loss::Loss, tally::meter::Meter},
    view::{Summary, metrics::Exposition},
};

mod door;
mod http;
mod page;

/// Serves until it is told to stop.
pub async fn run(args: &Args) -> anyhow::Result<Outcome> {
    if args.shared.output != Format::Text {
        anyhow::bail!(
            "serve prints nothing\nwhy: what it counts is at /metrics, in a format that the client chooses\nfix: leave out -o"
        );
    }
    // Ports and files that only root may have: they are taken before the rights are dropped.
    let door = Door::open(args)?;
    let plan = Plan { retransmits: args.retransmits, ..Plan::new(&args.shared) };
    watch::run(plan, |start| Serve::begin(args, door, start)).await
}

/// Counts, and makes a page of it when HTTP wants one.
struct Serve {
    meter: Meter,
    by_comm: bool,
    retransmits: bool,
    runs: Option<Runs>,
    kernel: String,
    pages: Publisher,
    /// HTTP wants a page.
    wanted: bool,
    /// No page before, `CLOCK_MONOTONIC` in ns.
    next_ns: u64,
}

impl Serve {
    fn begin(args: &Args, door: Door, start: &Start<'_>) -> anyhow::Result<Self> {
        let runs = args.kernel_stats.then(|| Runs::begin(start.attached)).transpose().map_err(|error| {
            anyhow::anyhow!(
                "the kernel does not measure what the probes cost\nwhy: {error}\nfix: leave out --kernel-stats, or run as root"
            )
        })?;
        let (publisher, pages) = page::channel();
        let url = door.url();
        http::start(door, pages).context("cannot serve HTTP")?;
        log::warn!("serving {url}");
        let labels = usize::from(args.max_ports);
        Ok(Self {
            meter: Meter::new(ephemeral_ports(), labels, args.by_comm).limited_to(args.shared.max_sockets),
            by_comm: args.by_comm,
            retransmits: args.retransmits,
            runs,
            kernel: usage::host().1,
            pages: publisher,
            wanted: false,
            next_ns: start.now_ns,
        })
    }
}

impl Sink for Serve {
    fn event(&mut self, event: &Event) {
        self.meter.event(event);
    }

    fn lost(&mut self, _ts_ns: u64, _lost: &Loss) {}

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.meter.surveyed(survey, now_ns, |socket| wanted(filter, socket, now_ns));
    }

    fn turned_away(&mut self) -> u64 {
        self.meter.take_turned_away()
    }

    fn counts_sockets(&self) -> bool {
        true
    }

    fn due_ns(&self) -> Option<u64> {
        self.wanted.then_some(self.next_ns)
    }

    fn wants_look(&self) -> bool {
        true
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        let Summary { events, lost, .. } = scene.summary;
        self.pages.publish(Exposition {
            counts: self.meter.counts(scene.sockets(), scene.now_ns),
            by_comm: self.by_comm,
            retransmits: self.retransmits,
            findings: Vec::new(),
            events,
            lost,
            kernel: self.kernel.clone(),
            cpu_ns: usage::cpu_ns(),
            memory: usage::memory(),
            runs: self.runs.as_ref().map(Runs::total),
            time_wait_limit: usage::time_wait_limit(),
        });
        self.wanted = false;
        self.next_ns = scene.now_ns + page::FRESH_NS;
    }

    async fn input(&mut self) {
        self.pages.wanted().await;
        self.wanted = true;
    }

    fn end(&mut self, _summary: &Summary) {}

    fn take(&mut self, _out: &mut Vec<u8>) {}
}
