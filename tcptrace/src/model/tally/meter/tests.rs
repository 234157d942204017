#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tcptrace_common::record::{Addr, Tuple};

use super::*;
use crate::model::{
    cause::Verdict,
    event::{Comm, Id, Owner, OwnerSource},
    tally::By,
};

const SECOND: u64 = 1_000_000_000;
const NOBODY: [Socket; 0] = [];

/// A meter beside its tally.
struct Beside(Tally, Meter);

impl Beside {
    fn event(&mut self, event: &Event) {
        self.0.event(event);
        self.1.event(event, &self.0);
    }
}

fn meter(labels: usize, by_comm: bool) -> Beside {
    Beside(Tally::new(By::Port, 32_768..=60_999, false), Meter::new(labels, by_comm))
}

fn tuple(lport: u16, rport: u16) -> Tuple {
    let addr = |last| Addr::from_be32(u32::from_ne_bytes([10, 0, 0, last]));
    Tuple { laddr: addr(5), raddr: addr(9), lport, rport, netns: 4_026_531_833 }
}

fn owner(name: &str) -> Owner {
    let mut comm = Comm::default();
    comm.0.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    Owner { pid: 7, comm, source: OwnerSource::Listen }
}

/// `old>new` of a connection of `a`.
fn change(tuple: Tuple, role: Role, change: &str) -> Event {
    let (old, new) = change.split_once('>').unwrap();
    Event {
        id: Some(Id(u64::from(tuple.lport) << 16 | u64::from(tuple.rport))),
        old: old.parse().ok(),
        new: new.parse().ok(),
        role: Some(role),
        owner: Some(owner("a")),
        ..Event::new(1, Kind::Transition, tuple)
    }
}

fn socket(tuple: Tuple, state: State, role: Role) -> Socket {
    let Event { id, owner, .. } = change(tuple, role, "CLOSE>CLOSE");
    Socket {
        id,
        tuple,
        state,
        since_ns: Some(SECOND),
        at_latest_ns: None,
        role: Some(role),
        owner,
        uid: None,
        cgroup: 0,
    }
}

fn count(Beside(tally, meter): &mut Beside, sockets: &[Socket]) -> Counts {
    tally.listeners(sockets.iter().copied());
    meter.counts(sockets.iter().copied(), tally, 5 * SECOND)
}

/// The service with that port; without: that of the rest.
fn of(counts: &Counts, port: Option<u16>) -> &Service {
    counts.services.iter().find(|service| service.label.port == port).unwrap()
}

fn ports(counts: &Counts) -> Vec<Option<u16>> {
    counts.services.iter().map(|service| service.label.port).collect()
}

fn in_state(side: &Side, state: State) -> u64 {
    side.sockets[usize::from(state.number())]
}

fn changed(service: &Service, old: State, new: State) -> u64 {
    service.transitions[usize::from(old.number())][usize::from(new.number())]
}

#[test]
fn sockets_are_counted_anew_and_events_add_up() {
    let mut meter = meter(10, false);
    let sockets = [
        socket(tuple(443, 0), State::LISTEN, Role::Listener),
        socket(tuple(443, 50_000), State::CLOSE_WAIT, Role::Server),
        socket(tuple(40_000, 5432), State::ESTABLISHED, Role::Client),
    ];
    let counts = count(&mut meter, &sockets);
    assert_eq!(ports(&counts), [None, Some(443), Some(5432)]);
    let https = of(&counts, Some(443));
    assert_eq!((in_state(&https.server, State::LISTEN), in_state(&https.server, State::CLOSE_WAIT)), (1, 1));
    assert_eq!((https.server.oldest_close_wait_ns, https.client.shown), (4 * SECOND, false));
    assert_eq!(in_state(&of(&counts, Some(5432)).client, State::ESTABLISHED), 1);

    for _ in 0..2 {
        meter.event(&change(tuple(443, 50_001), Role::Server, "LISTEN>SYN_RECV"));
        let end = change(tuple(443, 50_001), Role::Server, "LAST_ACK>CLOSE");
        meter.event(&Event { verdict: Some(Verdict { cause: Cause::PeerFin, inferred: false }), ..end });
    }
    let counts = count(&mut meter, &NOBODY);
    let Service { server, .. } = of(&counts, Some(443));
    // A port that has a label keeps it.
    assert_eq!((server.sockets, server.oldest_close_wait_ns), ([0; State::COUNT], 0));
    assert_eq!(server.opened, 2);
    let closed = Cause::ALL.iter().zip(server.closed).filter(|(_, count)| *count > 0);
    assert_eq!(closed.collect::<Vec<_>>(), [(&Cause::PeerFin, 2)]);
    assert_eq!(changed(of(&counts, Some(443)), State::LAST_ACK, State::CLOSE), 2);
}

/// The counts of causes stand in the order of their numbers.
#[test]
fn causes_are_numbered_in_their_order() {
    assert!((0..).zip(Cause::ALL).all(|(number, cause)| cause as usize == number));
}

