//! Debian's archive: kernels of every series, and a QEMU that can boot them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use xshell::cmd;

use crate::{
    apt,
    host::{Workspace, program_path},
};

/// Where Debian has its kernels.
const SUITES: [(&str, &str); 5] = [
    ("debian", "bullseye"),
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "trixie"),
    ("debian", "trixie-backports"),
];
/// Where QEMU comes from on Debian 12: its own 7.2 makes a guest of 6.12 hang or fault now and then before its first
/// process, 10 does not.
const QEMU_SUITES: [(&str, &str); 3] =
    [("debian", "bookworm"), ("debian-security", "bookworm-security"), ("debian", "bookworm-backports")];
/// Modules that the tests need, in the order in which they are loaded.
const MODULES: [&str; 3] = ["inet_diag", "tcp_diag", "tun"];

/// A kernel, ready to boot.
pub(super) struct Kernel {
    pub(super) version: String,
    pub(super) image: PathBuf,
    pub(super) modules: Vec<PathBuf>,
}

/// Finds QEMU, or installs it.
pub(super) fn qemu(workspace: &Workspace) -> Result<()> {
    if program_path("qemu-system-x86_64").is_none() {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if release.contains("VERSION_CODENAME=bookworm") {
            let config = apt_config(&workspace.target_dir()?.join("vm/qemu-apt"), &QEMU_SUITES)?;
            let from = ["-c", &*config.to_string_lossy(), "-t", "bookworm-backports"];
            apt::install_from(workspace, &from, &["qemu-system-x86"])?;
        } else {
            apt::install(workspace, &["qemu-system-x86"])?;
        }
    }
    let wanted = ["xz", "dpkg-deb", "apt-get", "apt-cache", "ldd"];
    if let Some(missing) = wanted.iter().find(|program| program_path(program).is_none()) {
        bail!("there is no {missing}: kernels come from Debian's archive, by Debian's programs");
    }
    Ok(())
}

/// Debian's archive, by an apt of its own: what is installed here is not touched.
pub(super) struct Archive<'a> {
    workspace: &'a Workspace,
    directory: PathBuf,
    config: PathBuf,
    /// Names of kernel packages.
    packages: Vec<String>,
}

impl<'a> Archive<'a> {
    pub(super) fn open(workspace: &'a Workspace, directory: &Path) -> Result<Self> {
        let config = apt_config(&directory.join("apt"), &SUITES)?;
        let mut archive = Self { workspace, directory: directory.to_owned(), config, packages: Vec::new() };
        let sh = &workspace.sh;
        if let Err(error) = cmd!(sh, "apt-get update -qq").env("APT_CONFIG", &archive.config).quiet().run() {
            eprintln!(
                "xtask: the archive cannot be read ({error}): kernels that were downloaded before will do"
            );
        }
        let found = cmd!(sh, "apt-cache search -n ^linux-(image|binary|modules)-[0-9].*-cloud-amd64$")
            .env("APT_CONFIG", &archive.config)
            .quiet()
            .read()?;
        archive.packages =
            found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        Ok(archive)
    }

    /// The newest kernel of a series (`6.12`, or `7` for any 7.x).
    pub(super) fn newest(&self, series: &str) -> Result<Kernel> {
        let version = |package: &String| {
            let bare = package.strip_prefix("linux-image-").or(package.strip_prefix("linux-binary-"))?;
            let version = bare.strip_suffix("-cloud-amd64")?;
            let rest = version.strip_prefix(series)?;
            rest.starts_with('.').then(|| version.to_owned())
        };
        let newest = self.packages.iter().filter_map(version).max_by_key(|version| numbers(version));
        let version = newest.with_context(|| format!("Debian has no kernel of the series {series}"))?;
        let directory = self.directory.join("kernels").join(&version);
        if !directory.join("complete").exists() {
            self.download(&version, &directory)?;
        }
        let modules = MODULES.iter().enumerate().map(|(at, name)| directory.join(format!("{at}-{name}.ko")));
        Ok(Kernel {
            image: directory.join("vmlinuz"),
            modules: modules.filter(|module| module.exists()).collect(),
            version,
        })
    }

    fn download(&self, version: &str, directory: &Path) -> Result<()> {
        let sh = &self.workspace.sh;
        let unpacked = directory.join("unpacked");
        fs::create_dir_all(&unpacked)?;
        // Images moved to linux-binary-*, modules to linux-modules-*; the older packages have both.
        let wanted = ["binary", "modules", "image"].map(|part| format!("linux-{part}-{version}-cloud-amd64"));
        for name in wanted.iter().filter(|name| self.packages.contains(name)) {
            let _directory = sh.push_dir(directory);
            cmd!(sh, "apt-get download -qq {name}").env("APT_CONFIG", &self.config).quiet().run()?;
        }
        for package in
            files(directory)?.iter().filter(|path| path.extension().is_some_and(|end| end == "deb"))
        {
            cmd!(sh, "dpkg-deb --extract {package} {unpacked}").quiet().run()?;
            fs::remove_file(package)?;
        }
        let all = all_files(&unpacked)?;
        let named = |start: &str| {
            let is_it = |path: &&PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
            };
            all.iter().find(is_it).cloned()
        };
        let image =
            named("vmlinuz").with_context(|| format!("there is no image in the packages of {version}"))?;
        fs::copy(image, directory.join("vmlinuz"))?;
        for (at, name) in MODULES.iter().enumerate() {
            let to = directory.join(format!("{at}-{name}.ko"));
            if let Some(plain) = named(&format!("{name}.ko")) {
                if plain.extension().is_some_and(|end| end == "xz") {
                    let mut unpack =
                        Command::new("xz").arg("-dc").arg(&plain).stdout(fs::File::create(&to)?).spawn()?;
                    if !unpack.wait()?.success() {
                        bail!("{} cannot be unpacked", plain.display());
                    }
                } else {
                    fs::copy(plain, to)?;
                }
            }
        }
        fs::remove_dir_all(unpacked)?;
        Ok(fs::write(directory.join("complete"), "")?)
    }
}

/// A configuration by which apt reads these suites, and nothing of this host's but what is installed.
fn apt_config(directory: &Path, suites: &[(&str, &str)]) -> Result<PathBuf> {
    for below in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(directory.join(below))?;
    }
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = |(archive, suite): &(&str, &str)| {
        format!("deb [arch=amd64 signed-by={key}] http://deb.debian.org/{archive} {suite} main\n")
    };
    fs::write(directory.join("sources.list"), suites.iter().map(line).collect::<String>())?;
    let config = directory.join("apt.conf");
    let at = directory.display();
    fs::write(
        &config,
        format!(
            "Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::State::Lists \"{at}/lists\";\n\
             Dir::Cache \"{at}/cache\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        ),
    )?;
    Ok(config)
}

/// The numbers in a version, for comparing.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(directory)?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .collect())
}

fn all_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(directory)? {
        if path.is_dir() && !path.is_symlink() {
            found.extend(all_files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_newest_by_number() {
        let mut versions = vec!["6.12.9+deb13", "6.12.117+deb13", "6.12.48+deb13"];
        versions.sort_by_key(|version| numbers(version));
        assert_eq!(versions, ["6.12.9+deb13", "6.12.48+deb13", "6.12.117+deb13"]);
    }
}
