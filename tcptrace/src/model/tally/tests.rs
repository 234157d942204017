#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use proptest::prelude::*;
use tcptrace_common::record::{Addr, Tuple};

use super::*;
use crate::model::{
    cause::{Cause, Verdict},
    event::{Comm, Id, OwnerSource, Role},
    found::{Form, Found},
    health::{Health, Snmp},
};

const SECOND: u64 = 1_000_000_000;
const NETNS: u32 = 4_026_531_833;

fn tally(by: By) -> Tally {
    Tally::new(by, 32_768..=60_999, true)
}

/// The ends of a connection of 10.0.0.5 with 10.0.0.9.
fn tuple(lport: u16, rport: u16) -> Tuple {
    let addr = |last| Addr::from_be32(u32::from_ne_bytes([10, 0, 0, last]));
    Tuple { laddr: addr(5), raddr: addr(9), lport, rport, netns: NETNS }
}

fn owner(pid: u32, name: &str) -> Owner {
    let mut comm = Comm::default();
    comm.0.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    Owner { pid, comm, source: OwnerSource::Listen }
}

fn socket(tuple: Tuple, state: State, role: Role, of: Owner) -> Socket {
    Socket {
        id: Some(Id(u64::from(tuple.rport))),
        tuple,
        state,
        since_ns: Some(0),
        at_latest_ns: None,
        role: Some(role),
        owner: Some(of),
        uid: Some(0),
        cgroup: 1,
    }
}

/// `old>new` of a server's connection.
fn change(ts_ns: u64, tuple: Tuple, change: &str) -> Event {
    let (old, new) = change.split_once('>').unwrap();
    Event {
        id: Some(Id(u64::from(tuple.rport))),
        old: old.parse().ok(),
        new: new.parse().ok(),
        role: Some(Role::Server),
        owner: Some(owner(7, "nginx")),
        ..Event::new(ts_ns, Kind::Transition, tuple)
    }
}

fn of_port(table: &Table, port: u16) -> &Row {
    table.rows.iter().find(|row| row.key.port() == Some(port)).unwrap()
}

#[test]
fn there_is_a_limit_to_minisocks() {
    let mut tally = tally(By::Port).limited_to(2);
    for port in 50_001..=50_003 {
        tally.event(&change(1, tuple(443, port), "FIN_WAIT2>TIME_WAIT"));
    }
    let table = tally.table([].into_iter(), Sort::Sockets, 50, SECOND);
    assert_eq!(table.total.in_state(State::TIME_WAIT), 2);
    assert_eq!((tally.take_turned_away(), tally.take_turned_away()), (1, 0));
}

#[test]
fn sockets_are_counted_by_service() {
    let mut tally = tally(By::Port);
    let nginx = owner(7, "nginx");
    let sockets = [
        socket(tuple(443, 0), State::LISTEN, Role::Listener, nginx),
        socket(tuple(443, 50_001), State::ESTABLISHED, Role::Server, owner(8, "nginx")),
        socket(tuple(443, 50_002), State::CLOSE_WAIT, Role::Server, owner(8, "nginx")),
        socket(tuple(50_003, 5432), State::ESTABLISHED, Role::Client, nginx),
        socket(tuple(50_004, 5432), State::ESTABLISHED, Role::Client, owner(9, "php")),
        socket(tuple(50_005, 50_006), State::ESTABLISHED, Role::Client, nginx),
    ];
    let table = tally.table(sockets.into_iter(), Sort::Sockets, 50, SECOND);
    let server = of_port(&table, 443);
    assert_eq!(server.key, Key::Server { netns: NETNS, port: Some(443) });
    assert_eq!((server.in_state(State::LISTEN), server.total(), server.owners), (1, 3, 2));
    assert_eq!((server.owner.unwrap().pid, server.oldest_close_wait_ns), (7, Some(SECOND)));
    // A client's connections are told apart by whose they are; a port that the kernel hands out is no service.
    let clients: Vec<_> = table.rows.iter().filter(|row| row.key.role() == Some(Role::Client)).collect();
    assert_eq!(clients.iter().filter(|row| row.key.port() == Some(5432)).count(), 2);
    assert_eq!(clients.iter().filter(|row| row.key.port().is_none()).count(), 1);
    assert_eq!((table.total.total(), table.interval_ns), (6, 0));
    // The listener's port is one that the kernel hands out, and yet a service.
    let sockets = [
        socket(tuple(50_001, 0), State::LISTEN, Role::Listener, nginx),
        socket(tuple(50_002, 50_001), State::ESTABLISHED, Role::Client, nginx),
    ];
    let table = tally.table(sockets.into_iter(), Sort::Port, 50, 2 * SECOND);
    let there = table.rows.iter().filter(|row| row.total() > 0);
    assert!(
        there.clone().count() == 2 && there.clone().all(|row| row.key.port() == Some(50_001)),
        "{table:?}"
    );
}

