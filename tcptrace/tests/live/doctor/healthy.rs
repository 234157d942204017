//! A busy host on which nothing is wrong: nginx and wrk, Redis and redis-benchmark.

use std::{
    env,
    process::{Command, Stdio},
};

use crate::{
    programs::{Nginx, REDIS, REQUESTS, Redis, drive, url, widen_ports},
    support::{doctor::Doctor, netns::scenario, process::Process},
};

/// How many seconds it is busy. `TCPTRACE_HEALTHY_SECONDS` says otherwise.
const SECONDS: u64 = 3;

fn seconds() -> u64 {
    env::var("TCPTRACE_HEALTHY_SECONDS")
        .map_or(SECONDS, |text| text.parse().expect("TCPTRACE_HEALTHY_SECONDS is a number"))
}

#[test]
fn nothing_is_wrong() {
    scenario(|net| {
        widen_ports();
        let nginx = Nginx::start_with("keepalive_timeout 60");
        let redis = Redis::start();
        let doctor = Doctor::of(net, &[]);
        let seconds = seconds();
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &REDIS.to_string(), "-c", "20", "-l", "-q", "-t", "set,get"]);
        let (mut benchmark, _) = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        let mut command = Command::new("wrk");
        command.args(["-t", "2", "-c", "20", "-d", &format!("{seconds}s")]).arg(url());
        let (mut wrk, _) = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        // Those whose connections are not kept.
        drive(REQUESTS);
        assert!(wrk.wait().success());
        benchmark.terminate();
        doctor.finds(&[]);
        drop((redis, nginx));
    });
}
