//! Debian packages: which are missing, and installing them.

use anyhow::{Context, Result, bail};

use crate::host::{Workspace, program_path};

/// Whether this host has apt and dpkg.
pub(crate) fn available() -> bool {
    program_path("apt-get").is_some() && program_path("dpkg-query").is_some()
}

/// Those of `packages` that are not installed.
pub(crate) fn missing<'a>(workspace: &Workspace, packages: &[&'a str]) -> Vec<&'a str> {
    let sh = &workspace.sh;
    let installed = |package: &str| {
        // dpkg-query fails for a name that dpkg has never seen; that is an answer, too.
        sh.cmd("dpkg-query")
            .args(["--show", "--showformat=${db:Status-Status}", package])
            .quiet()
            .ignore_stderr()
            .read()
            .is_ok_and(|status| status == "installed")
    };
    packages.iter().copied().filter(|package| !installed(package)).collect()
}

/// Installs those of `packages` that are missing.
pub(crate) fn install(workspace: &Workspace, packages: &[&str]) -> Result<()> {
    let missing = missing(workspace, packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !available() {
        bail!("these packages are missing, and there is no apt-get to install them: {list}");
    }
    eprintln!("xtask: installing Debian packages: {list}");
    let apt_get = |args: &[&str]| -> Result<()> {
        let env = workspace.as_root("env")?.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        Ok(env.args(args).run()?)
    };
    // Without --no-remove, rustc-web would silently take the place of another rustc package.
    let install = [&["install", "-y", "--no-install-recommends", "--no-remove"], &missing[..]];
    apt_get(&["update"])
        .and_then(|()| apt_get(&install.concat()))
        .with_context(|| format!("cannot install these, install them yourself: {list}"))
}
