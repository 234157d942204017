//! Connections of processes here that were given up because nobody answered, or because ICMP said that there is no way.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Limits, Rule, Severity, Threshold, Unit,
        words::{many, place, span, who},
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
    let mut findings = Vec::new();
    for all in facts.ends(&[Cause::ConnectTimeout, Cause::Unreachable], |group| group) {
        if all.count < limits.count(&RULE, &COUNT) || all.hit != Some(State::SYN_SENT) {
            continue;
        }
        let to = place(&all.group);
        let how = if all.cause == Some(Cause::Unreachable) {
            "ICMP said that it cannot be reached"
        } else {
            "no SYN was answered"
        };
        let title = format!("{} of {} to {to} failed: {how}", many(all.count, "connection"), who(all.owner));
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence_if(all.ages.count > 0, || {
                    format!("given up after {} to {}", span(all.ages.least_ns), span(all.ages.most_ns))
                })
                .more(format!("tcptrace -r{filter} --state syn-sent"))
                .more(format!("tcptrace conns{filter} --cause connect_timeout,unreachable")),
        );
    }
    findings
}
