//! What `tcptrace probes` found, for people and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::report::table::{Column, lay_out};
use crate::kernel::attach::{Probe, Sight};

/// What was found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The probes.
    pub probes: Vec<Probe>,
    /// What the kernel lets be seen.
    pub sight: Sight,
    /// The self-test.
    pub checks: Vec<Check>,
    /// What it costs.
    pub cost: Cost,
}

/// A part of the self-test.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was made.
    pub name: &'static str,
    /// Events that were to be seen of it.
    pub events: usize,
    /// What was not as it was to be.
    pub wrong: Option<String>,
}

/// What watching costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// How often a probe ran while it was measured; 0: it could not be.
    pub runs: u64,
    /// For how long, together, with what the kernel's statistics cost themselves.
    pub run_time: Duration,
    /// Events lost meanwhile.
    pub lost: u64,
    /// Resident memory of tcptrace in bytes.
    pub memory: u64,
}

impl Findings {
    /// Whether all that is to be seen was.
    #[must_use]
    pub fn all_seen(&self) -> bool {
        self.checks.iter().all(|check| check.wrong.is_none())
    }
}

impl Cost {
    /// ns for each run of a probe, if it was measured.
    #[must_use]
    pub fn per_run(&self) -> Option<u64> {
        u64::try_from(self.run_time.as_nanos()).ok()?.checked_div(self.runs)
    }
}

/// For people, in 80 columns.
#[must_use]
pub fn text(findings: &Findings) -> String {
    let Findings { probes, sight, checks, cost } = findings;
    let mut out = String::new();
    let column = |name, right| Column { names: (name, name), right, gives_way: 0 };
    let columns =
        [column("PROBE", false), column("INSNS", true), column("VERIFIED", true), column("STATE", false)];
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let rows: Vec<Vec<String>> = probes
        .iter()
        .map(|probe| match &probe.state {
            Ok(program) => vec![
                probe.name.to_owned(),
                number(program.instructions),
                number(program.verified),
                "attached".to_owned(),
            ],
            Err(why) => vec![probe.name.to_owned(), "-".to_owned(), "-".to_owned(), format!("no: {why}")],
        })
        .collect();
    for line in lay_out(&columns, &rows, None, true) {
        let _ = writeln!(out, "{line}");
    }
    let reasons = sight.reasons.len();
    let _ = writeln!(out, "\nKERNEL {}", sight.release);
    for (what, seen) in [
        ("RSTs of connections", "yes".to_owned()),
        (
            "RSTs without a socket",
            if sight.stray_resets { "yes" } else { "no: kernels before 6.10 do not report them" }.to_owned(),
        ),
        (
            "reasons of RSTs",
            if reasons > 0 {
                format!("yes, {reasons} names")
            } else {
                "no: before 6.10 there are none".to_owned()
            },
        ),
        (
            "socket cookies",
            if sight.cookies { "yes" } else { "no: before 5.12; ids are tcptrace's own" }.to_owned(),
        ),
        ("BTF", format!("{} of {} fields and features", sight.fields - sight.absent.len(), sight.fields)),
    ] {
        let _ = writeln!(out, "  {what:<22} {seen}");
    }
    if !sight.absent.is_empty() {
        let _ = writeln!(out, "  not on this kernel, which has others in their place, or does without:");
        for absent in &sight.absent {
            let _ = writeln!(out, "    {absent}");
        }
    }
    out.push_str("\nSELF-TEST\n");
    for check in checks {
        match &check.wrong {
            None => _ = writeln!(out, "  ok      {}: {} events", check.name, check.events),
            Some(wrong) => _ = writeln!(out, "  FAILED  {}: {wrong}", check.name),
        }
    }
    out.push_str("\nCOST\n");
    match cost.per_run() {
        Some(ns) => {
            let _ = writeln!(
                out,
                "  {:<22} {ns} ns in the kernel, by its statistics ({} runs)",
                "an event", cost.runs
            );
        }
        None => _ = writeln!(out, "  {:<22} not measured", "an event"),
    }
    let _ = writeln!(out, "  {:<22} {} KiB", "the ring", sight.ring_bytes / 1024);
    let _ = writeln!(out, "  {:<22} {} KiB resident, with the ring", "tcptrace", cost.memory / 1024);
    out
}

/// An object for each line.
#[must_use]
pub fn json(findings: &Findings) -> String {
    let Findings { probes, sight, checks, cost } = findings;
    let probe = |probe: &Probe| match &probe.state {
        Ok(program) => json!({
            "kind": "probe", "name": probe.name, "tracepoint": probe.tracepoint, "attached": true,
            "insns": program.instructions, "verified_insns": program.verified,
        }),
        Err(why) => json!({
            "kind": "probe", "name": probe.name, "tracepoint": probe.tracepoint, "attached": false, "why": why,
        }),
    };
    let check = |check: &Check| {
        json!({
            "kind": "self_test", "name": check.name, "events": check.events, "ok": check.wrong.is_none(),
            "wrong": check.wrong,
        })
    };
    let kernel = json!({
        "kind": "kernel", "release": sight.release, "rst_without_socket": sight.stray_resets,
        "rst_reasons": sight.reasons.values().map(|name| &**name).collect::<Vec<_>>(), "cookies": sight.cookies,
        "btf_fields": sight.fields, "btf_absent": sight.absent,
    });
    let cost = json!({
        "kind": "cost", "ns_per_event": cost.per_run(), "runs": cost.runs, "lost": cost.lost,
        "ring_bytes": sight.ring_bytes, "memory_bytes": cost.memory,
    });
    let lines = probes.iter().map(probe).chain([kernel]).chain(checks.iter().map(check)).chain([cost]);
    lines.fold(String::new(), |mut text, line: Value| {
        let _ = writeln!(text, "{line}");
        text
    })
}
