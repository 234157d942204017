//! Clients that open a connection for each request.

use crate::model::doctor::{
    Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
    group::sum,
    words::{many, percent, place, rate, span, whose},
};

static RATE: Threshold = Threshold {
    name: "rate",
    default: 10.0,
    unit: Unit::PerSecond,
    why: "connections to one destination; fewer cost little",
};
static COUNT: Threshold = Threshold {
    name: "count",
    default: 50.0,
    unit: Unit::Count,
    why: "connections in the time watched; fewer are no habit",
};
static TRIPS: Threshold = Threshold {
    name: "part",
    default: 150.0,
    unit: Unit::Percent,
    why: "of a round trip, that a connection is open; one request and its answer take one, so that the handshake was as dear",
};
static TRIP: Threshold = Threshold {
    name: "round-trip",
    default: 0.001,
    unit: Unit::Seconds,
    why: "shorter ones are in the same rack or host, where a handshake costs next to nothing",
};

pub(super) static RULE: Rule =
    Rule { name: "short-connections", thresholds: &[&RATE, &COUNT, &TRIPS, &TRIP], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for lives in sum(&facts.lives, Group::any_process) {
        let per_second = facts.per_second(lives.count);
        let (Some(trip_ns), Some(open_ns)) = (lives.handshake.mean_ns(), lives.established.mean_ns()) else {
            continue;
        };
        let short = percent(open_ns, trip_ns) <= limits.of(&RULE, &TRIPS);
        if !short
            || lives.count < limits.count(&RULE, &COUNT)
            || per_second < limits.of(&RULE, &RATE)
            || trip_ns < limits.ns(&RULE, &TRIP)
        {
            continue;
        }
        let parts = facts.lives.iter().filter(|part| part.group.any_process() == lives.group.any_process());
        let title = format!(
            "{} opens a connection to {} for each request: {}",
            whose(lives.owner, parts),
            place(&lives.group),
            rate(per_second)
        );
        let filter = facts.filter(&lives.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(lives.group, lives.owner, lives.count)
                .evidence(format!(
                    "{}, open for {} on average; the handshake alone took {}",
                    many(lives.count, "connection"),
                    span(open_ns),
                    span(trip_ns)
                ))
                .more(format!("tcptrace conns{filter}"))
                .more(format!("tcptrace hist -d 10s --time-in-state{filter}")),
        );
    }
    findings
}
