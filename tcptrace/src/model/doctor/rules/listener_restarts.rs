//! Listeners that close and open again: a service that is restarted, or crashes.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        words::{many, times, who},
    },
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 2.0,
    unit: Unit::Count,
    why: "one restart in the time watched is a deployment",
};

pub(super) static RULE: Rule = Rule { name: "listener-restarts", thresholds: &[&COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for restarts in &facts.restarts {
        if restarts.count < limits.count(&RULE, &COUNT).max(1) {
            continue;
        }
        let group = Group {
            netns: restarts.netns,
            ours: true,
            port: Some(restarts.port),
            raddr: None,
            pid: restarts.owner.map(|owner| owner.pid),
        };
        let killed: u64 = facts
            .ends(&[Cause::ListenerClosed], Group::service)
            .iter()
            .filter(|all| all.group.netns == restarts.netns && all.group.port == Some(restarts.port))
            .map(|all| all.count)
            .sum();
        let title = format!(
            "the listener of port {} was closed and opened again {}",
            restarts.port,
            times(restarts.count)
        );
        let filter = facts.filter(&group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(group, restarts.owner, restarts.count)
                .evidence(if restarts.processes > 1 {
                    format!(
                        "by {} processes, one after the other; the last is {}",
                        restarts.processes,
                        who(restarts.owner)
                    )
                } else {
                    format!("by {}", who(restarts.owner))
                })
                .evidence_if(killed > 0, || {
                    format!("{} in the accept queue got a RST", many(killed, "connection"))
                })
                .more(format!("tcptrace{filter} --state listen")),
        );
    }
    findings
}
