//! deploy/prometheus as Prometheus' own tool sees it: the rules are well formed, each alert fires where it should and
//! stays silent beside it, and the configuration is one.

use crate::support::host::run;

const PROMETHEUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus");

#[test]
fn rules() {
    let told = run("promtool", &["check", "rules", &format!("{PROMETHEUS}/rules.yml")]);
    assert!(told.contains("SUCCESS"), "{told}");
    let told = run("promtool", &["test", "rules", &format!("{PROMETHEUS}/rules_test.yml")]);
    assert!(told.contains("SUCCESS"), "{told}");
}

#[test]
fn configuration() {
    // The token's file is on the host that Prometheus runs on.
    run("promtool", &["check", "config", "--syntax-only", &format!("{PROMETHEUS}/prometheus.yml")]);
}
