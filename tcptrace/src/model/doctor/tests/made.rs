//! Facts that come to a number.

use tcptrace_common::record::{Addr, Tuple};

use crate::model::{
    cause::Cause,
    doctor::{
        Facts, Group,
        facts::{
            Destination, Ends, Listener, Lives, Namespace, Retransmits, Seconds, Spread, Standing, Stray,
        },
    },
    event::{Comm, Owner, OwnerSource},
    health::{Descriptors, Health, Snmp, Sockstat, Sysctls},
    state::State,
};

pub(super) const SECOND: u64 = 1_000_000_000;
/// Of who owns everything.
pub(super) const PID: u32 = 4123;

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, and not negative")]
pub(super) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Tenths of a percent.
pub(super) fn tenths(percent: f64) -> u64 {
    whole(percent * 10.0)
}

pub(super) fn ns(seconds: f64) -> u64 {
    whole(seconds * 1e9)
}

pub(super) fn addr(last: u8) -> Addr {
    Addr::from_be32(u32::from_ne_bytes([10, 0, 0, last]))
}

pub(super) fn owner() -> Owner {
    Owner { pid: PID, comm: Comm(*b"api\0\0\0\0\0\0\0\0\0\0\0\0\0"), source: OwnerSource::Connect }
}

pub(super) fn group() -> Group {
    Group { port: Some(443), raddr: Some(addr(9)), pid: Some(PID), ..Group::default() }
}

/// Ten seconds without anything.
pub(super) fn facts() -> Facts {
    Facts { watched_ns: 10 * SECOND, ..Facts::default() }
}

