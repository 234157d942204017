//! Accept queues that are full: the kernel drops what nobody accepts.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Listener, Namespace},
        words::{end, percent, rate, who},
    },
    health::Snmp,
};

static FULL: Threshold = Threshold {
    name: "full",
    default: 80.0,
    unit: Unit::Percent,
    why: "of the backlog; what is left does not carry a burst",
};
static WAITING: Threshold = Threshold {
    name: "waiting",
    default: 4.0,
    unit: Unit::Count,
    why: "fewer connections that wait can be a backlog of 1 or 2 that is meant",
};

pub(super) static RULE: Rule = Rule { name: "accept-queue-full", thresholds: &[&FULL, &WAITING], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let counted = |netns| facts.namespace(netns).map(Namespace::counted).unwrap_or_default();
    let judged = |listener: &Listener| {
        let Listener { tuple, owner, queue, most, again, backlog, drops, .. } = *listener;
        let Snmp { listen_overflows: over, listen_drops, .. } = counted(tuple.netns);
        // sk_acceptq_is_full(): one more than the backlog may wait.
        let is_full = backlog > 0 && most >= backlog && u64::from(most) >= limits.count(&RULE, &WAITING);
        // One look can meet a burst that is accepted at once; what waits at two, or does not fit, is more.
        let waiting = if drops > 0 { most } else { again };
        let near = percent(waiting.into(), backlog.into()) >= limits.of(&RULE, &FULL)
            && u64::from(waiting) >= limits.count(&RULE, &WAITING);
        // A burst between two looks is not seen, but counted. A listener drops for other reasons, too, unless all drops of
        // the namespace are overflows.
        let dropping = drops > 0 && over > 0 && (backlog == 0 || most >= backlog || listen_drops <= over);
        if !near && !dropping {
            return None;
        }
        let severity = if dropping || is_full { Severity::Critical } else { Severity::Warning };
        let what = if severity == Severity::Critical { "is full" } else { "is nearly full" };
        let title = format!(
            "the accept queue of {} {what}: {} does not accept fast enough",
            end(tuple.laddr, tuple.lport),
            who(owner)
        );
        let group = Group {
            netns: tuple.netns,
            ours: true,
            port: Some(tuple.lport),
            raddr: None,
            pid: owner.map(|owner| owner.pid),
        };
        let filter = facts.filter(&group);
        let somaxconn =
            facts.namespace(tuple.netns).and_then(|namespace| namespace.latest.sysctls.count("somaxconn"));
        let mut finding =
            Finding::new(&RULE, severity, title).about(group, owner, most.into()).evidence(format!(
                "{most} connections waited to be accepted, of a backlog of {backlog}; {queue} do at the end"
            ));
        if drops > 0 {
            finding = finding.evidence(format!(
                "it dropped {drops} SYNs and ACKs, {}; ListenOverflows rose by {over}",
                rate(facts.per_second(drops)),
            ));
        }
        if let Some(somaxconn) = somaxconn {
            let capped = u64::from(backlog) == somaxconn;
            finding = finding.evidence(format!(
                "net.core.somaxconn is {somaxconn}{}",
                if capped {
                    ": it caps what the application asks for in listen()"
                } else {
                    ", so the backlog is what the application asked for in listen()"
                }
            ));
            finding = finding.remedy(if capped {
                "find out why accept() is late first; a longer queue (somaxconn and listen()) only carries bursts"
            } else {
                "find out why accept() is late first; a longer queue (the backlog of listen(): listen ... backlog= in nginx, tcp-backlog in Redis) only carries bursts"
            });
        }
        Some(
            finding
                .more(format!("ss -ltn sport = :{}", tuple.lport))
                .more(format!("tcptrace -r{filter}"))
                .more(format!("tcptrace hist 1{filter}")),
        )
    };
    facts.wanted_listeners().filter_map(judged).collect()
}
