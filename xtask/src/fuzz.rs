//! `cargo xtask fuzz`: the targets of fuzz/, each for a while.
//!
//! What a run finds stays in target/fuzz/corpus, where the next run goes on from it; fuzz/corpus is only read.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::host::Workspace;
use crate::tools::{OTHERS, without_others};

const CARGO_FUZZ_VERSION: &str = "0.13.2";
const TARGETS: [&str; 4] = ["record", "btf", "filter", "proc"];
/// An input that takes so many seconds counts as endless.
const ENDLESS: u32 = 10;

/// Whether there is a nightly compiler: no other has what libFuzzer needs.
pub(crate) fn has_nightly(workspace: &Workspace) -> bool {
    // Without rustup there is no `+nightly`; with it, asking must not start a download.
    let ask = without_others(cmd!(workspace.sh, "rustc +nightly --version"));
    ask.env("RUSTUP_AUTO_INSTALL", "0").quiet().ignore_stderr().read().is_ok()
}

/// Runs the targets (all, if none is named) for so many seconds each, as many at a time as there are processors.
/// Fails when one crashes.
pub(crate) fn run(workspace: &Workspace, seconds: u32, targets: &[String]) -> Result<()> {
    let unknown = targets.iter().find(|target| !TARGETS.contains(&target.as_str()));
    if let Some(unknown) = unknown {
        bail!("there is no fuzz target {unknown}, only {}", TARGETS.join(" "));
    }
    if !has_nightly(workspace) {
        bail!("fuzzing needs a nightly compiler: `rustup toolchain install nightly`");
    }
    let named = |target: &&str| targets.is_empty() || targets.iter().any(|named| named == target);
    let targets: Vec<&str> = TARGETS.into_iter().filter(named).collect();
    let programs = build(workspace)?;
    let at_a_time = thread::available_parallelism().map_or(1, usize::from);
    let mut crashed = Vec::new();
    for together in targets.chunks(at_a_time) {
        println!("xtask: fuzzing {} for {seconds} s", together.join(" and "));
        let mut running = Vec::new();
        for target in together {
            match Run::start(workspace, &programs, target, seconds) {
                Ok(run) => running.push(run),
                Err(error) => {
                    running.iter_mut().for_each(Run::kill);
                    return Err(error);
                }
            }
        }
        for run in running {
            let target = run.target;
            if !run.passes()? {
                crashed.push(target);
            }
        }
    }
    if crashed.is_empty() { Ok(()) } else { bail!("these crashed: {}", crashed.join(" ")) }
}

/// Builds the targets; gives the directory of their programs.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let Workspace { sh, root } = workspace;
    let cargo_fuzz = cargo_fuzz(workspace)?;
    // cargo-fuzz has no --locked: cargo would mend the lock file in silence, and dirty the checkout.
    cmd!(sh, "cargo tree --locked --depth 0 --manifest-path fuzz/Cargo.toml")
        .quiet()
        .ignore_stdout()
        .run()
        .context(
        "fuzz/Cargo.lock is older than the manifests: `cargo update -w --manifest-path fuzz/Cargo.toml`",
    )?;
    let target_dir = root.join("target/fuzz");
    let host = host(workspace)?;
    // The code has no unsafe block that a sanitizer could watch here, and runs twice as fast without.
    without_others(cmd!(sh, "{cargo_fuzz} build --fuzz-dir fuzz --target-dir {target_dir}"))
        .args(["--sanitizer", "none", "--target", &host])
        .env("RUSTUP_TOOLCHAIN", "nightly")
        .quiet()
        .run()
        .context("cannot build the fuzz targets (libFuzzer needs a C++ compiler, too)")?;
    Ok(target_dir.join(host).join("release"))
}

/// What the nightly compiler compiles for by itself.
fn host(workspace: &Workspace) -> Result<String> {
    let says = without_others(cmd!(workspace.sh, "rustc +nightly -vV")).quiet().read()?;
    let host = says.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// The cargo-fuzz in target/tools; installs it there.
fn cargo_fuzz(workspace: &Workspace) -> Result<PathBuf> {
    let (sh, root) = (&workspace.sh, workspace.root.join("target/tools"));
    let program = root.join("bin/cargo-fuzz");
    // cargo's record of what it installed there.
    let record = sh.read_file(root.join(".crates2.json")).unwrap_or_default();
    if !program.exists() || !record.contains(&format!("\"cargo-fuzz {CARGO_FUZZ_VERSION} ")) {
        eprintln!("xtask: building cargo-fuzz {CARGO_FUZZ_VERSION}");
        cmd!(sh, "cargo install cargo-fuzz --version {CARGO_FUZZ_VERSION} --locked --force --root {root}")
            .run()
            .with_context(|| format!("cannot build cargo-fuzz {CARGO_FUZZ_VERSION}"))?;
    }
    Ok(program)
}

/// A target that runs.
struct Run<'a> {
    target: &'a str,
    program: PathBuf,
    child: Child,
    /// What it says.
    log: PathBuf,
}

impl<'a> Run<'a> {
    fn start(workspace: &Workspace, programs: &Path, target: &'a str, seconds: u32) -> Result<Self> {
        let work = workspace.root.join("target/fuzz");
        let (finds, artifacts) = (work.join("corpus").join(target), work.join("artifacts").join(target));
        for dir in [&finds, &artifacts] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let log = work.join(format!("{target}.log"));
        let program = programs.join(target);
        let mut command = Command::new(&program);
        for name in OTHERS {
            command.env_remove(name);
        }
        let child = command
            .args([&finds, &workspace.root.join("fuzz/corpus").join(target)])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={ENDLESS}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { target, program, child, log })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end; says how it went. Returns whether nothing crashed.
    fn passes(mut self) -> Result<bool> {
        let status = self.child.wait()?;
        let said: Vec<String> = BufReader::new(File::open(&self.log)?)
            .split(b'\n')
            .map(|line| Ok(String::from_utf8_lossy(&line?).into_owned()))
            .collect::<Result<_>>()?;
        if status.success() {
            let done = said.iter().find(|line| line.contains("\tDONE ")).map_or("", String::as_str);
            println!("xtask:   {}: {done}", self.target);
            return Ok(true);
        }
        let from = said.iter().position(|line| line.contains("panicked at") || line.contains("ERROR:"));
        said.iter().skip(from.unwrap_or_else(|| said.len().saturating_sub(20))).take(40).for_each(|line| {
            println!("{line}");
        });
        println!("xtask:   {}: CRASHED ({status}); all it said is in {}", self.target, self.log.display());
        match said.iter().find_map(|line| input(line)) {
            Some(input) => println!("xtask:   once more: {} {input}", self.program.display()),
            None => println!("xtask:   it did not say on which input"),
        }
        Ok(false)
    }
}

/// The file in the line that names the input of a crash.
fn input(line: &str) -> Option<&str> {
    line.split_once("Test unit written to ").map(|(_, file)| file.trim())
}

#[cfg(test)]
mod tests {
    use super::input;

    #[test]
    fn the_input_of_a_crash_is_found() {
        let line = "artifact_prefix='/a/'; Test unit written to /a/crash-0123";
        assert_eq!(input(line), Some("/a/crash-0123"));
        assert_eq!(input("#7 NEW cov: 1"), None);
    }
}
