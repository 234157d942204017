//! Connections of processes here that are refused.

use tcptrace_common::record::Tuple;

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Ends,
        words::{end, many, place, rate, who, whose},
    },
    event::ip,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 5.0,
    unit: Unit::Count,
    why: "fewer are retries while a peer is restarted",
};

pub(super) static RULE: Rule = Rule { name: "connect-refused", thresholds: &[&COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for all in facts.ends(&[Cause::Refused], Group::any_process) {
        if all.count < limits.count(&RULE, &COUNT) {
            continue;
        }
        let to = place(&all.group);
        let is_part =
            |part: &&Ends| part.cause == all.cause && part.group.any_process() == all.group.any_process();
        let parts = facts.ends.iter().filter(is_part);
        let title = format!("{to} refuses {}: {}", whose(all.owner, parts), many(all.count, "connection"));
        // "localhost" can be ::1 first, where many services do not listen.
        let loopback = all.group.raddr.is_some_and(|raddr| ip(raddr).is_loopback());
        let elsewhere = facts.listeners.iter().find(|listener| {
            let Tuple { netns, lport, .. } = listener.tuple;
            loopback && netns == all.group.netns && Some(lport) == all.group.port
        });
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence(format!("{}; each SYN was answered by a RST", rate(facts.per_second(all.count))))
                .evidence_if(elsewhere.is_some(), || {
                    elsewhere.map_or_else(String::new, |listener| {
                        let at = end(listener.tuple.laddr, listener.tuple.lport);
                        format!("on this host {} listens at {at}", who(listener.owner))
                    })
                })
                .more(format!("tcptrace conns{filter} --cause refused")),
        );
    }
    findings
}