pub(super) fn namespace(counters: Snmp, sysctls: &[(&'static str, &[f64])]) -> Namespace {
    let numbers = |numbers: &[f64]| numbers.iter().map(|number| whole(*number).cast_signed()).collect();
    let sysctls = sysctls.iter().map(|(name, values)| (*name, numbers(values))).collect();
    let latest = Health { counters, sysctls: Sysctls(sysctls), ..Health::default() };
    Namespace { latest, ..Namespace::default() }
}

pub(super) fn stat(sockstat: Sockstat, sysctl: (&'static str, &[i64])) -> Namespace {
    let sysctls = Sysctls(vec![(sysctl.0, sysctl.1.to_vec())]);
    Namespace { latest: Health { sysctls, sockstat, ..Health::default() }, ..Namespace::default() }
}

pub(super) fn destination() -> Destination {
    Destination { laddr: addr(1), raddr: addr(9), rport: 443, owner: Some(owner()), ..Destination::default() }
}

/// Of a thousand ports `used` are held; so many were before. `hurry`: makes the time watched shorter.
pub(super) fn ports(used: u64, before: u64, failed: u64, hurry: f64) -> Facts {
    let destination = Destination { used, before, failed, opened: used - before, ..destination() };
    let range: (&str, &[f64]) = ("ip_local_port_range", &[30_000.0, 30_999.0]);
    Facts {
        watched_ns: ns(3000.0 / hurry),
        destinations: vec![destination],
        namespaces: vec![namespace(Snmp::default(), &[range])],
        ..facts()
    }
}

/// An accept queue, and what was dropped.
pub(super) fn queue(most: u64, backlog: u64, drops: u64, overflows: u64) -> Facts {
    let small = |number| u32::try_from(number).unwrap();
    let counters = Snmp { listen_overflows: overflows, listen_drops: drops, ..Snmp::default() };
    let tuple = Tuple { lport: 80, ..Tuple::default() };
    let most = small(most);
    let listener =
        Listener { tuple, most, again: most, backlog: small(backlog), drops, ..Listener::default() };
    Facts { listeners: vec![listener], namespaces: vec![namespace(counters, &[])], ..facts() }
}

/// So many in a state, so old, of which some were there before.
pub(super) fn standing(state: State, count: u64, before: u64, age: f64) -> Facts {
    let all = Standing {
        group: group(),
        state: Some(state),
        minisocks: state == State::FIN_WAIT2,
        count,
        before,
        owner: Some(owner()),
        unanswered: count,
        ages_ns: (0..count).map(|_| ns(age)).collect(),
        ..Standing::default()
    };
    Facts { standing: vec![all], ..facts() }
}

/// Such a part of a thousand is in a state, old, and the rest in another.
pub(super) fn among(state: State, others: State, percent: f64) -> Facts {
    let few = tenths(percent);
    let mut facts = standing(state, few, 0, 9.0);
    facts.standing.extend(standing(others, 1000 - few, 0, 1.0).standing);
    facts
}

/// Ten more a second, with descriptors for so many seconds.
pub(super) fn leak(left: f64) -> Facts {
    let descriptors = Descriptors { open: 100_000, limit: Some(100_000 + whole(left * 10.0)) };
    Facts {
        processes: [(PID, descriptors)].into_iter().collect(),
        ..standing(State::CLOSE_WAIT, 100, 0, 8.0)
    }
}

/// Two hundred half-open connections, from so many addresses for a hundred of them.
pub(super) fn spread(percent: f64) -> Facts {
    let count = whole(percent * 2.0);
    let peer = |number: u64| Group { raddr: Some(addr(u8::try_from(number).unwrap())), pid: None, ..group() };
    let one = |number| {
        let count = if number == 0 { 201 - count } else { 1 };
        let state = Some(State::SYN_RECV);
        Standing { group: peer(number), state, count, unanswered: count, ..Standing::default() }
    };
    Facts { standing: (0..count).map(one).collect(), ..facts() }
}

/// In so many different seconds.
pub(super) fn seconds(count: f64) -> Seconds {
    let mut seconds = Seconds::default();
    (0..whole(count)).for_each(|second| seconds.take(second * SECOND));
    seconds
}

pub(super) fn ended(cause: Cause, hit: State, count: f64, in_seconds: f64) -> Facts {
    let ends = Ends {
        group: group(),
        cause: Some(cause),
        hit: Some(hit),
        count: whole(count),
        seconds: seconds(in_seconds),
        owner: Some(owner()),
        ..Ends::default()
    };
    Facts { ends: vec![ends], ..facts() }
}

/// RSTs after so much silence.
pub(super) fn idle(count: u64, least: f64, most: f64) -> Facts {
    let mut facts = ended(Cause::PeerRst, State::ESTABLISHED, 5.0, 3.0);
    let sum_ns = count * ns(f64::midpoint(least, most));
    facts.ends[0].idle = Spread { count, least_ns: ns(least), most_ns: ns(most), sum_ns };
    facts
}

/// So many ports, each with so many connections.
pub(super) fn strays(ours: bool, ports: u64, connections: u64) -> Facts {
    let stray = |port| Stray {
        ours,
        laddr: addr(1),
        raddr: Some(addr(9)),
        port: 1000 + u16::try_from(port).unwrap(),
        count: connections,
        connections,
        ..Stray::default()
    };
    Facts { strays: (0..ports).map(stray).collect(), ..facts() }
}

pub(super) fn again(count: u64, in_seconds: f64, out_segs: u64) -> Facts {
    let retransmits = Retransmits {
        group: group(),
        state: Some(State::ESTABLISHED),
        count,
        seconds: seconds(in_seconds),
        ..Retransmits::default()
    };
    let namespaces = vec![namespace(Snmp { out_segs, ..Snmp::default() }, &[])];
    Facts { retransmits: vec![retransmits], namespaces, ..facts() }
}

/// Connections with that handshake, open for so long.
pub(super) fn lives(count: u64, trip: f64, open: f64) -> Facts {
    let spread = |seconds: f64| Spread { count: 1, least_ns: 0, most_ns: 0, sum_ns: ns(seconds) };
    let lives = Lives {
        group: group(),
        count,
        owner: Some(owner()),
        handshake: spread(trip),
        established: spread(open),
    };
    Facts { lives: vec![lives], ..facts() }
}
