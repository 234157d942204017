//! Connections whose peers answered no keepalive probe.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Ends,
        words::{ends, many, place, whose},
    },
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 3.0,
    unit: Unit::Count,
    why: "one or two are peers that went away, which is what keepalive is for",
};

pub(super) static RULE: Rule = Rule { name: "keepalive-deaths", thresholds: &[&COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for all in facts.ends(&[Cause::KeepaliveTimeout], Group::any_process) {
        if all.count < limits.count(&RULE, &COUNT) {
            continue;
        }
        let is_part =
            |part: &&Ends| part.cause == all.cause && part.group.any_process() == all.group.any_process();
        let parts = facts.ends.iter().filter(is_part);
        let peer = place(&all.group.peer_alone());
        let title = format!(
            "{peer} answers no keepalive probe: {} of {} ended",
            many(all.count, "connection"),
            whose(all.owner, parts)
        );
        let keepalive = facts
            .namespace(all.group.netns)
            .and_then(|namespace| namespace.latest.sysctls.get("tcp_keepalive_time"));
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence_if(all.example.is_some(), || {
                    format!("for example {}", all.example.as_ref().map(ends).unwrap_or_default())
                })
                .evidence_if(keepalive.is_some(), || {
                    format!(
                        "tcp_keepalive_time={} s where the application sets nothing else (TCP_KEEPIDLE)",
                        keepalive.unwrap_or_default()
                    )
                })
                .more(format!("tcptrace conns{filter} --cause keepalive_timeout -w")),
        );
    }
    findings
}
