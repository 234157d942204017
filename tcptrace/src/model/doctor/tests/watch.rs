//! What a [`Watch`] gathers, and forgets.

use tcptrace_common::record::Tuple;

use super::made::{SECOND, addr, owner};
use crate::model::{
    doctor::{Facts, Group, Watch, facts::Namespace},
    event::{Event, Kind, Role},
    found::{Counters, Form, Found, Survey},
    health::{Health, Snmp},
    socket::Socket,
    state::State,
    tally::{By, Tally},
};

fn tally() -> Tally {
    Tally::new(By::Port, 32_768..=60_999, false)
}

/// As many stand as at the beginning, but of others: none of the first peers is left to count them from.
#[test]
fn other_peers_are_no_growth() {
    let socket = |peer, lport| Socket {
        id: None,
        tuple: Tuple { laddr: addr(1), lport, raddr: addr(peer), rport: 443, netns: 1 },
        state: State::CLOSE_WAIT,
        since_ns: None,
        at_latest_ns: None,
        role: Some(Role::Client),
        owner: Some(owner()),
        uid: None,
        cgroup: 0,
    };
    let sockets = |peer, count| (0..count).map(move |number| socket(peer, 40_000 + number));
    let tally = tally();
    let mut watch = Watch::default();
    watch.begin(sockets(7, 100), &tally, SECOND);
    let growth = |count| {
        let facts = watch.facts(sockets(8, count), &tally, 11 * SECOND);
        let sums = facts.standing(&[State::CLOSE_WAIT], Group::any_peer);
        assert_eq!(sums.len(), 1);
        assert_eq!((sums[0].count, sums[0].group.raddr), (count.into(), Some(addr(8))));
        sums[0].growth()
    };
    assert_eq!(growth(100), 0);
    assert_eq!(growth(130), 30);
}

/// A look at a network namespace, and who listens there.
fn look(netns: u32, second: u64) -> Survey {
    let tuple = Tuple { lport: 80, netns, ..Tuple::default() };
    let counters = Snmp { netns, at_ns: second * SECOND, ..Snmp::default() };
    Survey {
        sockets: vec![Found::new(tuple, State::LISTEN, Form::Socket)],
        namespaces: vec![netns],
        health: vec![Health { counters, ..Health::default() }],
    }
}

fn known(facts: &Facts) -> (Vec<u32>, Vec<u32>) {
    let mut listeners: Vec<u32> = facts.listeners.iter().map(|listener| listener.tuple.netns).collect();
    listeners.sort_unstable();
    (facts.namespaces.iter().map(Namespace::netns).collect(), listeners)
}

/// A network namespace that is gone is judged for some minutes, since a look can take long, and then no more.
#[test]
fn namespaces_that_are_gone_are_forgotten() {
    let tally = tally();
    let mut watch = Watch::default();
    watch.surveyed(&look(1, 1), SECOND);
    for (begins, expected) in [(10, vec![1, 2]), (300, vec![1, 2]), (310, vec![1, 2]), (320, vec![2])] {
        watch.surveyed(&look(2, begins), begins * SECOND);
        watch.begin(std::iter::empty(), &tally, begins * SECOND);
        let facts = watch.facts(std::iter::empty(), &tally, begins * SECOND);
        assert_eq!(known(&facts), (expected.clone(), expected), "{begins}");
        assert_eq!(facts.newest().map(Namespace::netns), Some(2));
    }
}

/// Of connections that were there, those that a later survey does not have are forgotten; a look has none, and says nothing.
#[test]
fn silence_is_kept_of_what_is_there() {
    let quiet = |cookie| Found {
        cookie,
        counters: Some(Counters::default()),
        ..Found::new(Tuple::default(), State::ESTABLISHED, Form::Socket)
    };
    let survey = |cookies: &[u64]| Survey {
        sockets: cookies.iter().map(|cookie| quiet(*cookie)).collect(),
        ..Survey::default()
    };
    let mut watch = Watch::default();
    for (survey, expected) in
        [(survey(&[1, 2]), vec![1, 2]), (look(1, 1), vec![1, 2]), (survey(&[2, 3]), vec![2, 3])]
    {
        watch.surveyed(&survey, SECOND);
        assert_eq!(watch.silent(), expected);
    }
}

/// What comes late for a connection that this host has reset is no stray, even if that was before the period began.
#[test]
fn segments_of_what_was_reset_are_no_strays() {
    let tally = tally();
    let mut watch = Watch::default();
    let sent = |rport, reason: &str| Event {
        reason: Some(reason.into()),
        ..Event::new(SECOND, Kind::RstSent, Tuple { lport: 40_000, rport, ..Tuple::default() })
    };
    let strays = |watch: &Watch| -> Vec<(u16, u64)> {
        let facts = watch.facts(std::iter::empty(), &tally, SECOND);
        facts.strays.iter().map(|stray| (stray.port, stray.count)).collect()
    };
    watch.event(&sent(80, "TCP_TIMEWAIT_SOCKET"), &tally);
    for _ in 0..2 {
        watch.event(&sent(80, "NO_SOCKET"), &tally);
        watch.event(&sent(81, "NO_SOCKET"), &tally);
        assert_eq!(strays(&watch), [(81, 1)]);
        watch.begin(std::iter::empty(), &tally, SECOND);
        assert_eq!(strays(&watch), []);
    }
    watch.event(&sent(80, "NO_SOCKET"), &tally);
    assert_eq!(strays(&watch), [(80, 1)], "that was long ago");
}
