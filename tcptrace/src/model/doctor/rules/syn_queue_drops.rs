//! SYNs that are dropped because the queue of half-open connections is full, and no cookies are sent.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::Namespace,
        words::{rate, who},
    },
    health::Snmp,
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 1.0,
    unit: Unit::Count,
    why: "each is a client that waits a second or more for nothing",
};

pub(super) static RULE: Rule = Rule { name: "syn-queue-drops", thresholds: &[&COUNT], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    if facts.filtered {
        return Vec::new();
    }
    let judged = |namespace: &Namespace| {
        let Snmp { req_queue_full_drop, listen_drops, listen_overflows, .. } = namespace.counted();
        // Without cookies SYNs are dropped when tcp_max_syn_backlog is three quarters full, too, and counted only so.
        let without_cookies = namespace.latest.sysctls.get("tcp_syncookies") == Some(0);
        let others = if without_cookies { listen_drops.saturating_sub(listen_overflows) } else { 0 };
        let dropped = req_queue_full_drop.max(others);
        if dropped < limits.count(&RULE, &COUNT).max(1) {
            return None;
        }
        let netns = namespace.netns();
        let sysctls = &namespace.latest.sysctls;
        let half_open = facts.standing(&[State::SYN_RECV], Group::service);
        let most = half_open.iter().find(|all| all.group.netns == netns);
        // The one with the longest queue is the one that is full.
        let listener = facts.listeners.iter().find(|listener| {
            listener.tuple.netns == netns
                && most.is_some_and(|all| all.group.port == Some(listener.tuple.lport))
        });
        let owner = listener.and_then(|listener| listener.owner);
        let group = most.map_or(Group { netns, ..Group::default() }, |all| all.group);
        let port = group.port.map_or_else(String::new, |port| format!(" of port {port}"));
        let title = format!(
            "the SYN queue{port} is full: {} dropped",
            if dropped == 1 { "1 SYN was".to_owned() } else { format!("{dropped} SYNs were") }
        );
        Some(
            Finding::new(&RULE, Severity::Critical, title + &facts.within(netns))
                .about(group, owner, dropped)
                .evidence(format!(
                    "TCPReqQFullDrop rose by {req_queue_full_drop}, ListenDrops by {listen_drops}: {}",
                    rate(facts.per_second(dropped))
                ))
                .evidence_if(most.is_some(), || {
                    format!("{} in SYN_RECV{port}, of {}", most.map_or(0, |all| all.count), who(owner))
                })
                .evidence(format!(
                    "tcp_syncookies={}, tcp_max_syn_backlog={}",
                    sysctls.get("tcp_syncookies").unwrap_or(0),
                    sysctls.get("tcp_max_syn_backlog").unwrap_or(0)
                ))
                .more("tcptrace hist 1 --sort syn-recv"),
        )
    };
    facts.namespaces.iter().filter_map(judged).collect()
}
