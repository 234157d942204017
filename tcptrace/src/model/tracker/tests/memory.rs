//! What is forgotten, and when; and what holds for whatever records come.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

use super::*;

#[test]
fn what_is_over_is_forgotten() {
    let mut watch = Watch::new();
    watch.feed(by(80, listener().at(1, "CLOSE>LISTEN")));
    for n in 0..1000 {
        let sock = Sock { sk: SK + 0x10_0000 + n * 0x1000, cookie: 1000 + n, ..server() };
        watch.story(&sock, &ACCEPT);
        watch.feed(sock.at(3000, "ESTABLISHED>CLOSE"));
    }
    watch.feed(listener().at(3000, "LISTEN>CLOSE"));
    assert_eq!(watch.tracker.len(), 1001);
    watch.tick(53_000);
    assert_eq!(watch.tracker.len(), 1001);
    // A record lets time pass as well.
    watch.feed(client().hit(53_001, record::Kind::RETRANSMIT, State::ESTABLISHED));
    assert!(watch.tracker.is_empty() && watch.tracker.listeners.is_empty() && watch.tracker.ended.is_empty());
}

#[test]
fn there_is_a_limit_to_what_is_remembered() {
    let mut tracker = Tracker::new(Reasons::new(), false, true).limited_to(1);
    let mut lines = Vec::new();
    let other = Sock { sk: SK + 0x5000, cookie: 70, ..client() };
    for sock in [client(), other] {
        tracker.feed(&by(80, sock.at(1, "CLOSE>SYN_SENT")), None, &mut |event| {
            lines.push(line(&event));
            Fate::Keep
        });
    }
    tracker.feed(&by(80, other.at(5, "SYN_SENT>ESTABLISHED")), None, &mut |event| {
        lines.push(line(&event));
        Fate::Keep
    });
    // What happens to the second is told, without what only memory could add.
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].starts_with("46 SYN_SENT>ESTABLISHED -"), "{lines:?}");
    assert_eq!((tracker.len(), tracker.take_turned_away(), tracker.take_turned_away()), (1, 1, 0));
}

/// What is left of a socket's story when nobody wants to see it, and what was said of it.
fn unwanted(sock: &Sock, changes: &[&str]) -> (Tracker, Vec<String>) {
    let mut tracker = Tracker::default();
    let mut lines = Vec::new();
    for (ms, change) in (1..).zip(changes) {
        let detail = quiet();
        let record = by(80, sock.at(ms * 1000, change));
        let detail = (record.kind == record::Kind::CLOSE).then_some(&detail);
        tracker.feed(&record, detail, &mut |event| {
            lines.push(line(&event));
            Fate::Forget
        });
    }
    (tracker, lines)
}

