//! RSTs sent because nothing listens: who asks for what. Before 6.10 the kernel does not report such RSTs.

use rustc_hash::{FxHashMap, FxHashSet};
use tcptrace_common::record::Addr;

use crate::model::{
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Listener, Stray},
        words::{end, many, place, rate, times, who},
    },
    event::ip,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 10.0,
    unit: Unit::Count,
    why: "attempts; fewer are a health check or a person who mistyped",
};
static PORTS: Threshold = Threshold {
    name: "ports",
    default: 20.0,
    unit: Unit::Count,
    why: "a peer that asks for so many different ports scans",
};

pub(super) static RULE: Rule = Rule { name: "closed-port", thresholds: &[&COUNT, &PORTS], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    // Where somebody listens a RST is for what comes late for a connection, and not for a SYN.
    let is_closed =
        |stray: &&Stray| stray.ours && !on_port(facts, stray).any(|listener| hears(listener, stray.laddr));
    let closed: Vec<&Stray> = facts.strays.iter().filter(is_closed).collect();
    let mut ports: FxHashMap<(u32, Option<Addr>), FxHashSet<u16>> = FxHashMap::default();
    // From a port that could be a service's to ports that the kernel hands out: that need be no scan.
    let anything = |stray: &&&Stray| {
        facts.namespace(stray.netns).is_some_and(|namespace| namespace.hands_out(stray.port))
    };
    for stray in closed.iter().filter(|stray| !anything(stray)) {
        ports.entry((stray.netns, stray.raddr)).or_default().insert(stray.port);
    }
    let scans = |stray: &Stray| {
        let ports = ports.get(&(stray.netns, stray.raddr)).map_or(0, FxHashSet::len) as u64;
        stray.raddr.is_some() && ports >= limits.count(&RULE, &PORTS)
    };
    let mut scanners: FxHashMap<(u32, Option<Addr>), u64> = FxHashMap::default();
    let mut services: FxHashMap<(u32, Addr, u16), Vec<&Stray>> = FxHashMap::default();
    for stray in closed {
        if scans(stray) {
            *scanners.entry((stray.netns, stray.raddr)).or_default() += stray.count;
        } else {
            services.entry((stray.netns, stray.laddr, stray.port)).or_default().push(stray);
        }
    }
    let scan = |((netns, raddr), count): ((u32, Option<Addr>), u64)| {
        let ports = ports.get(&(netns, raddr)).map_or(0, FxHashSet::len);
        let group = Group { netns, raddr, ..Group::default() };
        let filter = facts.filter(&group);
        let title =
            format!("{} scans this host: it asked for {ports} ports that nobody listens on", place(&group));
        Finding::new(&RULE, Severity::Warning, title)
            .about(group, None, count)
            .evidence(format!("{} sent to it, {}", many(count, "RST"), rate(facts.per_second(count))))
            .more(format!("tcptrace rst 5{filter}"))
    };
    let mut findings: Vec<Finding> = scanners.into_iter().map(scan).collect();
    findings.extend(services.into_values().filter_map(|strays| service(facts, limits, strays)));
    findings
}

/// Who listens on that port, at whatever address.
fn on_port<'a>(facts: &'a Facts, stray: &Stray) -> impl Iterator<Item = &'a Listener> + use<'a> {
    let at = (stray.netns, stray.port);
    facts.listeners.iter().filter(move |listener| (listener.tuple.netns, listener.tuple.lport) == at)
}

fn hears(listener: &Listener, laddr: Addr) -> bool {
    listener.tuple.laddr == laddr || ip(listener.tuple.laddr).is_unspecified()
}

fn service(facts: &Facts, limits: &Limits, mut strays: Vec<&Stray>) -> Option<Finding> {
    let attempts: u64 = strays.iter().map(|stray| stray.connections).sum();
    let count: u64 = strays.iter().map(|stray| stray.count).sum();
    strays.sort_by_key(|stray| std::cmp::Reverse(stray.count));
    let first = strays.first().filter(|_| attempts >= limits.count(&RULE, &COUNT))?;
    let asks = |stray: &&Stray| stray.raddr.map(|raddr| format!("{} ({})", ip(raddr), stray.count));
    let peers: Vec<String> = strays.iter().filter_map(asks).take(4).collect();
    let group = Group { netns: first.netns, ours: true, port: Some(first.port), ..Group::default() };
    let title = format!(
        "nothing listens on {}, which was asked for {}, {}",
        end(first.laddr, first.port),
        times(count),
        rate(facts.per_second(count))
    );
    let elsewhere = on_port(facts, first).next();
    let filter = facts.filter(&group);
    let finding = Finding::new(&RULE, Severity::Warning, title)
        .about(group, None, count)
        .evidence(format!("asked for by {}", peers.join(", ")))
        .evidence_if(strays.len() > 4, || format!("and {} more peers", strays.len() - 4));
    let finding = match elsewhere {
        Some(listener) => finding
            .evidence(format!(
                "{} listens at {} alone",
                who(listener.owner),
                end(listener.tuple.laddr, listener.tuple.lport)
            ))
            .remedy("let it listen at the address that is asked for, or at 0.0.0.0 or ::"),
        None => finding,
    };
    Some(finding.more(format!("tcptrace rst 5{filter}")).more(format!("ss -ltnp sport = :{}", first.port)))
}
