//! SYNs that nobody answers: connections that stay in SYN_SENT.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Listener, Standing},
        words::{alive, many, place, span, whose},
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
    let mut findings = Vec::new();
    for all in facts.standing(&[State::SYN_SENT], Group::any_process) {
        let old = all.older_than(limits.ns(&RULE, &AGE));
        if old < limits.count(&RULE, &COUNT) {
            continue;
        }
        let is_part = |part: &&Standing| {
            part.state == Some(State::SYN_SENT) && part.group.any_process() == all.group.any_process()
        };
        let whose = whose(all.owner, facts.standing.iter().filter(is_part));
        let title = format!(
            "{} does not answer: {} of {whose} wait in SYN_SENT",
            place(&all.group),
            many(old, "connection")
        );
        // On this host the other side can be looked at, too.
        let Group { netns, raddr, port, .. } = all.group;
        let is_it = |listener: &&Listener| {
            let at = raddr.is_some_and(|raddr| ip(raddr).is_loopback() || raddr == listener.tuple.laddr);
            listener.tuple.netns == netns && Some(listener.tuple.lport) == port && at
        };
        let why = match facts.listeners.iter().find(is_it) {
            Some(listener) => format!(
                "the listener is on this host: {} connections wait in its accept queue, its backlog is {}",
                listener.most, listener.backlog
            ),
            None => alive(facts, &all.group),
        };
        let filter = facts.filter(&all.group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, old)
                .evidence(format!("the oldest has waited for {}", span(all.oldest_ns())))
                .evidence(why)
                .more(format!("tcptrace -r{filter} --state syn-sent")),
        );
    }
    findings
}
