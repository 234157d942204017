//! SYNs that nobody answers: connections that stay in SYN_SENT.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        words::{many, place, span, who},
    },
    event::ip,
    state::State,
};

static AGE: Threshold = Threshold {
    name: "age",
    default: 2.5,
    unit: Unit::Seconds,
    why: "the SYN has been sent again after 1 s by then; no round trip takes that long",
};
static COUNT: Threshold = Threshold {
    name: "count",
    default: 3.0,
    unit: Unit::Count,
    why: "one or two can be a peer that is just being restarted",
};

pub(super) static RULE: Rule = Rule { name: "connect-stuck", thresholds: &[&AGE, &COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let stuck = facts.standing(&[State::SYN_SENT], |group| group);
    let mut findings = Vec::new();
    for all in stuck {
        let old = all.older_than(limits.ns(&RULE, &AGE));
        if old < limits.count(&RULE, &COUNT) {
            continue;
        }
        let to = place(&all.group);
        let title = format!(
            "{to} does not answer: {} of {} wait in SYN_SENT",
            many(old, "connection"),
            who(all.owner)
        );
        let Group { netns, raddr, port, .. } = all.group;
        // On this host the other side can be looked at, too.
        let here = facts.listeners.iter().find(|listener| {
            listener.tuple.netns == netns
                && Some(listener.tuple.lport) == port
                && raddr.is_some_and(|raddr| ip(raddr).is_loopback())
        });
        let filter = facts.filter(&all.group);
        let finding = Finding::new(&RULE, Severity::Warning, title)
            .about(all.group, all.owner, old)
            .evidence(format!("the oldest has waited for {}", span(all.oldest_ns())))
            .evidence_if(here.is_none(), || {
                "neither SYN+ACK nor RST nor ICMP came: a firewall that drops, a dead host, a wrong route, or a full queue".to_owned()
            });
        let finding = match here {
            Some(listener) => finding.evidence(format!(
                "the listener is on this host: {} of {} places in its accept queue are taken",
                listener.most, listener.backlog
            )),
            None => finding,
        };
        findings.push(finding.more(format!("tcptrace -r{filter} --state syn-sent")));
    }
    findings
}
