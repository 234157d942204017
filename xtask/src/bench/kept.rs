//! The share of the untraced rate of connections that is kept.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use super::{
    Bench, Part,
    load::Load,
    lost,
    sample::Sample,
    subject::{Kind, Subject},
    table,
};

/// Settles the load and the tool before what counts.
const WARM_MS: u64 = 200;

/// Where the load works, and the tool.
struct Ground {
    name: &'static str,
    threads: &'static str,
    tool_cpus: &'static str,
}

const GROUNDS: [Ground; 2] = [
    Ground { name: "one busy core, the tool on another", threads: "1", tool_cpus: "1" },
    Ground { name: "two busy cores, the tool on both", threads: "2", tool_cpus: "0,1" },
];

/// What came of a subject on a ground.
#[derive(Default)]
struct Outcome {
    kept: Sample,
    user_ns: Sample,
    lost: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Part> {
    let mut markdown = String::from("### Share of the untraced rate kept\n\n");
    let mut json = serde_json::Map::new();
    for ground in &GROUNDS {
        let mut results: Vec<Outcome> = bench.subjects.iter().map(|_| Outcome::default()).collect();
        let mut untraced = Sample::default();
        let mut load = Load::start(&bench.load, &["--pin", "--threads", ground.threads])?;
        load.run(1000, 0)?;
        let mut before = load.run(bench.run_ms, 0)?.rate();
        for _ in 0..bench.rounds {
            for (subject, result) in bench.subjects.iter().zip(&mut results) {
                let traced = traced(bench, subject, ground, &mut load, result)?;
                let after = load.run(bench.run_ms, 0)?.rate();
                result.kept.push(traced / f64::midpoint(before, after));
                untraced.push(after);
                before = after;
            }
        }
        let (rows, numbers) = rows(&bench.subjects, &results);
        let head = [
            "",
            "kept",
            "of the empty program's",
            "times tcpstates",
            "times tcplife",
            "user ns per event",
            "lost",
        ];
        writeln!(
            markdown,
            "At full churn, {}; untraced: {untraced:.0} connections/s, 10 transitions each.\n\n{}",
            ground.name,
            table(&head, &rows)
        )?;
        json.insert(ground.name.to_owned(), json!({ "untraced": untraced.json(), "subjects": numbers }));
    }
    Ok(Part { markdown, json: json.into() })
}

fn traced(
    bench: &Bench<'_>,
    subject: &Subject,
    ground: &Ground,
    load: &mut Load,
    result: &mut Outcome,
) -> Result<f64> {
    let running = subject.start(bench.workspace, ground.tool_cpus)?;
    load.run(WARM_MS, 0)?;
    let before = running.usage();
    let run = load.run(bench.run_ms, 0)?;
    let cpu_ns = running.usage().cpu_ns - before.cpu_ns;
    if run.transitions > 0 {
        result.user_ns.push(cpu_ns as f64 / run.transitions as f64);
    }
    result.lost += lost(&running.stop()?).unwrap_or(0);
    Ok(run.rate())
}

fn rows(subjects: &[Subject], results: &[Outcome]) -> (Vec<Vec<String>>, serde_json::Value) {
    let of = |name: &str| {
        let at = subjects.iter().position(|subject| subject.name.ends_with(name))?;
        results.get(at).map(|result| result.kept.median())
    };
    let (empty, tcpstates, tcplife) = (of("empty program"), of("tcpstates"), of("tcplife"));
    let mut numbers = serde_json::Map::new();
    let rows = subjects
        .iter()
        .zip(results)
        .map(|(subject, result)| {
            let ours = subject.kind == Kind::Ours;
            let against = |other: Option<f64>, decimals: usize| match other {
                Some(other) if ours => format!("{:.decimals$}", result.kept.median() / other),
                _ => String::new(),
            };
            let number =
                json!({ "kept": result.kept.json(), "user_ns": result.user_ns.json(), "lost": result.lost });
            numbers.insert(subject.name.to_owned(), number);
            vec![
                subject.name.to_owned(),
                format!("{:.3}", result.kept),
                against(empty, 3),
                against(tcpstates, 1),
                against(tcplife, 1),
                if subject.kind == Kind::Empty {
                    String::new()
                } else {
                    format!("{:.0}", result.user_ns.median())
                },
                if ours { result.lost.to_string() } else { String::new() },
            ]
        })
        .collect();
    (rows, numbers.into())
}
