//! `tcptrace probes`: what it says of the running kernel, and whether it would say so if something were not seen.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{
    host::{KERNEL, run},
    netns::scenario,
};

fn probes(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcptrace")).arg("probes").args(args).output().unwrap()
}

fn lines(output: &Output, kind: &str) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["kind"] == kind)
        .collect()
}

#[test]
fn everything_is_seen() {
    scenario(|_| {
        let output = probes(&["-o", "json"]);
        assert!(output.status.success(), "{output:?}");
        let probes = lines(&output, "probe");
        assert_eq!(probes.len(), 6);
        for probe in &probes {
            let needed = KERNEL.no_recursion || probe["name"] != "inet_sock_set_state_again";
            assert_eq!(probe["attached"], needed, "{probe:?}");
            assert!(!needed || probe["insns"].as_u64() > Some(100), "{probe:?}");
        }
        let checks = lines(&output, "self_test");
        assert_eq!(checks.len(), 4);
        assert!(checks.iter().all(|check| check["ok"] == true), "{checks:?}");
        let [kernel] = &lines(&output, "kernel")[..] else { panic!("{output:?}") };
        assert_eq!(kernel["release"], run("uname", &["-r"]).trim());
        assert_eq!(kernel["rst_without_socket"], KERNEL.stray_resets);
        let [cost] = &lines(&output, "cost")[..] else { panic!("{output:?}") };
        // A connection that is reset has at least six transitions and a RST at each end.
        assert!(cost["runs"].as_u64() >= Some(200 * 8) && cost["lost"] == 0, "{cost:?}");
        assert!((10..1_000_000).contains(&cost["ns_per_event"].as_u64().unwrap()), "{cost:?}");
    });
}

/// For people: every line fits a terminal of 80 columns.
#[test]
fn the_text_fits_a_terminal() {
    scenario(|_| {
        let output = probes(&[]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.matches("  ok ").count(), 4, "{text}");
    });
}

/// On a host that drops its own packets nothing is seen, and that is said.
#[test]
fn what_is_not_seen_is_said() {
    scenario(|_| {
        run("ip", &["link", "set", "lo", "down"]);
        let output = probes(&["-o", "json"]);
        run("ip", &["link", "set", "lo", "up"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let checks = lines(&output, "self_test");
        assert!(checks.iter().all(|check| check["ok"] == false), "{checks:?}");
    });
}
