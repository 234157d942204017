//! What is shown and what is lost as the rate goes up.

use anyhow::Result;
use serde_json::json;

use super::{Bench, Part, lines_with, load::Load, subject::Subject, table};

/// Connections per second; 0: as many as there can be.
const RATES: [u64; 6] = [1_000, 2_500, 5_000, 10_000, 20_000, 0];

/// Lines of a connection, both ends together, for tools that print lines as things happen.
fn lines_each(subject: &Subject) -> Option<u64> {
    Some(match subject.name {
        "tcptrace, text" | "tcptrace, JSON" | "libbpf-tools tcpstates" | "bpftrace printf" => 10,
        "tcptrace conns" | "libbpf-tools tcplife" => 2,
        _ => return None,
    })
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Part> {
    let mut load = Load::start(&bench.load, &["--pin"])?;
    let mut rows = Vec::new();
    let mut numbers = serde_json::Map::new();
    for subject in &bench.subjects {
        let Some(lines_each) = lines_each(subject) else { continue };
        let mut row = vec![subject.name.to_owned()];
        let mut list = Vec::new();
        for rate in RATES {
            let running = subject.start(bench.workspace, "1")?;
            let run = load.run(bench.run_ms, rate)?;
            let stdout = running.stdout.clone();
            let counted = super::lost(&running.stop()?).unwrap_or(0);
            let expected = run.connections * lines_each;
            // The load's first port stands in every line of its connections.
            let shown = lines_with(&stdout, "20000")?;
            let missing = expected.saturating_sub(shown);
            row.push(match missing {
                0 => format!("all ({:.0}/s)", expected as f64 / run.seconds),
                _ => format!(
                    "{:.1} % lost, {} ({:.0}/s)",
                    missing as f64 * 100.0 / expected as f64,
                    if counted == 0 { "silently".to_owned() } else { format!("{counted} counted") },
                    expected as f64 / run.seconds
                ),
            });
            list.push(json!({
                "connections": run.connections, "seconds": run.seconds, "expected": expected, "shown": shown, "lost": counted,
            }));
        }
        rows.push(row);
        numbers.insert(subject.name.to_owned(), list.into());
    }
    let rates = RATES.map(|rate| if rate == 0 { "full churn".to_owned() } else { format!("{rate}/s") });
    let head: Vec<&str> = [""].into_iter().chain(rates.iter().map(String::as_str)).collect();
    let markdown = format!(
        "### Loss\n\nConnections per second on one core, the tool on the other, writing to a file; what was shown of the \
         lines that there should be (in brackets: lines per second). \"Counted\" is what the tool itself says it lost.\n\n{}\n",
        table(&head, &rows)
    );
    Ok(Part { markdown, json: numbers.into() })
}
