//! `tcptrace doctor`: looks for a while, then says what is wrong.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::{
    examiner::Examiner,
    lines::colored,
    sink::{Moment, Plan, Scene, Sink, Start, wanted},
    watch::{self, Outcome},
};
use crate::{
    cli::{Doctor as Args, Format, Shared},
    kernel::{
        clock::Clock,
        config,
        survey::{Scope, ephemeral_ports},
    },
    model::{
        doctor::{Limits, Severity},
        event::Event,
        filter::Filter,
        found::Survey,
        loss::Loss,
        state::State,
        tally::{By, Tally},
    },
    view::{
        Summary,
        doctor::{self as view, Diagnosis},
        output,
    },
};

/// How long is looked unless somebody says otherwise.
const USUAL: Duration = Duration::from_secs(10);
/// Time between two looks at queues and counters, in ns.
const LOOK_NS: u64 = 1_000_000_000;

/// Looks. Returns also how bad the worst finding is.
pub async fn run(args: &Args) -> anyhow::Result<(Outcome, Option<Severity>)> {
    if args.shared.output == Format::Csv {
        anyhow::bail!("doctor prints no CSV\nwhy: findings are no table\nfix: tcptrace doctor -o json");
    }
    if args.shared.from.is_some() {
        anyhow::bail!(
            "doctor looks at a host that runs\nwhy: a recording has no settings, queues or timers of it\nfix: tcptrace hist, conns or rst --from"
        );
    }
    let mut settings = config::settings(args.config.as_deref())?;
    settings.extend_from_slice(&args.set);
    let duration = args.shared.duration.unwrap_or(USUAL);
    let shared = Shared { duration: Some(duration), ..args.shared.clone() };
    let worst = Rc::new(Cell::new(None));
    let plan = Plan { retransmits: true, ..Plan::new(&shared) };
    let outcome = watch::run(plan, |start| {
        if shared.output == Format::Text && !shared.quiet && start.output.columns().is_some() {
            log::warn!("looking for {} s; Ctrl-C ends it sooner", duration.as_secs_f64());
        }
        Ok(Look::new(&shared, Limits(settings), Rc::clone(&worst), start))
    })
    .await?;
    Ok((outcome, worst.get()))
}

/// Lists the rules; needs no rights.
pub fn list(args: &Args) -> anyhow::Result<()> {
    Ok(output::print(&view::rules(colored(args.shared.color)))?)
}

/// One look.
struct Look {
    tally: Tally,
    examiner: Examiner,
    format: Format,
    colored: bool,
    columns: Option<u16>,
    clock: Clock,
    /// When to look at queues and counters again, `CLOCK_MONOTONIC` in ns.
    next_ns: u64,
    diagnosis: Diagnosis,
    /// How bad the worst finding is, for the exit status.
    worst: Rc<Cell<Option<Severity>>>,
    out: Vec<u8>,
}

impl Look {
    fn new(shared: &Shared, limits: Limits, worst: Rc<Cell<Option<Severity>>>, start: &Start<'_>) -> Self {
        Self {
            tally: Tally::new(By::Port, ephemeral_ports(), false).limited_to(shared.max_sockets),
            examiner: Examiner::new(limits),
            format: shared.output,
            colored: colored(shared.color),
            columns: start.output.columns(),
            clock: start.clock,
            next_ns: u64::MAX,
            diagnosis: Diagnosis::default(),
            worst,
            out: Vec::new(),
        }
    }
}

impl Sink for Look {
    fn event(&mut self, event: &Event) {
        self.tally.event(event);
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
        Some(self.next_ns)
    }

    fn wants_look(&self) -> bool {
        true
    }

    fn scope(&self) -> Scope {
        Scope::Unsettled
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        self.tally.listeners(scene.sockets());
        self.next_ns = scene.now_ns + LOOK_NS;
        match scene.moment {
            Moment::Begin => self.examiner.begin(scene, &self.tally),
            Moment::Due => {}
            Moment::End => {
                let facts = self.examiner.facts(scene, &self.tally);
                let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
                let listens = |socket: &crate::model::socket::Socket| socket.state == State::LISTEN;
                self.diagnosis = Diagnosis {
                    findings: self.examiner.judge(&facts),
                    sockets: count(scene.sockets().count())
                        + count(self.tally.minisocks(scene.now_ns).count()),
                    listeners: count(scene.sockets().filter(listens).count()),
                    namespaces: count(facts.namespaces.len()),
                };
                self.worst.set(self.diagnosis.findings.iter().map(|finding| finding.severity).max());
            }
        }
    }

    fn end(&mut self, summary: &Summary) {
        let Self { diagnosis, columns, colored, clock, .. } = self;
        let text = match self.format {
            Format::Json => view::json(diagnosis, summary, clock),
            _ => view::text(diagnosis, summary, *columns, *colored),
        };
        self.out.extend_from_slice(text.as_bytes());
    }

    fn resize(&mut self, columns: u16) {
        self.columns = Some(columns);
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.out);
    }
}
