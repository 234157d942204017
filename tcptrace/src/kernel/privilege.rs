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
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let missing = format!("{} {}", missing.join(" and "), if missing.len() == 1 { "is" } else { "are" });
    Err(KernelError::Privileges { missing, remedy: command_as_root(arguments) })
}

/// The command that was given, as one that has the rights.
fn command_as_root(arguments: impl Iterator<Item = String>) -> String {
    let mut command = "sudo tcptrace".to_owned();
    for argument in arguments {
        if argument.contains(char::is_control) {
            return "run the same command with sudo".to_owned();
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./:,@%".contains(c);
        command.push(' ');
        if !argument.is_empty() && argument.chars().all(plain) {
            command.push_str(&argument);
        } else {
            command.push('\'');
            command.push_str(&argument.replace('\'', r"'\''"));
            command.push('\'');
        }
    }
    command
}

/// Before 5.11 BPF memory counts against RLIMIT_MEMLOCK. Where the limit cannot be raised the kernel will say
/// so when it matters.
pub(super) fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        log::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}
