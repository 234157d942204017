//! Other kernels: Debian's own, booted by QEMU, each with the live tests of this checkout as its only program.
//!
//! The guest has no disk: its initramfs holds the test program, tcptrace, the programs that the tests run, their libraries, and
//! `vm-init` as process 1. Everything that is downloaded stays under the target directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::{archive::Archive, archive::Kernel, initramfs::Programs};
use crate::host::Workspace;

mod archive;
mod initramfs;

/// The series that are booted unless others are named: the long-term kernels of Debian from the oldest that tcptrace
/// supports, one between, and the newest.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.16", "7"];
/// What `cargo xtask test` runs on other kernels: every probe and every field, and exact counts under a storm.
pub(crate) const SMOKE: [&str; 9] = [
    "probes_cli::everything",
    "privileges::two",
    "privileges::what",
    "close::the_client",
    "abort::close_with_linger",
    "stop::with_losses",
    "hist_cli::a_leak",
    "rst_cli::",
    "killed_at_any_moment",
];
/// What the numbers of instructions stand between, in docs/kernels.md.
const RECORD: (&str, &str) =
    ("<!-- cargo xtask vm --record writes what follows -->\n", "<!-- up to here -->\n");
/// How a machine is run: by the host's processor, or by emulation.
const KVM: &str = "kvm";
const EMULATION: &str = "tcg,thread=multi";
/// How long a kernel may take to its first process under KVM, which some hosts have but cannot do.
const KVM_PATIENCE: Duration = Duration::from_secs(20);
/// How long one kernel may take.
const PATIENCE: Duration = Duration::from_mins(25);

/// What one kernel said.
#[derive(Default)]
struct Report {
    /// Tests by name: whether they passed.
    tests: BTreeMap<String, bool>,
    /// Instructions of each program, and how many the verifier went through, if the kernel says it.
    programs: BTreeMap<String, (u64, Option<u64>)>,
    /// Its first process ran.
    begun: bool,
    /// What vm-init said last.
    ended: Option<String>,
    /// The console.
    console: Vec<String>,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Whether every machine ended well.
    pub(crate) good: bool,
    /// Tests that passed, on all kernels.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
}

/// Boots the kernels and runs the live tests whose names contain one of `tests`, or all. Prints a table. With `record`, the
/// numbers of instructions go into docs/kernels.md.
pub(crate) fn run(workspace: &Workspace, series: &[String], tests: &[&str], record: bool) -> Result<Outcome> {
    archive::qemu(workspace)?;
    let series: Vec<&str> = match series {
        [] => SERIES.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let directory = workspace.target_dir()?.join("vm");
    let programs = Programs::build(workspace)?;
    let archive = Archive::open(workspace, &directory)?;
    let mut accelerator = if Path::new("/dev/kvm").exists() { KVM } else { EMULATION };
    let mut reports = Vec::new();
    for series in series {
        let kernel = archive.newest(series)?;
        println!("xtask: == kernel {}", kernel.version);
        let initramfs = directory.join(format!("initramfs-{}", kernel.version));
        fs::write(&initramfs, initramfs::pack(&kernel, &programs, tests)?)?;
        let started = Instant::now();
        let report = boot(&kernel, &initramfs, &mut accelerator)?;
        fs::remove_file(&initramfs)?;
        println!(
            "xtask: {}: {} passed, {} failed, {:.0} s",
            kernel.version,
            report.tests.values().filter(|passed| **passed).count(),
            report.tests.values().filter(|passed| !**passed).count(),
            started.elapsed().as_secs_f64()
        );
        let log = directory.join(format!("{}.log", kernel.version));
        fs::write(&log, report.console.join("\n"))?;
        if report.ended.as_deref() != Some("0") {
            println!("xtask: the console is in {}", log.display());
        }
        reports.push((kernel.version, report));
    }
    print_table(&reports);
    print!("{}", table_of_programs(&reports));
    if record {
        let path = workspace.root.join("docs/kernels.md");
        let text = fs::read_to_string(&path)?;
        let text = recorded(&text, &table_of_programs(&reports))
            .with_context(|| format!("{} lacks the marks {RECORD:?}", path.display()))?;
        fs::write(&path, text)?;
    }
    let results = || reports.iter().flat_map(|(_, report)| report.tests.values());
    let good = |report: &Report| {
        report.ended.as_deref() == Some("0") && !report.tests.is_empty() && !report.programs.is_empty()
    };
    Ok(Outcome {
        good: reports.iter().all(|(_, report)| good(report)),
        passed: results().filter(|passed| **passed).count() as u64,
        failed: results().filter(|passed| !**passed).count() as u64,
    })
}

/// The text with what stands between the marks replaced.
fn recorded(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(RECORD.0)?;
    let (_, after) = rest.split_once(RECORD.1)?;
    Some(format!("{before}{}{table}{}{after}", RECORD.0, RECORD.1))
}

/// A version without what only Debian knows.
fn short(version: &str) -> &str {
    version.split(['+', '-']).next().unwrap_or(version)
}

/// In Markdown: each program on each kernel.
fn table_of_programs(reports: &[(String, Report)]) -> String {
    let names: BTreeSet<&String> = reports.iter().flat_map(|(_, report)| report.programs.keys()).collect();
    let mut table = String::from("| instructions / verified |");
    table.extend(reports.iter().map(|(version, _)| format!(" {} |", short(version))));
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(reports.len()));
    for name in names {
        let cell = |(_, report): &(String, Report)| match report.programs.get(name) {
            Some((instructions, Some(verified))) => format!(" {instructions} / {verified} |"),
            Some((instructions, None)) => format!(" {instructions} / - |"),
            None => " not needed |".to_owned(),
        };
        table.extend(["\n| `", name, "` |"]);
        table.extend(reports.iter().map(cell));
    }
    table.push('\n');
    table
}

