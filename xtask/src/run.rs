//! `cargo xtask run`: build tcptrace, then become it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::host::{Workspace, is_root, program_path};

/// Builds tcptrace and replaces this process by it. Returns only when that fails.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<()> {
    let (sh, target_dir) = (&workspace.sh, workspace.target_dir()?);
    cmd!(sh, "cargo build --release --package tcptrace --target-dir {target_dir}").quiet().run()?;

    let program = target_dir.join("release/tcptrace");
    let mut command = if is_root() || only_talks(args) {
        Command::new(&program)
    } else if let Some(sudo) = program_path("sudo") {
        eprintln!("xtask: loading eBPF programs needs root: running tcptrace through sudo");
        let mut command = Command::new(sudo);
        command.arg("--").arg(&program);
        command
    } else {
        let program = program.display();
        bail!("loading eBPF programs needs root, and there is no sudo: run {program} as root");
    };
    Err(command.args(args).exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// Whether tcptrace only prints its help or version for `args`, which needs no rights.
fn only_talks(args: &[String]) -> bool {
    args.first().is_some_and(|first| first == "help")
        || args
            .iter()
            .take_while(|arg| *arg != "--")
            .any(|arg| matches!(arg.as_str(), "-h" | "--help" | "-V" | "--version"))
}

#[cfg(test)]
mod tests {
    use super::only_talks;

    #[test]
    fn help_and_version_need_no_root() {
        let talks = |line: &str| only_talks(&line.split_whitespace().map(String::from).collect::<Vec<_>>());
        for line in ["help", "help watch", "--help", "watch --help", "-V", "--version"] {
            assert!(talks(line), "{line}");
        }
        for line in ["", "watch", "watch help", "run -- --help"] {
            assert!(!talks(line), "{line}");
        }
    }
}
