//! Open connections that were given up because nothing was acknowledged any more.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Ends,
        group::sum,
        words::{ends, many, place, whose},
    },
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 3.0,
    unit: Unit::Count,
    why: "one or two are peers that lost power or their network",
};

pub(super) static RULE: Rule = Rule { name: "peer-timeouts", thresholds: &[&COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let timed_out = |part: &&Ends| {
        part.hit != Some(State::SYN_SENT) && matches!(part.cause, Some(Cause::Timeout | Cause::Unreachable))
    };
    let mut findings = Vec::new();
    for all in sum(facts.ends.iter().filter(timed_out), Group::any_process) {
        if all.count < limits.count(&RULE, &COUNT) {
            continue;
        }
        let parts = facts.ends.iter().filter(timed_out);
        let parts = parts.filter(|part| part.group.any_process() == all.group.any_process());
        let peer = place(&all.group.peer_alone());
        let title = format!(
            "{peer} acknowledges nothing: {} of {} given up",
            many(all.count, "connection"),
            whose(all.owner, parts)
        );
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence(format!("the end met {}", all.hit.map_or("-", State::name)))
                .evidence_if(all.example.is_some(), || {
                    format!("for example {}", all.example.as_ref().map(ends).unwrap_or_default())
                })
                .more(format!("tcptrace -r{filter}"))
                .more(format!("tcptrace conns{filter} --cause timeout,unreachable -w")),
        );
    }
    findings
}
