//! deploy/prometheus as Prometheus sees it: the rules are well formed, each alert fires where it should and stays
//! silent beside it, on made-up series and on a real leak.

use std::fs;

use crate::{
    hist_cli::allow_many_files,
    support::{
        host::run,
        netns::scenario,
        process::await_that,
        prometheus::Prometheus,
        serve::Serve,
        tcp::{connect, pair},
    },
};

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

/// The rules with seconds for minutes.
fn hastened() -> String {
    let mut rules = fs::read_to_string(format!("{PROMETHEUS}/rules.yml")).unwrap();
    for (minutes, seconds) in
        [("15m", "15s"), ("10m", "10s"), ("5m", "5s"), ("3m", "3s"), ("2m", "2s"), ("> 300", "> 5")]
    {
        assert!(rules.contains(minutes), "{minutes}");
        rules = rules.replace(minutes, seconds);
    }
    rules
}

/// Connections of a server that does not close, beside one that does: the first is told of by port, and nothing else.
#[test]
fn a_leak_is_told_of() {
    scenario(|net| {
        allow_many_files();
        let (leaky, orderly) = (pair(), pair());
        let port = leaky.ends.listener.lport.to_string();
        // What the test asks Prometheus is none of it.
        let serve = Serve::of(net, &["-P", &format!("{port},{}", orderly.ends.listener.lport)]);
        let prometheus = Prometheus::of(&serve, Some(&hastened()));
        let mut leaked = Vec::new();
        let fires = || {
            let alerts = Prometheus::query("ALERTS{alertstate=\"firing\"}");
            alerts.into_iter().map(|(labels, _)| labels).collect::<Vec<_>>()
        };
        let seen = format!("sum(tcptrace_sockets{{port=\"{port}\",state=\"CLOSE_WAIT\"}})");
        await_that("the alert of the leak fires", || {
            // Some more each time that Prometheus has seen the last.
            if Prometheus::query(&format!("{seen} == {}", leaked.len())).len() == 1 {
                leaked.extend((0..10).map(|_| connect(&leaky.listener).1));
                (0..10).for_each(|_| drop(connect(&orderly.listener)));
            }
            fires().iter().any(|alert| alert["alertname"] == "TcpCloseWaitGrowth")
        });
        for alert in fires() {
            // doctor finds it, too.
            let known = match alert["alertname"].as_str().unwrap() {
                "TcpCloseWaitGrowth" => alert["port"] == *port && alert["role"] == "server",
                "TcpCriticalFinding" => alert["rule"] == "close-wait-leak",
                _ => false,
            };
            assert!(known, "{alert}\n{}", serve.metrics());
        }
        prometheus.stop();
        serve.stop();
    });
}
