//! RSTs sent because nothing listens: who asks for what.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        words::{place, rate},
    },
    event::ip,
    tally::Reset,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 10.0,
    unit: Unit::Count,
    why: "fewer are a health check or a person who mistyped",
};
static PORTS: Threshold = Threshold {
    name: "ports",
    default: 20.0,
    unit: Unit::Count,
    why: "a peer that asks for so many different ports scans",
};

pub(super) static RULE: Rule = Rule { name: "closed-port", thresholds: &[&COUNT, &PORTS], judge };

/// Whether the RST says that nothing listens there. Before 6.10 such RSTs are not reported.
fn is_closed(row: &Reset) -> bool {
    row.key.sent && row.key.lport.is_some() && row.key.reason.as_deref() == Some("NO_SOCKET")
}

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let mut by_peer: FxHashMap<_, (u64, FxHashSet<u16>)> = FxHashMap::default();
    for row in facts.resets.iter().filter(|row| is_closed(row)) {
        let (count, ports) = by_peer.entry((row.key.netns, row.key.raddr)).or_default();
        *count += row.recent;
        ports.extend(row.key.lport);
    }
    let scans = |peer: &(u32, Option<_>)| {
        by_peer.get(peer).is_some_and(|(_, ports)| ports.len() as u64 >= limits.count(&RULE, &PORTS))
    };
    let mut findings = Vec::new();
    for (peer, (count, ports)) in by_peer.iter().filter(|(peer, _)| scans(peer)) {
        let group = Group { netns: peer.0, raddr: peer.1, ..Group::default() };
        let title = format!(
            "{} scans this host: it asked for {} ports that nobody listens on",
            place(&group),
            ports.len()
        );
        let filter = facts.filter(&group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(group, None, *count)
                .evidence(format!("{count} RSTs sent to it, {}", rate(facts.per_second(*count))))
                .more(format!("tcptrace rst 5{filter}")),
        );
    }
    let mut by_port: FxHashMap<(u32, u16), Vec<&Reset>> = FxHashMap::default();
    for row in facts.resets.iter().filter(|row| is_closed(row) && !scans(&(row.key.netns, row.key.raddr))) {
        if let Some(port) = row.key.lport {
            by_port.entry((row.key.netns, port)).or_default().push(row);
        }
    }
    for ((netns, port), mut rows) in by_port {
        let count: u64 = rows.iter().map(|row| row.recent).sum();
        if count < limits.count(&RULE, &COUNT) {
            continue;
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.recent));
        let asks = |row: &Reset| row.key.raddr.map(|raddr| format!("{} ({})", ip(raddr), row.recent));
        let peers: Vec<String> = rows.iter().take(4).filter_map(|row| asks(row)).collect();
        let group = Group { netns, ours: true, port: Some(port), ..Group::default() };
        let title = format!(
            "nothing listens on port {port}, and it is asked for {count} times, {}",
            rate(facts.per_second(count))
        );
        let filter = facts.filter(&group);
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(group, None, count)
                .evidence(format!("asked for by {}", peers.join(", ")))
                .evidence_if(rows.len() > 4, || format!("and {} more peers", rows.len() - 4))
                .more(format!("tcptrace rst 5{filter}"))
                .more(format!("ss -ltnp sport = :{port}")),
        );
    }
    findings
}