/// Where the role is not known: somebody listens, or the port is one that the kernel does not hand out, or smaller.
#[test]
fn the_service_is_guessed_without_a_role() {
    let mut ports = Ports::new(32_768..=60_999);
    let service = |ports: &Ports, lport, rport| {
        let service = ports.service(&tuple(lport, rport), None);
        (service.ours, service.port)
    };
    assert_eq!(service(&ports, 443, 50_000), (true, Some(443)));
    assert_eq!(service(&ports, 50_000, 443), (false, Some(443)));
    assert_eq!(service(&ports, 50_000, 50_001), (true, None));
    assert_eq!(service(&ports, 80, 443), (true, Some(80)));
    ports.listens(&tuple(50_001, 0));
    assert_eq!(service(&ports, 50_000, 50_001), (false, Some(50_001)));
    assert_eq!(service(&ports, 50_001, 50_000), (true, Some(50_001)));
}

#[test]
fn what_happens_is_counted_between_tables() {
    let mut tally = tally(By::Port);
    let none = || std::iter::empty();
    // What came before the first table is no growth.
    tally.event(&change(1, tuple(443, 1), "LISTEN>SYN_RECV"));
    assert!(tally.table(none(), Sort::Sockets, 50, SECOND).rows.is_empty());
    tally.event(&change(SECOND + 1, tuple(443, 2), "LISTEN>SYN_RECV"));
    tally.event(&change(SECOND + 2, tuple(443, 2), "SYN_RECV>ESTABLISHED"));
    let end = Event {
        verdict: Some(Verdict::read(Cause::PeerFin)),
        ..change(SECOND + 3, tuple(443, 2), "LAST_ACK>CLOSE")
    };
    tally.event(&end);
    tally.event(&Event { kind: Kind::RstSent, old: None, new: None, ..end });
    let table = tally.table(none(), Sort::Sockets, 50, 3 * SECOND);
    let row = of_port(&table, 443);
    assert_eq!((row.opened, row.closed, row.rst, table.interval_ns), (1, 1, 1, 2 * SECOND));
    assert!(tally.table(none(), Sort::Sockets, 50, 4 * SECOND).rows.is_empty());
    let transitions: u64 = tally.matrix().iter().flatten().sum();
    assert_eq!(transitions, 4);
}

#[test]
fn close_wait_grows_and_shrinks() {
    let mut tally = tally(By::Port);
    let waiting = |count: u16| {
        let one = |rport| socket(tuple(443, rport), State::CLOSE_WAIT, Role::Server, owner(7, "nginx"));
        (1..=count).map(one).collect::<Vec<_>>()
    };
    for (second, count, growth) in [(1, 5, 0), (2, 12, 7), (3, 4, -8), (4, 0, -4)] {
        let table = tally.table(waiting(count).into_iter(), Sort::Sockets, 50, second * SECOND);
        assert_eq!(of_port(&table, 443).close_wait_growth, growth, "{second}");
    }
    assert!(tally.table(std::iter::empty(), Sort::Sockets, 50, 5 * SECOND).rows.is_empty());
}

fn found(tuple: Tuple, state: State, form: Form, expires_ms: Option<u32>) -> Found {
    Found { cookie: u64::from(tuple.rport), expires_ms, ..Found::new(tuple, state, form) }
}

