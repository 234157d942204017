//! Any bytes as a command line: arguments end at a NUL or a newline.
//!
//! What is wrong with it must be said without a panic, and what is right must make a filter.

#![no_main]

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use clap::Parser as _;
use libfuzzer_sys::fuzz_target;
use tcptrace::cli::{Cli, Command};

fuzz_target!(|input: &[u8]| {
    let args = input.split(|byte| matches!(byte, 0 | b'\n')).map(OsStr::from_bytes);
    let cli = match Cli::try_parse_from([OsStr::new("tcptrace")].into_iter().chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.render().ansi().to_string();
            return;
        }
    };
    let shared = cli.command.as_ref().map_or(Some(&cli.trace.shared), Command::shared);
    // Names of namespaces and cgroups are looked up on the host: what comes of that is not the input's doing alone.
    if let Some(shared) = shared
        && shared.netns.is_none()
        && shared.cgroup.is_empty()
        && let Ok(filter) = shared.filter()
    {
        let _ = filter.kernel_part(true);
    }
});
