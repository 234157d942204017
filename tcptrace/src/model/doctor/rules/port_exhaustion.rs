//! Local ports that run out towards one destination, or have.

use tcptrace_common::record::Tuple;

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Destination, Namespace},
        words::{end, left, percent, rate, span, who},
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

pub(super) static RULE: Rule = Rule { name: "port-exhaustion", thresholds: &[&USED, &LEFT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    facts.destinations.iter().filter_map(|destination| one(facts, limits, destination)).collect()
}

fn one(facts: &Facts, limits: &Limits, destination: &Destination) -> Option<Finding> {
    let Destination { laddr, raddr, rport, netns, used, time_wait, before, opened, failed, owner } =
        *destination;
    let namespace = facts.namespace(netns)?;
    let ports = namespace.ports()?;
    let all = u64::from(ports.end().saturating_sub(*ports.start())) + 1;
    // Those in TIME_WAIT can be taken over after a second, if that is allowed.
    let reusable = reuses(namespace, destination);
    let taken = if reusable { used - time_wait } else { used };
    let growth = facts.per_second(used.saturating_sub(before));
    let left_ns = left(all.saturating_sub(used), growth).filter(|_| !reusable);
    // What is opened now is in TIME_WAIT for 60 s: if that many fit they do not run out.
    let steady = facts.per_second(opened) * 60.0;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let runs_out = left_ns.filter(|_| steady + (used - time_wait) as f64 > all as f64);
    let soon = runs_out.is_some_and(|ns| ns <= limits.ns(&RULE, &LEFT));
    let full = percent(taken, all);
    if failed == 0 && full < limits.of(&RULE, &USED) && !soon {
        return None;
    }
    let severity = if failed > 0 || soon { Severity::Critical } else { Severity::Warning };
    let to = end(raddr, rport);
    let title = if failed > 0 {
        format!("{} has no local port left for {to}: connect() failed {failed} times", who(owner))
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
    let finding = if time_wait * 2 > used {
        finding.remedy("keep connections open and use them again (a pool, HTTP keep-alive): most of these ports are only waiting")
    } else {
        finding.remedy("most of these ports are in use: fewer connections (a smaller pool), or a second source or destination address")
    };
    Some(
        finding
            .more(format!("tcptrace hist 1{filter}"))
            .more(format!("tcptrace conns{filter} --cause no_local_port")),
    )
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
