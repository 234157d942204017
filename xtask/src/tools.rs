//! The toolchains that can compile for eBPF: rustup's nightly, or Debian's packages.
//!
//! rustup's stable toolchain has no `core` for the BPF target. A nightly with `rust-src` compiles
//! one; Debian's package carries one. Either needs bpf-linker, built on the LLVM of its compiler.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use xshell::{Cmd, cmd};

use crate::apt;
use crate::host::{Workspace, program_path};
use crate::sources::MadeBy;

const LINKER_VERSION: &str = "0.13.0";

/// Debian's compiler, with `core` for eBPF. Which LLVM goes with it, the compiler says.
const DEBIAN_RUST: [&str; 4] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "rust-web-clippy"];

const HELP: &str = "a toolchain that compiles for eBPF is needed; either of these will do:
  rustup's nightly: `rustup toolchain install nightly --component rust-src,clippy`,
    and `cargo binstall bpf-linker`
  Debian 12 or later: run this chore as root or with sudo, and it installs what it needs";

/// What cargo and rustup told xtask about its own toolchain, and another one must not hear.
pub(crate) const OTHERS: [&str; 4] = ["CARGO", "LD_LIBRARY_PATH", "RUSTC", "RUSTUP_TOOLCHAIN"];

/// A toolchain that compiles for eBPF.
pub(crate) struct Toolchain {
    /// The sources of `core`, where this toolchain (a nightly) compiles it; Debian's does not.
    pub(crate) rust_src: Option<PathBuf>,
    /// Takes sections out of an object.
    pub(crate) objcopy: PathBuf,
    /// The versions of its programs.
    pub(crate) made_by: MadeBy,
    linker: PathBuf,
}

impl Toolchain {
    /// A cargo command, such as `build` or `clippy`, on the eBPF crate.
    pub(crate) fn cargo<'a>(&self, workspace: &'a Workspace, command: &str) -> Result<Cmd<'a>> {
        let sh = &workspace.sh;
        let cargo = if self.rust_src.is_some() {
            without_others(cmd!(sh, "cargo +nightly {command} -Z build-std=core"))
        } else {
            // cargo would look for clippy in ~/.cargo/bin first, and find rustup's.
            let program = if command == "clippy" { "/usr/bin/cargo-clippy" } else { "/usr/bin/cargo" };
            without_others(cmd!(sh, "{program} {command}"))
                .env("CARGO", "/usr/bin/cargo")
                .env("RUSTC", "/usr/bin/rustc")
                // aya-ebpf wants `asm_experimental_arch`, which a stable compiler refuses.
                .env("RUSTC_BOOTSTRAP", "1")
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let linker_dir = self.linker.parent().map(Path::to_owned);
        let path = env::join_paths(linker_dir.into_iter().chain(env::split_paths(&path)))
            .context("the checkout's path has a colon, so PATH cannot hold it: move the checkout")?;
        let target = ["--package", "tcptrace-ebpf", "--target", "bpfel-unknown-none"];
        Ok(cargo.env("PATH", path).arg("--locked").args(target))
    }
}

/// Finds a toolchain and installs what it lacks.
pub(crate) fn find_or_install(workspace: &Workspace) -> Result<Toolchain> {
    look(workspace, true).map_err(|error| anyhow!("{error:#}\n{HELP}"))?.context(HELP)
}

/// Finds a toolchain that is complete already.
pub(crate) fn find(workspace: &Workspace) -> Result<Option<Toolchain>> {
    look(workspace, false)
}

fn look(workspace: &Workspace, install: bool) -> Result<Option<Toolchain>> {
    let (name, found) = match nightly(workspace, install)? {
        Some(found) => ("rustup's nightly", Some(found)),
        None => ("Debian's packages", debian(workspace, install)?),
    };
    if let Some(Toolchain { made_by, linker, .. }) = &found {
        eprintln!("xtask: eBPF toolchain: {name}");
        eprintln!("xtask:   {}", made_by.rustc);
        eprintln!("xtask:   {} ({})", made_by.linker, linker.display());
        eprintln!("xtask:   objcopy: {}", made_by.objcopy);
    }
    Ok(found)
}

fn nightly(workspace: &Workspace, install: bool) -> Result<Option<Toolchain>> {
    let sh = &workspace.sh;
    // Without rustup there is no `+nightly`; with it, asking must not start a download.
    let ask = without_others(cmd!(sh, "rustc +nightly --print sysroot"));
    let ask = ask.env("RUSTUP_AUTO_INSTALL", "0").quiet().ignore_stderr();
    let Ok(sysroot) = ask.read().map(PathBuf::from) else {
        return Ok(None);
    };
    let rust_src = sysroot.join("lib/rustlib/src/rust");
    if !rust_src.join("library/core").is_dir() {
        return Ok(None);
    }
    let compiler = Compiler::ask(cmd!(sh, "rustc +nightly -vV"))?;
    let linker = match linker(workspace, &compiler, install)? {
        Some(linker) => linker,
        // bpf-linker cannot borrow rustc's own LLVM (since 0.11), and is seldom built from source:
        // its authors publish it as a binary.
        None => match program_path("bpf-linker") {
            Some(linker) => linker,
            None => return Ok(None),
        },
    };
    let objcopy = sysroot.join(format!("lib/rustlib/{}/bin/rust-objcopy", compiler.host));
    complete(workspace, compiler, linker, objcopy, Some(rust_src)).map(Some)
}

