//! Finds the fields that the probes read in the running kernel's BTF.

use std::{fs::File, io::Read as _, path::PathBuf, sync::Arc};

use tcptrace_common::layout::{ABSENT, Field, Layout, Lookup};

use super::{
    KernelError,
    btf::{Btf, BtfError, stub},
};
use crate::model::tracker::Reasons;

/// Where the kernel shows its own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What BTF told.
pub(super) struct Found {
    /// The probes' offsets.
    pub(super) layout: Layout,
    /// The names of the kernel's RST reasons; empty before 6.10.
    pub(super) reasons: Reasons,
    /// Fields and features that this kernel does not have, as they were asked for. Most exist by turns: one on older
    /// kernels, the other on newer.
    pub(super) absent: Vec<String>,
    /// The types of the tracepoints that were asked for, for aya.
    pub(super) tracepoints: Vec<u8>,
}

/// Room for the kernel's types; some 6 MB are used. From memory that is freed glibc learns how much it had better keep, up to
/// 32 MB (DEFAULT_MMAP_THRESHOLD_MAX); from more it learns nothing.
const ROOM: usize = 40 << 20;

/// The kernel's types as it shows them.
fn vmlinux() -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::with_capacity(ROOM);
    match File::open(VMLINUX).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(source) => Err(KernelError::NoBtf { path: PathBuf::from(VMLINUX), source }),
    }
}

/// Asks the running kernel, and where it has these tracepoints.
pub(super) fn find(release: &str, tracepoints: &[&str]) -> Result<Found, KernelError> {
    let bytes = vmlinux()?;
    let bad = |source| KernelError::BadBtf { path: PathBuf::from(VMLINUX), source };
    let btf = Btf::parse(&bytes).map_err(bad)?;
    let mut trouble = None;
    let layout = Layout::from_lookup(|field| match look_up(&btf, field) {
        Ok(Some(value)) => value,
        Ok(None) if field.optional => ABSENT,
        Ok(None) => {
            trouble.get_or_insert_with(|| KernelError::MissingField {
                field: describe(field.lookup),
                release: release.to_owned(),
            });
            ABSENT
        }
        Err(source) => {
            trouble.get_or_insert_with(|| bad(source));
            ABSENT
        }
    });
    let absent: Vec<String> = Layout::FIELDS
        .iter()
        .filter(|field| matches!(look_up(&btf, field), Ok(None)))
        .map(|field| describe(field.lookup))
        .collect();
    log::debug!("{release} does not have: {}", absent.join(", "));
    if let Some(error) = trouble {
        return Err(error);
    }
    let types: Vec<_> = tracepoints.iter().filter_map(|name| btf.tracepoint_type(name)).collect();
    Ok(Found { layout, reasons: reasons(&btf), absent, tracepoints: stub(&types) })
}

/// The value of a field; `None` where the kernel does not have it, or has it where no offset can tell.
fn look_up(btf: &Btf<'_>, field: &Field) -> Result<Option<u16>, BtfError> {
    let number = match field.lookup {
        Lookup::Offset(path) => btf.field(path)?.and_then(|found| found.byte_offset()),
        Lookup::Bit(path) => btf.field(path)?.map(|found| found.bit_offset),
        Lookup::Enumerator(of, name) => btf.enum_value(of, name).and_then(|value| u32::try_from(value).ok()),
        Lookup::Function(name) => btf.has_function(name).then_some(1),
        Lookup::Arguments(tracepoint, least) => {
            btf.tracepoint_args(tracepoint).filter(|count| *count >= least).map(|_| 1)
        }
    };
    Ok(number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != ABSENT))
}

fn describe(lookup: Lookup) -> String {
    match lookup {
        Lookup::Offset(path) | Lookup::Bit(path) => format!("field {path}"),
        Lookup::Enumerator(of, name) => format!("{name} in enum {of}"),
        Lookup::Function(name) => format!("function {name}"),
        Lookup::Arguments(tracepoint, least) => {
            format!("tracepoint {tracepoint} with {least} arguments")
        }
    }
}

/// The running kernel's names of RST reasons; empty where it has none, or does not show its types. Takes no rights.
#[must_use]
pub fn reset_reasons() -> Reasons {
    let bytes = vmlinux().unwrap_or_default();
    Btf::parse(&bytes).map(|btf| reasons(&btf)).unwrap_or_default()
}

/// The kernel's own names, because their numbers differ between kernels.
fn reasons(btf: &Btf<'_>) -> Reasons {
    btf.enum_names("sk_rst_reason")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(number, name)| {
            let name = name.strip_prefix("SK_RST_REASON_").unwrap_or(name);
            Some((i32::try_from(number).ok()?, Arc::from(name)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_running_kernel_has_every_required_field() {
        let found = find("test", &[]).unwrap();
        for name in ["NO_SOCKET", "TCP_STATE"] {
            let known = found.reasons.values().any(|reason| &**reason == name);
            assert!(known || found.reasons.is_empty(), "{name} in {:?}", found.reasons);
        }
        assert_eq!(found.reasons.is_empty(), found.layout.has_reason == ABSENT);
    }
}
