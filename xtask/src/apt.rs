//! Debian packages: which are missing, and installing them.

use anyhow::{Context, Result, bail};

use crate::host::{Workspace, program_path};

/// Packages with a service that nobody wants only because a test needs the program, and its unit.
const SERVICES: [(&str, &str); 2] = [("nginx", "nginx.service"), ("prometheus", "prometheus.service")];

/// Runs apt-get with the arguments, and lets no package start its service meanwhile: invoke-rc.d and
/// deb-systemd-invoke ask policy-rc.d. Where the administrator has one it stays, and decides.
const APT_GET: &str = "
    policy=/usr/sbin/policy-rc.d
    if ! [ -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 130' HUP INT TERM
        printf '#!/bin/sh\\nexit 101\\n' > $policy
        chmod 755 $policy
    fi
    DEBIAN_FRONTEND=noninteractive apt-get \"$@\"
";

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
    install_from(workspace, &[], packages)
}

/// The same with options of apt-get that say where from.
pub(crate) fn install_from(workspace: &Workspace, from: &[&str], packages: &[&str]) -> Result<()> {
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
        Ok(workspace.as_root("sh")?.args(["-c", APT_GET, "apt-get"]).args(from).args(args).quiet().run()?)
    };
    // Without --no-remove, rustc-web would silently take the place of another rustc package.
    let install = [&["install", "-y", "--no-install-recommends", "--no-remove"], &missing[..]];
    apt_get(&["update"])
        .and_then(|()| apt_get(&install.concat()))
        .with_context(|| format!("cannot install these, install them yourself: {list}"))?;
    disable_services(workspace, &missing)
}

/// The packages' services do not start at the next boot either.
fn disable_services(workspace: &Workspace, installed: &[&str]) -> Result<()> {
    if program_path("systemctl").is_none() {
        return Ok(());
    }
    for (_, unit) in SERVICES.iter().filter(|(package, _)| installed.contains(package)) {
        workspace.as_root("systemctl")?.args(["disable", "--quiet", unit]).quiet().run()?;
    }
    Ok(())
}
