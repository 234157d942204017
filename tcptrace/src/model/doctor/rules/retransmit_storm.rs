//! Segments that have to be sent again and again to a peer.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Namespace, Retransmits},
        group::sum,
        words::{ends, many, percent, place, rate},
    },
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 30.0,
    unit: Unit::Count,
    why: "fewer are a burst that overflowed a queue somewhere",
};
static SECONDS: Threshold = Threshold {
    name: "in-seconds",
    default: 3.0,
    unit: Unit::Count,
    why: "different seconds; loss that lasts, not one incident",
};
static PART: Threshold = Threshold {
    name: "part",
    default: 1.0,
    unit: Unit::Percent,
    why: "of all segments sent in the network namespace; less is usual over the Internet",
};

pub(super) static RULE: Rule =
    Rule { name: "retransmit-storm", thresholds: &[&COUNT, &SECONDS, &PART], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    // SYNs and SYN-ACKs have rules of their own.
    let data = |part: &&Retransmits| !matches!(part.state, Some(State::SYN_SENT | State::SYN_RECV));
    let mut findings = Vec::new();
    for all in sum(facts.retransmits.iter().filter(data), Group::peer_alone) {
        let counted = facts.namespace(all.group.netns).map(Namespace::counted).unwrap_or_default();
        let part = percent(all.count, counted.out_segs);
        let few =
            all.count < limits.count(&RULE, &COUNT) || all.seconds.count() < limits.count(&RULE, &SECONDS);
        if few || counted.out_segs > 0 && part < limits.of(&RULE, &PART) {
            continue;
        }
        let peer = place(&all.group.peer_alone());
        let title = format!(
            "segments to {peer} are lost: {} sent again, {}",
            all.count,
            rate(facts.per_second(all.count))
        );
        let by_port = sum(
            facts
                .retransmits
                .iter()
                .filter(data)
                .filter(|part| part.group.peer_alone() == all.group.peer_alone()),
            Group::any_process,
        );
        let ports: Vec<String> =
            by_port.iter().take(4).map(|part| format!("{} ({})", place(&part.group), part.count)).collect();
        let filter = facts.filter(&all.group.peer_alone());
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence(format!("connections of {}", ports.join(", ")))
                .evidence_if(counted.out_segs > 0, || {
                    format!(
                        "of {} sent{}, {} were sent again ({:.1} %), {} after a timeout",
                        many(counted.out_segs, "segment"),
                        facts.within(all.group.netns),
                        counted.retrans_segs,
                        percent(counted.retrans_segs, counted.out_segs),
                        counted.timeouts
                    )
                })
                .evidence_if(all.example.is_some(), || {
                    format!("for example {}", all.example.as_ref().map(ends).unwrap_or_default())
                })
                .more(format!("tcptrace -r{filter}"))
                .more(format!("ss -tin dst {peer}")),
        );
    }
    findings
}
