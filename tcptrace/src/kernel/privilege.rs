//! What the process may do, before the kernel is asked for more.

use caps::{CapSet, Capability};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::KernelError;

/// Refuses early, by name, what bpf(2) would refuse with a bare EPERM.
pub(super) fn check() -> Result<(), KernelError> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let has = |capability| effective.contains(&capability);
    if has(Capability::CAP_SYS_ADMIN) {
        return Ok(());
    }
    let missing: Vec<String> = [Capability::CAP_BPF, Capability::CAP_PERFMON]
        .into_iter()
        .filter(|capability| !has(*capability))
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = format!("{} {}", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" });
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Err(KernelError::Privileges {
        missing,
        remedy: format!("sudo tcptrace {}", arguments.join(" ")).trim_end().to_owned(),
    })
}

/// Before 5.11 BPF memory counts against RLIMIT_MEMLOCK. Where the limit cannot be raised the kernel will say
/// so when it matters.
pub(super) fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        log::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}
