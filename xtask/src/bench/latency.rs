//! From the event, as the kernel timed it, to the line in the reader's hands.

use std::{
    io::Read as _,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Bench, Part, load::Load, sample::Sample, table};

/// What is measured: a name, connections per second, ms.
const LOADS: [(&str, u64, u64); 3] = [
    ("idle, a connection now and then", 1, 10_000),
    ("1,000 connections/s", 1_000, 3_000),
    ("10,000 connections/s", 10_000, 3_000),
];

const DAY_NS: u128 = 86_400_000_000_000;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Part> {
    let Some(subject) = bench.subjects.iter().find(|subject| subject.name == "tcptrace, JSON") else {
        return Ok(Part { markdown: String::new(), json: json!({}) });
    };
    let mut rows = Vec::new();
    let mut numbers = serde_json::Map::new();
    for (name, rate, ms) in LOADS {
        let mut load = Load::start(&bench.load, &["--pin"])?;
        let (running, mut stdout) = subject.start_piped(bench.workspace, "1")?;
        // It is attached when the first lines come.
        load.begin(ms, rate)?;
        let reader = std::thread::spawn(move || -> Result<Sample> {
            let mut late = Sample::default();
            let (mut buffer, mut text) = (vec![0; 1 << 20], Vec::new());
            loop {
                let count = stdout.read(&mut buffer)?;
                if count == 0 {
                    return Ok(late);
                }
                let now_ns = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() % DAY_NS;
                text.extend_from_slice(&buffer[..count]);
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                for line in String::from_utf8_lossy(&text[..whole]).lines() {
                    if line.contains("20000")
                        && let Some(ts_ns) = time_of_day_ns(line)
                    {
                        late.push(((now_ns + DAY_NS - ts_ns) % DAY_NS) as f64 / 1e6);
                    }
                }
                text.drain(..whole);
            }
        });
        load.end()?;
        running.stop()?;
        let late = reader.join().ok().context("the reader died")??;
        let mut sorted = late.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        let (median, p99, most) = (late.median(), at(0.99), sorted.last().copied().unwrap_or(f64::NAN));
        rows.push(vec![
            name.to_owned(),
            format!("{median:.2} ms"),
            format!("{p99:.2} ms"),
            format!("{most:.1} ms"),
            sorted.len().to_string(),
        ]);
        let number = json!({ "median_ms": median, "p99_ms": p99, "max_ms": most, "lines": sorted.len() });
        numbers.insert(name.to_owned(), number);
    }
    let markdown = format!(
        "### Latency\n\nFrom the event, by the kernel's clock, to the line read from a pipe.\n\n{}\n",
        table(&["", "median", "99 %", "most", "lines"], &rows)
    );
    Ok(Part { markdown, json: numbers.into() })
}

/// The time of day in a line that begins `{"ts":"2026-01-02T03:04:05.678901234Z"`, in ns.
fn time_of_day_ns(line: &str) -> Option<u128> {
    let text = line.strip_prefix("{\"ts\":\"")?.split('"').next()?;
    let (_, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (whole, ns) = time.split_once('.')?;
    let seconds = whole.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u128>().ok()?))?;
    Some(seconds * 1_000_000_000 + ns.parse::<u128>().ok()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_time_of_day_is_read() {
        let line = "{\"ts\":\"2026-01-02T01:02:03.000000004Z\",\"kind\":\"transition\"}";
        assert_eq!(super::time_of_day_ns(line), Some(3_723_000_000_004));
        assert_eq!(super::time_of_day_ns("{}"), None);
    }
}
