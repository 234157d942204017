//! Signs of something in between that ends or breaks connections: a firewall, a NAT, a connection table that is full.

use crate::model::doctor::{
    Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
    facts::Stray,
    words::{ends, many, percent, place, rate},
};

static PAIRS: Threshold = Threshold {
    name: "pairs",
    default: 1.0,
    unit: Unit::Count,
    why: "connections both ends of which got a RST that neither sent; one is proof",
};
static STRAY: Threshold = Threshold {
    name: "stray",
    default: 20.0,
    unit: Unit::Count,
    why: "connections that a service sends segments of and that are not here; fewer are late segments",
};
static TABLE: Threshold = Threshold {
    name: "conntrack",
    default: 90.0,
    unit: Unit::Percent,
    why: "of nf_conntrack_max; beyond it packets of new connections are dropped",
};

pub(super) static RULE: Rule =
    Rule { name: "middlebox-resets", thresholds: &[&PAIRS, &STRAY, &TABLE], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (pairs, example) = facts.severed;
    if pairs >= limits.count(&RULE, &PAIRS).max(1) {
        let title = format!(
            "something between the ends resets connections: {} got RSTs at both ends that neither sent",
            many(pairs, "connection")
        );
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(Group::default(), None, pairs)
                .evidence_if(example.is_some(), || {
                    format!("for example {}", example.as_ref().map(ends).unwrap_or_default())
                })
                .more("tcptrace conns --cause peer_rst -w"),
        );
    }
    for stray in facts.strays.iter().filter(|stray| !stray.ours) {
        let Stray { netns, raddr, port, connections, count, .. } = *stray;
        if connections < limits.count(&RULE, &STRAY) {
            continue;
        }
        let group = Group { netns, ours: false, port: Some(port), raddr, pid: None };
        let title = format!(
            "{} sends segments of connections that are not here: {connections} of them, answered by RSTs",
            place(&group)
        );
        let filter = facts.filter(&group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(group, None, connections)
                .evidence(format!("{} sent, {}", many(count, "RST"), rate(facts.per_second(count))))
                .remedy("a NAT or conntrack on the way lost them (nf_conntrack_tcp_be_liberal=1 there, or drop INVALID), or the peer keeps what this host had closed")
                .more(format!("tcptrace rst 5{filter}"))
                .more("conntrack -S"),
        );
    }
    for namespace in &facts.namespaces {
        let sysctls = &namespace.latest.sysctls;
        let (Some(count), Some(most)) =
            (sysctls.count("nf_conntrack_count"), sysctls.count("nf_conntrack_max"))
        else {
            continue;
        };
        if percent(count, most) < limits.of(&RULE, &TABLE) {
            continue;
        }
        let netns = namespace.netns();
        let title = format!(
            "the connection table of netfilter is nearly full: {count} of {most}{}",
            facts.within(netns)
        );
        findings.push(
            Finding::new(&RULE, Severity::Critical, title)
                .about(Group { netns, ..Group::default() }, None, count)
                .evidence(format!("nf_conntrack_count={count}, nf_conntrack_max={most}"))
                .remedy("raise nf_conntrack_max, shorten nf_conntrack_tcp_timeout_*, or leave traffic untracked that needs no NAT (NOTRACK)")
                .more("conntrack -S"),
        );
    }
    findings
}
