//! CLOSE_WAIT that grows or stays: the application does not close what its peers have closed.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Standing,
        words::{at, examples, left, many, peers, percent, rate, span, who},
    },
    state::State,
};

static AGE: Threshold = Threshold {
    name: "age",
    default: 60.0,
    unit: Unit::Seconds,
    why: "a server that answers late still closes within a minute",
};
static OLD: Threshold = Threshold {
    name: "old",
    default: 5.0,
    unit: Unit::Count,
    why: "one or two that are old can be meant (a client that only shut down its half)",
};
static GROWTH: Threshold = Threshold {
    name: "growth",
    default: 10.0,
    unit: Unit::Count,
    why: "more by so many in the time watched, none of the new ones closed, is no fluctuation",
};
static FULL: Threshold = Threshold {
    name: "full",
    default: 600.0,
    unit: Unit::Seconds,
    why: "descriptors that run out within ten minutes are critical: accept() fails then",
};

pub(super) static RULE: Rule =
    Rule { name: "close-wait-leak", thresholds: &[&AGE, &OLD, &GROWTH, &FULL], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let standing = facts.standing(&[State::CLOSE_WAIT], Group::any_peer);
    let (age_ns, old) = (limits.ns(&RULE, &AGE), limits.count(&RULE, &OLD));
    let mut findings = Vec::new();
    for all in &standing {
        let growth = all.growth();
        // Of a leak those of the first half are still there; a queue that is worked off has none of them.
        let kept = all.older_than(facts.watched_ns / 2) >= all.before + growth / 4;
        let grows = growth >= limits.count(&RULE, &GROWTH) && kept;
        if !grows && all.older_than(age_ns) < old {
            continue;
        }
        let per_second = if grows { facts.per_second(growth) } else { 0.0 };
        let descriptors = all.owner.and_then(|owner| facts.processes.get(&owner.pid));
        let limit = descriptors.and_then(|descriptors| Some((descriptors.open, descriptors.limit?)));
        let full_ns = limit.and_then(|(open, limit)| left(limit.saturating_sub(open), per_second));
        let full = limit.is_some_and(|(open, limit)| percent(open, limit) >= 95.0)
            || full_ns.is_some_and(|ns| ns <= limits.ns(&RULE, &FULL));
        let severity = if full { Severity::Critical } else { Severity::Warning };
        let more = if grows {
            format!(", {} more every second", rate(per_second).trim_end_matches("/s"))
        } else {
            String::new()
        };
        let title = format!(
            "{} leaves {} in CLOSE_WAIT {}{more}",
            who(all.owner),
            many(all.count, "connection"),
            at(&all.group)
        );
        let mut finding = Finding::new(&RULE, severity, title)
            .about(all.group, all.owner, all.count)
            .evidence(format!("the oldest has been there for {} at least", span(all.oldest_ns())));
        if let Some((open, limit)) = limit {
            let when = full_ns.map_or_else(String::new, |ns| format!(": full in {} at this rate", span(ns)));
            finding = finding.evidence(format!("{open} of its {limit} descriptors are open{when}"));
        }
        let of_group = |part: &&Standing| {
            part.state == Some(State::CLOSE_WAIT) && part.group.any_peer() == all.group.any_peer()
        };
        let filter = facts.filter(&all.group);
        let read = read_so_far(all);
        findings.push(
            finding
                .evidence_if(read.is_some(), || read.unwrap_or_default())
                .evidence(format!("peers: {}", peers(facts.standing.iter().filter(of_group))))
                .evidence(examples(&all.examples))
                .more(format!("tcptrace hist 1{filter} --sort close-wait"))
                .more(format!("tcptrace conns{filter} --state-times close-wait=10s")),
        );
    }
    findings
}

/// What the application knows of it, as far as that is known.
fn read_so_far(all: &Standing) -> Option<String> {
    let Standing { behind, at_end, unaccepted, unread, .. } = *all;
    let unread = if unread > 0 { format!(", {unread} bytes wait to be read") } else { String::new() };
    Some(match (behind, at_end, unaccepted) {
        (0, 0, _) => return None,
        (0, _, _) => {
            "all were read to the end: it knows that they were closed, and does not close".to_owned()
        }
        (_, 0, 0) => format!("none was read to the end: it does not know yet that they were closed{unread}"),
        _ => format!(
            "{at_end} were read to the end, {behind} were not, {unaccepted} were never accepted{unread}"
        ),
    })
}
