//! `cargo xtask ebpf`: the eBPF object in tcptrace/bpf, which the repository keeps so that a plain
//! `cargo build` needs no eBPF toolchain.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::host::Workspace;
use crate::sources::{self, Provenance};
use crate::tools::Toolchain;

const OBJECT: &str = "tcptrace/bpf/tcptrace.o";
const PROVENANCE: &str = "tcptrace/bpf/tcptrace.o.provenance";

/// The compiler's flags. bpf-linker makes BTF out of the debug information.
const FLAGS: [&str; 3] = ["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Clink-arg=--btf"];

/// What the object says in place of this machine's directories. No such directory exists: LLVM
/// quotes the sources that it can open, which would make the object differ between machines.
const CHECKOUT: &str = "/tcptrace-source";
const REGISTRY: &str = "/cargo-registry";
const RUST: &str = "/rust-source";

/// Builds the object and puts it, with its provenance, where tcptrace embeds it.
pub(crate) fn install(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let sh = &workspace.sh;
    let sources = sources(workspace)?;
    let built = build(workspace, toolchain, &workspace.root.join("target/ebpf"))?;
    let object = sh.read_binary_file(built)?;
    let provenance =
        Provenance { sources, object: sources::sha256(&object), made_by: toolchain.made_by.clone() };
    sh.write_file(OBJECT, &object)?;
    sh.write_file(PROVENANCE, provenance.to_string())?;
    println!("xtask: wrote {OBJECT} ({} bytes) and its provenance", object.len());
    Ok(())
}

/// Fails unless the object in tcptrace/bpf is what its sources give. Only the tools that made it
/// can make it again byte for byte; with others, or none, the hashes decide.
pub(crate) fn check(workspace: &Workspace, toolchain: Option<&Toolchain>) -> Result<()> {
    const FIX: &str = "run `cargo xtask ebpf` and commit what it writes";
    let sh = &workspace.sh;
    let provenance = sh.read_file(PROVENANCE).map_err(Into::into).and_then(|text| text.parse());
    let provenance: Provenance = provenance.with_context(|| format!("cannot read {PROVENANCE}; {FIX}"))?;
    let object = sh.read_binary_file(OBJECT).with_context(|| format!("cannot read {OBJECT}; {FIX}"))?;
    if provenance.sources != sources(workspace)? {
        bail!("{OBJECT} is stale, its sources have changed since; {FIX}");
    }
    if provenance.object != sources::sha256(&object) {
        bail!("{OBJECT} is not the object that {PROVENANCE} names; {FIX}");
    }
    println!("xtask: {OBJECT}: its hash and its sources' are those in its provenance");

    let toolchain = match toolchain {
        Some(toolchain) if toolchain.made_by == provenance.made_by => toolchain,
        other => {
            let why = other.map_or("no complete eBPF toolchain is here", |_| "other tools made it");
            println!("xtask: {OBJECT}: left out the comparison with a rebuilt one: {why}");
            return Ok(());
        }
    };
    let target_dir = workspace.root.join("target/ebpf-check");
    sh.remove_path(&target_dir)?;
    let rebuilt = build(workspace, toolchain, &target_dir)?;
    if object != sh.read_binary_file(&rebuilt)? {
        bail!("{OBJECT} differs from {}, made by the same tools; {FIX}", rebuilt.display());
    }
    sh.remove_path(&target_dir)?;
    println!("xtask: {OBJECT}: a rebuild gave the same bytes");
    Ok(())
}

