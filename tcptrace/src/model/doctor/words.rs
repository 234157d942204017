//! Numbers, times and places as findings say them.

use std::net::SocketAddr;

use tcptrace_common::record::{Addr, Tuple};

use super::{
    facts::Facts,
    group::{Counted, Group, sum},
};
use crate::model::event::{Owner, ip};

/// A process.
pub(super) fn who(owner: Option<Owner>) -> String {
    owner.map_or_else(
        || "a process that is not known".to_owned(),
        |owner| format!("{}/{}", owner.comm, owner.pid),
    )
}

/// The processes of several parts: the first, and how many there are beside it.
pub(super) fn whose<'a, C: Counted + 'a>(
    owner: Option<Owner>,
    parts: impl IntoIterator<Item = &'a C>,
) -> String {
    let others = sum(parts, |group| Group { pid: group.pid, ..Group::default() }).len().saturating_sub(1);
    match others {
        0 => who(owner),
        1 => format!("{} and another process", who(owner)),
        _ => format!("{} and {others} other processes", who(owner)),
    }
}

/// How often.
pub(super) fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

/// So many of something: the word gets an `s`.
pub(super) fn many(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A rate.
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 9.95 || per_second == 0.0 {
        format!("{per_second:.0}/s")
    } else if per_second >= 0.095 {
        format!("{per_second:.1}/s")
    } else {
        format!("{:.1}/min", per_second * 60.0)
    }
}

/// A length of time.
pub(super) fn span(ns: u64) -> String {
    let ms = ns / 1_000_000;
    match ms {
        0..1 => format!("{} µs", ns / 1000),
        1..1000 => format!("{ms} ms"),
        1000..9950 => format!("{}.{} s", (ms + 50) / 1000, (ms + 50) % 1000 / 100),
        9950..120_000 => format!("{} s", (ms + 500) / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// How long it takes to use up so many at that rate.
pub(super) fn left(free: u64, per_second: f64) -> Option<u64> {
    if per_second <= 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate for people; the cast saturates"
    )]
    let ns = (free as f64 / per_second * 1e9) as u64;
    Some(ns)
}

/// A part of a whole in percent; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "compared with thresholds of whole percents")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// An address and a port.
pub(super) fn end(addr: Addr, port: u16) -> String {
    SocketAddr::new(ip(addr), port).to_string()
}

/// Both ends.
pub(super) fn ends(tuple: &Tuple) -> String {
    format!("{} - {}", end(tuple.laddr, tuple.lport), end(tuple.raddr, tuple.rport))
}

/// Examples of connections.
pub(super) fn examples(tuples: &[Tuple]) -> String {
    let all: Vec<String> = tuples.iter().map(ends).collect();
    format!("for example {}", all.join(", "))
}

/// A service, or whoever has it.
pub(super) fn place(group: &Group) -> String {
    match (group.ours, group.port, group.raddr) {
        (true, Some(port), _) => format!("port {port}"),
        (true, None, _) => "ports that the kernel chose".to_owned(),
        (false, Some(port), Some(raddr)) => end(raddr, port),
        (false, None, Some(raddr)) => ip(raddr).to_string(),
        (false, Some(port), None) => format!("port {port} of several peers"),
        (false, None, None) => "several peers".to_owned(),
    }
}

/// Where connections are.
pub(super) fn at(group: &Group) -> String {
    format!("{} {}", if group.ours { "on" } else { "to" }, place(group))
}

/// What speaks for a firewall, and what for a dead host, where a peer does not answer.
pub(super) fn alive(facts: &Facts, peer: &Group) -> String {
    let Some(host) = peer.raddr.map(ip) else { return "no SYN+ACK, RST or ICMP came".to_owned() };
    if facts.answers(peer) {
        format!("{host} itself is alive: a firewall drops SYNs to this port, or its queue there is full")
    } else {
        format!("nothing else from {host} was seen: it is dead, the route is wrong, or a firewall drops all")
    }
}

/// The peers, those with most first: `192.0.2.1 (50), 192.0.2.2 (3), 5 more`.
pub(super) fn peers<'a, C: Counted + 'a>(parts: impl IntoIterator<Item = &'a C>) -> String {
    let by_peer = sum(parts, |group| Group { raddr: group.raddr, ..Group::default() });
    let named: Vec<&C> = by_peer.iter().filter(|part| part.group().raddr.is_some()).collect();
    let name = |part: &&C| part.group().raddr.map(|raddr| format!("{} ({})", ip(raddr), part.count()));
    let mut words: Vec<String> = named.iter().take(3).filter_map(name).collect();
    let more = named.len().saturating_sub(3);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

impl Facts {
    /// The flags of a command that shows a group's connections.
    pub(super) fn filter(&self, group: &Group) -> String {
        let several = self.namespaces.len() > 1 && group.netns != 0;
        let side = if group.ours { 'L' } else { 'D' };
        let process = if group.port.is_none() { group.pid } else { None };
        // A service is looked at as a whole, whoever had the trouble.
        let peer = group.raddr.filter(|_| !group.ours || group.port.is_none());
        [
            several.then(|| format!(" -N {}", group.netns)),
            group.port.map(|port| format!(" -{side} {port}")),
            peer.map(|raddr| format!(" --raddr {}", ip(raddr))),
            process.map(|pid| format!(" -p {pid}")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Where a network namespace is, if there is more than one.
    pub(super) fn within(&self, netns: u32) -> String {
        if self.namespaces.len() > 1 { format!(" in network namespace {netns}") } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let spans = [900, 250_000_000, 1_500_000_000, 14_000_000_000, 180_000_000_000, 8_000_000_000_000];
        assert_eq!(spans.map(span), ["0 µs", "250 ms", "1.5 s", "14 s", "3 min", "2 h"]);
        assert_eq!([1_999_000_000, 9_960_000_000].map(span), ["2.0 s", "10 s"]);
        assert_eq!([0.0, 0.05, 2.54, 49.4].map(rate), ["0/s", "3.0/min", "2.5/s", "49/s"]);
        assert_eq!(left(100, 10.0), Some(10_000_000_000));
        assert_eq!(left(100, 0.0), None);
        assert_eq!(many(1, "port") + ", " + &many(2, "port"), "1 port, 2 ports");
    }
}
