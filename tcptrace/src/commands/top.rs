//! `tcptrace top`: the live view.

use std::thread;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::mpsc;

use super::{
    examiner::Examiner,
    lines::colored,
    sink::{Moment, Plan, Scene, Sink, Start, wanted},
    watch::{self, Outcome},
};
use crate::{
    cli::{Format, Top as Args},
    kernel::{clock, config, survey::Scope, usage},
    model::{
        doctor::{Finding, Limits},
        event::{Event, Kind},
        filter::Filter,
        found::Survey,
        loss::Loss,
        socket::Socket,
        tally::{By, Sort, Tally},
    },
    view::{
        Summary,
        output::is_terminal,
        report::Resets,
        terminal::Screen,
        top::{Header, Refresh, Top},
    },
};

/// Time between two tables, in ns.
const TABLE_NS: u64 = 1_000_000_000;
/// Least time between two drawings, in ns.
const FRAME_NS: u64 = 100_000_000;
/// Rows of the tables.
const ROWS: usize = 1000;
/// Connections of a row that are listed.
const SOCKETS: usize = 1000;

/// Shows until the user has had enough.
pub async fn run(args: &Args) -> anyhow::Result<Outcome> {
    if args.shared.output != Format::Text {
        anyhow::bail!(
            "top draws on a terminal\nwhy: -o json and -o csv have no screen\nfix: tcptrace hist 1 -o json"
        );
    }
    if !is_terminal() {
        anyhow::bail!(
            "top draws on a terminal\nwhy: stdout is none\nfix: run it in a terminal; tcptrace hist 1 prints tables anywhere"
        );
    }
    let limits = Limits(config::settings(None)?);
    let plan = Plan { retransmits: true, ..Plan::new(&args.shared) };
    watch::run(plan, |start| Live::begin(args, limits, start)).await
}

/// The view, what it is drawn from, and the terminal.
struct Live {
    tally: Tally,
    examiner: Examiner,
    top: Top,
    screen: Screen,
    keys: mpsc::UnboundedReceiver<Input>,
    reasons: bool,
    host: (String, String),
    /// When the tables are made anew, and when was the last drawing, `CLOCK_MONOTONIC` in ns.
    table_ns: u64,
    frame_ns: u64,
    /// Something that is on the screen has changed.
    changed: bool,
    /// What was wrong with the host when it was judged last.
    findings: Option<Vec<Finding>>,
    /// At the last table: when, events so far, CPU time so far.
    last: (u64, u64, u64),
}

impl Live {
    fn begin(args: &Args, limits: Limits, start: &Start<'_>) -> anyhow::Result<Self> {
        let paths = start.paths.clone();
        let (sender, keys) = mpsc::unbounded_channel();
        let screen = Screen::take().context("the terminal cannot be drawn on")?;
        // It waits for keys as long as the process lives.
        thread::Builder::new()
            .name("tcptrace-keys".to_owned())
            .spawn(move || {
                while let Ok(input) = event::read() {
                    if sender.send(input).is_err() {
                        break;
                    }
                }
            })
            .context("keys cannot be read")?;
        Ok(Self {
            tally: Tally::new(By::Port, start.ephemeral.clone(), false).limited_to(args.shared.max_sockets),
            examiner: Examiner::new(limits),
            top: Top::new(start.clock, colored(args.shared.color), Box::new(move |id| paths.get(id))),
            screen,
            keys,
            reasons: start.reasons,
            host: start.host.clone(),
            table_ns: start.now_ns,
            frame_ns: 0,
            changed: true,
            findings: None,
            last: (start.now_ns, 0, usage::cpu_ns()),
        })
    }

