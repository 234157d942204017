//! Why the kernel side could not be had, each with the remedy.

use std::{io, path::PathBuf};

use super::btf::BtfError;

/// What stood in the way. Every message is three lines: what, why, and the fix.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Capabilities are missing.
    #[error(
        "cannot watch the kernel: {missing} missing\nwhy: loading eBPF programs and reading kernel memory takes CAP_BPF and CAP_PERFMON\nfix: {remedy}"
    )]
    Privileges {
        /// The capabilities and a verb.
        missing: String,
        /// The command that helps.
        remedy: String,
    },
    /// The kernel shows no type information.
    #[error("cannot learn this kernel's structures\nwhy: {}: {source}\nfix: use a kernel built with CONFIG_DEBUG_INFO_BTF=y (the large distributions' are), and mount sysfs on /sys", path.display())]
    NoBtf {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The type information is damaged.
    #[error("cannot learn this kernel's structures\nwhy: {}: {source}\nfix: report this with the output of `uname -a`", path.display())]
    BadBtf {
        /// Where it came from.
        path: PathBuf,
        /// What is wrong with it.
        source: BtfError,
    },
    /// A structure is not what 5.10 to 7.3 have.
    #[error(
        "cannot read this kernel's structures\nwhy: {release} has no {field}\nfix: use a kernel from 5.10 on; if yours is newer than 7.3, report this with the output of `uname -a`"
    )]
    MissingField {
        /// What BTF was asked for.
        field: String,
        /// The kernel's release.
        release: String,
    },
    /// The kernel refused something that it was asked to do.
    #[error("the kernel ({release}) refused to {what}\nwhy: {why}\nfix: {remedy}")]
    Refused {
        /// What it was asked for.
        what: String,
        /// What it said.
        why: String,
        /// What may help.
        remedy: String,
        /// The kernel's release.
        release: String,
    },
    /// The object in this binary is not usable: our mistake.
    #[error(
        "the eBPF object in this binary is unusable\nwhy: {0}\nfix: rebuild with `cargo xtask ebpf && cargo build --release`, and report this"
    )]
    Object(String),
    /// A filter names something that is not there.
    #[error("no {what} {name}\nwhy: {why}\nfix: {remedy}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// As the user wrote it.
        name: String,
        /// Why it cannot be used.
        why: String,
        /// What to write instead.
        remedy: &'static str,
    },
}
