//! FIN_WAIT1 that stays: what was sent, the FIN among it, is not acknowledged.

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
    why: "the segment has been sent again four times by then, or the window has been closed that long",
};
static COUNT: Threshold =
    Threshold { name: "count", default: 5.0, unit: Unit::Count, why: "one or two are peers that went away" };

static PART: Threshold = Threshold {
    name: "part",
    default: 2.0,
    unit: Unit::Percent,
    why: "of the connections of the service, those that ended meanwhile among them; some clients on the Internet are always gone",
};
pub(super) static RULE: Rule = Rule { name: "fin-wait1-stuck", thresholds: &[&AGE, &COUNT, &PART], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for all in facts.standing(&[State::FIN_WAIT1], Group::service) {
        let old = all.older_than(limits.ns(&RULE, &AGE));
        let part = percent(old, facts.connections(all.group));
        if old < limits.count(&RULE, &COUNT) || part < limits.of(&RULE, &PART) {
            continue;
        }
        let is_part = |part: &&Standing| {
            part.state == Some(State::FIN_WAIT1) && part.group.service() == all.group.service()
        };
        let closed = all.window_closed > all.unanswered;
        let why = if closed { "their peers' windows are closed" } else { "their peers do not acknowledge" };
        let title = format!("{} {} stay in FIN_WAIT1: {why}", many(old, "connection"), at(&all.group));
        let filter = facts.filter(&all.group);
        let finding = Finding::new(&RULE, Severity::Warning, title)
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
            .evidence(examples(&all.examples));
        findings.push(
            finding.more(format!("tcptrace -r{filter} --state fin-wait1")).more("ss -tonp state fin-wait-1"),
        );
    }
    findings
}
