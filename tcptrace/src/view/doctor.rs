//! What `doctor` found, for people and as JSON.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value, json};

use super::{Summary, explain::wrapped, fields::TimeText};
use crate::{
    kernel::clock::Clock,
    model::{
        doctor::{Finding, RULES, Severity},
        event::ip,
        explain::{Part, finding as page},
    },
};

/// Columns before what is said of a finding.
const INDENT: usize = 9;
/// Columns at most, where the terminal has more.
const COLUMNS: usize = 100;

/// What a look came to.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// Sockets that were there at the end.
    pub sockets: u64,
    /// Listeners among them.
    pub listeners: u64,
    /// Network namespaces that were looked at.
    pub namespaces: u64,
}

impl Diagnosis {
    fn of(&self, severity: Severity) -> u64 {
        self.findings.iter().filter(|finding| finding.severity == severity).map(|_| 1).sum()
    }
}

/// For people. `columns`: those of the terminal.
#[must_use]
pub fn text(diagnosis: &Diagnosis, summary: &Summary, columns: Option<u16>, colored: bool) -> String {
    let columns = columns.map_or(COLUMNS, |columns| usize::from(columns).clamp(40, COLUMNS));
    let mut out = String::new();
    for finding in &diagnosis.findings {
        write_finding(&mut out, finding, columns, colored);
        out.push('\n');
    }
    let bold = if colored { Style::new().bold() } else { Style::new() };
    let verdict = match (diagnosis.of(Severity::Critical), diagnosis.of(Severity::Warning)) {
        (0, 0) => "Nothing wrong.".to_owned(),
        (0, warnings) => format!("{}.", counted(warnings, "warning")),
        (criticals, 0) => format!("{criticals} critical."),
        (criticals, warnings) => format!("{criticals} critical, {}.", counted(warnings, "warning")),
    };
    #[expect(clippy::cast_precision_loss, reason = "shown to a tenth of a second")]
    let seconds = summary.elapsed_us as f64 / 1e6;
    let Diagnosis { sockets, listeners, namespaces, .. } = diagnosis;
    let looked = format!(
        "{} rules, {} in {}, {}, {} in {seconds:.1} s.",
        RULES.len(),
        counted(*sockets, "socket"),
        counted(*namespaces, "network namespace"),
        counted(*listeners, "listener"),
        counted(summary.events, "event"),
    );
    let _ = write!(out, "{bold}{verdict}{bold:#} ");
    out.push_str(&wrapped(&looked, verdict.chars().count() + 1, 0, columns));
    if !summary.lost.is_none() {
        let kinds = summary.lost.counts().into_iter().filter(|(_, count)| *count > 0);
        let lost: Vec<String> = kinds.map(|(kind, count)| format!("{count} {kind}")).collect();
        let lost = format!("Not everything was seen ({}): counts may be too small.", lost.join(", "));
        out.push_str(&wrapped(&lost, 0, 0, columns));
    }
    out
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn write_finding(out: &mut String, finding: &Finding, columns: usize, colored: bool) {
    let (word, color) = match finding.severity {
        Severity::Critical => ("CRITICAL", AnsiColor::Red),
        Severity::Warning => ("WARNING", AnsiColor::Yellow),
    };
    let style = if colored { color.on_default().bold() } else { Style::new() };
    let bold = if colored { Style::new().bold() } else { Style::new() };
    let _ = writeln!(out, "{style}{word:<INDENT$}{style:#}{bold}{}{bold:#}", finding.rule);
    out.push_str(&details(finding, columns, true));
}

/// All about a finding but what it is called; `titled`: what it is in a sentence, too.
pub(super) fn details(finding: &Finding, columns: usize, titled: bool) -> String {
    let mut out = String::new();
    if titled {
        paragraph(&mut out, "", &finding.title, columns);
    }
    for (index, line) in finding.evidence.iter().enumerate() {
        paragraph(&mut out, if index == 0 { "  seen" } else { "" }, line, columns);
    }
    paragraph(&mut out, "  why", page(finding.rule, Part::Comes), columns);
    let first = finding.remedy.iter().map(String::as_str).map(sentence);
    let remedies = first.chain([page(finding.rule, Part::Do).to_owned()]);
    for (index, line) in remedies.enumerate() {
        paragraph(&mut out, if index == 0 { "  do" } else { "" }, &line, columns);
    }
    // A command that is to be copied stays on one line.
    let explain = format!("tcptrace explain {}", finding.rule);
    for (index, command) in finding.more.iter().chain([&explain]).enumerate() {
        let _ = writeln!(out, "{:<INDENT$}{command}", if index == 0 { "  more" } else { "" });
    }
    out
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str() + "."
}

fn paragraph(out: &mut String, head: &str, text: &str, columns: usize) {
    let _ = write!(out, "{head:<INDENT$}");
    out.push_str(&wrapped(text, INDENT, INDENT, columns));
}

/// As JSON, an object on a line for each finding, and one that sums up.
#[must_use]
pub fn json(diagnosis: &Diagnosis, summary: &Summary, clock: &Clock) -> String {
    let mut time = TimeText::default();
    let ts = time.render(clock.wall_ns(summary.ts_ns)).to_owned();
    let mut out = String::new();
    for finding in &diagnosis.findings {
        let _ = writeln!(out, "{}", object(finding, &ts));
    }
    let [lost, gaps, beyond] = summary.lost.counts().map(|(_, count)| count);
    let end = json!({
        "ts": ts, "kind": "summary", "events": summary.events, "lost": lost, "gaps": gaps, "beyond": beyond,
        "elapsed_us": summary.elapsed_us, "rules": RULES.len(), "critical": diagnosis.of(Severity::Critical),
        "warnings": diagnosis.of(Severity::Warning), "sockets_seen": diagnosis.sockets, "listeners": diagnosis.listeners,
        "namespaces": diagnosis.namespaces,
    });
    let _ = writeln!(out, "{end}");
    out
}

fn object(finding: &Finding, ts: &str) -> Value {
    let Finding { rule, severity, title, group, owner, count, evidence, remedy, more } = finding;
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| {
        if !value.is_null() {
            object.insert(name.to_owned(), value);
        }
    };
    set("ts", json!(ts));
    set("kind", json!("finding"));
    set("rule", json!(rule));
    set("severity", json!(severity.name()));
    set("title", json!(title));
    set("netns", json!((group.netns != 0).then_some(group.netns)));
    set(if group.ours { "lport" } else { "rport" }, json!(group.port));
    set("raddr", json!(group.raddr.map(|raddr| ip(raddr).to_string())));
    set("pid", json!(owner.map(|owner| owner.pid)));
    set("comm", json!(owner.map(|owner| owner.comm.to_string())));
    set("count", json!(count));
    set("evidence", json!(evidence));
    set("why", json!(page(rule, Part::Comes)));
    let remedies: Vec<String> =
        remedy.iter().map(|line| sentence(line)).chain([page(rule, Part::Do).to_owned()]).collect();
    set("remedy", json!(remedies));
    set("more", json!(more));
    Value::Object(object)
}

/// Every rule, its thresholds, and why they are what they are.
#[must_use]
pub fn rules(colored: bool) -> String {
    let columns = 80;
    let bold = if colored { Style::new().bold() } else { Style::new() };
    let mut out = String::new();
    for rule in RULES {
        let _ = writeln!(out, "{bold}{}{bold:#}", rule.name);
        out.push_str("  ");
        out.push_str(&wrapped(page(rule.name, Part::Means), 2, 2, columns));
        for threshold in rule.thresholds {
            let set = format!("  {}={}", threshold.name, threshold.unit.text(threshold.default));
            let indent = 20.max(set.len() + 1);
            let _ = write!(out, "{set:<indent$}");
            out.push_str(&wrapped(threshold.why, indent, 20, columns));
        }
        out.push('\n');
    }
    out.push_str(
        "Set one: tcptrace doctor --set close-wait-leak.age=30s\nFor good: /etc/tcptrace/doctor.toml, [close-wait-leak] and below it age = \"30s\"\n",
    );
    out
}