/// Lints the eBPF crate for its target.
pub(crate) fn clippy(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    toolchain
        .cargo(workspace, "clippy")?
        .arg("--target-dir")
        .arg(workspace.root.join("target/ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .args(["--", "-D", "warnings"])
        .run()?;
    Ok(())
}

/// The hash of everything that goes into the object.
fn sources(workspace: &Workspace) -> Result<String> {
    sources::hash(workspace, &[&FLAGS[..], &[CHECKOUT, REGISTRY, RUST]].concat())
}

/// Compiles the object below `target_dir`, strips it and returns where it is. Comes after
/// [`sources`], which has cargo unpack the dependencies: build lists the directories of these.
fn build(workspace: &Workspace, toolchain: &Toolchain, target_dir: &Path) -> Result<PathBuf> {
    let sh = &workspace.sh;
    let cargo_home = cargo_home()?;
    // Where one directory lies in another, the last name counts.
    let mut names = vec![(workspace.root.clone(), CHECKOUT)];
    // A directory for each registry or mirror; what it is called differs between machines.
    for registry in fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten() {
        names.push((registry?.path(), REGISTRY));
    }
    names.extend(toolchain.rust_src.clone().map(|dir| (dir, RUST)));
    let mut flags = FLAGS.map(String::from).to_vec();
    for (dir, name) in &names {
        let dir =
            dir.to_str().with_context(|| format!("{} is not UTF-8, which cargo needs", dir.display()))?;
        flags.push(format!("--remap-path-prefix={dir}={name}"));
    }
    toolchain
        .cargo(workspace, "build")?
        .arg("--release")
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .run()
        .context("the eBPF object does not compile")?;

    let linked = target_dir.join("bpfel-unknown-none/release/tcptrace");
    let stripped = linked.with_extension("stripped");
    let objcopy = &toolchain.objcopy;
    // Neither the kernel nor aya reads DWARF, and bpf-linker cannot leave it out. The relocations
    // of the BTF sections only repeat what these hold.
    cmd!(sh, "{objcopy} --strip-debug --remove-section=.rel.BTF --remove-section=.rel.BTF.ext")
        .args([&linked, &stripped])
        .quiet()
        .run()?;
    let local = [&workspace.root, &cargo_home].into_iter().chain(&toolchain.rust_src);
    inspect(&sh.read_binary_file(&stripped)?, local.map(|dir| dir.as_os_str().as_bytes()))?;
    Ok(stripped)
}

fn cargo_home() -> Result<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .context("neither CARGO_HOME nor HOME is set, so cargo's directory is unknown")
}

/// Fails when `object` lacks its BTF, still has DWARF, or names a file below one of `dirs`.
fn inspect<'a>(object: &[u8], dirs: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let has = |needle: &[u8]| object.windows(needle.len()).any(|window| window == needle);
    // The names of sections, which end in a zero byte.
    if !has(b".BTF\0") || !has(b".BTF.ext\0") {
        bail!("the eBPF object has no BTF: was it linked with --btf, and is objcopy LLVM's?");
    }
    if has(b".debug_info\0") {
        bail!("the eBPF object still has its DWARF: objcopy did not strip it");
    }
    for dir in dirs {
        let names_file = |window: &[u8]| {
            // A checkout in /src is not what tcptrace-ebpf/src/main.rs names.
            let [before, path @ .., b'/'] = window else {
                return false;
            };
            path == dir && !before.is_ascii_alphanumeric()
        };
        if object.windows(dir.len() + 2).any(names_file) {
            let dir = String::from_utf8_lossy(dir);
            bail!("the eBPF object names a file below {dir}: extend --remap-path-prefix");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::inspect;

    #[test]
    fn an_object_needs_btf_and_no_local_path() {
        let inspect = |object: &[u8]| inspect(object, [b"/src".as_slice()].into_iter());
        assert!(inspect(b"\0.BTF\0.BTF.ext\0tcptrace-ebpf/src/main.rs\0").is_ok());
        assert!(inspect(b"\0.BTF\0").is_err());
        assert!(inspect(b"\0.BTF\0.BTF.ext\0.debug_info\0").is_err());
        assert!(inspect(b"\0.BTF\0.BTF.ext\0/src/tcptrace-ebpf/src/main.rs\0").is_err());
    }
}
