//! `tcptrace doctor`, as a child, and what it finds.

use std::{fmt::Display, process::Command};

use rustix::process::Signal;

use super::{
    event::Event,
    netns::{COMM, Netns},
    trace::Trace,
};

/// Longer than any scenario takes: the test ends the look.
const LONG: &str = "120s";

/// A `tcptrace doctor` that looks.
pub(crate) struct Doctor(Trace);

/// What it found, worst first.
pub(crate) struct Findings(Vec<Event>);

/// One finding.
pub(crate) struct Finding<'a>(&'a Event);

impl Doctor {
    /// Looks at a network namespace, with some thresholds of its own. What was there before is known when this returns.
    pub(crate) fn of(net: &Netns, thresholds: &[&str]) -> Self {
        Self::start(&net.inode().to_string(), thresholds)
    }

    /// Looks at network namespaces, as `-N` takes them.
    pub(crate) fn start(nets: &str, thresholds: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["doctor", "-v", "-o", "json", "-N", nets, "-d", LONG]);
        command.args(thresholds.iter().flat_map(|threshold| ["--set", threshold]));
        Self(Trace::start(&mut command))
    }

    /// Ends the look as Ctrl-C does. It found these rules, in any order and each as often as it is listed, and nothing
    /// else; and its exit status says how bad the worst is.
    pub(crate) fn finds(self, rules: &[&str]) -> Findings {
        self.0.process().signal(Signal::INT);
        let log = self.0.ended();
        let told = |event: &Event| format!("{event:?}");
        let all: Vec<String> = log.events.iter().map(told).collect();
        let all = all.join("\n");
        let mut found: Vec<&str> = log.events.iter().map(|event| event.text("rule").unwrap()).collect();
        found.sort_unstable();
        let mut rules = rules.to_vec();
        rules.sort_unstable();
        assert_eq!(found, rules, "{all}");
        let of =
            |severity| log.events.iter().filter(|event| event.text("severity") == Some(severity)).count();
        let (critical, warnings) = (of("critical"), of("warning"));
        let code = if critical > 0 { 11 } else { 10 * i32::from(warnings > 0) };
        assert_eq!(log.status.code(), Some(code), "{all}\n{}", log.stderr);
        assert_eq!(log.summary.number("critical"), Some(critical as u64), "{:?}", log.summary);
        assert_eq!(log.summary.number("warnings"), Some(warnings as u64), "{:?}", log.summary);
        assert_eq!((log.summary.number("lost"), log.lost), (Some(0), 0), "{:?}", log.summary);
        Findings(log.events)
    }
}

impl Findings {
    /// The first of a rule.
    pub(crate) fn of(&self, rule: &str) -> Finding<'_> {
        Finding(self.0.iter().find(|event| event.text("rule") == Some(rule)).unwrap())
    }

    /// All of a rule.
    pub(crate) fn all(&self, rule: &str) -> Vec<Finding<'_>> {
        self.0.iter().filter(|event| event.text("rule") == Some(rule)).map(Finding).collect()
    }
}

impl Finding<'_> {
    pub(crate) fn is_critical(&self) -> &Self {
        assert_eq!(self.0.text("severity"), Some("critical"), "{:?}", self.0);
        self
    }

    pub(crate) fn is_warning(&self) -> &Self {
        assert_eq!(self.0.text("severity"), Some("warning"), "{:?}", self.0);
        self
    }

    /// It is about something of the test's own process.
    pub(crate) fn is_ours(&self) -> &Self {
        self.is_of(std::process::id(), COMM)
    }

    /// Its owner, who is named.
    pub(crate) fn is_of(&self, pid: u32, comm: &str) -> &Self {
        let owner = (self.0.number("pid"), self.0.text("comm"));
        assert_eq!(owner, (Some(u64::from(pid)), Some(comm)), "{:?}", self.0);
        self
    }

    /// A field and its value as text: `lport`, `rport`, `raddr`.
    pub(crate) fn has(&self, field: &str, value: impl Display) -> &Self {
        let found =
            self.0.field(field).map(|found| found.as_str().map_or_else(|| found.to_string(), str::to_owned));
        assert_eq!(found, Some(value.to_string()), "{field} of {:?}", self.0);
        self
    }

    pub(crate) fn counts(&self, count: u64) -> &Self {
        assert_eq!(self.0.number("count"), Some(count), "{:?}", self.0);
        self
    }

    pub(crate) fn title(&self) -> &str {
        self.0.text("title").unwrap()
    }

    /// The sentence, the evidence or the remedies say this.
    pub(crate) fn says(&self, what: &str) -> &Self {
        let text = |field: &str| self.0.field(field).unwrap().to_string();
        let said = ["title", "evidence", "remedy"].map(text).join("\n");
        assert!(said.contains(what), "not said: {what}\n{said}");
        self
    }
}