#[test]
fn minisocks_come_by_events_and_go_by_time() {
    let mut tally = tally(By::Port);
    let count = |tally: &mut Tally, state, now_ns| {
        tally.table(std::iter::empty(), Sort::Sockets, 50, now_ns).total.in_state(state)
    };
    let minisock = |ts_ns, rport, change_: &str| Event {
        kernel_new: Some(State::CLOSE),
        ..change(ts_ns, tuple(443, rport), change_)
    };
    tally.event(&minisock(SECOND, 1, "FIN_WAIT2>TIME_WAIT"));
    tally.event(&minisock(SECOND, 2, "FIN_WAIT1>FIN_WAIT2"));
    tally.event(&minisock(2 * SECOND, 3, "CLOSING>TIME_WAIT"));
    assert_eq!(count(&mut tally, State::TIME_WAIT, 3 * SECOND), 2);
    assert_eq!(count(&mut tally, State::FIN_WAIT2, 3 * SECOND), 1);
    // The orphan's peer closes; one in TIME_WAIT is taken up by a new connection.
    tally.event(&Event { kernel_new: None, ..minisock(4 * SECOND, 2, "FIN_WAIT2>TIME_WAIT") });
    tally.event(&change(5 * SECOND, tuple(443, 3), "LISTEN>SYN_RECV"));
    assert_eq!(count(&mut tally, State::FIN_WAIT2, 6 * SECOND), 0);
    assert_eq!(count(&mut tally, State::TIME_WAIT, 60 * SECOND), 2);
    assert_eq!(count(&mut tally, State::TIME_WAIT, 62 * SECOND), 1);
    assert_eq!(count(&mut tally, State::TIME_WAIT, 65 * SECOND), 0);
}

#[test]
fn a_look_replaces_what_events_told() {
    let mut tally = tally(By::Port);
    tally.event(&change(SECOND, tuple(443, 1), "FIN_WAIT2>TIME_WAIT"));
    tally.event(&change(SECOND, tuple(443, 2), "FIN_WAIT2>TIME_WAIT"));
    let elsewhere = Tuple { netns: 1, ..tuple(443, 9) };
    tally.event(&change(SECOND, elsewhere, "FIN_WAIT2>TIME_WAIT"));
    let survey = Survey {
        sockets: vec![
            found(tuple(443, 1), State::TIME_WAIT, Form::Minisock, Some(30_000)),
            found(tuple(443, 3), State::SYN_RECV, Form::Request, None),
            found(tuple(80, 4), State::TIME_WAIT, Form::Minisock, Some(30_000)),
            found(tuple(443, 5), State::ESTABLISHED, Form::Socket, None),
        ],
        namespaces: vec![NETNS],
        health: vec![],
    };
    tally.surveyed(&survey, 10 * SECOND, |socket| socket.tuple.lport == 443);
    let table = tally.table(std::iter::empty(), Sort::Sockets, 50, 10 * SECOND);
    // 2 is gone, 3 is new, 4 is not wanted, 5 is the tracker's, and the other namespace was not looked at.
    assert_eq!((table.total.in_state(State::TIME_WAIT), table.total.in_state(State::SYN_RECV)), (2, 1));
    assert_eq!(table.total.total(), 3);
    // Whose it was stays known.
    assert_eq!(of_port(&table, 443).owner.unwrap().pid, 7);
    let table = tally.table(std::iter::empty(), Sort::Sockets, 50, 41 * SECOND);
    assert_eq!(of_port(&table, 443).total(), 1, "the time that was left is over");
}

#[test]
fn rows_are_sorted_and_the_rest_summed() {
    let mut tally = tally(By::Port);
    let mut sockets = Vec::new();
    for (port, count) in [(80, 3), (443, 5), (22, 1)] {
        for rport in 1..=count {
            sockets.push(socket(tuple(port, rport), State::ESTABLISHED, Role::Server, owner(1, "x")));
        }
    }
    sockets.push(socket(tuple(22, 9), State::CLOSE_WAIT, Role::Server, owner(1, "x")));
    let mut ports = |sort, top| {
        let table = tally.table(sockets.clone().into_iter(), sort, top, SECOND);
        let ports: Vec<_> = table.rows.iter().map(|row| row.key.port().unwrap()).collect();
        (ports, table.other.map(|row| row.total()), table.total.total())
    };
    assert_eq!(ports(Sort::Sockets, 50), (vec![443, 80, 22], None, 10));
    assert_eq!(ports(Sort::Port, 50), (vec![22, 80, 443], None, 10));
    assert_eq!(ports(Sort::State(State::CLOSE_WAIT), 1), (vec![22], Some(8), 10));
    assert_eq!(ports(Sort::Oldest, 2), (vec![22, 80], Some(5), 10));
}

