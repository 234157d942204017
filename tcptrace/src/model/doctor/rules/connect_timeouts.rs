//! Connections of processes here that were given up because nobody answered, or because ICMP said that there is no way.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Ends,
        group::sum,
        words::{alive, many, place, span, whose},
    },
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 3.0,
    unit: Unit::Count,
    why: "one or two are peers that are just being restarted",
};

pub(super) static RULE: Rule = Rule { name: "connect-timeouts", thresholds: &[&COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let ways = [
        (Cause::ConnectTimeout, "no SYN was answered"),
        (Cause::Unreachable, "ICMP said that it cannot be reached"),
    ];
    ways.into_iter().flat_map(|(cause, how)| failed(facts, limits, cause, how)).collect()
}

fn failed(facts: &Facts, limits: &Limits, cause: Cause, how: &str) -> Vec<Finding> {
    let is_one = |part: &&Ends| part.cause == Some(cause) && part.hit == Some(State::SYN_SENT);
    let mut findings = Vec::new();
    for all in sum(facts.ends.iter().filter(is_one), Group::any_process) {
        if all.count < limits.count(&RULE, &COUNT) {
            continue;
        }
        let parts = facts.ends.iter().filter(is_one);
        let parts = parts.filter(|part| part.group.any_process() == all.group.any_process());
        let title = format!(
            "{} of {} to {} failed: {how}",
            many(all.count, "connection"),
            whose(all.owner, parts),
            place(&all.group)
        );
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence_if(all.ages.count > 0, || {
                    format!("given up after {} to {}", span(all.ages.least_ns), span(all.ages.most_ns))
                })
                .evidence_if(cause == Cause::ConnectTimeout, || alive(facts, &all.group))
                .more(format!("tcptrace -r{filter} --state syn-sent"))
                .more(format!("tcptrace conns{filter} --cause {}", cause.name())),
        );
    }
    findings
}
