//! Settings that do harm, or not what folklore says of them.

use crate::model::doctor::{
    Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit, facts::Namespace, words::who,
};

static PORTS: Threshold = Threshold {
    name: "ports",
    default: 10_000.0,
    unit: Unit::Count,
    why: "ports that the kernel hands out; fewer run out at 170 connections a second to one destination",
};
static BUCKETS: Threshold = Threshold {
    name: "tw-buckets",
    default: 1024.0,
    unit: Unit::Count,
    why: "the kernel chooses as few only with 128 MB of memory; 17 closes a second fill it",
};

pub(super) static RULE: Rule = Rule { name: "sysctls", thresholds: &[&PORTS, &BUCKETS], judge };

/// The lowest port that the kernel hands out unless somebody says otherwise (inet_init_net()).
const USUAL_FIRST: u16 = 32_768;

/// A setting, what is wrong with it, what to do.
type Harm = (String, &'static str, &'static str);

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for namespace in &facts.namespaces {
        for (setting, harm, remedy) in harms(facts, namespace, limits) {
            let netns = namespace.netns();
            let title = format!("{setting}: {harm}");
            // Most namespaces have the same settings.
            if let Some(known) = findings.iter_mut().find(|finding| finding.title == title) {
                known.count += 1;
                known.evidence =
                    vec![format!("in {} network namespaces, {} among them", known.count, known.group.netns)];
                continue;
            }
            findings.push(
                Finding::new(&RULE, Severity::Warning, title)
                    .about(Group { netns, ..Group::default() }, None, 1)
                    .evidence(format!("in network namespace {netns}"))
                    .remedy(remedy),
            );
        }
    }
    findings
}

fn harms(facts: &Facts, namespace: &Namespace, limits: &Limits) -> Vec<Harm> {
    let sysctls = &namespace.latest.sysctls;
    let is = |name: &str, value: i64| sysctls.get(name) == Some(value);
    let below = |name: &str, least: i64| sysctls.get(name).is_some_and(|value| value < least);
    let setting = |name: &str| format!("{name}={}", sysctls.get(name).unwrap_or_default());
    let mut harms: Vec<Harm> = Vec::new();
    let mut find = |holds: bool, name: &str, harm, remedy| {
        if holds {
            harms.push((setting(name), harm, remedy));
        }
    };
    find(
        is("tcp_tw_recycle", 1),
        "tcp_tw_recycle",
        "it drops SYNs of clients behind a NAT, whose timestamps differ",
        "set it to 0; newer kernels do not have it any more (4.12)",
    );
    find(
        is("tcp_tw_reuse", 1) && is("tcp_timestamps", 0),
        "tcp_tw_reuse",
        "without tcp_timestamps=1 it does nothing",
        "set tcp_timestamps to 1",
    );
    find(
        is("tcp_abort_on_overflow", 1),
        "tcp_abort_on_overflow",
        "a full accept queue resets clients instead of letting them try again",
        "set it to 0, and make the queue long enough for bursts",
    );
    find(
        is("tcp_syncookies", 0),
        "tcp_syncookies",
        "a SYN flood keeps everybody out",
        "set it to 1: cookies are sent only when the queue is full",
    );
    find(
        is("tcp_syncookies", 2),
        "tcp_syncookies",
        "every connection is opened by a cookie, without window scaling or SACK where timestamps are missing",
        "set it to 1; 2 is for tests",
    );
    find(
        is("tcp_timestamps", 0),
        "tcp_timestamps",
        "round trips are measured worse, old segments are not recognised (PAWS), and TIME_WAIT cannot be reused",
        "set it to 1",
    );
    find(is("tcp_sack", 0), "tcp_sack", "each loss costs a round trip of its own", "set it to 1");
    find(
        is("tcp_window_scaling", 0),
        "tcp_window_scaling",
        "no more than 64 KiB are on their way at a time, whatever the line can carry",
        "set it to 1",
    );
    find(
        below("tcp_fin_timeout", 5),
        "tcp_fin_timeout",
        "orphans in FIN_WAIT2 go before slow peers close, and those get RSTs; it does not shorten TIME_WAIT",
        "set it to 60, or to 15 where orphans are many",
    );
    find(
        below("tcp_retries2", 5),
        "tcp_retries2",
        "connections die within seconds of loss",
        "set it to 8 or more (RFC 1122 wants 100 s); use TCP_USER_TIMEOUT where an application must know sooner",
    );
    find(
        below("tcp_syn_retries", 2),
        "tcp_syn_retries",
        "one lost SYN or two, and connect() fails",
        "set it to 4 or more",
    );
    find(
        below("tcp_synack_retries", 2),
        "tcp_synack_retries",
        "one lost SYN+ACK or two, and the handshake fails",
        "set it to 3 or more; cookies are what helps against floods",
    );
    find(
        below("tcp_max_orphans", 1024),
        "tcp_max_orphans",
        "closed connections that still have data to send are reset beyond that",
        "leave it to the kernel, which sets it by memory",
    );
    let buckets = i64::try_from(limits.count(&RULE, &BUCKETS)).unwrap_or(i64::MAX);
    find(
        below("tcp_max_tw_buckets", buckets),
        "tcp_max_tw_buckets",
        "TIME_WAIT is cut short beyond that, and late segments are answered by RST",
        "leave it to the kernel, which sets it by memory; TIME_WAIT costs next to nothing",
    );
    harms.extend(ports(facts, namespace, limits));
    harms
}

fn ports(facts: &Facts, namespace: &Namespace, limits: &Limits) -> Vec<Harm> {
    let Some(range) = namespace.ports() else { return Vec::new() };
    let setting = format!("ip_local_port_range={} {}", range.start(), range.end());
    let mut harms: Vec<Harm> = Vec::new();
    let count = u64::from(range.end().saturating_sub(*range.start())) + 1;
    if count < limits.count(&RULE, &PORTS) {
        let harm = "so few ports run out soon: each waits for 60 s after use";
        harms.push((setting.clone(), harm, "set it to 32768 60999, the default, or wider"));
    }
    // Who listens above 32768 may have let the kernel choose; below, the range was made to reach there.
    let taken = |port: u16| namespace.hands_out(port) && port < USUAL_FIRST;
    for listener in facts.wanted_listeners().filter(|listener| listener.tuple.netns == namespace.netns()) {
        let port = listener.tuple.lport;
        let setting = format!("{setting} reaches port {port} of {}", who(listener.owner));
        if taken(port) && !harms.iter().any(|(known, ..)| *known == setting) {
            let harm = "a client can take the port while the service is down";
            harms.push((
                setting,
                harm,
                "begin the range above it, or put the port into ip_local_reserved_ports",
            ));
        }
    }
    harms
}