    /// Makes the tables anew.
    fn refresh(&mut self, scene: &Scene<'_>) {
        let Self { tally, top, .. } = self;
        let now_ns = scene.now_ns;
        let (then_ns, events, cpu_ns) = self.last;
        self.last = (now_ns, scene.summary.events, usage::cpu_ns());
        let passed_ns = now_ns.saturating_sub(then_ns).max(1);
        let per_second = |count: u64| {
            u64::try_from(u128::from(count) * 1_000_000_000 / u128::from(passed_ns)).unwrap_or(0)
        };
        let header = Header {
            host: self.host.0.clone(),
            kernel: self.host.1.clone(),
            rate: per_second(scene.summary.events - events),
            lost: scene.summary.lost.total(),
            cpu_permille: per_second(self.last.2 - cpu_ns) / 1_000_000,
            memory: usage::memory(),
        };
        let ports = tally.table(scene.sockets(), top.sort(), ROWS, now_ns);
        let owners = tally.standing(By::Comm, scene.sockets(), Sort::Sockets, ROWS, now_ns);
        let mut rows = tally.ledger.take();
        rows.truncate(ROWS);
        let resets = Resets {
            at_ns: now_ns,
            interval_ns: passed_ns,
            rows,
            left_out: 0,
            reconciled: None,
            reasons: self.reasons,
        };
        let mut sockets: Vec<Socket> = match top.row() {
            Some(key) => tally.of_row(key, scene.sockets(), now_ns).collect(),
            None => Vec::new(),
        };
        sockets.sort_by_key(|socket| (std::cmp::Reverse(socket.age_ns(now_ns)), socket.tuple.rport));
        sockets.truncate(SOCKETS);
        let connection = top.connection().and_then(|id| tally.socket(id, scene.sockets(), now_ns));
        let findings = self.findings.clone();
        top.refresh(Refresh { header, ports, owners, resets, findings, sockets, connection, now_ns });
    }

    /// As the shell expects it of Ctrl-Z.
    fn suspend(&mut self) {
        self.screen.leave();
        let _ = kill_process(getpid(), Signal::STOP);
        let _ = self.screen.enter();
    }
}

impl Sink for Live {
    fn event(&mut self, event: &Event) {
        self.tally.event(event);
        self.examiner.event(event, &self.tally);
        if event.kind != Kind::Retransmit {
            self.top.event(event);
            self.changed |= self.top.follows_events();
        }
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
        let frame_ns = self.changed.then_some(self.frame_ns.saturating_add(FRAME_NS));
        Some(frame_ns.map_or(self.table_ns, |frame_ns| frame_ns.min(self.table_ns)))
    }

    fn wants_look(&self) -> bool {
        clock::monotonic_ns() >= self.table_ns
    }

    fn scope(&self) -> Scope {
        Scope::Unsettled
    }

    fn draw(&mut self, scene: &Scene<'_>) {
        if scene.moment == Moment::End {
            return;
        }
        if let Some(facts) = self.examiner.period(scene, &mut self.tally) {
            self.findings = Some(self.examiner.judge(&facts));
        }
        if scene.now_ns >= self.table_ns || scene.moment == Moment::Begin {
            self.refresh(scene);
            self.table_ns = scene.now_ns.saturating_add(TABLE_NS);
            self.changed = true;
        }
        if self.changed && scene.now_ns >= self.frame_ns.saturating_add(FRAME_NS) {
            // The terminal is memory here.
            let _ = self.screen.draw(&mut self.top);
            self.frame_ns = scene.now_ns;
            self.changed = false;
        }
    }

    async fn input(&mut self) {
        let Some(input) = self.keys.recv().await else { return std::future::pending().await };
        let (row, connection) = (self.top.row().copied(), self.top.connection());
        match input {
            Input::Key(key) if key.kind != KeyEventKind::Release => {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if control && key.code == KeyCode::Char('z') {
                    self.suspend();
                } else {
                    self.top.key(key);
                }
            }
            Input::Mouse(mouse) => self.top.mouse(mouse),
            Input::Resize(..) => {}
            _ => return,
        }
        if (row, connection) != (self.top.row().copied(), self.top.connection()) {
            // What it shows is not there yet.
            self.table_ns = 0;
        }
        self.changed = true;
    }

    fn full(&self) -> bool {
        self.top.over()
    }

    fn stays(&self) -> bool {
        true
    }

    fn end(&mut self, _summary: &Summary) {}

    fn resize(&mut self, _columns: u16) {}

    fn take(&mut self, out: &mut Vec<u8>) {
        self.screen.take_drawn(out);
    }
}
