//! Findings, as people and programs read them.

use super::*;
use crate::{
    model::{
        doctor::{
            Facts, Group, Limits, RULES,
            facts::{Namespace, Standing},
            judge,
        },
        health::{Descriptors, Health, Sockstat, Sysctls},
        loss::Loss,
    },
    view::doctor::{Diagnosis, json, rules, text},
};

/// A server that leaks, while the host's orphans are near their limit.
fn diagnosis() -> Diagnosis {
    let leak = Standing {
        group: Group {
            ours: true,
            port: Some(8080),
            pid: Some(4123),
            raddr: Some(addr("10.0.0.9")),
            ..Group::default()
        },
        state: Some(State::CLOSE_WAIT),
        count: 333,
        before: 83,
        owner: Some(owner(4123, b"api", OwnerSource::Listener)),
        ages_ns: (0..333).map(|age| age * 100_000_000).collect(),
        examples: vec![event(0).tuple],
        ..Standing::default()
    };
    let namespace = Namespace {
        latest: Health {
            sockstat: Sockstat { orphans: 900, time_wait: 0, pages: 10 },
            sysctls: Sysctls(vec![("tcp_max_orphans", vec![1000]), ("tcp_mem", vec![100, 200, 300])]),
            ..Health::default()
        },
        ..Namespace::default()
    };
    let facts = Facts {
        watched_ns: 10_000_000_000,
        namespaces: vec![namespace],
        standing: vec![leak],
        processes: [(4123, Descriptors { open: 350, limit: Some(1024) })].into_iter().collect(),
        ..Facts::default()
    };
    Diagnosis { findings: judge(&facts, &Limits::default()), sockets: 1790, listeners: 2, namespaces: 1 }
}

fn summary(lost: Loss) -> Summary {
    Summary { ts_ns: START_NS + 10_000_000_000, events: 1926, lost, elapsed_us: 10_000_000 }
}

#[test]
fn findings_for_people() {
    for columns in [40, 80] {
        let told = text(&diagnosis(), &summary(Loss::default()), Some(columns), false);
        let commands = told.lines().filter(|line| !line.contains("tcptrace "));
        let widest = commands.map(|line| line.chars().count()).max();
        assert!(widest.is_some_and(|widest| widest <= usize::from(columns)), "{told}");
        insta::assert_snapshot!(format!("findings_on_{columns}_columns"), told);
    }
}

#[test]
fn colours_change_no_text() {
    let plain = text(&diagnosis(), &summary(Loss::default()), Some(80), false);
    let colored = text(&diagnosis(), &summary(Loss::default()), Some(80), true);
    assert!(!plain.contains('\u{1b}') && colored.contains('\u{1b}'));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
}

#[test]
fn findings_as_json() {
    let told = json(&diagnosis(), &summary(Loss::default()), &clock());
    insta::assert_snapshot!(told);
}

#[test]
fn a_healthy_host_is_told_so_and_losses_are_not_hidden() {
    let healthy = Diagnosis { sockets: 1, listeners: 1, namespaces: 1, ..Diagnosis::default() };
    let told = text(&healthy, &summary(Loss::default()), Some(80), false);
    assert!(told.starts_with("Nothing wrong. ") && !told.contains("lost"), "{told}");
    let lost = Loss { unreadable: 7, gaps: 2, ..Loss::default() };
    let told = text(&healthy, &summary(lost), Some(80), false);
    assert!(told.contains("Not everything was seen (7 lost, 2 gaps): counts may be too small."), "{told}");
}

#[test]
fn rules_fit_eighty_columns() {
    for line in rules(false).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn every_rule_and_threshold_is_documented() {
    let docs = include_str!("../../../../docs/findings.md");
    for rule in RULES {
        let row = docs.lines().find(|line| line.starts_with(&format!("| `{}` |", rule.name)));
        assert!(row.is_some(), "docs/findings.md has no row of {}", rule.name);
        let row = row.unwrap();
        let thresholds = rule.thresholds.iter();
        let thresholds: Vec<String> =
            thresholds.map(|one| format!("`{}={}`", one.name, one.unit.text(one.default))).collect();
        assert!(row.ends_with(&format!("| {} |", thresholds.join(" "))), "{row}\n{thresholds:?}");
    }
    let told = json(&diagnosis(), &summary(Loss::default()), &clock());
    for line in told.lines() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        for field in object.keys() {
            assert!(docs.contains(&format!("`{field}`")), "docs/findings.md does not have `{field}`");
        }
    }
}
