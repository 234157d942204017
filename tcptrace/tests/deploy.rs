//! What deploy/ says of tcptrace is so: its metrics and their labels are in docs/metrics.md, its rules and states exist,
//! and the two units have one sandbox.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
};

use tcptrace::model::{doctor::RULES, state::State};

/// What Prometheus itself adds.
const SCRAPED: [&str; 2] = ["instance", "job"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics in the table of docs/metrics.md, as Prometheus stores them, each with its labels.
fn metrics() -> HashMap<String, BTreeSet<String>> {
    let docs = read("docs/metrics.md");
    let mut found = HashMap::new();
    for line in docs.lines().filter(|line| line.starts_with("| `tcptrace_")) {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, name, kind, labels, ..] = cells[..] else { panic!("not a row of the table: {line}") };
        let labels: BTreeSet<_> = labels.split(' ').chain(SCRAPED).map(str::to_owned).collect();
        if kind == "histogram" {
            let bucket = labels.iter().cloned().chain(["le".to_owned()]).collect();
            found.insert(format!("{name}_bucket"), bucket);
            found.insert(format!("{name}_count"), labels.clone());
            found.insert(format!("{name}_sum"), labels);
        } else {
            found.insert(name.to_owned(), labels);
        }
    }
    assert!(found.len() > 10, "docs/metrics.md has no table of metrics");
    found
}

/// A metric where it is used, with the conditions in braces behind it: label and value.
struct Use {
    metric: String,
    conditions: Vec<(String, String)>,
}

fn uses(text: &str) -> Vec<Use> {
    let text = text.replace("\\\"", "\"");
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("tcptrace_") {
        if text[..at].ends_with(name) {
            continue;
        }
        let (metric, rest) = text[at..].split_at(text[at..].find(|c| !name(c)).unwrap());
        let inside = rest.strip_prefix('{').map_or("", |rest| rest.split_once('}').unwrap().0);
        let conditions = inside.split(", ").filter(|condition| !condition.is_empty()).map(|condition| {
            let (label, value) = condition.split_once('=').unwrap_or_else(|| {
                condition.split_once("!~").unwrap_or_else(|| panic!("not a condition: {condition}"))
            });
            (label.trim_end_matches('!').to_owned(), value.trim_matches(['~', '"']).to_owned())
        });
        found.push(Use { metric: metric.to_owned(), conditions: conditions.collect() });
    }
    found
}

#[test]
fn what_prometheus_is_asked_for_exists() {
    let metrics = metrics();
    for path in
        ["deploy/prometheus/rules.yml", "deploy/prometheus/rules_test.yml", "deploy/grafana/tcptrace.json"]
    {
        let uses = uses(&read(path));
        assert!(uses.len() > 10, "{path} uses no metrics");
        for Use { metric, conditions } in uses {
            let Some(labels) = metrics.get(&metric) else { panic!("{path}: no {metric} in docs/metrics.md") };
            for (label, value) in conditions {
                assert!(labels.contains(&label), "{path}: {metric} has no label {label}");
                for value in value.split('|') {
                    let known = match label.as_str() {
                        "rule" => RULES.iter().any(|rule| rule.name == value),
                        "state" => State::all().any(|state| state.name() == value),
                        _ => true,
                    };
                    assert!(known, "{path}: {metric} never has {label}=\"{value}\"");
                }
            }
        }
    }
}

/// What `by`, `on` and `ignoring` name, and legends and annotations show.
#[test]
fn the_dashboard_names_labels_that_exist() {
    let known: BTreeSet<_> = metrics().into_values().flatten().collect();
    let dashboard = read("deploy/grafana/tcptrace.json");
    let rules = read("deploy/prometheus/rules.yml");
    let between = |text: &str, open: &str, close: &str| -> Vec<String> {
        let parts = text.split(open).skip(1).map(|rest| rest.split_once(close).unwrap().0);
        parts.flat_map(|names| names.split(", ")).map(|name| name.trim().to_owned()).collect()
    };
    let mut named = between(&dashboard, "{{", "}}");
    for text in [&dashboard, &rules] {
        for word in ["by (", "on (", "ignoring ("] {
            named.extend(between(text, word, ")"));
        }
    }
    named.extend(between(&rules, "$labels.", " }}"));
    assert!(named.len() > 50, "{named:?}");
    for name in named {
        assert!(known.contains(&name), "no metric has a label {name}");
    }
}

/// A unit's settings, without those in which the two differ.
fn sandbox(path: &str) -> Vec<String> {
    let differ = ["Description=", "ExecStart=", "StateDirectory=", "StateDirectoryMode="];
    let unit = read(path);
    let settings = unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    settings.filter(|line| !differ.iter().any(|key| line.starts_with(key))).map(str::to_owned).collect()
}

#[test]
fn both_units_have_one_sandbox() {
    let serve = sandbox("deploy/systemd/tcptrace.service");
    assert!(serve.iter().any(|line| line == "ProtectSystem=strict"), "{serve:?}");
    assert_eq!(serve, sandbox("deploy/systemd/tcptrace-record.service"));
}
