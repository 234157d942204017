//! `cargo xtask bench`: what watching costs a host, beside what other tools cost it.
//!
//! Everything is a ratio of two things measured one right after the other on this machine, several times; the table has
//! the median, and the least and the most. What a machine does besides is noise in both.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts become ratios and rates, of which three digits matter"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};
use xshell::cmd;

use crate::{apt, host::Workspace};

mod cost;
mod kept;
mod latency;
mod load;
mod loss;
mod rates;
mod sample;
mod startup;
mod subject;

use subject::Subject;

/// What the tables stand between, in docs/performance.md.
const MARKS: (&str, &str) =
    ("<!-- cargo xtask bench --record writes what follows -->\n", "<!-- up to here -->\n");

/// What is asked for.
pub(crate) struct Options {
    /// How often everything is measured.
    pub(crate) rounds: u32,
    /// How long each measurement takes, in ms.
    pub(crate) run_ms: u64,
    /// Only these parts.
    pub(crate) parts: Vec<String>,
    /// Only subjects whose names hold one of these.
    pub(crate) only: Vec<String>,
    /// Write docs/performance.md.
    pub(crate) record: bool,
    /// Install the tools to compare with.
    pub(crate) install: bool,
}

/// What each part is measured with.
struct Bench<'a> {
    workspace: &'a Workspace,
    subjects: Vec<Subject>,
    load: PathBuf,
    rounds: u32,
    run_ms: u64,
}

/// What came of a part: its table, and its numbers.
struct Part {
    markdown: String,
    json: Value,
}

/// A part's name and what measures it.
type Measure = fn(&Bench<'_>) -> Result<Part>;

const PARTS: [(&str, Measure); 6] = [
    ("kept", kept::measure),
    ("cost", cost::measure),
    ("loss", loss::measure),
    ("rates", rates::measure),
    ("startup", startup::measure),
    ("latency", latency::measure),
];

/// The names of all parts.
pub(crate) fn parts() -> Vec<&'static str> {
    PARTS.iter().map(|(name, _)| *name).collect()
}

/// Measures, prints Markdown, and writes JSON to target/bench/bench.json.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !crate::host::is_root() {
        bail!("this user is not root: build as yourself, then run this chore as root");
    }
    let sh = &workspace.sh;
    if options.install {
        apt::install(workspace, &subject::packages())?;
    }
    cmd!(sh, "cargo build --release --package tcptrace --package xtask --bins").run()?;
    let release = workspace.target_dir()?.join("release");
    let bench = Bench {
        workspace,
        subjects: subject::all(&release.join("tcptrace"))
            .into_iter()
            .filter(|subject| subject.is_wanted(&options.only))
            .collect(),
        load: release.join("load"),
        rounds: options.rounds,
        run_ms: options.run_ms,
    };
    let mut markdown = machine(workspace)?;
    let mut numbers = Map::new();
    for (name, measure) in PARTS {
        if !options.parts.is_empty() && !options.parts.iter().any(|part| part == name) {
            continue;
        }
        eprintln!("xtask: == {name}");
        let part = measure(&bench).with_context(|| name.to_owned())?;
        println!("{}", part.markdown);
        markdown += &part.markdown;
        numbers.insert(name.to_owned(), part.json);
    }
    let path = workspace.target_dir()?.join("bench/bench.json");
    fs::write(&path, serde_json::to_string_pretty(&Value::Object(numbers))? + "\n")?;
    eprintln!("xtask: wrote {}", path.display());
    if options.record {
        let path = workspace.root.join("docs/performance.md");
        let text = fs::read_to_string(&path)?;
        let text = recorded(&text, &markdown)
            .with_context(|| format!("{} has lost its marks: {}", path.display(), MARKS.0.trim_end()))?;
        fs::write(&path, text)?;
    }
    Ok(())
}

/// The text with what stands between the marks replaced.
fn recorded(text: &str, between: &str) -> Option<String> {
    let (before, rest) = text.split_once(MARKS.0)?;
    let (_, after) = rest.split_once(MARKS.1)?;
    Some(format!("{before}{}{between}{}{after}", MARKS.0, MARKS.1))
}

/// What it was measured on.
fn machine(workspace: &Workspace) -> Result<String> {
    let sh = &workspace.sh;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let virtual_machine = if cpuinfo.contains("hypervisor") { ", a virtual machine" } else { "" };
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let memory_kib = field(&meminfo, "MemTotal:");
    let uname = cmd!(sh, "uname -r").quiet().read()?;
    let commit = cmd!(sh, "git describe --always --dirty").quiet().read()?;
    let date = cmd!(sh, "date --utc +%F").quiet().read()?;
    let version = |package: &str| -> String {
        let show = cmd!(sh, "dpkg-query --show {package}").quiet().ignore_stderr().read();
        show.map_or_else(|_| format!("{package} (not installed)"), |line| line.replace('\t', " "))
    };
    let peers = subject::packages().into_iter().map(version).collect::<Vec<_>>().join(", ");
    Ok(format!(
        "{date}, commit {commit}. {}, {cpus} CPUs{virtual_machine}, {} GiB; Linux {uname}; {peers}.\n\n",
        model.unwrap_or("CPU unknown").trim(),
        (memory_kib + (1 << 19)) >> 20,
    ))
}

/// The first number after a key at the beginning of a line, as /proc's files have them; 0 where there is none.
fn field(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// How many lines of a file hold a text.
fn lines_with(path: &Path, text: &str) -> Result<u64> {
    use std::io::{BufRead as _, BufReader};
    let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(path)?);
    let mut line = Vec::new();
    let mut count = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        count += u64::from(line.windows(text.len()).any(|window| window == text.as_bytes()));
        line.clear();
    }
    Ok(count)
}

/// What a tool of ours lost, by its last words: `N events, M lost, ...`.
fn lost(stderr: &str) -> Option<u64> {
    let last = stderr.lines().rev().find(|line| line.contains(" events, "))?;
    last.split(", ").find_map(|part| part.strip_suffix(" lost")?.parse().ok())
}

/// A table of Markdown.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let lines = rows.iter().map(|row| format!("| {} |\n", row.join(" | ")));
    let head = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    head + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_gives_way() {
        let text = format!("before\n{}old\n{}after\n", MARKS.0, MARKS.1);
        let expected = format!("before\n{}new\n{}after\n", MARKS.0, MARKS.1);
        assert_eq!(recorded(&text, "new\n"), Some(expected));
        assert_eq!(recorded("no marks", "new"), None);
    }

    #[test]
    fn losses_are_read() {
        assert_eq!(lost("tcptrace: x\n12 events, 3 lost, 1 connections ended unseen, 0.5 s\n"), Some(3));
        assert_eq!(lost("Lost 3 events\n"), None);
    }

    #[test]
    fn tables_are_markdown() {
        let rows = [vec!["a".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["x", "y"], &rows), "| x | y |\n|---|---|\n| a | 1 |\n");
    }
}
