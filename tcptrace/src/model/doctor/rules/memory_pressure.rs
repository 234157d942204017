//! TCP memory near tcp_mem: buffers shrink, then segments are dropped.

use crate::model::doctor::{Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit, words::percent};

static USED: Threshold = Threshold {
    name: "used",
    default: 90.0,
    unit: Unit::Percent,
    why: "of the second number of tcp_mem, from where on the kernel is under pressure",
};

pub(super) static RULE: Rule = Rule { name: "memory-pressure", thresholds: &[&USED], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    // The pages are the host's, the same in every namespace; so is the limit.
    let Some(namespace) = facts.newest() else { return Vec::new() };
    let pages = namespace.latest.sockstat.pages;
    let memory = facts.namespaces.iter().find_map(|namespace| namespace.latest.sysctls.all("tcp_mem"));
    let Some(&[low, pressure, most]) = memory else { return Vec::new() };
    let positive = |pages: i64| u64::try_from(pages).unwrap_or(0);
    let (pressure, most) = (positive(pressure), positive(most));
    let times: u64 = facts.namespaces.iter().map(|namespace| namespace.counted().memory_pressures).sum();
    let near = pages > 0 && percent(pages, pressure) >= limits.of(&RULE, &USED);
    if !near && times == 0 {
        return Vec::new();
    }
    let full = pages >= most && most > 0;
    let severity = if full { Severity::Critical } else { Severity::Warning };
    let title = format!(
        "TCP takes {pages} pages of memory; from {pressure} on the kernel saves, from {most} on it drops"
    );
    vec![
        Finding::new(&RULE, severity, title)
            .about(Group::default(), None, pages)
            .evidence(format!("{pages} pages, tcp_mem={low} {pressure} {most}"))
            .evidence_if(times > 0, || {
                format!("the kernel came under pressure {times} times meanwhile (TCPMemoryPressures)")
            })
            .more("ss -tmn")
            .more("tcptrace conns --live"),
    ]
}
