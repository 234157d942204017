//! `cargo xtask test`: set up, then every check and test, until the first that fails.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::host::{Workspace, is_root, program_path};
use crate::{apt, ebpf, fuzz, tools, vm};

/// Programs that the live tests use, each with its Debian package.
const PEERS: [(&str, &str); 12] = [
    ("bpftrace", "bpftrace"),
    ("bpftool", "bpftool"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("curl", "curl"),
    ("nginx", "nginx"),
    ("openssl", "openssl"),
    ("promtool", "prometheus"),
    ("tmux", "tmux"),
    ("wrk", "wrk"),
    ("redis-benchmark", "redis-tools"),
    // The server itself, under a name that does not bring a service along.
    ("redis-check-rdb", "redis-tools"),
];

/// How long each fuzz target runs: long enough for what is easily broken (`cargo xtask fuzz` runs them longer).
const FUZZ_SECONDS: u32 = 60;

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The tests that ran.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Runs everything; the last line printed is `N passed, M failed`.
pub(crate) fn run(workspace: &Workspace, live: bool, vm: bool) -> ExitCode {
    let mut tally = Tally::default();
    let fuzz = fuzz::has_nightly(workspace);
    let outcome = steps(workspace, &Parts { live, vm, fuzz }, &mut tally);
    match &outcome {
        Ok(()) if live && vm && fuzz => println!("xtask: PASSED"),
        Ok(()) => {
            if !live {
                println!("xtask: PASSED, BUT WITHOUT THE LIVE TESTS: no kernel saw our programs");
            }
            if !vm {
                println!("xtask: PASSED, BUT WITHOUT THE OTHER KERNELS");
            }
            if !fuzz {
                println!("xtask: PASSED, BUT WITHOUT FUZZING: `rustup toolchain install nightly`");
            }
        }
        Err(error) => {
            println!("xtask: FAILED: {error:#}");
            // Whoever reads only the last line must not take a failed step for a success.
            tally.failed = tally.failed.max(1);
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is to be done of that which not every host can do.
struct Parts {
    live: bool,
    vm: bool,
    fuzz: bool,
}

fn steps(workspace: &Workspace, parts: &Parts, tally: &mut Tally) -> Result<()> {
    let Parts { live, vm, fuzz } = *parts;
    let sh = &workspace.sh;
    if live {
        step("can the live tests run here?", || can_run_live(workspace))?;
    }
    let toolchain = step("set-up: eBPF toolchain", || tools::find_or_install(workspace))?;
    if live {
        step("set-up: programs for the live tests", || install_peers(workspace))?;
    }
    step("format", || {
        cmd!(sh, "cargo fmt --all --check").quiet().run()?;
        // A workspace of its own.
        Ok(cmd!(sh, "cargo fmt --manifest-path fuzz/Cargo.toml --check").quiet().run()?)
    })?;
    step("clippy", || {
        let clippy = cmd!(sh, "cargo clippy --workspace --exclude tcptrace-ebpf --all-targets");
        clippy.args(["--", "-D", "warnings"]).quiet().run()?;
        // `test = false` keeps it out of --all-targets.
        let live = cmd!(sh, "cargo clippy --package tcptrace --test live -- -D warnings");
        Ok(live.quiet().run()?)
    })?;
    step("clippy for eBPF", || ebpf::clippy(workspace, &toolchain))?;
    step("eBPF object", || ebpf::check(workspace, Some(&toolchain)))?;
    step("tests", || cargo_test(workspace, &["--workspace", "--exclude", "tcptrace-ebpf"], tally))?;
    if live {
        step("live tests", || {
            let mut args = vec!["--package", "tcptrace", "--test", "live"];
            if !is_root() {
                // Only the test program runs as root: what cargo writes stays its user's.
                args.extend(["--config", "target.'cfg(all())'.runner = 'sudo'"]);
            }
            cargo_test(workspace, &args, tally)
        })?;
    } else {
        println!("xtask: == LIVE TESTS LEFT OUT (--no-live)");
    }
    if vm {
        step("other kernels", || {
            let outcome = vm::run(workspace, &[], &vm::SMOKE, false)?;
            tally.passed += outcome.passed;
            tally.failed += outcome.failed;
            if outcome.good { Ok(()) } else { bail!("not all machines ended well") }
        })?;
    } else {
        println!("xtask: == OTHER KERNELS LEFT OUT (--no-vm)");
    }
    if fuzz {
        step("fuzzing", || fuzz::run(workspace, FUZZ_SECONDS, &[]))
    } else {
        println!("xtask: == FUZZING LEFT OUT: there is no nightly compiler");
        Ok(())
    }
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("xtask: == {name}");
    work().with_context(|| name.to_owned())
}

/// Fails, before anything that costs, where the live tests cannot run: to skip them would pass for
/// a success.
fn can_run_live(workspace: &Workspace) -> Result<()> {
    const ELSE: &str = "(`cargo xtask test --no-live` runs all but the live tests)";
    if !Path::new(KERNEL_BTF).exists() {
        bail!("no {KERNEL_BTF}: this kernel was built without CONFIG_DEBUG_INFO_BTF {ELSE}");
    }
    if is_root() && !has_sys_admin(&workspace.sh.read_file("/proc/self/status")?) {
        bail!("this root lacks CAP_SYS_ADMIN, as in a container: run on the host {ELSE}");
    }
    let missing = missing_peers();
    if !missing.is_empty() && !apt::available() {
        let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(" ");
        bail!("install these, there is no apt-get to do it: {programs} {ELSE}");
    }
    // Asks for sudo's password now, and not when somebody has gone for coffee.
    let root = workspace.as_root("true").and_then(|command| Ok(command.quiet().run()?));
    root.with_context(|| format!("the live tests need root {ELSE}"))
}

/// Whether a process with this `/proc/self/status` has `CAP_SYS_ADMIN`: the live tests load eBPF
/// programs and make network namespaces.
fn has_sys_admin(status: &str) -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & (1 << CAP_SYS_ADMIN) != 0)
}

fn missing_peers() -> Vec<(&'static str, &'static str)> {
    PEERS.into_iter().filter(|(program, _)| program_path(program).is_none()).collect()
}

fn install_peers(workspace: &Workspace) -> Result<()> {
    let mut packages: Vec<_> = missing_peers().into_iter().map(|(_, package)| package).collect();
    packages.dedup();
    apt::install(workspace, &packages)?;
    if let Some((program, package)) = missing_peers().first() {
        bail!("there is no program {program}, though Debian's package {package} is installed");
    }
    Ok(())
}

/// Runs `cargo test`, shows what it prints and counts its tests.
fn cargo_test(workspace: &Workspace, args: &[&str], tally: &mut Tally) -> Result<()> {
    let mut child = Command::new("cargo")
        .args(["test", "--no-fail-fast"])
        .args(args)
        .current_dir(&workspace.root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut ran = 0;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).split(b'\n')) {
        let line = line?;
        let mut screen = io::stdout().lock();
        screen.write_all(&line)?;
        screen.write_all(b"\n")?;
        if let Some(result) = test_result(&String::from_utf8_lossy(&line)) {
            ran += result.passed + result.failed;
            tally.passed += result.passed;
            tally.failed += result.failed;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test {}: {status}", args.join(" "));
    }
    if ran == 0 {
        bail!("cargo test {} ran no test at all", args.join(" "));
    }
    Ok(())
}

/// The numbers in the line that ends what one test program prints.
fn test_result(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?;
    let words: Vec<_> = counts.split([' ', ';']).collect();
    let count = |what| {
        let at = words.iter().position(|word| *word == what)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Some(Tally { passed: count("passed")?, failed: count("failed")? })
}

#[cfg(test)]
mod tests {
    use super::{Tally, has_sys_admin, test_result};

    #[test]
    fn test_results_are_counted() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; finished in 0.01s";
        assert_eq!(test_result(ok), Some(Tally { passed: 12, failed: 0 }));
        let failed = "test result: \x1b[31mFAILED\x1b[m. 3 passed; 2 failed; 0 ignored";
        assert_eq!(test_result(failed), Some(Tally { passed: 3, failed: 2 }));
        for line in ["", "test result: ok", "test x ... ok", "a test result: ok. 1 passed; 0 failed"] {
            assert_eq!(test_result(line), None, "{line}");
        }
    }

    #[test]
    fn root_in_a_container_lacks_sys_admin() {
        assert!(has_sys_admin("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_admin("Name:\tx\nCapEff:\t00000000a80425fb\n"));
        assert!(!has_sys_admin(""));
    }
}
