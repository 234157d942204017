//! From the start of the program to its first event.

use std::{
    io::{BufRead as _, BufReader},
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Bench, Part, load::Load, sample::Sample, table};

/// Sockets that are there already; half as many connections.
const SOCKETS: [u32; 3] = [0, 10_000, 100_000];

pub(super) fn measure(bench: &Bench<'_>) -> Result<Part> {
    let subjects: Vec<_> = bench
        .subjects
        .iter()
        .filter(|subject| {
            ["tcptrace, JSON", "libbpf-tools tcpstates", "bpftrace printf"].contains(&subject.name)
        })
        .collect();
    let mut samples: Vec<[Sample; SOCKETS.len()]> = subjects.iter().map(|_| Default::default()).collect();
    for (at, sockets) in SOCKETS.iter().enumerate() {
        let parked = (sockets / 2).to_string();
        let mut load = Load::start(&bench.load, &["--pin", "--parked", &parked])?;
        for _ in 0..bench.rounds {
            for (subject, samples) in subjects.iter().zip(&mut samples) {
                load.begin(4_000, 2_000)?;
                let began = Instant::now();
                let (running, stdout) = subject.start_piped(bench.workspace, "1")?;
                // The load's first port stands in every line of its connections.
                let first = BufReader::new(stdout)
                    .lines()
                    .find(|line| line.as_ref().is_ok_and(|line| line.contains("20000")));
                let ms = began.elapsed().as_secs_f64() * 1e3;
                running.stop()?;
                first.context("it printed nothing")??;
                load.end()?;
                samples[at].push(ms);
            }
        }
    }
    let rows: Vec<_> = subjects
        .iter()
        .zip(&samples)
        .map(|(subject, samples)| {
            [subject.name.to_owned()]
                .into_iter()
                .chain(samples.iter().map(|sample| format!("{sample:.0} ms")))
                .collect()
        })
        .collect();
    let numbers: serde_json::Map<_, _> = subjects
        .iter()
        .zip(&samples)
        .map(|(subject, samples)| {
            let by_count =
                SOCKETS.iter().zip(samples).map(|(sockets, sample)| (sockets.to_string(), sample.json()));
            (subject.name.to_owned(), json!(by_count.collect::<serde_json::Map<_, _>>()))
        })
        .collect();
    let markdown = format!(
        "### Start\n\nFrom the start of the program to the first line of what happens, on a host with so many TCP sockets and \
         2,000 connections/s.\n\n{}\n",
        table(&["", "0 sockets", "10,000", "100,000"], &rows)
    );
    Ok(Part { markdown, json: numbers.into() })
}
