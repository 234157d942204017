//! What the eBPF object is made of: the hash of its sources, and the provenance file beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use xshell::cmd;

use crate::host::Workspace;

/// Where an eBPF object comes from: `key = value` lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// Hash over everything that goes into the object, see [`hash`].
    pub(crate) sources: String,
    /// Hash of the object itself.
    pub(crate) object: String,
    /// Who made it.
    pub(crate) made_by: MadeBy,
}

/// The versions that decide, together with the sources, which bytes come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MadeBy {
    /// The compiler with its LLVM.
    pub(crate) rustc: String,
    /// The linker.
    pub(crate) linker: String,
    /// What stripped the object.
    pub(crate) objcopy: String,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MadeBy { rustc, linker, objcopy } = &self.made_by;
        writeln!(f, "sources = {}", self.sources)?;
        writeln!(f, "object = {}", self.object)?;
        writeln!(f, "rustc = {rustc}")?;
        writeln!(f, "bpf-linker = {linker}")?;
        writeln!(f, "objcopy = {objcopy}")
    }
}

impl FromStr for Provenance {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lines: BTreeMap<_, _> = text.lines().filter_map(|line| line.split_once(" = ")).collect();
        let value = |key: &str| match lines.get(key) {
            Some(value) => Ok((*value).to_owned()),
            None => bail!("it has no line `{key} = …`"),
        };
        Ok(Self {
            sources: value("sources")?,
            object: value("object")?,
            made_by: MadeBy {
                rustc: value("rustc")?,
                linker: value("bpf-linker")?,
                objcopy: value("objcopy")?,
            },
        })
    }
}

/// The hash over everything in the checkout that decides what the object is: sources, versions of
/// the dependencies, release profile and `flags`. It is the same on every machine, with every
/// toolchain.
pub(crate) fn hash(workspace: &Workspace, flags: &[&str]) -> Result<String> {
    let sh = &workspace.sh;
    let mut parts = BTreeMap::new();
    for name in ["tcptrace-ebpf", "tcptrace-common"] {
        for file in ["Cargo.toml", "build.rs", "src"] {
            collect(&workspace.root, &format!("{name}/{file}"), &mut parts)?;
        }
    }
    // Without `--target all` the answer depends on the host.
    let tree = cmd!(sh, "cargo tree --package tcptrace-ebpf --edges normal --prefix none")
        .args(["--target", "all"])
        .quiet()
        .read()
        .context("cannot list the dependencies of tcptrace-ebpf")?;
    let manifest = sh.read_file("Cargo.toml")?;
    parts.insert("dependencies".to_owned(), dependencies(&tree).into_bytes());
    parts.insert("settings".to_owned(), settings(&manifest).into_bytes());
    parts.insert("flags".to_owned(), flags.join("\n").into_bytes());
    Ok(digest(&parts))
}

/// Adds the file `name`, or the files below the directory `name`, if there is such a thing.
fn collect(root: &Path, name: &str, parts: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let path = root.join(name);
    if path.is_dir() {
        for entry in fs::read_dir(&path).with_context(|| format!("cannot list {name}"))? {
            let entry = entry?.file_name().to_string_lossy().into_owned();
            // Editors leave hidden files behind.
            if !entry.starts_with('.') {
                collect(root, &format!("{name}/{entry}"), parts)?;
            }
        }
    } else if path.exists() {
        let content = fs::read(&path).with_context(|| format!("cannot read {name}"))?;
        parts.insert(name.to_owned(), content);
    }
    Ok(())
}

/// Each package in `cargo tree`'s answer, in order, without what differs between machines: the path
/// after a package of this workspace.
fn dependencies(tree: &str) -> String {
    let package = |line: &str| {
        let mut words = line.split(' ');
        Some(format!("{} {}\n", words.next()?, words.next()?))
    };
    tree.lines().filter_map(package).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The sections of the workspace's manifest that change what the compiler makes of the sources.
fn settings(manifest: &str) -> String {
    let mut inside = false;
    let mut settings = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.release") || line == "[workspace.package]";
        }
        if inside && !line.is_empty() && !line.starts_with('#') {
            settings.push_str(line);
            settings.push('\n');
        }
    }
    settings
}

/// One hash over named parts.
fn digest(parts: &BTreeMap<String, Vec<u8>>) -> String {
    let mut all = Sha256::new();
    for (name, content) in parts {
        // A hash of each part has a fixed length: no part can run into the next.
        all.update(Sha256::digest(name));
        all.update(Sha256::digest(content));
    }
    hex(&all.finalize())
}

/// The hash of `content`, as in a provenance file.
pub(crate) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(parts: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        parts.iter().map(|(name, content)| ((*name).to_owned(), (*content).into())).collect()
    }

    #[test]
    fn sha256_is_the_usual_one() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn digest_ignores_order_and_sees_every_change() {
        let digest = |list| digest(&parts(list));
        let one = digest(&[("a", "1"), ("b", "2")]);
        assert_eq!(one, digest(&[("b", "2"), ("a", "1")]));
        for other in
            [digest(&[("a", "12"), ("b", "")]), digest(&[("ab", "1"), ("", "2")]), digest(&[("a", "1")])]
        {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn dependencies_carry_no_path_and_no_order() {
        let tree = "tcptrace-ebpf v0.1.0 (/somewhere/tcptrace-ebpf)\naya-ebpf v0.2.1\n\
                    paste v1.0.15 (proc-macro)\naya-ebpf v0.2.1 (*)\n\nahead v2.0.0-rc.1+x\n";
        assert_eq!(
            dependencies(tree),
            "ahead v2.0.0-rc.1+x\naya-ebpf v0.2.1\npaste v1.0.15\ntcptrace-ebpf v0.1.0\n"
        );
    }

    #[test]
    fn settings_are_the_profile_and_the_package() {
        let manifest = "[workspace]\nmembers = []\n[workspace.package]\nedition = \"2024\"\n\n\
                        [workspace.lints.rust]\nx = 1\n\
                        [profile.release]\n# why\nlto = true\n[profile.dev]\ny = 2\n";
        assert_eq!(
            settings(manifest),
            "[workspace.package]\nedition = \"2024\"\n[profile.release]\nlto = true\n"
        );
    }

    #[test]
    fn provenance_reads_what_it_prints() -> Result<()> {
        let made_by = MadeBy { rustc: "rustc 1.0 = odd".into(), linker: "l 1".into(), objcopy: "o 1".into() };
        let provenance = Provenance { sources: "ab".into(), object: "cd".into(), made_by };
        assert_eq!(provenance.to_string().parse::<Provenance>()?, provenance);
        assert!("sources = ab\n".parse::<Provenance>().is_err());
        Ok(())
    }
}
