#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*, sample::Index};
use tcptrace_common::{
    filter::News,
    record::{self, Addr, CloseDetail, Record, Tuple, UNKNOWN, flags},
};

use super::*;
use crate::model::{
    event::{Comm, Owner, OwnerSource},
    filter::Family,
    found::Whereabouts,
    state::State,
    tracker::Tracker,
};

fn addr(text: &str) -> Addr {
    Addr::from_octets(match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

/// A record of connection `n`, whose local port is 1000 + `n`; `old>new`.
fn record(n: u16, change: &str) -> Record {
    let (old, new) = change.split_once('>').unwrap();
    let (old, new) = (old.parse::<State>().unwrap(), new.parse::<State>().unwrap());
    Record {
        sk: 0xffff_8880_0000_0000 + u64::from(n) * 0x1000,
        cookie: n.into(),
        tuple: Tuple {
            laddr: addr("10.0.0.5"),
            raddr: addr("10.0.0.9"),
            lport: 1000 + n,
            rport: 443,
            netns: 1,
        },
        flags: flags::SOCKET,
        kind: if new == State::CLOSE { record::Kind::CLOSE } else { record::Kind::TRANSITION },
        old: old.number(),
        new: new.number(),
        ..Record::default()
    }
}

/// What a tracker that sees nothing else says of a record.
fn event(n: u16, change: &str) -> Event {
    let mut events = Vec::new();
    Tracker::default().feed(&record(n, change), None, &mut |event| {
        events.push(event);
        Fate::Keep
    });
    events.remove(0)
}

fn portless(event: Event) -> Event {
    Event { tuple: Tuple { lport: 0, ..event.tuple }, ..event }
}

fn owned(pid: u32, source: OwnerSource, event: Event) -> Event {
    Event { owner: Some(Owner { pid, source, comm: Comm::default() }), ..event }
}

/// What comes through: connection, local port, state entered.
#[track_caller]
fn pass(gate: &mut Gate, event: Event) -> Vec<String> {
    let mut shown = Vec::new();
    gate.pass(event, &mut |event| {
        let id = event.id.map_or("-".to_owned(), |id| id.to_string());
        shown.push(format!("{id} :{} {}", event.tuple.lport, event.new.unwrap()));
    });
    shown
}

fn nothing() -> [String; 0] {
    []
}

fn local_port(port: u16) -> Gate {
    Gate::new(Filter { lports: vec![port..=port], ..Filter::default() })
}

fn process(pid: u32) -> Gate {
    Gate::new(Filter { pids: vec![pid], ..Filter::default() })
}

#[test]
fn without_a_filter_everything_passes_at_once() {
    let mut gate = Gate::default();
    assert_eq!(pass(&mut gate, portless(event(1, "CLOSE>SYN_SENT"))), ["1 :0 SYN_SENT"]);
    let nobodys = Event { id: None, ..event(1, "CLOSE>SYN_SENT") };
    assert_eq!(pass(&mut gate, nobodys), ["- :1001 SYN_SENT"]);
    assert!(gate.admitted.is_empty() && gate.held.is_empty());
}

#[test]
fn what_was_held_comes_out_first_with_its_port() {
    let mut gate = local_port(1001);
    assert_eq!(pass(&mut gate, portless(event(1, "CLOSE>SYN_SENT"))), nothing());
    assert_eq!(pass(&mut gate, portless(event(2, "CLOSE>SYN_SENT"))), nothing());
    assert_eq!(pass(&mut gate, portless(event(1, "SYN_SENT>SYN_RECV"))), nothing());
    assert_eq!(
        pass(&mut gate, event(1, "SYN_RECV>ESTABLISHED")),
        ["1 :1001 SYN_SENT", "1 :1001 SYN_RECV", "1 :1001 ESTABLISHED"]
    );
    assert_eq!(pass(&mut gate, event(1, "ESTABLISHED>CLOSE_WAIT")), ["1 :1001 CLOSE_WAIT"]);
    assert_eq!(gate.count, 1);
}

#[test]
fn what_was_held_goes_when_the_connection_is_refused() {
    let mut gate = local_port(1001);
    assert_eq!(pass(&mut gate, portless(event(2, "CLOSE>SYN_SENT"))), nothing());
    assert_eq!(pass(&mut gate, event(2, "SYN_SENT>ESTABLISHED")), nothing());
    assert_eq!((gate.count, gate.held.len(), gate.order.len()), (0, 0, 0));
}

#[test]
fn what_was_held_goes_when_the_socket_closes_without_an_answer() {
    let mut gate = process(1);
    assert_eq!(pass(&mut gate, event(1, "SYN_RECV>ESTABLISHED")), nothing());
    assert_eq!(pass(&mut gate, Event { closed: true, ..event(1, "ESTABLISHED>CLOSE") }), nothing());
    assert_eq!((gate.count, gate.held.len()), (0, 0));
}

#[test]
fn states_choose_among_what_was_held_too() {
    let filter = Filter { lports: vec![1001..=1001], states: vec![State::ESTABLISHED], ..Filter::default() };
    let mut gate = Gate::new(filter);
    assert_eq!(pass(&mut gate, portless(event(1, "CLOSE>SYN_SENT"))), nothing());
    assert_eq!(pass(&mut gate, event(1, "SYN_SENT>ESTABLISHED")), ["1 :1001 ESTABLISHED"]);
}

#[test]
fn a_connection_once_admitted_stays_so_until_it_is_closed() {
    let mut gate = process(80);
    let of = |pid, source, change| owned(pid, source, event(1, change));
    assert_eq!(
        pass(&mut gate, of(80, OwnerSource::Listener, "SYN_RECV>ESTABLISHED")),
        ["1 :1001 ESTABLISHED"]
    );
    // Another process accepted it.
    assert_eq!(pass(&mut gate, of(81, OwnerSource::Close, "ESTABLISHED>FIN_WAIT1")), ["1 :1001 FIN_WAIT1"]);
    let end = Event { closed: true, ..of(81, OwnerSource::Close, "FIN_WAIT1>CLOSE") };
    assert_eq!(pass(&mut gate, end), ["1 :1001 CLOSE"]);
    assert!(gate.admitted.is_empty());
    // The socket connects again.
    assert_eq!(pass(&mut gate, of(81, OwnerSource::Connect, "CLOSE>SYN_SENT")), nothing());
}

#[test]
fn only_where_verdicts_change_they_are_remembered() {
    let mut gate = local_port(1001);
    assert_eq!(pass(&mut gate, event(1, "SYN_SENT>ESTABLISHED")).len(), 1);
    assert!(gate.admitted.is_empty());
}

#[test]
fn what_belongs_to_no_connection_is_not_held() {
    let mut gate = local_port(1001);
    let nobodys = Event { id: None, ..portless(event(1, "CLOSE>SYN_SENT")) };
    assert_eq!(pass(&mut gate, nobodys), nothing());
    assert_eq!(gate.count, 0);
}

/// A connection with this number, that of which is known that it may be held.
fn number(n: usize) -> Event {
    let id = Id(u64::try_from(n).unwrap());
    Event { id: Some(id), ..portless(event(1, "CLOSE>SYN_SENT")) }
}

#[test]
fn no_more_than_so_many_are_held_and_what_is_left_out_is_counted() {
    let mut gate = local_port(1001);
    for n in 0..HELD {
        assert_eq!(pass(&mut gate, number(n)), nothing());
    }
    assert_eq!(gate.left_out(), 0);
    assert_eq!(pass(&mut gate, number(HELD)), nothing());
    assert_eq!(pass(&mut gate, number(HELD + 1)), nothing());
    assert_eq!(gate.left_out(), 2);
    assert_eq!((gate.count, gate.held.len()), (HELD, HELD));
}

#[test]
fn the_order_of_what_is_held_does_not_outgrow_it() {
    let mut gate = local_port(1001);
    pass(&mut gate, number(0));
    for n in 1..10_000 {
        pass(&mut gate, number(n));
        pass(&mut gate, Event { closed: true, ..number(n) });
    }
    assert_eq!((gate.count, gate.held.len()), (1, 1));
    assert!(gate.order.len() <= 100, "{}", gate.order.len());
}

#[test]
fn the_order_does_not_outgrow_a_socket_that_connects_again_and_again() {
    let mut gate = local_port(1001);
    pass(&mut gate, number(0));
    for _ in 0..1000 {
        pass(&mut gate, number(1));
        pass(&mut gate, Event { closed: true, ..number(1) });
    }
    assert!(gate.order.len() <= 100, "{}", gate.order.len());
}

// Together with the kernel side and the tracker.

/// Whether the probes would write the record: inet_sock_set_state.rs of tcptrace-ebpf and `admitted` of its
/// sock.rs, without cgroups.
fn kernel_admits(filter: &Filter, record: &Record) -> bool {
    let part = filter.kernel_part(false);
    let transition = matches!(record.kind, record::Kind::TRANSITION | record::Kind::CLOSE);
    let news = if transition { News::of_transition(record.old, record.new) } else { News::default() };
    let unaccepted = record.flags & (flags::SOCKET | flags::DEAD) == 0;
    part.admits_tuple(&record.tuple, news) && part.admits_uid(record.uid, unaccepted, news)
}

/// Two connections: number 1 of user 33 connects to port 443, number 2 is made by user 0's listener on port 1002
/// and accepted by user 33.
fn records() -> Vec<Record> {
    let client = |change| Record { uid: 33, ..record(1, change) };
    let server = |change| Record { uid: 33, ..record(2, change) };
    let unaccepted = |change| Record { uid: 0, flags: 0, ..record(2, change) };
    let syn = client("CLOSE>SYN_SENT");
    let dead = |record: Record| Record { flags: flags::DEAD, ..record };
    vec![
        Record {
            tuple: Tuple { lport: 0, ..syn.tuple },
            task_pid: 4123,
            flags: flags::OWNED | flags::SOCKET,
            ..syn
        },
        client("SYN_SENT>ESTABLISHED"),
        unaccepted("LISTEN>SYN_RECV"),
        unaccepted("SYN_RECV>ESTABLISHED"),
        Record { task_pid: 80, flags: flags::OWNED | flags::SOCKET, ..server("ESTABLISHED>FIN_WAIT1") },
        client("ESTABLISHED>CLOSE_WAIT"),
        dead(client("CLOSE_WAIT>LAST_ACK")),
        dead(client("LAST_ACK>CLOSE")),
        dead(server("FIN_WAIT1>FIN_WAIT2")),
        dead(server("FIN_WAIT2>CLOSE")),
    ]
}

/// What is shown of these records, by connection, and what is left of them once all is over.
fn watch(filter: &Filter, records: &[Record]) -> (Vec<u64>, String) {
    let (mut tracker, mut gate) = (Tracker::default(), Gate::new(filter.clone()));
    let detail = CloseDetail { tw_count: UNKNOWN, tw_max: UNKNOWN, ..CloseDetail::default() };
    let mut shown = Vec::new();
    let mut show = |event| gate.pass(event, &mut |event| shown.push(event.id.unwrap().0));
    for record in records.iter().filter(|record| kernel_admits(filter, record)) {
        let detail = (record.kind == record::Kind::CLOSE).then_some(&detail);
        tracker.feed(record, detail, &mut show);
    }
    let told = shown.len();
    let mut show = |event| gate.pass(event, &mut |event| shown.push(event.id.unwrap().0));
    // What becomes of an orphan comes late, and is shown if the rest was.
    let doubts: Vec<_> = tracker.doubts().collect();
    for doubt in doubts {
        tracker.settle(&doubt, Whereabouts::Gone, 1_000_000_000, &mut show);
    }
    tracker.tick(1_000_000_000_000, &mut show);
    let late = shown.split_off(told);
    assert!(late.iter().all(|id| shown.contains(id)), "{late:?} {shown:?}");
    let Gate { admitted, held, .. } = gate;
    let left = format!("{} tracked, {} held, {} admitted", tracker.len(), held.len(), admitted.len());
    (shown, left)
}

const CLEAN: &str = "0 tracked, 0 held, 0 admitted";

#[test]
fn a_wanted_connection_is_shown_whole_and_nothing_is_left() {
    let one = [1; 5];
    let two = [2; 5];
    for (filter, wanted) in [
        (Filter { lports: vec![1001..=1001], ..Filter::default() }, one),
        (Filter { lports: vec![1002..=1002], ..Filter::default() }, two),
        (Filter { ports: vec![1001..=1001], ..Filter::default() }, one),
        (Filter { pids: vec![4123], ..Filter::default() }, one),
        (Filter { pids: vec![80], ..Filter::default() }, two),
        (Filter { uids: vec![33], lports: vec![1001..=1001], ..Filter::default() }, one),
        (Filter { uids: vec![33], lports: vec![1002..=1002], ..Filter::default() }, two),
    ] {
        let (shown, left) = watch(&filter, &records());
        assert_eq!((&shown[..], &*left), (&wanted[..], CLEAN), "{filter:?}");
    }
    let (shown, left) = watch(&Filter::default(), &records());
    assert_eq!((shown.len(), &*left), (10, CLEAN));
    let (shown, left) = watch(&Filter { rports: vec![443..=443], ..Filter::default() }, &records());
    assert_eq!((shown.len(), &*left), (10, CLEAN));
}

#[test]
fn what_its_listeners_user_admitted_is_shown_whole_and_nothing_is_left() {
    // The listener is user 0's, who accepts is user 33.
    let (shown, left) = watch(&Filter { uids: vec![0], ..Filter::default() }, &records());
    // As it is where the users do not fit the kernel's table.
    let (many, _) = watch(&Filter { uids: vec![0, 1, 2, 3, 4], ..Filter::default() }, &records());
    assert_eq!((shown, &*left), (many, CLEAN));
}

#[track_caller]
fn leaves_nothing(filter: &Filter) {
    let (shown, left) = watch(filter, &records());
    assert_eq!((shown.len(), &*left), (0, CLEAN), "{filter:?}");
}

#[test]
fn nothing_is_left_of_an_unwanted_connection() {
    let nowhere = || vec!["192.0.2.1/32".parse().unwrap()];
    for filter in [
        Filter { rports: vec![80..=80], ..Filter::default() },
        Filter { laddrs: nowhere(), ..Filter::default() },
        Filter { raddrs: nowhere(), ..Filter::default() },
        Filter { addrs: nowhere(), ..Filter::default() },
        Filter { family: Some(Family::V6), ..Filter::default() },
        Filter { netns: vec![2], ..Filter::default() },
        Filter { pids: vec![1], ..Filter::default() },
        Filter { comms: vec!["x".into()], ..Filter::default() },
    ] {
        leaves_nothing(&filter);
    }
}

#[test]
fn nothing_is_left_of_a_connection_from_an_unwanted_port() {
    leaves_nothing(&Filter { lports: vec![80..=80], ..Filter::default() });
}

#[test]
fn nothing_is_left_of_a_connection_with_an_unwanted_port() {
    leaves_nothing(&Filter { ports: vec![80..=80], ..Filter::default() });
}

#[test]
fn nothing_is_left_of_a_connection_that_an_unwanted_user_accepted() {
    leaves_nothing(&Filter { uids: vec![1], ..Filter::default() });
}

#[test]
fn what_the_kernel_side_will_not_report_again_is_to_be_forgotten() {
    let fate = |filter: Filter, event| Gate::new(filter).pass(event, &mut |_| {});
    let port = Filter { lports: vec![1001..=1001], ..Filter::default() };
    assert_eq!(fate(port.clone(), event(2, "SYN_SENT>ESTABLISHED")), Fate::Forget);
    assert_eq!(fate(port.clone(), event(1, "SYN_SENT>ESTABLISHED")), Fate::Keep);
    assert_eq!(fate(port, portless(event(2, "CLOSE>SYN_SENT"))), Fate::Keep);
    // Of these the kernel side knows nothing.
    let process = Filter { pids: vec![1], ..Filter::default() };
    let others = owned(2, OwnerSource::Connect, event(1, "CLOSE>SYN_SENT"));
    assert_eq!(fate(process.clone(), others), Fate::Keep);
    assert_eq!(fate(process, event(1, "CLOSE>SYN_SENT")), Fate::Keep);
    let state = Filter { states: vec![State::LISTEN], ..Filter::default() };
    assert_eq!(fate(state, event(1, "CLOSE>SYN_SENT")), Fate::Keep);
}

/// A connection of a host: what there is to know of it, and its transitions.
#[derive(Clone, Debug)]
struct Life {
    lport: u16,
    rport: u16,
    uid: u32,
    /// Who owns it; `None`: nobody ever acts.
    pid: Option<u32>,
    records: Vec<Record>,
}

const LISTENERS_UID: u32 = 0;

/// The lives that connection `n` may have. Before 6.15 a child is not `named_at_birth`.
fn any_life(n: u16) -> impl Strategy<Value = Life> {
    (0..6usize, 1..4u16, 1..4u16, 1..4u32, 1..4u32, any::<bool>()).prop_map(
        move |(kind, lport, rport, uid, pid, named_at_birth)| {
            let tuple = Tuple { lport, rport, ..record(n, "CLOSE>CLOSE").tuple };
            let at = |change| Record { tuple, uid, ..record(n, change) };
            let acts = |change| Record { task_pid: pid, flags: flags::SOCKET | flags::OWNED, ..at(change) };
            let dead = |change| Record { flags: flags::DEAD | flags::DONE, ..at(change) };
            let unaccepted = |change| Record { uid: LISTENERS_UID, flags: 0, ..at(change) };
            let portless = |record| Record { tuple: Tuple { lport: 0, ..tuple }, ..record };
            let unnamed = Tuple { laddr: addr("::"), raddr: addr("::"), rport: 0, ..tuple };
            let birth = unaccepted("LISTEN>SYN_RECV");
            let birth = if named_at_birth { birth } else { Record { tuple: unnamed, cookie: 999, ..birth } };
            let syn = portless(acts("CLOSE>SYN_SENT"));
            let handshake = unaccepted("SYN_RECV>ESTABLISHED");
            let (records, acted) = match kind {
                // No free port, and refused.
                0 => (vec![syn, portless(acts("SYN_SENT>CLOSE"))], true),
                1 => (vec![syn, at("SYN_SENT>CLOSE")], true),
                2 => {
                    let middle = [at("SYN_SENT>ESTABLISHED"), acts("ESTABLISHED>FIN_WAIT1")];
                    let end = [dead("FIN_WAIT1>FIN_WAIT2"), dead("FIN_WAIT2>CLOSE")];
                    ([vec![syn], middle.to_vec(), end.to_vec()].concat(), true)
                }
                // Accepted, by chance after the peer's FIN.
                3 => {
                    let end = [acts("CLOSE_WAIT>LAST_ACK"), dead("LAST_ACK>CLOSE")];
                    (
                        [vec![birth, handshake, unaccepted("ESTABLISHED>CLOSE_WAIT")], end.to_vec()].concat(),
                        true,
                    )
                }
                4 => {
                    let end =
                        [acts("ESTABLISHED>FIN_WAIT1"), dead("FIN_WAIT1>CLOSING"), dead("CLOSING>CLOSE")];
                    ([vec![birth, handshake], end.to_vec()].concat(), true)
                }
                _ => (vec![birth, handshake, unaccepted("ESTABLISHED>CLOSE")], false),
            };
            Life {
                lport: if kind == 0 { 0 } else { lport },
                rport,
                uid: if acted { uid } else { LISTENERS_UID },
                pid: acted.then_some(pid),
                records,
            }
        },
    )
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let ports = || prop_oneof![2 => Just(Vec::new()), 1 => (1..4u16).prop_map(|port| vec![port..=port])];
    let numbers = || prop_oneof![2 => Just(Vec::new()), 1 => (0..4u32).prop_map(|number| vec![number])];
    (ports(), ports(), ports(), numbers(), numbers()).prop_map(|(lports, rports, ports, uids, pids)| Filter {
        pids,
        lports,
        rports,
        ports,
        uids,
        ..Filter::default()
    })
}

fn wants(filter: &Filter, life: &Life) -> bool {
    let port = |ports: &[std::ops::RangeInclusive<u16>], port| {
        ports.is_empty() || ports.iter().any(|range| range.contains(&port))
    };
    // A connection that nothing but its listener's user decides on is wanted for that user, whoever accepts it.
    let accepted = life.records[0].old == State::LISTEN.number();
    let wanted_at_birth = accepted && filter.pids.is_empty() && filter.uids.contains(&LISTENERS_UID);
    port(&filter.lports, life.lport)
        && port(&filter.rports, life.rport)
        && (port(&filter.ports, life.lport) || port(&filter.ports, life.rport))
        && (filter.uids.is_empty() || filter.uids.contains(&life.uid) || wanted_at_birth)
        && (filter.pids.is_empty() || life.pid.is_some_and(|pid| filter.pids.contains(&pid)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn connections_are_shown_whole_or_not_at_all_and_nothing_is_left(
        filter in any_filter(),
        lives in (any_life(1), any_life(2), any_life(3)),
        turns in vec(any::<Index>(), 15),
    ) {
        let lives = [lives.0, lives.1, lives.2];
        let mut todo: Vec<VecDeque<Record>> =
            lives.iter().map(|life| life.records.iter().copied().collect()).collect();
        let mut records = Vec::new();
        for turn in turns {
            todo.retain(|todo| !todo.is_empty());
            if todo.is_empty() {
                break;
            }
            let turn = turn.index(todo.len());
            records.extend(todo[turn].pop_front());
        }
        let (shown, left) = watch(&filter, &records);
        for (n, life) in (1..).zip(&lives) {
            let count = shown.iter().filter(|id| **id == n).count();
            let wanted = if wants(&filter, life) { life.records.len() } else { 0 };
            prop_assert_eq!(count, wanted, "{}", n);
        }
        prop_assert_eq!(left, CLEAN);
    }
}
