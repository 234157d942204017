//! CPU, memory and wake-ups at fixed rates.

use std::{thread, time::Duration};

use anyhow::Result;
use serde_json::json;

use super::{Bench, Part, load::Load, table};

/// Connections per second.
const RATES: [u64; 4] = [0, 1_000, 10_000, 50_000];
/// One of each kind: what they write differs in "Share of the untraced rate kept".
const SUBJECTS: [&str; 6] = [
    "tcptrace, JSON",
    "tcptrace conns",
    "tcptrace hist 1",
    "libbpf-tools tcpstates",
    "libbpf-tools tcplife",
    "bpftrace count",
];
/// How long each is watched, in ms: long enough for timers of a second.
const WATCH_MS: u64 = 5_000;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Part> {
    // 50,000 connections per second are more than one core makes.
    let mut load = Load::start(&bench.load, &["--threads", "2"])?;
    let mut rows = Vec::new();
    let mut numbers = serde_json::Map::new();
    for subject in bench.subjects.iter().filter(|subject| SUBJECTS.contains(&subject.name)) {
        let mut list = Vec::new();
        let mut row = vec![subject.name.to_owned()];
        for rate in RATES {
            let running = subject.start(bench.workspace, "0,1")?;
            let mut work = |ms: u64| -> Result<f64> {
                if rate == 0 {
                    thread::sleep(Duration::from_millis(ms));
                    return Ok(0.0);
                }
                Ok(load.run(ms, rate)?.rate())
            };
            work(1_500)?;
            let before = running.usage();
            let reached = work(WATCH_MS)?;
            let after = running.usage();
            running.stop()?;
            let seconds = WATCH_MS as f64 / 1e3;
            let cpu = (after.cpu_ns - before.cpu_ns) as f64 / 1e7 / seconds;
            let wakeups = (after.wakeups - before.wakeups) as f64 / seconds;
            let mib = after.rss_kib as f64 / 1024.0;
            row.push(format!("{cpu:.2} %, {mib:.0} MiB, {wakeups:.0}/s"));
            list.push(json!({
                "rate": rate, "reached": reached, "cpu_percent": cpu, "rss_kib": after.rss_kib,
                "anon_kib": after.anon_kib, "wakeups_per_s": wakeups,
            }));
        }
        rows.push(row);
        numbers.insert(subject.name.to_owned(), list.into());
    }
    let rates = RATES.map(|rate| format!("{rate} connections/s"));
    let head: Vec<&str> = [""].into_iter().chain(rates.iter().map(String::as_str)).collect();
    let markdown = format!(
        "### CPU, memory, wake-ups at fixed rates\n\nOf the tool's process, on a host with two CPUs of which the load takes \
         what it needs; what its programs take in the kernel is in \"Cost of one event\". Memory is resident, with the ring, \
         which counts twice.\n\n{}\n",
        table(&head, &rows)
    );
    Ok(Part { markdown, json: numbers.into() })
}
