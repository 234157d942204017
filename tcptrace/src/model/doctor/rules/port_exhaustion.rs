//! Local ports that run out towards one destination, or have.

use tcptrace_common::record::Tuple;

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Destination, Namespace},
        words::{end, left, percent, rate, span, times, who},
    },
    event::ip,
};

static USED: Threshold = Threshold {
    name: "used",
    default: 80.0,
    unit: Unit::Percent,
    why: "of the ports that the kernel hands out; looking for a free one becomes slow from there on",
};
static LEFT: Threshold = Threshold {
    name: "left",
    default: 600.0,
    unit: Unit::Seconds,
    why: "ports that run out within ten minutes are critical: connect() fails with EADDRNOTAVAIL then",
};

static GROWN: Threshold = Threshold {
    name: "grown",
    default: 20.0,
    unit: Unit::Percent,
    why: "of the ports must be in use before a time left is worth telling; below, it may be a pool that is being filled",
};

pub(super) static RULE: Rule = Rule { name: "port-exhaustion", thresholds: &[&USED, &LEFT, &GROWN], judge };

/// How long a port waits in TIME_WAIT, in s.
const WAIT: f64 = 60.0;

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    facts.destinations.iter().filter_map(|destination| one(facts, limits, destination)).collect()
}

fn one(facts: &Facts, limits: &Limits, destination: &Destination) -> Option<Finding> {
    let Destination { laddr, raddr, rport, netns, used, time_wait, before, opened, failed, owner, .. } =
        *destination;
    let namespace = facts.namespace(netns)?;
    let ports = namespace.ports()?;
    let all = namespace.handed_out();
    let reusable = reuses(namespace, destination);
    let taken = if reusable { used - time_wait } else { used };
    let growth = facts.per_second(used.saturating_sub(before));
    let full = percent(taken, all);
    let runs_out = runs_out(facts, destination, all, reusable);
    let runs_out = runs_out.filter(|_| full >= limits.of(&RULE, &GROWN));
    let soon = runs_out.is_some_and(|ns| ns <= limits.ns(&RULE, &LEFT));
    if failed == 0 && full < limits.of(&RULE, &USED) && !soon {
        return None;
    }
    let severity = if failed > 0 || soon { Severity::Critical } else { Severity::Warning };
    let to = end(raddr, rport);
    let title = if failed > 0 {
        format!("{} has no local port left for {to}: connect() failed {}", who(owner), times(failed))
    } else {
        let when = runs_out.map_or_else(String::new, |ns| format!(", and runs out in {}", span(ns)));
        format!("{} uses {full:.0} % of the local ports for {to}{when}", who(owner))
    };
    let group = Group {
        netns,
        ours: false,
        port: Some(rport),
        raddr: Some(raddr),
        pid: owner.map(|owner| owner.pid),
    };
    let filter = facts.filter(&group);
    let finding = Finding::new(&RULE, severity, title)
        .about(group, owner, used)
        .evidence(format!(
            "from {} to {to}: {used} of {all} ports in use (ip_local_port_range {} to {}), {time_wait} of them in TIME_WAIT",
            ip(laddr),
            ports.start(),
            ports.end()
        ))
        .evidence(format!(
            "{} opened, {} more ports in use",
            rate(facts.per_second(opened)),
            rate(growth)
        ))
        .evidence_if(failed > 0, || {
            format!("connect() failed {failed} times with EADDRNOTAVAIL, {}", rate(facts.per_second(failed)))
        });
    let sysctl = |name| namespace.latest.sysctls.get(name).unwrap_or_default();
    let finding = if time_wait * 2 > used {
        finding.evidence_if(!reusable, || {
            let (reuse, stamps) = (sysctl("tcp_tw_reuse"), sysctl("tcp_timestamps"));
            format!("those in TIME_WAIT may not be taken over: tcp_tw_reuse={reuse}, tcp_timestamps={stamps}")
        })
    } else {
        finding.remedy("most of these ports are in use: fewer connections (a smaller pool), or a second source or destination address")
    };
    Some(
        finding
            .more(format!("tcptrace hist 1{filter}"))
            .more(format!("tcptrace conns{filter} --cause no_local_port")),
    )
}

/// When there is no port left, in ns from now, if it goes on like that. Connections that stay add up; those that are closed
/// wait, and after [`WAIT`] as many are over as are begun.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; the cast saturates"
)]
fn runs_out(facts: &Facts, destination: &Destination, all: u64, reusable: bool) -> Option<u64> {
    let Destination { used, time_wait, before, time_wait_before, opened, .. } = *destination;
    let held = used - time_wait;
    let held_growth = facts.per_second(held.saturating_sub(before.saturating_sub(time_wait_before)));
    if reusable {
        return left(all.saturating_sub(held), held_growth);
    }
    let free = all.saturating_sub(used) as f64;
    let wait_growth = facts.per_second(time_wait.saturating_sub(time_wait_before));
    let most_wait = (facts.per_second(opened) - held_growth).max(0.0) * WAIT;
    let wait_more = (most_wait - time_wait as f64).max(0.0);
    // Until as many are over as are begun, both grow; then only those that stay.
    let growth = held_growth + wait_growth;
    let steady_s = if wait_growth > 0.0 { wait_more / wait_growth } else { 0.0 };
    let seconds = if growth > 0.0 && free <= growth * steady_s {
        free / growth
    } else if held_growth > 0.0 {
        steady_s + (free - growth * steady_s) / held_growth
    } else {
        return None;
    };
    Some((seconds * 1e9) as u64)
}

/// Whether connect() takes a port in TIME_WAIT over (tcp_twsk_unique() in net/ipv4/tcp_ipv4.c): with timestamps, and
/// tcp_tw_reuse 1, or 2 (the default) on loopback.
fn reuses(namespace: &Namespace, destination: &Destination) -> bool {
    let sysctl = |name| namespace.latest.sysctls.get(name);
    let Tuple { laddr, raddr, .. } =
        Tuple { laddr: destination.laddr, raddr: destination.raddr, ..Tuple::default() };
    let loopback = ip(laddr).is_loopback() || ip(raddr).is_loopback();
    sysctl("tcp_timestamps") != Some(0)
        && match sysctl("tcp_tw_reuse") {
            Some(1) => true,
            Some(2) => loopback,
            _ => false,
        }
}
