//! Orphans in FIN_WAIT2: connections closed here whose peers do not close their half.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Standing,
        group::sum,
        words::{examples, many, peers, percent, place, span},
    },
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 100.0,
    unit: Unit::Count,
    why: "minisocks are small and go after tcp_fin_timeout; fewer cost nothing",
};
static AGE: Threshold = Threshold {
    name: "age",
    default: 2.0,
    unit: Unit::Seconds,
    why: "a peer that closes at all does so within a round trip or two",
};

static PART: Threshold = Threshold {
    name: "part",
    default: 20.0,
    unit: Unit::Percent,
    why: "of those that this end closed first and that wait (the rest is in TIME_WAIT); some clients are always gone",
};

pub(super) static RULE: Rule = Rule { name: "fin-wait2-orphans", thresholds: &[&COUNT, &AGE, &PART], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let orphan = |part: &&Standing| part.minisocks && part.state == Some(State::FIN_WAIT2);
    let orphans = sum(facts.standing.iter().filter(orphan), Group::service);
    let mut findings = Vec::new();
    for all in orphans {
        let old = all.older_than(limits.ns(&RULE, &AGE));
        // Both last for a minute.
        let closed = |part: &&Standing| {
            part.state == Some(State::TIME_WAIT) && part.group.service() == all.group.service()
        };
        let closed: u64 = facts.standing.iter().filter(closed).map(|part| part.count).sum();
        let part = percent(old, old + closed);
        if old < limits.count(&RULE, &COUNT) || part < limits.of(&RULE, &PART) {
            continue;
        }
        let parts =
            facts.standing.iter().filter(orphan).filter(|part| part.group.service() == all.group.service());
        let title = format!(
            "{} in FIN_WAIT2: the peers of {} do not close",
            many(all.count, "orphan"),
            place(&all.group)
        );
        let timeout = facts
            .namespace(all.group.netns)
            .and_then(|namespace| namespace.latest.sysctls.get("tcp_fin_timeout"))
            .unwrap_or(60);
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence(format!(
                    "{part:.0} % of what this end closed first; {old} for more than {}, the oldest for {}",
                    span(limits.ns(&RULE, &AGE)),
                    span(all.oldest_ns())
                ))
                .evidence(format!("peers: {}", peers(parts)))
                .evidence(format!("each goes after tcp_fin_timeout={timeout} s"))
                .evidence(examples(&all.examples))
                .more(format!("tcptrace hist 1{filter} --by raddr --sort fin-wait2"))
                .more(format!("tcptrace conns{filter} --cause fin_wait2_timeout")),
        );
    }
    findings
}
