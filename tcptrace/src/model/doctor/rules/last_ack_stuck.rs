//! LAST_ACK and CLOSING that stay: the last ACK does not come.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Standing,
        words::{at, examples, many, peers, percent, span},
    },
    state::State,
};

static AGE: Threshold = Threshold {
    name: "age",
    default: 5.0,
    unit: Unit::Seconds,
    why: "the FIN has been sent again four times by then",
};
static COUNT: Threshold =
    Threshold { name: "count", default: 5.0, unit: Unit::Count, why: "one or two are peers that went away" };
static PART: Threshold = Threshold {
    name: "part",
    default: 2.0,
    unit: Unit::Percent,
    why: "of the connections of the service, those that ended meanwhile among them; some clients on the Internet are always gone",
};
const STATES: [State; 2] = [State::LAST_ACK, State::CLOSING];

pub(super) static RULE: Rule = Rule { name: "last-ack-stuck", thresholds: &[&AGE, &COUNT, &PART], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for all in facts.standing(&STATES, Group::service) {
        let old = all.older_than(limits.ns(&RULE, &AGE));
        let part = percent(old, facts.connections(all.group));
        if old < limits.count(&RULE, &COUNT) || part < limits.of(&RULE, &PART) {
            continue;
        }
        let is_part = |part: &&Standing| {
            part.state.is_some_and(|state| STATES.contains(&state))
                && part.group.service() == all.group.service()
        };
        let is_in =
            |state: &&State| facts.standing.iter().filter(is_part).any(|part| part.state == Some(**state));
        let states: Vec<&str> = STATES.iter().filter(is_in).map(|state| state.name()).collect();
        let title = format!(
            "{} {} stay in {}: their peers do not acknowledge the FIN",
            many(old, "connection"),
            at(&all.group),
            states.join(" and ")
        );
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, old)
                .evidence(format!(
                    "{part:.0} % of its connections, with those that ended meanwhile; the oldest has been there for {} at least",
                    span(all.oldest_ns())
                ))
                .evidence_if(all.window_closed > 0, || {
                    format!("{} wait for a window to open (zero window)", all.window_closed)
                })
                .evidence_if(all.unanswered > 0, || {
                    format!("{} have sent something again, without an answer", all.unanswered)
                })
                .evidence(format!("peers: {}", peers(facts.standing.iter().filter(is_part))))
                .evidence(examples(&all.examples))
                .more(format!("tcptrace -r{filter} --state last-ack,closing")),
        );
    }
    findings
}
