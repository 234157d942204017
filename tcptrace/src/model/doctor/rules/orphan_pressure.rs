//! Orphans near their limit: connections that applications have closed, and that the kernel still has to end.

use crate::model::doctor::{Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit, words::percent};

static USED: Threshold = Threshold {
    name: "used",
    default: 50.0,
    unit: Unit::Percent,
    why: "of tcp_max_orphans; the kernel counts an orphan up to four times where the peer is slow (tcp_out_of_resources())",
};

pub(super) static RULE: Rule = Rule { name: "orphan-pressure", thresholds: &[&USED], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    // The count of orphans is the host's, the same in every namespace; so is the limit.
    let Some(namespace) = facts.newest() else { return Vec::new() };
    let orphans = namespace.latest.sockstat.orphans;
    let Some(most) = facts.namespaces.iter().find_map(|one| one.latest.sysctls.count("tcp_max_orphans"))
    else {
        return Vec::new();
    };
    let killed: u64 = facts.namespaces.iter().map(|namespace| namespace.counted().abort_on_memory).sum();
    let near = orphans > 0 && percent(orphans, most) >= limits.of(&RULE, &USED);
    if !near && killed == 0 {
        return Vec::new();
    }
    let (severity, title) = if killed > 0 {
        (
            Severity::Critical,
            format!(
                "{killed} closed connections were given up with a RST: too many orphans, or no TCP memory"
            ),
        )
    } else {
        (Severity::Warning, format!("orphans are near their limit: {orphans} of {most}"))
    };
    vec![
        Finding::new(&RULE, severity, title)
            .about(Group::default(), None, orphans.max(killed))
            .evidence(format!("{orphans} orphans, tcp_max_orphans={most}"))
            .evidence_if(killed > 0, || format!("TCPAbortOnMemory rose by {killed}"))
            .more("tcptrace rst 5")
            .more("tcptrace hist 1 --sort fin-wait1"),
    ]
}