fn print_table(reports: &[(String, Report)]) {
    let names: BTreeSet<&String> = reports.iter().flat_map(|(_, report)| report.tests.keys()).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let head: Vec<String> = reports.iter().map(|(version, _)| format!("{:>9}", short(version))).collect();
    println!("{:width$} {}", "", head.join(" "));
    for name in names {
        let cell = |report: &Report| match report.tests.get(name) {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "-",
        };
        let cells: Vec<String> = reports.iter().map(|(_, report)| format!("{:>9}", cell(report))).collect();
        println!("{name:width$} {}", cells.join(" "));
    }
}

/// Boots, and listens until the machine is off. A machine that dies before its first process proves nothing about us and is booted
/// once more, said aloud; without KVM, if that was to blame.
fn boot(kernel: &Kernel, initramfs: &Path, accelerator: &mut &'static str) -> Result<Report> {
    let mut attempt = 1;
    loop {
        let report = boot_once(kernel, initramfs, accelerator)?;
        if report.begun || attempt == 3 {
            return Ok(report);
        }
        println!(
            "xtask: {} under {accelerator} died before its first process; it is booted again",
            kernel.version
        );
        *accelerator = EMULATION;
        attempt += 1;
    }
}

fn boot_once(kernel: &Kernel, initramfs: &Path, accelerator: &str) -> Result<Report> {
    let mut machine = Machine(
        Command::new("qemu-system-x86_64")
            .args(["-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "2048", "-kernel"])
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
            .args(["-nographic", "-no-reboot", "-net", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot run qemu-system-x86_64")?,
    );
    let lines = lines_of(machine.0.stdout.take().context("no console")?);
    let started = Instant::now();
    let patience = if accelerator == KVM { KVM_PATIENCE } else { PATIENCE };
    let mut deadline = started + patience;
    let mut report = Report::default();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if line.contains("vm-init: begun") {
            report.begun = true;
            deadline = started + PATIENCE;
        }
        if let Some((name, instructions)) = program_of(&line) {
            report.programs.insert(name, instructions);
        }
        if let Some((name, passed)) = result_of(&line) {
            println!("xtask: {}: {name}: {}", kernel.version, if passed { "ok" } else { "FAILED" });
            report.tests.insert(name, passed);
        }
        if let Some(code) = line.trim().strip_prefix("vm-init: ended with ") {
            report.ended = Some(code.to_owned());
        }
        report.console.push(line);
    }
    if Instant::now() >= deadline && report.begun {
        println!("xtask: {} has not ended after {PATIENCE:?}", kernel.version);
    }
    Ok(report)
}

/// A machine that ends with this program.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(console: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console.by_ref().read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The name of a test, and whether it passed, from a line of libtest's.
fn result_of(line: &str) -> Option<(String, bool)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match result.trim() {
        "ok" => Some((name.to_owned(), true)),
        "FAILED" => Some((name.to_owned(), false)),
        _ => None,
    }
}

/// The name of a program and its instructions, from a line of `tcptrace probes -o json`.
fn program_of(line: &str) -> Option<(String, (u64, Option<u64>))> {
    let line: Value = serde_json::from_str(line.trim()).ok()?;
    let instructions = line["insns"].as_u64().filter(|_| line["kind"] == "probe")?;
    Some((line["name"].as_str()?.to_owned(), (instructions, line["verified_insns"].as_u64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read() {
        assert_eq!(result_of("test close::a ... ok"), Some(("close::a".to_owned(), true)));
        assert_eq!(result_of("test close::b ... FAILED"), Some(("close::b".to_owned(), false)));
        for line in ["test x ... ignored", "test result: ok. 1 passed", "", "a test b ... ok"] {
            assert_eq!(result_of(line), None, "{line}");
        }
    }

    #[test]
    fn programs_are_read_and_recorded() {
        let line = r#"{"attached":true,"insns":7,"kind":"probe","name":"a","verified_insns":9}"#;
        assert_eq!(program_of(line), Some(("a".to_owned(), (7, Some(9)))));
        assert_eq!(program_of(r#"{"attached":false,"kind":"probe","name":"a"}"#), None);
        let text = format!("before\n{}old\n{}after\n", RECORD.0, RECORD.1);
        let expected = format!("before\n{}new\n{}after\n", RECORD.0, RECORD.1);
        assert_eq!(recorded(&text, "new\n"), Some(expected));
        assert_eq!(recorded("no marks", "new"), None);
    }
}
