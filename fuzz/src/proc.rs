//! Any bytes as what the host tells of its sockets: files of /proc, and answers of sock_diag.
//!
//! The first byte of an input chooses which it is.

#![no_main]

use std::ffi::CStr;

use libfuzzer_sys::fuzz_target;
use tcptrace::{
    kernel::{cgroup, diag, netns, processes, survey},
    model::{
        found::{Found, Survey},
        health,
        tracker::{Fate, Tracker},
    },
};
use zerocopy::IntoBytes as _;

/// Some network namespace.
const NETNS: u32 = 4_026_531_840;

/// What was found goes to the tracker, as at the start and again later.
fn adopt(sockets: Vec<Found>) {
    let survey = Survey { sockets, namespaces: vec![NETNS], health: Vec::new() };
    let mut tracker = Tracker::new([].into(), false, true);
    let mut keep = |_| Fate::Keep;
    tracker.adopt(&survey, 1_000_000_000, &mut keep);
    tracker.reconcile(&survey, 2_000_000_000, &mut keep);
    let nothing = Survey { sockets: Vec::new(), ..survey };
    for now_ns in [3_000_000_000, 4_000_000_000] {
        tracker.reconcile(&nothing, now_ns, &mut keep);
    }
    tracker.tick(u64::MAX, &mut keep);
}

fn answers(bytes: &[u8]) {
    // The buffer that sock_diag fills is the allocator's, and so aligned.
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    let mut found = Vec::new();
    if let Err(error) =
        diag::messages(&words.as_bytes()[..bytes.len()], NETNS, &mut |socket| found.push(socket))
    {
        let _ = error.to_string();
    }
    for socket in &found {
        let _ = socket.quiet_ms();
    }
    adopt(found);
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match which {
        b'0' => answers(bytes),
        b'4' | b'6' => {
            adopt(
                text.lines().filter_map(|line| survey::line_of_proc(line, *which == b'6', NETNS)).collect(),
            );
        }
        b'c' => _ = cgroup::tree(&text),
        b'l' => {
            let terminated = [bytes, &[0]].concat();
            if let Ok(link) = CStr::from_bytes_until_nul(&terminated) {
                let _ = processes::number_in(link, "socket:[");
                let _ = processes::number_in(link, "net:[");
            }
        }
        b'm' => {
            let _ = netns::mounts(&text).count();
            let _ = survey::mounted(&text).count();
        }
        b'p' => _ = survey::port_range(&text),
        b's' => {
            let _ = health::Snmp::parse(&text, NETNS, 0);
            let _ = health::Sockstat::parse(&text);
            let _ = health::Descriptors::limit_in(&text);
            let _ = health::numbers("ip_local_reserved_ports", &text);
            let _ = health::numbers("tcp_mem", &text);
        }
        b't' => _ = processes::name_and_start(bytes),
        _ => {}
    }
});
