//! What `serve` exposes.

use std::time::Duration;

use super::*;
use crate::{
    model::{
        container::CgroupPath,
        doctor::{self, Facts, Limits, facts::Listener},
        explain,
        tally::{By, Tally, meter::Meter},
    },
    view::metrics::{Exposition, Format, encode, registry},
};

/// Of the events of the other tests, with everything that can be asked for.
fn exposition() -> Exposition {
    let mut tally = Tally::new(By::Port, 32_768..=60_999, false);
    let mut meter = Meter::new(200, true);
    for event in events() {
        tally.event(&event);
        meter.event(&event, &tally);
    }
    Exposition {
        counts: meter.counts([].into_iter(), &tally, 1),
        by_comm: true,
        by_container: false,
        findings: doctor::count(&Facts::default(), &Limits::default()),
        events: 7,
        lost: Loss { full: [1, 2, 3, 4, 5, 6], skipped: 7, unreadable: 8, gaps: 9, beyond: 10 },
        kernel: "6.18".to_owned(),
        cpu_ns: 1_500_000_000,
        memory: 1 << 20,
        runs: Some((2_800, Duration::from_micros(515))),
        time_wait_limit: Some(131_072),
    }
}

fn text(format: Format) -> String {
    encode(&registry(exposition()), format)
}

/// A container with two cgroups has one label, and what is not known another.
#[test]
fn containers() {
    let id = "4fc2a1".repeat(12).split_off(8);
    let mut tally = Tally::new(By::Port, 32_768..=60_999, false);
    let paths = [
        format!("/docker/{id}"),
        format!("/docker/{id}/init.scope"),
        "/system.slice/nginx.service".to_owned(),
    ];
    let mut meter = Meter::new(200, false).by_container(move |cgroup| {
        Some(CgroupPath::from(&**paths.get(usize::try_from(cgroup).ok()?.checked_sub(1)?)?))
    });
    let opened = events().into_iter().find(|event| event.old == Some(State::LISTEN)).unwrap();
    for cgroup in [None, Some(1), Some(2), Some(3), Some(4)] {
        let event = Event { cgroup, ..opened.clone() };
        tally.event(&event);
        meter.event(&event, &tally);
    }
    let counts = meter.counts([].into_iter(), &tally, 1);
    let text = encode(
        &registry(Exposition { counts, by_comm: false, by_container: true, ..exposition() }),
        Format::Prometheus,
    );
    let mut opened: Vec<_> =
        text.lines().filter(|line| line.starts_with("tcptrace_connections_opened_total{")).collect();
    opened.sort_unstable();
    let line = |container, count| {
        format!(
            "tcptrace_connections_opened_total{{port=\"443\",container=\"{container}\",role=\"server\"}} {count}"
        )
    };
    assert_eq!(opened, [line(&id[..], 2), line("nginx.service", 1), line("unknown", 2)]);
}

#[test]
fn every_metric_has_a_page() {
    let text = text(Format::Prometheus);
    let exposed: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let pages = explain::index();
    let pages = pages.iter().filter(|page| page.kind == explain::Kind::Metric);
    assert_eq!(pages.map(|page| &*page.word).collect::<BTreeSet<_>>(), exposed);
}

#[test]
fn openmetrics_of_everything() {
    insta::assert_snapshot!(text(Format::OpenMetrics).replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

/// Each metric with its type and the names of its labels.
#[test]
fn every_metric_is_documented_and_there_is_no_other() {
    let text = text(Format::Prometheus);
    let exposed: BTreeSet<(String, String, BTreeSet<String>)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let is_of_it = |line: &&str| line.starts_with(name) && !line.starts_with('#');
            let sample = text.lines().find(is_of_it).unwrap_or_default();
            assert_ne!(sample, "", "no sample of {name}");
            let labels = sample.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label);
            // With --by-comm there is comm wherever there is port.
            let labels = labels.filter(|label| !matches!(*label, "le" | "comm")).map(str::to_owned);
            (name.to_owned(), kind.to_owned(), labels.collect())
        })
        .collect();
    let docs = include_str!("../../../../docs/metrics.md");
    let rows = docs.lines().filter(|line| line.starts_with("| `tcptrace_"));
    let documented: BTreeSet<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let labels = cells[3].split_whitespace().map(str::to_owned).collect();
            (cells[1].to_owned(), cells[2].to_owned(), labels)
        })
        .collect();
    assert_eq!(exposed, documented);
}

#[test]
fn every_rule_is_there_and_none_of_its_findings_is_left_out() {
    let full =
        Listener { tuple: event(0).tuple, queue: 5, most: 5, again: 5, backlog: 4, ..Listener::default() };
    let facts = Facts { listeners: vec![full; 7], ..Facts::default() };
    let findings = doctor::count(&facts, &Limits::default());
    let text = encode(&registry(Exposition { findings, ..exposition() }), Format::Prometheus);
    let samples: Vec<&str> = text.lines().filter(|line| line.starts_with("tcptrace_findings{")).collect();
    assert_eq!(samples.len(), doctor::RULES.len() * doctor::Severity::ALL.len());
    let found: Vec<&str> = samples.into_iter().filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(found, [r#"tcptrace_findings{rule="accept-queue-full",severity="critical"} 7"#]);
}