#[test]
fn times_are_of_all_services_and_only_of_states_that_are_left() {
    let mut meter = meter(10, false);
    let took = |ns, role, what| Event { in_state_ns: Some(ns), ..change(tuple(443, 50_000), role, what) };
    meter.event(&took(200_000, Role::Client, "SYN_SENT>ESTABLISHED"));
    meter.event(&took(5_000, Role::Server, "SYN_RECV>ESTABLISHED"));
    meter.event(&took(9, Role::Server, "FIN_WAIT2>FIN_WAIT2"));
    let counts = count(&mut meter, &NOBODY);
    let durations = counts.durations().filter(|(_, buckets)| buckets.count() > 0);
    assert_eq!(durations.map(|(state, _)| state).collect::<Vec<_>>(), [State::SYN_SENT, State::SYN_RECV]);
    let handshakes =
        counts.handshakes().map(|(role, buckets)| (role, buckets.count(), buckets.sum_seconds()));
    assert_eq!(handshakes, [(Role::Client, 1, 2e-4), (Role::Server, 1, 5e-6)]);
}

#[test]
fn labels_are_given_once_and_half_of_them_to_others_at_most() {
    let mut meter = meter(4, false);
    // Who looks through all ports of a host.
    for port in 1..=10_000 {
        meter.event(&change(tuple(40_000, port), Role::Client, "CLOSE>SYN_SENT"));
        meter.event(&Event::new(1, Kind::RstSent, tuple(port, 40_000)));
    }
    assert_eq!(ports(&count(&mut meter, &NOBODY)), [None, Some(1), Some(2)]);
    let listeners: Vec<Socket> =
        [80, 443, 8080].map(|port| socket(tuple(port, 0), State::LISTEN, Role::Listener)).into();
    let counts = count(&mut meter, &listeners);
    assert_eq!(ports(&counts), [None, Some(1), Some(2), Some(80), Some(443)]);
    // What has no label is counted all the same.
    let rest = of(&counts, None);
    assert_eq!(in_state(&rest.server, State::LISTEN), 1);
    assert_eq!(changed(rest, State::CLOSE, State::SYN_SENT), 9_998);
    assert_eq!(rest.resets.iter().map(|resets| resets.count).sum::<u64>(), 9_998);
    // Others' go where they went before.
    assert_eq!(ports(&count(&mut meter, &NOBODY)), ports(&counts));
}

#[test]
fn ports_that_the_kernel_hands_out_are_no_services() {
    let mut meter = meter(10, false);
    meter.event(&change(tuple(40_000, 50_000), Role::Client, "CLOSE>SYN_SENT"));
    let counts = count(&mut meter, &[socket(tuple(40_001, 0), State::LISTEN, Role::Listener)]);
    assert_eq!(ports(&counts), [None, Some(40_001)]);
    assert_eq!(of(&counts, None).client.opened, 1);
}

#[test]
fn owners_are_told_apart_when_asked_for() {
    let mut meter = meter(2, true);
    for name in ["a", "b", "c"] {
        let event = change(tuple(443, 50_000), Role::Server, "LISTEN>SYN_RECV");
        meter.event(&Event { owner: Some(owner(name)), ..event });
    }
    let counts = count(&mut meter, &NOBODY);
    let labels: Vec<_> =
        counts.services.iter().map(|Service { label, server, .. }| (label.clone(), server.opened)).collect();
    let named = |name| Label { port: Some(443), comm: Some(owner(name).comm), container: None };
    assert_eq!(labels, [(Label::default(), 1), (named("a"), 1), (named("b"), 1)]);
}

#[test]
fn resets_are_counted_by_direction_and_reason() {
    let mut meter = meter(10, false);
    let sent = |reason: &str| Event {
        reason: Some(reason.into()),
        ..Event::new(1, Kind::RstSent, tuple(80, 50_000))
    };
    for event in [sent("NO_SOCKET"), sent("NOT_SPECIFIED"), sent("NO_SOCKET")] {
        meter.event(&event);
    }
    meter.event(&Event::new(1, Kind::RstReceived, tuple(80, 50_000)));
    let counts = count(&mut meter, &NOBODY);
    let rest = of(&counts, None);
    let resets: Vec<_> =
        rest.resets.iter().map(|resets| (resets.sent, resets.reason.as_deref(), resets.count)).collect();
    assert_eq!(resets, [(true, Some("NO_SOCKET"), 2), (true, Some("NOT_SPECIFIED"), 1), (false, None, 1)]);
    // They belong to no socket of this host's.
    assert_eq!(rest.sides().count(), 0);
}

proptest! {
    /// Whatever comes: nothing is lost, nothing goes back, and there are no more labels than allowed.
    #[test]
    fn counters_only_grow(
        connections in prop::collection::vec((1_u16.., 1_u16.., any::<bool>(), 0..5_u8), 1..200),
        limit in 0..8_usize,
        by_comm: bool,
    ) {
        let mut meter = meter(limit, by_comm);
        let mut before: Vec<(Label, u64)> = Vec::new();
        for (number, (lport, rport, client, name)) in (1_u64..).zip(connections) {
            let (role, what) =
                if client { (Role::Client, "CLOSE>SYN_SENT") } else { (Role::Server, "LISTEN>SYN_RECV") };
            let event = change(tuple(lport, rport), role, what);
            meter.event(&Event { owner: Some(owner(&name.to_string())), ..event });
            let counts = count(&mut meter, &NOBODY);
            let opened = |service: &Service| service.server.opened + service.client.opened;
            let now: Vec<_> = counts.services.iter().map(|service| (service.label.clone(), opened(service))).collect();
            prop_assert!(now.len() <= limit + 1);
            prop_assert_eq!(now.iter().map(|(_, opened)| opened).sum::<u64>(), number);
            for ((label, before), (again, now)) in before.iter().zip(&now) {
                prop_assert!(label == again && before <= now);
            }
            before = now;
        }
    }
}
