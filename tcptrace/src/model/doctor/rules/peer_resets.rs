//! RSTs that come from a peer; after the same time again and again, an idle timeout sends them.

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Finding, Limits, Rule, Severity, Threshold, Unit,
        facts::Spread,
        words::{ends, many, percent, place, rate, span, who},
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
    let met_open = |part: &&crate::model::doctor::facts::Ends| {
        part.cause == Some(Cause::PeerRst) && part.hit.is_some_and(|hit| open.contains(&hit))
    };
    let alike = |spread: &Spread| {
        let mean_ns = spread.mean_ns()?;
        let enough = spread.count >= limits.count(&RULE, &ALIKE) && mean_ns >= limits.ns(&RULE, &IDLE);
        (enough && percent(spread.most_ns - spread.least_ns, mean_ns) <= DIFFER).then_some(mean_ns)
    };
    let mut findings = Vec::new();
    for all in crate::model::doctor::facts::sum(facts.ends.iter().filter(met_open), |group| group) {
        let idle = alike(&all.idle).or_else(|| alike(&all.ages));
        let many_of_them =
            all.count >= limits.count(&RULE, &COUNT) && all.seconds >= limits.count(&RULE, &SECONDS);
        if idle.is_none() && !many_of_them {
            continue;
        }
        let peer = all.group.raddr.map_or_else(|| "several peers".to_owned(), |raddr| ip(raddr).to_string());
        let title = match idle {
            Some(ns) => format!(
                "connections with {peer} are reset when they are {} old or idle: an idle timeout in between",
                span(ns)
            ),
            None => {
                format!("{peer} resets open connections of {}: {}", who(all.owner), many(all.count, "RST"))
            }
        };
        let filter = facts.filter(&all.group);
        let times = |what: &str, spread: &Spread| {
            format!(
                "{what} when the RST came: {} to {} ({} known)",
                span(spread.least_ns),
                span(spread.most_ns),
                spread.count
            )
        };
        findings.push(
            Finding::new(&RULE, Severity::Warning, title)
                .about(all.group, all.owner, all.count)
                .evidence(format!(
                    "{} in {}, {}, on connections of {} ({})",
                    many(all.count, "RST"),
                    all.hit.map_or("-", State::name),
                    rate(facts.per_second(all.count)),
                    who(all.owner),
                    place(&all.group)
                ))
                .evidence_if(all.idle.count > 0, || times("idle", &all.idle))
                .evidence_if(all.ages.count > 0, || times("age", &all.ages))
                .evidence_if(all.example.is_some(), || {
                    format!("for example {}", all.example.as_ref().map(ends).unwrap_or_default())
                })
                .remedy(if idle.is_some() {
                    "send keepalives more often than the timeout (tcp_keepalive_time, TCP_KEEPIDLE), or close idle connections before it does"
                } else {
                    "look at the peer: a crash, a restart, or an application that closes with data unread"
                })
                .more(format!("tcptrace conns{filter} --cause peer_rst -w"))
                .more(format!("tcptrace rst 5{filter}")),
        );
    }
    findings
}