#[test]
fn what_will_not_be_reported_again_is_forgotten() {
    let (tracker, lines) = unwanted(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED"]);
    assert!(tracker.is_empty());
    // Should it be reported after all, then it is a connection like one from before the start.
    assert_eq!(lines[1], "7 SYN_SENT>ESTABLISHED - client close 80");
    let (tracker, _) = unwanted(&server(), &ACCEPT);
    assert!(tracker.is_empty());
    let (mut tracker, _) = unwanted(&server().listener(), &["LISTEN>SYN_RECV"]);
    tracker.tick(1_000_000_000, &mut |_| Fate::Forget);
    assert!(tracker.is_empty());
}

#[test]
fn what_closes_is_kept_for_its_reset_all_the_same() {
    let (mut tracker, _) = unwanted(&client(), &["ESTABLISHED>CLOSE"]);
    assert_eq!(tracker.len(), 1);
    tracker.tick(1_000_000_000, &mut |_| Fate::Forget);
    assert!(tracker.is_empty() && tracker.ended.is_empty());
}

#[test]
fn a_listener_is_kept_for_its_children() {
    let (tracker, _) = unwanted(&listener(), &["CLOSE>LISTEN"]);
    let mut watch = Watch { tracker };
    assert_eq!(watch.feed(server().at(9000, "LISTEN>SYN_RECV")), ["8 LISTEN>SYN_RECV - server listener 80"]);
    let (mut tracker, _) = unwanted(&listener(), &["CLOSE>LISTEN", "LISTEN>CLOSE"]);
    tracker.tick(1_000_000_000, &mut |_| Fate::Forget);
    assert!(tracker.is_empty() && tracker.listeners.is_empty());
}

/// Lives that a socket may have.
const LIVES: [&[&str]; 10] = [
    &["CLOSE>LISTEN", "LISTEN>CLOSE"],
    &["CLOSE>SYN_SENT", "SYN_SENT>CLOSE"],
    &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", "ESTABLISHED>CLOSE"],
    &[
        "CLOSE>SYN_SENT",
        "SYN_SENT>ESTABLISHED",
        "ESTABLISHED>FIN_WAIT1",
        "FIN_WAIT1>FIN_WAIT2",
        "FIN_WAIT2>FIN_WAIT2",
        "FIN_WAIT2>CLOSE",
    ],
    &[
        "CLOSE>SYN_SENT",
        "SYN_SENT>ESTABLISHED",
        "ESTABLISHED>CLOSE_WAIT",
        "CLOSE_WAIT>LAST_ACK",
        "LAST_ACK>LAST_ACK",
        "LAST_ACK>CLOSE",
    ],
    &["CLOSE>SYN_SENT", "SYN_SENT>SYN_RECV", "SYN_RECV>ESTABLISHED", "ESTABLISHED>CLOSE"],
    &["LISTEN>SYN_RECV", "SYN_RECV>CLOSE"],
    &["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED", "ESTABLISHED>CLOSE"],
    &[
        "LISTEN>SYN_RECV",
        "SYN_RECV>ESTABLISHED",
        "ESTABLISHED>FIN_WAIT1",
        "FIN_WAIT1>CLOSING",
        "CLOSING>CLOSE",
    ],
    &["LISTEN>SYN_RECV", "SYN_RECV>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2", "FIN_WAIT2>CLOSE"],
];

/// What the sockets of a host do: for each address the lives of its sockets, one after the other. Records in
/// the order of the ring, each with the number of its connection.
fn happenings(
    lives: &[Vec<&[&'static str]>],
    turns: &[(Index, u64)],
    cookies: bool,
    named_at_birth: bool,
) -> Vec<(u16, Record)> {
    let mut sockets: Vec<VecDeque<(u16, Sock, &str)>> = Vec::new();
    let mut number = 0;
    for (lives, sk) in lives.iter().zip((SK..).step_by(0x1000)) {
        let mut todo = VecDeque::new();
        for life in lives {
            number += 1;
            let cookie = if cookies { u64::from(number) } else { 0 };
            let sock = Sock { sk, cookie, tuple: Tuple { lport: number, ..server().tuple } };
            let sock = if life[0] == "CLOSE>LISTEN" { sock.listener() } else { sock };
            todo.extend(life.iter().map(|change| (number, sock, *change)));
        }
        sockets.push(todo);
    }
    let listener = if cookies { listener() } else { nameless(listener()) };
    let mut happenings = Vec::new();
    let mut us = 0;
    for (turn, pause) in turns.iter().cycle() {
        sockets.retain(|todo| !todo.is_empty());
        if sockets.is_empty() {
            break;
        }
        us += pause;
        let turn = turn.index(sockets.len());
        let (number, sock, change) = sockets[turn].pop_front().unwrap();
        let hidden = change == "LISTEN>SYN_RECV" && !named_at_birth;
        let named = if hidden { sock.named_as(&listener) } else { sock };
        happenings.push((number, named.at(us, change)));
    }
    happenings
}

/// A record of anything at all.
fn any_record() -> impl Strategy<Value = (Record, Option<CloseDetail>)> {
    let sk = select(vec![0, SK, SK + 0x1000, SK + 0x2000]);
    let tuple = (select(vec!["0.0.0.0", "::", "10.0.0.5"]), select(vec![0, 80]), select(vec![0, 51344]));
    let detail = prop::option::of((any::<i32>(), any::<i32>(), any::<u32>(), any::<u64>()));
    (sk, 0..4u64, tuple, 0..8u8, 0..15u8, 0..15u8, any::<u32>(), 0..1_000_000_000u64, detail).prop_map(
        |(sk, cookie, (laddr, lport, rport), kind, old, new, flags, ts_ns, detail)| {
            let tuple = Tuple { laddr: addr(laddr), lport, rport, ..server().tuple };
            let record = Record {
                ts_ns,
                kind: record::Kind(kind),
                old,
                new,
                flags,
                task_pid: flags & 3,
                reason: (flags >> 9).cast_signed(),
                ..Sock { sk, cookie, tuple }.at(0, "CLOSE>CLOSE")
            };
            let detail = detail.map(|(sk_err, linger2, unacked, bytes)| CloseDetail {
                sk_err,
                linger2,
                unacked,
                bytes_acked: bytes,
                bytes_sent: bytes >> 1,
                bytes_retrans: bytes,
                ..quiet()
            });
            (record, detail)
        },
    )
}

proptest! {
    #[test]
    fn every_transition_is_told_once_of_its_own_connection(
        lives in vec(vec(select(LIVES.to_vec()), 1..5), 1..5),
        turns in vec((any::<Index>(), 0..20_000u64), 1..50),
        cookies: bool,
        named_at_birth: bool,
    ) {
        let happenings = happenings(&lives, &turns, cookies, named_at_birth);
        let mut watch = Watch::new();
        let mut events = Vec::new();
        for (_, record) in &happenings {
            events.extend(watch.events(*record, &quiet()));
        }
        let mut ids = BTreeMap::new();
        let numbers: std::collections::BTreeSet<u16> = happenings.iter().map(|(number, _)| *number).collect();
        for number in numbers {
            let mut since_ns = None;
            let mut told = events.iter().filter(|event| event.tuple.lport == number);
            for (_, record) in happenings.iter().filter(|(of, record)| *of == number && record.old != record.new) {
                let event = told.next().unwrap();
                prop_assert_eq!(event.ts_ns, record.ts_ns);
                prop_assert_eq!(event.old.map(State::number), Some(record.old));
                prop_assert_eq!(event.kernel_new.or(event.new).map(State::number), Some(record.new));
                prop_assert_eq!(event.in_state_ns, since_ns.map(|since_ns| record.ts_ns - since_ns));
                prop_assert_eq!(event.closed, record.kind == record::Kind::CLOSE);
                let id = *ids.entry(number).or_insert(event.id.unwrap());
                prop_assert_eq!(event.id, Some(id));
                since_ns = Some(record.ts_ns);
            }
            prop_assert_eq!(told.next(), None);
            prop_assert!(!cookies || ids[&number] == Id(number.into()));
        }
        prop_assert_eq!(ids.values().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
        watch.tick(u64::MAX / 1000);
        prop_assert!(watch.tracker.is_empty() && watch.tracker.listeners.is_empty());
        prop_assert!(watch.tracker.ended.is_empty());
    }

    #[test]
    fn every_connection_gets_exactly_one_cause(
        lives in vec(vec(select(LIVES.to_vec()), 1..5), 1..5),
        turns in vec((any::<Index>(), 0..20_000u64), 1..50),
        cookies: bool,
        named_at_birth: bool,
        bits in vec(any::<u32>(), 20),
    ) {
        let happenings = happenings(&lives, &turns, cookies, named_at_birth);
        let mut tracker = Tracker::new(Reasons::new(), false, true);
        let (mut causes, mut ends) = (BTreeMap::new(), BTreeMap::new());
        let mut count = |event: Event| {
            if event.kind == Kind::Connection {
                assert!(event.verdict.is_some() && event.closed);
                *causes.entry(event.tuple.lport).or_insert(0) += 1;
            }
            Fate::Keep
        };
        for ((number, record), bits) in happenings.iter().zip(bits.iter().cycle()) {
            // Any socket flags, orphans among them.
            let record = Record { flags: bits & 0x7f, ..*record };
            let closes = record.kind == record::Kind::CLOSE && record.old != State::LISTEN.number();
            *ends.entry(*number).or_insert(0) += usize::from(closes);
            tracker.feed(&record, Some(&quiet()).filter(|_| record.kind == record::Kind::CLOSE), &mut count);
        }
        let doubts: Vec<_> = tracker.doubts().collect();
        for doubt in doubts {
            tracker.settle(&doubt, Whereabouts::Gone, u64::MAX / 2, &mut count);
        }
        tracker.tick(u64::MAX, &mut count);
        ends.retain(|_, count| *count > 0);
        prop_assert_eq!(causes, ends);
        prop_assert!(tracker.is_empty() && !tracker.is_in_doubt() && tracker.orphans.is_empty());
    }

    #[test]
    fn no_records_make_it_panic_and_closing_all_empties_it(
        records in vec(any_record(), 0..60),
        ticks in vec(any::<bool>(), 60),
        raw: bool,
    ) {
        let mut tracker = Tracker::new(Reasons::new(), raw, false);
        for ((record, detail), tick) in records.iter().zip(ticks) {
            tracker.feed(record, detail.as_ref(), &mut |_| Fate::Keep);
            if tick {
                tracker.tick(record.ts_ns + 10_000_000, &mut |_| Fate::Keep);
            }
        }
        // Those that were born and got no name get one, those that are closed go.
        tracker.tick(2_000_000_000, &mut |_| Fate::Keep);
        let alive: Vec<Key> = tracker.conns.keys().copied().collect();
        for key in alive {
            let by_address = key == 0 || key >= SK;
            let (sk, cookie) = if by_address { (key, 0) } else { (SK + 0xf000, key) };
            let sock = Sock { sk, cookie, ..server() };
            let end = Record { ts_ns: 2_000_000_000, ..sock.at(0, "ESTABLISHED>CLOSE") };
            tracker.feed(&end, Some(&quiet()), &mut |_| Fate::Keep);
        }
        let doubts: Vec<_> = tracker.doubts().collect();
        for doubt in doubts {
            tracker.settle(&doubt, Whereabouts::Gone, 2_000_000_000, &mut |_| Fate::Keep);
        }
        tracker.tick(3_000_000_000, &mut |_| Fate::Keep);
        prop_assert!(tracker.is_empty(), "{:?}", tracker);
        prop_assert!(tracker.ended.is_empty() && !tracker.is_in_doubt() && tracker.orphans.is_empty());
        prop_assert_eq!(tracker.untold, 0);
    }
}