fn debian(workspace: &Workspace, install: bool) -> Result<Option<Toolchain>> {
    let have = |packages: &[&str]| -> Result<bool> {
        if install {
            apt::install(workspace, packages)?;
        }
        Ok(apt::missing(workspace, packages).is_empty())
    };
    if !apt::available() || !have(&DEBIAN_RUST)? {
        return Ok(None);
    }
    let compiler = Compiler::ask(cmd!(workspace.sh, "/usr/bin/rustc -vV"))?;
    let llvm = &compiler.llvm;
    let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
    if !have(&[&dev, &polly, "libzstd-dev"])? {
        return Ok(None);
    }
    let Some(linker) = linker(workspace, &compiler, install)? else {
        return Ok(None);
    };
    let objcopy = compiler.llvm_prefix().join("bin/llvm-objcopy");
    complete(workspace, compiler, linker, objcopy, None).map(Some)
}

/// Asks the programs for their versions.
fn complete(
    workspace: &Workspace,
    compiler: Compiler,
    linker: PathBuf,
    objcopy: PathBuf,
    rust_src: Option<PathBuf>,
) -> Result<Toolchain> {
    let sh = &workspace.sh;
    let objcopy_says = cmd!(sh, "{objcopy} --version").quiet().read()?;
    let version = objcopy_says.lines().find(|line| line.contains("version"));
    let made_by = MadeBy {
        rustc: compiler.line,
        linker: cmd!(sh, "{linker} --version").quiet().read()?,
        objcopy: version.unwrap_or(&objcopy_says).trim().to_owned(),
    };
    Ok(Toolchain { rust_src, objcopy, made_by, linker })
}

/// The bpf-linker in target/tools, if it is built on the compiler's LLVM; builds it where it may.
fn linker(workspace: &Workspace, compiler: &Compiler, install: bool) -> Result<Option<PathBuf>> {
    let (sh, root) = (&workspace.sh, workspace.root.join("target/tools"));
    let linker = root.join("bin/bpf-linker");
    let feature = format!("llvm-{}", compiler.llvm);
    // cargo's record of what it installed there, and how.
    let record = sh.read_file(root.join(".crates2.json")).unwrap_or_default();
    let release = format!("\"bpf-linker {LINKER_VERSION} ");
    if linker.exists() && record.contains(&release) && record.contains(&format!("\"{feature}\"")) {
        return Ok(Some(linker));
    }
    let prefix = compiler.llvm_prefix();
    if !install || !prefix.join("bin/llvm-config").exists() {
        return Ok(None);
    }
    eprintln!("xtask: building bpf-linker {LINKER_VERSION} on {}", prefix.display());
    // A program for this host: xtask's own toolchain compiles it.
    cmd!(sh, "cargo install bpf-linker --version {LINKER_VERSION} --locked --force --root {root}")
        .args(["--no-default-features", "--features", &feature])
        .env("LLVM_PREFIX", prefix)
        .run()
        .with_context(|| format!("cannot build bpf-linker {LINKER_VERSION} with {feature}"))?;
    Ok(Some(linker))
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq, Eq)]
struct Compiler {
    /// Its version, with LLVM's.
    line: String,
    /// LLVM's major version.
    llvm: String,
    host: String,
}

impl Compiler {
    fn ask(command: Cmd<'_>) -> Result<Self> {
        let text = without_others(command).quiet().read()?;
        Self::parse(&text).with_context(|| format!("no compiler's version, but: {text}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let llvm = value("LLVM version: ")?;
        Some(Self {
            line: format!("{}, LLVM {llvm}", text.lines().next()?),
            llvm: llvm.split('.').next()?.to_owned(),
            host: value("host: ")?.to_owned(),
        })
    }

    /// Where Debian's packages put the LLVM that it needs.
    fn llvm_prefix(&self) -> PathBuf {
        PathBuf::from(format!("/usr/lib/llvm-{}", self.llvm))
    }
}

pub(crate) fn without_others(command: Cmd<'_>) -> Cmd<'_> {
    OTHERS.iter().fold(command, Cmd::env_remove)
}

#[cfg(test)]
mod tests {
    use super::Compiler;

    #[test]
    fn a_compiler_names_its_llvm() {
        let text = "rustc 1.2.3 (abc)\nbinary: rustc\nhost: x86_64\nLLVM version: 22.1.8";
        let [line, llvm, host] = ["rustc 1.2.3 (abc), LLVM 22.1.8", "22", "x86_64"].map(String::from);
        assert_eq!(Compiler::parse(text), Some(Compiler { line, llvm, host }));
        assert_eq!(Compiler::parse("error: no"), None);
    }
}
