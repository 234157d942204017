//! `tcptrace serve`: what is counted, for Prometheus, over HTTP.
//!
//! HTTP has a thread of its own, which asks for an [`Exposition`] and gets one, once a second at most; what clients do costs the
//! tracing no more than that.

use anyhow::Context as _;

use self::{door::Door, page::Publisher};
use super::{
    examiner::Examiner,
    sink::{Moment, Plan, Scene, Sink, Start, wanted},
    watch::{self, Outcome},
};
use crate::{
    cli::{Format, Serve as Args},
    kernel::{
        cgroup::Paths,
        config,
        runs::Runs,
        survey::{Scope, ephemeral_ports},
        usage,
    },
    model::{
        doctor::{Facts, Limits, Severity},
        event::Event,
        filter::Filter,
        found::Survey,
        loss::Loss,
        tally::{By, Tally, meter::Meter},
    },
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
    if args.shared.from.is_some() {
        anyhow::bail!(
            "serve watches the kernel\nwhy: metrics are of now, a recording is of then\nfix: leave out --from; tcptrace hist --from counts what a recording has"
        );
    }
    // Ports and files that only root may have: they are taken before the rights are dropped.
    let door = Door::open(args)?;
    let limits = Limits(config::settings(None)?);
    let plan = Plan { retransmits: true, ..Plan::new(&args.shared) };
    watch::run(plan, |start| Serve::begin(args, door, limits, start)).await
}

/// Counts, and makes a page of it when HTTP wants one.
struct Serve {
    tally: Tally,
    meter: Meter,
    examiner: Examiner,
    by_comm: bool,
    by_container: bool,
    /// How much was wrong with the host when it was judged last, by rule.
    findings: Vec<(&'static str, Severity, u64)>,
    runs: Option<Runs>,
    kernel: String,
    pages: Publisher,
    /// HTTP wants a page.
    wanted: bool,
    /// No page before, `CLOCK_MONOTONIC` in ns.
    next_ns: u64,
}

impl Serve {
    fn begin(args: &Args, door: Door, limits: Limits, start: &Start<'_>) -> anyhow::Result<Self> {
        let runs = start.attached.filter(|_| args.kernel_stats).map(Runs::begin).transpose().map_err(|error| {
            anyhow::anyhow!(
                "the kernel does not measure what the probes cost\nwhy: {error}\nfix: leave out --kernel-stats, or run as root"
            )
        })?;
        let (publisher, pages) = page::channel();
        let url = door.url();
        http::start(door, pages).context("cannot serve HTTP")?;
        log::warn!("serving {url}");
        let examiner = Examiner::new(limits);
        let mut meter = Meter::new(usize::from(args.max_ports), args.by_comm);
        if args.by_container {
            // A counter cannot move to the container that is found later.
            let paths = Paths::soon();
            meter = meter.by_container(move |cgroup| paths.get(cgroup));
        }
        Ok(Self {
            tally: Tally::new(By::Port, ephemeral_ports(), false).limited_to(args.shared.max_sockets),
            meter,
            // Nothing, of each rule.
            findings: examiner.count(&Facts::default()),
            examiner,
            by_comm: args.by_comm,
            by_container: args.by_container,
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
        self.tally.event(event);
        self.meter.event(event, &self.tally);
        self.examiner.event(event, &self.tally);
    }

    fn lost(&mut self, _ts_ns: u64, _lost: &Loss) {}

    fn surveyed(&mut self, survey: &Survey, filter: &Filter, now_ns: u64) {
        self.tally.surveyed(survey, now_ns, |socket| wanted(filter, socket, now_ns));
        self.examiner.surveyed(survey, now_ns);
    }

    fn turned_away(&mut self) -> u64 {
        self.tally.take_turned_away()
    }

    fn counts_sockets(&self) -> bool {
        true
    }

    fn due_ns(&self) -> Option<u64> {
        let page_ns = self.wanted.then_some(self.next_ns);
        page_ns.into_iter().chain(self.examiner.ends_ns()).min()
    }

    fn wants_look(&self) -> bool {
        true
    }

    fn scope(&self) -> Scope {
        Scope::Unsettled
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        if let Some(facts) = self.examiner.period(scene, &mut self.tally) {
            self.findings = self.examiner.count(&facts);
        }
        // The first one is made unasked: it tells that the sockets that were there are known.
        if !self.wanted && scene.moment != Moment::Begin {
            return;
        }
        self.tally.listeners(scene.sockets());
        let Summary { events, lost, .. } = scene.summary;
        self.pages.publish(Exposition {
            counts: self.meter.counts(scene.sockets(), &self.tally, scene.now_ns),
            by_comm: self.by_comm,
            by_container: self.by_container,
            findings: self.findings.clone(),
            events,
            lost,
            kernel: self.kernel.clone(),
            cpu_ns: usage::cpu_ns(),
            memory: usage::memory(),
            runs: self.runs.as_mut().map(Runs::total),
            time_wait_limit: usage::time_wait_limit(),
        });
        self.wanted = false;
        self.next_ns = scene.now_ns + page::FRESH_NS;
    }

    async fn input(&mut self) {
        self.pages.wanted().await;
        self.wanted = true;
    }

    fn prints(&self) -> bool {
        false
    }

    fn end(&mut self, _summary: &Summary) {}

    fn take(&mut self, _out: &mut Vec<u8>) {}
}
