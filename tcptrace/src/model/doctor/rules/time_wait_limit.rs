//! TIME_WAIT near its limit, or beyond it.

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        words::{many, percent, place, who},
    },
    state::State,
};

static USED: Threshold = Threshold {
    name: "used",
    default: 80.0,
    unit: Unit::Percent,
    why: "of tcp_max_tw_buckets; a rate that rises by a quarter reaches the limit",
};

pub(super) static RULE: Rule = Rule { name: "time-wait-limit", thresholds: &[&USED], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut findings = Vec::new();
    for namespace in &facts.namespaces {
        let Some(most) = namespace.latest.sysctls.count("tcp_max_tw_buckets") else { continue };
        let waiting = namespace.latest.sockstat.time_wait;
        let over = namespace.counted().time_wait_overflow;
        let netns = namespace.netns();
        if over == 0 && (waiting == 0 || percent(waiting, most) < limits.of(&RULE, &USED)) {
            continue;
        }
        let (severity, what) = match over {
            0 => (Severity::Warning, format!("TIME_WAIT is near its limit: {waiting} of {most}")),
            _ => (
                Severity::Critical,
                format!("TIME_WAIT is full: {} closed without it", many(over, "connection")),
            ),
        };
        let here =
            |group: Group| Group { netns, ours: group.ours, port: group.port, pid: group.pid, raddr: None };
        let mut finding = Finding::new(&RULE, severity, what + &facts.within(netns))
            .about(Group { netns, ..Group::default() }, None, waiting)
            .evidence(format!(
                "{waiting} minisocks, tcp_max_tw_buckets={most}: {} closes a second fill it",
                most / 60
            ))
            .evidence_if(over > 0, || {
                format!("TCPTimeWaitOverflow rose by {over}: late segments are answered by RST")
            });
        let standing = facts.standing(&[State::TIME_WAIT], here);
        let first = standing.iter().filter(|all| all.group.netns == netns).take(3);
        for all in first {
            let owner = all.owner.map_or_else(|| "somebody".to_owned(), |owner| who(Some(owner)));
            let part = if all.group.ours { "the service on" } else { "a client of" };
            finding = finding.evidence(format!(
                "{} in TIME_WAIT: closed first by {owner}, {part} {}",
                all.count,
                place(&all.group)
            ));
        }
        findings.push(finding.more("tcptrace hist 1 --sort time-wait").more("tcptrace explain TIME_WAIT"));
    }
    findings
}
