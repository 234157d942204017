//! What one event costs: ns in the kernel, bytes of the ring, system calls.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{
    Bench, Part,
    load::Load,
    sample::Sample,
    subject::{Kind, Subject, WITH_TRACEFS},
    table,
};
use crate::host::program_path;

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// Connections per second: every tool is busy, and none drowns.
const RATE: u64 = 5_000;

/// The kernel keeps statistics of programs as long as this lives.
struct Statistics {
    before: String,
}

impl Statistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(STATISTICS).context(STATISTICS)?;
        fs::write(STATISTICS, "1").context(STATISTICS)?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(STATISTICS, &self.before);
    }
}

/// What came of a subject.
#[derive(Default)]
struct Cost {
    kernel_ns: Sample,
    /// Runs of its programs per event.
    runs: Sample,
    ring_bytes: Option<f64>,
    calls: Option<f64>,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Part> {
    let mut load = Load::start(&bench.load, &["--pin"])?;
    let mut costs: Vec<Cost> = bench.subjects.iter().map(|_| Cost::default()).collect();
    for _ in 0..bench.rounds {
        for (subject, cost) in bench.subjects.iter().zip(&mut costs) {
            in_kernel(bench, subject, &mut load, cost)?;
        }
    }
    for (subject, cost) in bench.subjects.iter().zip(&mut costs) {
        cost.calls = calls(bench, subject, &mut load)?;
    }
    let empty = bench.subjects.iter().position(|subject| subject.kind == Kind::Empty);
    let floor_ns = empty.and_then(|at| costs.get(at)).map_or(0.0, |cost| cost.kernel_ns.median());
    let mut numbers = serde_json::Map::new();
    let rows: Vec<_> = bench
        .subjects
        .iter()
        .zip(&costs)
        .map(|(subject, cost)| {
            // Each run of a program pays for being timed.
            let net_ns = cost.kernel_ns.median() - floor_ns * cost.runs.median();
            numbers.insert(
                subject.name.to_owned(),
                json!({
                    "kernel_ns": cost.kernel_ns.json(), "runs": cost.runs.median(), "kernel_ns_net": net_ns,
                    "ring_bytes": cost.ring_bytes, "system_calls_per_1000": cost.calls,
                }),
            );
            let or_nothing = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.0}"));
            vec![
                subject.name.to_owned(),
                format!("{:.0}", cost.kernel_ns),
                format!("{net_ns:.0}"),
                or_nothing(cost.ring_bytes),
                cost.calls.map_or(String::new(), |calls| format!("{calls:.1}")),
            ]
        })
        .collect();
    let head =
        ["", "ns in the kernel", "without the timing's own", "bytes of ring", "system calls per 1,000"];
    let markdown = format!(
        "### Cost of one event\n\nAt {RATE} connections/s, by the kernel's own statistics of BPF programs \
         (kernel.bpf_stats_enabled); what they add to an empty program's run is taken off once for each \
         run.\n\n{}\n",
        table(&head, &rows)
    );
    Ok(Part { markdown, json: numbers.into() })
}

fn in_kernel(bench: &Bench<'_>, subject: &Subject, load: &mut Load, cost: &mut Cost) -> Result<()> {
    let running = subject.start(bench.workspace, "1")?;
    load.run(200, RATE)?;
    let statistics = Statistics::on()?;
    let before = running.programs();
    let run = load.run(bench.run_ms, RATE)?;
    let after = running.programs();
    drop(statistics);
    let events = run.transitions as f64;
    cost.kernel_ns.push((after.1 - before.1) as f64 / events);
    cost.runs.push((after.0 - before.0) as f64 / events);
    cost.ring_bytes = carried(&running.stop()?).or(cost.ring_bytes);
    Ok(())
}

/// Bytes per record, by what tcptrace says at the end: `the ring carried N records in M bytes`.
fn carried(stderr: &str) -> Option<f64> {
    let line = stderr.lines().find_map(|line| line.split("the ring carried ").nth(1))?;
    let mut numbers = line.split(' ').filter_map(|word| word.parse::<f64>().ok());
    let (records, bytes) = (numbers.next()?, numbers.next()?);
    (records > 0.0).then_some(bytes / records)
}

/// System calls per thousand events, counted by bpftrace where there is one.
fn calls(bench: &Bench<'_>, subject: &Subject, load: &mut Load) -> Result<Option<f64>> {
    let Some(bpftrace) = program_path("bpftrace") else { return Ok(None) };
    let running = subject.start(bench.workspace, "1")?;
    load.begin(6_000, RATE)?;
    let script = format!(
        "tracepoint:raw_syscalls:sys_enter /pid == {}/ {{ @ = count(); }} interval:s:3 {{ exit(); }}",
        running.pid()
    );
    let output = Command::new(WITH_TRACEFS[0])
        .args(&WITH_TRACEFS[1..])
        .arg(bpftrace)
        .args(["-e", &script])
        .output()
        .context("bpftrace")?;
    let run = load.end()?;
    running.stop()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = text.lines().find_map(|line| line.strip_prefix("@: ")?.trim().parse::<f64>().ok());
    let events = run.transitions as f64 / run.seconds * 3.0;
    Ok(Some(count.unwrap_or(0.0) * 1000.0 / events))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_ring_carried_is_read() {
        let text = "tcptrace: x\ntcptrace: the ring carried 4 records in 512 bytes\n";
        assert_eq!(super::carried(text).map(|bytes| bytes.to_string()), Some("128".to_owned()));
        assert!(super::carried("the ring carried 0 records in 0 bytes").is_none());
    }
}
