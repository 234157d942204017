//! SO_LINGER 0 in use: close() sends a RST.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        words::{at, many, peers, rate, who},
    },
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 50.0,
    unit: Unit::Count,
    why: "fewer are health checks, which may do that",
};
static SECONDS: Threshold = Threshold {
    name: "in-seconds",
    default: 3.0,
    unit: Unit::Count,
    why: "different seconds; all at once is a process that ended, not a habit",
};

pub(super) static RULE: Rule = Rule { name: "linger-zero", thresholds: &[&COUNT, &SECONDS], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for all in facts.ends(&[Cause::LocalAbortLinger], Group::any_peer) {
        if all.count < limits.count(&RULE, &COUNT) || all.seconds.count() < limits.count(&RULE, &SECONDS) {
            continue;
        }
        let title = format!(
            "{} closes with SO_LINGER 0 {}: {}, each a RST to the peer",
            who(all.owner),
            at(&all.group),
            many(all.count, "connection")
        );
        let parts = facts
            .ends
            .iter()
            .filter(|part| part.cause == all.cause && part.group.any_peer() == all.group.any_peer());
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence(format!(
                    "{}, in {} different seconds",
                    rate(facts.per_second(all.count)),
                    all.seconds.count()
                ))
                .evidence(format!("peers: {}", peers(parts)))
                .more(format!("tcptrace conns{filter} --cause local_abort_linger -w")),
        );
    }
    findings
}
