//! The first process of a virtual machine that `cargo xtask vm` boots: mounts what programs expect, loads the modules that
//! are there, runs commands up to the first that fails, says how that ended, and powers off.

#![expect(clippy::print_stdout, reason = "the console is all there is")]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus},
};

use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, init_module, reboot},
};

/// What xtask looks for on the console.
const BEGUN: &str = "vm-init: begun";
const ENDED: &str = "vm-init: ended with";

fn main() {
    println!("{BEGUN}");
    let code = match work() {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            println!("vm-init: {error}");
            127
        }
    };
    println!("\n{ENDED} {code}");
    let _ = reboot(RebootCommand::PowerOff);
}

fn work() -> Result<ExitStatus, String> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        fs::create_dir_all(place).map_err(|error| format!("{place}: {error}"))?;
        mount(kind, place, kind, MountFlags::empty(), None).map_err(|error| format!("{place}: {error}"))?;
    }
    // All files are in memory as it is, and the programs may be below one of these.
    for place in ["/tmp", "/run"] {
        fs::create_dir_all(place).map_err(|error| format!("{place}: {error}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for module in modules {
        if let Err(error) = load(&module) {
            println!("vm-init: {}: {error}", module.display());
        }
    }
    // A word is a line, and between commands is an empty one.
    let text = fs::read_to_string("/commands").map_err(|error| format!("/commands: {error}"))?;
    let mut status = ExitStatus::default();
    for command in text.split("\n\n") {
        let mut words = command.lines();
        let program = words.next().ok_or("a command is empty")?;
        let mut command = Command::new(program);
        command
            .args(words)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TERM", "linux")
            .env("HOME", "/");
        status = command.status().map_err(|error| format!("{program}: {error}"))?;
        if !status.success() {
            break;
        }
    }
    Ok(status)
}

fn load(module: &Path) -> Result<(), String> {
    let image = fs::read(module).map_err(|error| error.to_string())?;
    init_module(&image, c"").map_err(|error| error.to_string())
}
