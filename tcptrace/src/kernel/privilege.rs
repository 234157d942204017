//! What the process may do, before the kernel is asked for more.

use caps::{CapSet, Capability, CapsHashSet};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::set_no_new_privs,
};

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

/// What reading the sockets that exist takes: entering other network namespaces, and seeing the descriptors of other
/// users' processes (proc_pid_readlink(), proc_fd_permission()).
const KEPT: [Capability; 3] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Gives up every capability but [`KEPT`] for good, and sets `no_new_privs`, in this thread and those that it starts.
/// `CAP_BPF` stays where `works` says that it does not go without.
pub(super) fn drop_rest(works: impl Fn() -> bool) {
    match try_drop_rest(works) {
        Ok(kept) => {
            let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
            names.sort_unstable();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
            log::info!("privileges dropped; no_new_privs is set; capabilities kept: {names}");
        }
        Err(error) => log::warn!("the privileges that are not needed any more cannot be dropped: {error}"),
    }
}

fn try_drop_rest(works: impl Fn() -> bool) -> Result<CapsHashSet, Box<dyn std::error::Error>> {
    set_no_new_privs(true)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet =
        KEPT.into_iter().filter(|capability| permitted.contains(capability)).collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    // Out of the effective set first: from there it can come back.
    caps::set(None, CapSet::Effective, &kept)?;
    if !works() && permitted.contains(&Capability::CAP_BPF) {
        kept.insert(Capability::CAP_BPF);
        caps::set(None, CapSet::Effective, &kept)?;
    }
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(kept)
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
