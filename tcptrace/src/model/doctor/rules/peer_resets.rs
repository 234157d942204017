//! RSTs that come from a peer; after the same time again and again, an idle timeout sends them.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Group, Limits, Rule, Severity, Threshold, Unit,
        facts::{Ends, Spread},
        group::sum,
        words::{at, ends, many, percent, place, rate, span, who},
    },
    event::ip,
    state::State,
};

static COUNT: Threshold = Threshold {
    name: "count",
    default: 10.0,
    unit: Unit::Count,
    why: "open connections that a peer resets; fewer are peers that were ended",
};
static SECONDS: Threshold = Threshold {
    name: "in-seconds",
    default: 3.0,
    unit: Unit::Count,
    why: "different seconds; all at once is a peer that ended",
};
static ALIKE: Threshold = Threshold {
    name: "alike",
    default: 3.0,
    unit: Unit::Count,
    why: "so many that end after the same time are no chance",
};
static IDLE: Threshold = Threshold {
    name: "idle",
    default: 5.0,
    unit: Unit::Seconds,
    why: "no idle timeout is shorter, and shorter times are alike by themselves",
};
/// Times are alike if they differ by no more than that part of their mean, in percent.
const DIFFER: f64 = 10.0;

pub(super) static RULE: Rule =
    Rule { name: "peer-resets", thresholds: &[&COUNT, &SECONDS, &ALIKE, &IDLE], judge };

fn judge(facts: &Facts, limits: &Limits) -> Vec<Finding> {
    let open = [State::ESTABLISHED, State::CLOSE_WAIT];
    let met_open =
        |part: &&Ends| part.cause == Some(Cause::PeerRst) && part.hit.is_some_and(|hit| open.contains(&hit));
    let several_seconds = |all: &Ends| all.seconds.count() >= limits.count(&RULE, &SECONDS);
    // A balancer may show a server its clients' addresses.
    let behind = |group: Group| if group.ours { group.service() } else { group.any_process() };
    let mut findings = Vec::new();
    let mut told = Vec::new();
    for all in sum(facts.ends.iter().filter(met_open), behind) {
        let idle = alike(limits, &all.idle).map(|ns| (ns, "silence"));
        let Some((ns, what)) = idle.or_else(|| alike(limits, &all.ages).map(|ns| (ns, "being open"))) else {
            continue;
        };
        if several_seconds(&all) {
            told.push(behind(all.group));
            let peer = all.group.raddr.map_or_else(|| "peers".to_owned(), |raddr| ip(raddr).to_string());
            let title = format!(
                "connections with {peer} are reset after {} of {what}: an idle timeout on the way",
                span(ns)
            );
            let ns = span(ns);
            findings.push(finding(facts, &all, title).remedy(format!(
                "probe (SO_KEEPALIVE with TCP_KEEPIDLE), or close idle connections, before {ns} are over"
            )));
        }
    }
    for all in sum(facts.ends.iter().filter(met_open), Group::any_process) {
        let enough = all.count >= limits.count(&RULE, &COUNT) && several_seconds(&all);
        if enough && !told.contains(&behind(all.group)) {
            let peer = place(&all.group.peer_alone());
            let title =
                format!("{peer} resets open connections of {}: {}", who(all.owner), many(all.count, "RST"));
            findings.push(finding(facts, &all, title));
        }
    }
    findings
}

/// The mean of times that are long enough, known often enough and all alike.
fn alike(limits: &Limits, spread: &Spread) -> Option<u64> {
    let mean_ns = spread.mean_ns()?;
    let enough = spread.count >= limits.count(&RULE, &ALIKE) && mean_ns >= limits.ns(&RULE, &IDLE);
    (enough && percent(spread.most_ns - spread.least_ns, mean_ns) <= DIFFER).then_some(mean_ns)
}

fn finding(facts: &Facts, all: &Ends, title: String) -> Finding {
    let filter = facts.filter(&all.group);
    let times = |what: &str, spread: &Spread| {
        let (least, most) = (span(spread.least_ns), span(spread.most_ns));
        format!("{what} when the RST came: {least} to {most} ({} known)", spread.count)
    };
    Finding::new(&RULE, Severity::Warning, title)
        .about(all.group, all.owner, all.count)
        .evidence(format!(
            "{} in {}, {}, on connections of {} {}",
            many(all.count, "RST"),
            all.hit.map_or("-", State::name),
            rate(facts.per_second(all.count)),
            who(all.owner),
            at(&all.group)
        ))
        .evidence_if(all.idle.count > 0, || times("silent", &all.idle))
        .evidence_if(all.ages.count > 0, || times("open", &all.ages))
        .evidence_if(all.example.is_some(), || {
            format!("for example {}", all.example.as_ref().map(ends).unwrap_or_default())
        })
        .more(format!("tcptrace conns{filter} --cause peer_rst -w"))
        .more(format!("tcptrace rst 5{filter}"))
}