#[test]
fn resets_are_entered_and_compared() {
    let mut tally = tally(By::Port);
    let snmp = |at_ns, out_rsts, estab_resets| Survey {
        health: vec![Health {
            counters: Snmp { netns: NETNS, at_ns, out_rsts, estab_resets, ..Snmp::default() },
            ..Health::default()
        }],
        ..Survey::default()
    };
    let rst = |ts_ns, kind, rport| Event {
        reason: (kind == Kind::RstSent).then(|| Arc::from("NO_SOCKET")),
        ..Event::new(ts_ns, kind, tuple(9, rport))
    };
    // Before the first reading.
    tally.event(&rst(5, Kind::RstSent, 50_000));
    tally.surveyed(&snmp(10, 100, 7), 10, |_| false);
    // On its way when the counters were read, and so counted by them.
    tally.event(&rst(9, Kind::RstSent, 50_000));
    for us in 0..20 {
        tally.event(&rst(20 + us, Kind::RstSent, 50_000));
        tally.event(&rst(20 + us, Kind::RstReceived, 50_000));
    }
    tally.event(&change(45, tuple(443, 1), "ESTABLISHED>CLOSE"));
    tally.surveyed(&snmp(50, 122, 8), 50, |_| false);
    tally.event(&rst(49, Kind::RstSent, 50_000));
    tally.event(&rst(60, Kind::RstSent, 50_000));
    let compared = tally.ledger.reconciled();
    let expected = Reconciled { netns: NETNS, out_rsts: 22, sent: 21, estab_resets: 1, reset: 1 };
    assert_eq!(compared, [expected]);
    let rows = tally.ledger.take();
    let counts: Vec<_> =
        rows.iter().map(|row| (row.key.sent, row.key.lport, row.count, row.recent)).collect();
    assert_eq!(counts, [(true, Some(9), 24, 24), (false, Some(9), 20, 20)]);
    assert_eq!(tally.ledger.take().iter().map(|row| row.recent).sum::<u64>(), 0);
}

/// A port scan does not make the ledger grow without end, and loses no RST.
#[test]
fn a_full_ledger_counts_on() {
    let mut tally = tally(By::Port);
    for lport in 1..20_000 {
        tally.event(&Event::new(1, Kind::RstSent, tuple(lport, 50_000)));
    }
    let rows = tally.ledger.take();
    assert!(rows.len() <= 8200, "{}", rows.len());
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 19_999);
}

#[test]
fn rows_do_not_grow_without_end() {
    let mut tally = tally(By::Raddr);
    for number in 0..20_000_u32 {
        let tuple = Tuple { raddr: Addr::from_be32(number), ..tuple(443, 1) };
        tally.event(&change(1, tuple, "LISTEN>SYN_RECV"));
        if number == 0 {
            tally.table(std::iter::empty(), Sort::Sockets, 50, 1);
        }
    }
    let table = tally.table(std::iter::empty(), Sort::Opened, 10, SECOND);
    assert_eq!((table.rows.len(), table.total.opened), (10, 19_999));
}

proptest! {
    /// Percentiles, mean and maximum against those of the sorted times.
    #[test]
    fn distributions_are_right(mut times in prop::collection::vec(0_u64..100_000_000_000, 1..400)) {
        let mut tally = tally(By::Port);
        for ns in &times {
            let event = Event { in_state_ns: Some(*ns), ..change(1, tuple(443, 1), "ESTABLISHED>CLOSE_WAIT") };
            tally.event(&event);
        }
        times.sort_unstable();
        let (_, state, told) = tally.times().unwrap().iter().next().unwrap();
        prop_assert_eq!(state, State::ESTABLISHED);
        prop_assert_eq!(told.count(), times.len() as u64);
        prop_assert_eq!(told.max_us(), times.last().unwrap() / 1000);
        for percent in [50.0, 90.0, 99.0] {
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
            let rank = (percent / 100.0 * times.len() as f64).ceil() as usize;
            let exact = times[rank.max(1) - 1] / 1000;
            let told = told.percentile_us(percent);
            prop_assert!(told.abs_diff(exact) <= exact / 100 + 1, "p{}: {} for {}", percent, told, exact);
        }
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let mean = times.iter().sum::<u64>() as f64 / times.len() as f64 / 1000.0;
        prop_assert!((told.mean_us() - mean).abs() <= mean * 1e-9 + 1e-6);
        let mut powers = 0;
        for (from, to, count) in told.powers() {
            let exact = times.iter().filter(|ns| (from..=to).contains(&(**ns / 1000))).count();
            prop_assert_eq!(count, exact as u64, "{} to {}", from, to);
            powers += count;
        }
        prop_assert_eq!(powers, told.count());
    }
}

#[test]
fn at_the_end_of_time_nothing_wraps() {
    let mut tally = tally(By::Port);
    tally.event(&change(u64::MAX, tuple(443, 50_000), "FIN_WAIT2>TIME_WAIT"));
    let table = tally.table(std::iter::empty(), Sort::Sockets, 10, u64::MAX);
    assert!(table.rows.len() <= 1);
}
