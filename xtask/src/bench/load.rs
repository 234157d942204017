//! The load generator, in a network namespace of its own, which goes when it does.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// The generator, waiting for what to do.
pub(super) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// What a run came to.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) connections: u64,
    pub(super) transitions: u64,
    pub(super) seconds: f64,
}

impl Run {
    pub(super) fn rate(&self) -> f64 {
        self.connections as f64 / self.seconds
    }
}

impl Load {
    /// Starts the generator with its arguments.
    pub(super) fn start(program: &Path, args: &[&str]) -> Result<Self> {
        let mut child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "load"])
            .arg(program)
            .arg("--control")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load generator (unshare, ip)")?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut load = Self { child, stdin, stdout };
        let ready = load.line()?;
        ensure!(ready == "ready", "the load generator is not ready: {ready}");
        Ok(load)
    }

    /// Makes connections for so long, so many per second; 0: as many as there can be.
    pub(super) fn run(&mut self, milliseconds: u64, rate: u64) -> Result<Run> {
        self.begin(milliseconds, rate)?;
        self.end()
    }

    /// Begins a run and does not wait for its end.
    pub(super) fn begin(&mut self, milliseconds: u64, rate: u64) -> Result<()> {
        Ok(writeln!(self.stdin.as_mut().context("no stdin")?, "{milliseconds} {rate}")?)
    }

    /// Waits for the end of the run.
    pub(super) fn end(&mut self) -> Result<Run> {
        let line = self.line()?;
        let json: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("the load generator says {line:?}"))?;
        let count = |name: &str| json[name].as_u64().with_context(|| format!("no {name}"));
        Ok(Run {
            connections: count("connections")?,
            transitions: count("transitions")?,
            seconds: json["seconds"].as_f64().context("no seconds")?,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It ends when there is nothing more to read; if not, with this.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
