//! `cargo xtask fleet`: three hosts record, and three engines answer the queries of deploy/fleet as tcptrace does.

use anyhow::Result;
use xshell::cmd;

use crate::apt;
use crate::host::Workspace;

/// Python makes the environment, Spark needs Java, and the hosts are made by ip.
const PACKAGES: [&str; 3] = ["python3-venv", "default-jre-headless", "iproute2"];

/// Builds tcptrace and runs the check, with the engines in a Python environment below the target directory.
pub(crate) fn run(workspace: &Workspace, seconds: u32) -> Result<()> {
    let (sh, target_dir) = (&workspace.sh, workspace.target_dir()?);
    apt::install(workspace, &PACKAGES)?;
    let environment = target_dir.join("fleet");
    let python = environment.join("bin/python");
    cmd!(sh, "python3 -m venv {environment}").quiet().run()?;
    cmd!(sh, "{python} -m pip install --quiet --requirement deploy/fleet/check/requirements.txt")
        .quiet()
        .run()?;
    cmd!(sh, "cargo build --release --package tcptrace --target-dir {target_dir}").quiet().run()?;
    let program = target_dir.join("release/tcptrace");
    let check = workspace.as_root("env")?.arg("PYTHONDONTWRITEBYTECODE=1").arg(python);
    let check = check.arg("deploy/fleet/check/check.py").arg(program);
    Ok(check.args(["--seconds", &seconds.to_string()]).quiet().run()?)
}
