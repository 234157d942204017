//! Where things are: the workspace, programs on this host, root's rights.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell};

/// The checkout that a chore works on.
pub(crate) struct Workspace {
    /// A shell whose directory is `root`.
    pub(crate) sh: Shell,
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// Finds the checkout by what cargo tells a program at run time: two checkouts may share a
    /// target directory, and with it one xtask.
    pub(crate) fn find() -> Result<Self> {
        let Some(manifest_dir) = env::var_os("CARGO_MANIFEST_DIR") else {
            bail!("the checkout is unknown (no CARGO_MANIFEST_DIR): run this as `cargo xtask`");
        };
        let root = Path::new(&manifest_dir)
            .join("..")
            .canonicalize()
            .context("cannot find the workspace directory")?;
        let sh = Shell::new()?;
        sh.change_dir(&root);
        Ok(Self { sh, root })
    }

    /// Where cargo puts what it builds for this host.
    pub(crate) fn target_dir(&self) -> Result<PathBuf> {
        Ok(match env::var_os("CARGO_TARGET_DIR") {
            // Relative to the directory in which cargo was called.
            Some(dir) => env::current_dir()?.join(dir),
            None => self.root.join("target"),
        })
    }

    /// `program` as root: as it is, or through sudo.
    pub(crate) fn as_root(&self, program: &str) -> Result<Cmd<'_>> {
        if is_root() {
            Ok(self.sh.cmd(program))
        } else if let Some(sudo) = program_path("sudo") {
            Ok(self.sh.cmd(sudo).arg(program))
        } else {
            bail!("this user is not root, and there is no sudo: run this chore as root");
        }
    }
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where `name` is installed. On Debian an ordinary user's PATH lacks the sbin directories.
pub(crate) fn program_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
