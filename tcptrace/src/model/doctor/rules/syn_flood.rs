//! Many half-open connections: a SYN flood, or ACKs that do not arrive.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Namespace,
        words::{at, many, peers, percent, rate, who},
    },
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 128.0,
    unit: Unit::Count,
    why: "half-open connections of a port whose SYN+ACK had to be sent again: they are a second old, and no round trip takes that long",
};
static SPREAD: Threshold = Threshold {
    name: "spread",
    default: 50.0,
    unit: Unit::Percent,
    why: "so many different peers among them look like forged addresses",
};

pub(super) static RULE: Rule = Rule { name: "syn-flood", thresholds: &[&COUNT, &SPREAD], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let half_open = facts.standing(&[State::SYN_RECV], Group::service);
    let mut findings = Vec::new();
    for all in &half_open {
        let netns = all.group.netns;
        let counted = facts.namespace(netns).map(Namespace::counted).unwrap_or_default();
        // They are counted of the network namespace; the longest queue is the one that is full.
        let longest = half_open
            .iter()
            .find(|other| other.group.netns == netns)
            .is_some_and(|other| other.group == all.group);
        let cookies = if facts.filtered || !longest { 0 } else { counted.req_queue_full_do_cookies };
        if all.unanswered < limits.count(&RULE, &COUNT) && cookies == 0 {
            continue;
        }
        let of_group = |group: Group| group.service() == all.group.service();
        let parts: Vec<_> = facts
            .standing
            .iter()
            .filter(|part| part.state == Some(State::SYN_RECV) && of_group(part.group))
            .collect();
        let different = parts.len() as u64;
        let forged = percent(different, all.count) >= limits.of(&RULE, &SPREAD);
        let again: u64 = facts
            .retransmits
            .iter()
            .filter(|part| part.state == Some(State::SYN_RECV) && of_group(part.group))
            .map(|part| part.count)
            .sum();
        let listener = facts
            .listeners
            .iter()
            .find(|listener| listener.tuple.netns == netns && Some(listener.tuple.lport) == all.group.port);
        let owner = listener.and_then(|listener| listener.owner);
        let severity = if cookies > 0 { Severity::Critical } else { Severity::Warning };
        let addresses = match different {
            1 => "one address".to_owned(),
            _ => format!("{different} addresses"),
        };
        let looks = if forged { "a SYN flood" } else { "ACKs do not arrive" };
        let title = format!(
            "{} half open {}: {looks}",
            if all.count == 1 {
                "1 connection is".to_owned()
            } else {
                format!("{} connections are", all.count)
            },
            at(&all.group)
        );
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, severity, title)
                .about(all.group, owner, all.count)
                .evidence(format!(
                    "{} in SYN_RECV, {} of them for a second and more, from {addresses}: {}",
                    all.count,
                    all.unanswered,
                    peers(parts)
                ))
                .evidence_if(again > 0, || {
                    format!("{} sent again, {}", many(again, "SYN+ACK"), rate(facts.per_second(again)))
                })
                .evidence_if(cookies > 0, || {
                    format!(
                        "the SYN queue was full: {} answered with a cookie, {}",
                        many(cookies, "SYN"),
                        rate(facts.per_second(cookies))
                    )
                })
                .evidence(format!("the listener is {}", who(owner)))
                .more(format!("tcptrace -r{filter} --state syn-recv"))
                .more(format!("tcptrace hist 1{filter}")),
        );
    }
    findings
}
