//! What the guest has for a disk: the programs that it runs, with all that they need.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use xshell::cmd;

use super::archive::Kernel;
use crate::host::{Workspace, program_path};

/// Programs that the tests run. What is not installed here is not there.
const PROGRAMS: [&str; 18] = [
    "sh", "ip", "ss", "curl", "cat", "grep", "head", "tr", "stty", "sleep", "tmux", "true", "env", "uname",
    "setpriv", "unshare", "mount", "bpftool",
];
/// Tests that need programs which are too large for a machine without a disk (bpftrace, servers), or speed that
/// emulation does not have.
const NOT_THERE: [&str; 3] = ["programs::", "agreement::with_bpftrace", "crowd::"];

/// What the guest runs.
pub(super) struct Programs {
    init: PathBuf,
    live: PathBuf,
    tcptrace: PathBuf,
}

impl Programs {
    /// Compiles them.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let sh = &workspace.sh;
        cmd!(sh, "cargo build --quiet --package xtask --bin vm-init").run()?;
        let told =
            cmd!(sh, "cargo test --quiet --package tcptrace --test live --no-run --message-format json")
                .read()?;
        // An object for each artifact; the test program is the one with an executable whose target is `live`.
        let executable = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            let live = message["target"]["name"] == "live";
            message["executable"].as_str().filter(|_| live).map(str::to_owned)
        };
        let live = told.lines().find_map(executable).context("cargo did not say where the live tests are")?;
        let debug = workspace.target_dir()?.join("debug");
        Ok(Self { init: debug.join("vm-init"), live: live.into(), tcptrace: debug.join("tcptrace") })
    }
}

/// The initramfs.
pub(super) fn pack(kernel: &Kernel, programs: &Programs, tests: &[&str]) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    archive.file("/init", 0o755, &fs::read(&programs.init)?);
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("/modules/{name}"), 0o644, &fs::read(module)?);
    }
    let live = "/live";
    archive.file(live, 0o755, &stripped(&programs.live)?);
    // The tests know it by its path.
    let tcptrace = programs.tcptrace.to_string_lossy();
    archive.file(&tcptrace, 0o755, &stripped(&programs.tcptrace)?);
    let skipped = NOT_THERE.iter().flat_map(|test| ["--skip", test]);
    let tests: Vec<&str> =
        [live, "--color", "never"].into_iter().chain(tests.iter().copied()).chain(skipped).collect();
    let commands: [&[&str]; 3] =
        [&["ip", "link", "set", "lo", "up"], &[&*tcptrace, "probes", "-o", "json"], &tests];
    let commands = commands.map(|words| words.join("\n") + "\n");
    archive.file("/commands", 0o644, commands.join("\n").as_bytes());

    let mut libraries = BTreeSet::new();
    for program in [&programs.init, &programs.live, &programs.tcptrace] {
        libraries.extend(libraries_of(program)?);
    }
    for name in PROGRAMS {
        if let Some(program) = program_path(name) {
            libraries.extend(libraries_of(&program)?);
            archive.file(&format!("/bin/{name}"), 0o755, &fs::read(&program)?);
        }
    }
    for library in libraries {
        archive.file(&library.to_string_lossy(), 0o755, &fs::read(&library)?);
    }
    for terminal in ["x/xterm-256color", "s/screen", "t/tmux-256color", "s/screen-256color", "l/linux"] {
        for place in ["/lib/terminfo", "/usr/share/terminfo"] {
            if let Ok(description) = fs::read(format!("{place}/{terminal}")) {
                archive.file(&format!("/lib/terminfo/{terminal}"), 0o644, &description);
                break;
            }
        }
    }
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    archive.file("/etc/group", 0o644, b"root:x:0:\n");
    Ok(archive.finish())
}

/// The program without what is only for debuggers: it has to be loaded whole.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let to = program.with_extension("stripped");
    let done = Command::new("strip").args(["--strip-debug", "-o"]).arg(&to).arg(program).status();
    let bytes = match done {
        Ok(status) if status.success() => fs::read(&to)?,
        _ => fs::read(program)?,
    };
    let _ = fs::remove_file(to);
    Ok(bytes)
}

/// The libraries that the loader would load, and the loader.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, and the loader without an arrow.
    let path = |line: &str| {
        let after = line.split_once("=>").map_or(line, |(_, path)| path);
        after.split_whitespace().next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    Ok(text.lines().filter_map(path).collect())
}

/// An archive in the format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Cpio {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if self.directories.insert(path[..at].to_owned()) {
                self.entry(&path[..at], 0o040_755, &[]);
            }
        }
        self.entry(path, 0o100_000 | mode, content);
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name, size) = (path.len() + 1, content.len());
        let fields = [self.entries as usize, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0]
            .map(|field| format!("{field:08x}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(fields.concat().as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_directory_once() {
        let mut archive = Cpio::default();
        archive.file("/a/b/c", 0o644, b"12345");
        archive.file("/a/b/d", 0o644, b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let heads = bytes.windows(6).filter(|window| *window == b"070701").count();
        // a, a/b, a/b/c, a/b/d, TRAILER!!!
        assert_eq!(heads, 5);
    }
}
