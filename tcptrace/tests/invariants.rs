//! The invariants of docs/architecture.md that can be read off the sources.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Every Rust source below a directory of this crate.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    assert!(!found.is_empty(), "no sources below {below}");
    found
}

/// Lines of code with one of the words in them, outside the files that may have it.
fn offences(below: &str, words: &[&str], except: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(below) {
        let name = path.to_string_lossy().into_owned();
        let test = name.ends_with("tests.rs") || name.contains("/tests/");
        if test || except.iter().any(|except| name.ends_with(except)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && words.iter().any(|word| code.contains(word)) {
                found.push(format!("{name}:{}: {code}", number + 1));
            }
        }
    }
    found
}

fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn the_model_is_pure() {
    let words = [
        "aya::",
        "tokio::",
        "std::fs",
        "std::io",
        "std::env",
        "std::time",
        "Instant",
        "SystemTime",
        "rustix",
        "crate::kernel",
        "crate::view",
        "crate::source",
        "println!",
        "std::thread",
    ];
    none(&offences("src/model", &words, &[]), "model/ knows no host, clock or terminal");
}

#[test]
fn unsafe_stands_in_the_ring_reader_alone() {
    none(&offences("src", &["unsafe "], &["source/live.rs"]), "unsafe only in the ring reader");
}

#[test]
fn only_output_writes_to_stdout() {
    let words = ["stdout()", "println!", "print!("];
    // `watch` and `replay` open the output, `lines` asks whether it takes colours.
    let except = ["view/output.rs", "commands/watch.rs", "commands/replay.rs", "commands/lines.rs"];
    none(&offences("src", &words, &except), "only view/output.rs writes to stdout");
}

#[test]
fn only_kernel_reads_the_host() {
    let words = ["/proc/", "/sys/", "/run/", "std::fs", "fs::read"];
    // /proc/self/fd/1 is stdout by another name.
    let except = ["view/output.rs"];
    let found = offences("src", &words, &except);
    // Recordings are files of our own, not of the host.
    let elsewhere = |line: &String| !line.contains("src/kernel/") && !line.contains("src/recording/");
    let found: Vec<String> = found.into_iter().filter(elsewhere).collect();
    // The help names files as examples.
    let found: Vec<String> = found.into_iter().filter(|line| !line.contains("src/cli/args.rs")).collect();
    none(&found, "only kernel/ reads the host");
}

#[test]
fn every_probe_says_its_prototype() {
    for name in [
        "inet_sock_set_state",
        "tcp_send_reset",
        "tcp_receive_reset",
        "tcp_retransmit_skb",
        "tcp_retransmit_synack",
    ] {
        let path = format!("../tcptrace-ebpf/src/{name}.rs");
        let (_, text) = sources(&path).pop().unwrap_or_else(|| panic!("{path} is not there"));
        assert!(text.contains(&format!("//! `void {name}(")), "{path} does not begin with its C prototype");
    }
}
