#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use tcptrace_common::{
    filter::News,
    record::{self, Addr, CloseDetail, Record, Tuple, UNKNOWN, flags},
};

use super::*;
use crate::model::{
    event::{Comm, Owner, OwnerSource},
    filter::Family,
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
fn no_more_than_so_many_are_held_and_the_oldest_is_shown() {
    let mut gate = local_port(1001);
    for n in 0..HELD {
        assert_eq!(pass(&mut gate, number(n)), nothing());
    }
    assert_eq!(pass(&mut gate, number(HELD)), ["0 :0 SYN_SENT"]);
    assert_eq!(pass(&mut gate, number(HELD + 1)), ["1 :0 SYN_SENT"]);
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

/// What is shown of those connections, and what is left of them once they are over.
fn watch(filter: &Filter) -> (Vec<u64>, String) {
    let (mut tracker, mut gate) = (Tracker::default(), Gate::new(filter.clone()));
    let detail = CloseDetail { tw_count: UNKNOWN, tw_max: UNKNOWN, ..CloseDetail::default() };
    let mut shown = Vec::new();
    for record in records() {
        if kernel_admits(filter, &record) {
            let detail = (record.kind == record::Kind::CLOSE).then_some(&detail);
            tracker.feed(&record, detail, &mut |event| {
                gate.pass(event, &mut |event| shown.push(event.id.unwrap().0))
            });
        }
    }
    tracker.tick(1_000_000_000, &mut |_| Fate::Keep);
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
        let (shown, _) = watch(&filter);
        assert_eq!(shown, wanted, "{filter:?}");
    }
    let (shown, left) = watch(&Filter::default());
    assert_eq!((shown.len(), &*left), (10, CLEAN));
    let (shown, left) = watch(&Filter { rports: vec![443..=443], ..Filter::default() });
    assert_eq!((shown.len(), &*left), (10, CLEAN));
}

#[track_caller]
fn leaves_nothing(filter: &Filter) {
    let (shown, left) = watch(filter);
    assert_eq!(shown, [0; 0], "{filter:?}");
    assert_eq!(left, CLEAN, "{filter:?}");
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
