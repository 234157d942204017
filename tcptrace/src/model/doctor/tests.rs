//! Every threshold of every rule: what is just not enough is no finding, what is enough is one, and `--set` moves it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod made;
mod watch;

use tcptrace_common::record::Tuple;

use self::made::{
    PID, SECOND, addr, again, among, destination, ended, facts, idle, leak, lives, namespace, owner, ports,
    queue, spread, standing, stat, strays, tenths, whole,
};
use super::{
    Facts, Finding, Group, Limits, RULES, Severity,
    facts::{Destination, Listener, Restarts, Seconds},
    judge,
};
use crate::model::{
    cause::Cause,
    health::{Descriptors, Snmp, Sockstat},
    state::State,
};

/// From where on something is a finding.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fires {
    /// As much, or more.
    From,
    /// As much, or less.
    UpTo,
    /// Less.
    Below,
}
use Fires::{Below, From, UpTo};

/// A threshold, and facts that come to a value in its unit.
struct Row {
    rule: &'static str,
    threshold: &'static str,
    fires: Fires,
    facts: fn(f64) -> Facts,
    /// Where the threshold is about what the finding says.
    says: fn(&Finding) -> bool,
}

fn row(rule: &'static str, threshold: &'static str, fires: Fires, facts: fn(f64) -> Facts) -> Row {
    Row { rule, threshold, fires, facts, says: |_| true }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    let critical = |finding: &Finding| finding.severity == Severity::Critical;
    let flood = |finding: &Finding| finding.title.ends_with("a SYN flood");
    vec![
        row("port-exhaustion", "used", From, |part| ports(tenths(part), tenths(part), 0, 1.0)),
        row("port-exhaustion", "left", UpTo, |left| ports(400, 100, 0, 6000.0 / left)),
        row("port-exhaustion", "grown", From, |part| ports(tenths(part), 0, 0, 100.0)),
        row("accept-queue-full", "full", From, |part| queue(tenths(part), 1000, 0, 0)),
        row("accept-queue-full", "waiting", From, |most| queue(whole(most), whole(most), 0, 0)),
        row("close-wait-leak", "age", From, |age| standing(State::CLOSE_WAIT, 5, 5, age)),
        row("close-wait-leak", "old", From, |count| {
            standing(State::CLOSE_WAIT, whole(count), whole(count), 60.0)
        }),
        row("close-wait-leak", "growth", From, |growth| {
            standing(State::CLOSE_WAIT, whole(growth) + 2, 2, 8.0)
        }),
        Row { says: critical, ..row("close-wait-leak", "full", UpTo, leak) },
        row("syn-flood", "count", From, |count| standing(State::SYN_RECV, whole(count), 0, 1.0)),
        Row { says: flood, ..row("syn-flood", "spread", From, spread) },
        row("syn-queue-drops", "count", From, |count| Facts {
            namespaces: vec![namespace(Snmp { req_queue_full_drop: whole(count), ..Snmp::default() }, &[])],
            ..facts()
        }),
        row("time-wait-limit", "used", From, |part| Facts {
            namespaces: vec![stat(
                Sockstat { time_wait: tenths(part) * 2, ..Sockstat::default() },
                ("tcp_max_tw_buckets", &[2000]),
            )],
            ..facts()
        }),
        row("memory-pressure", "used", From, |part| Facts {
            namespaces: vec![stat(
                Sockstat { pages: tenths(part), ..Sockstat::default() },
                ("tcp_mem", &[500, 1000, 1500]),
            )],
            ..facts()
        }),
        row("orphan-pressure", "used", From, |part| Facts {
            namespaces: vec![stat(
                Sockstat { orphans: tenths(part) * 2, ..Sockstat::default() },
                ("tcp_max_orphans", &[2000]),
            )],
            ..facts()
        }),
        row("connect-refused", "count", From, |count| ended(Cause::Refused, State::SYN_SENT, count, 1.0)),
        row("connect-timeouts", "count", From, |count| {
            ended(Cause::ConnectTimeout, State::SYN_SENT, count, 1.0)
        }),
        row("connect-stuck", "age", From, |age| standing(State::SYN_SENT, 3, 0, age)),
        row("connect-stuck", "count", From, |count| standing(State::SYN_SENT, whole(count), 0, 3.0)),
        row("peer-resets", "count", From, |count| ended(Cause::PeerRst, State::ESTABLISHED, count, 3.0)),
        row("peer-resets", "in-seconds", From, |seconds| {
            ended(Cause::PeerRst, State::ESTABLISHED, 10.0, seconds)
        }),
        row("peer-resets", "alike", From, |count| idle(whole(count), 30.0, 31.0)),
        row("peer-resets", "idle", From, |seconds| idle(3, seconds, seconds)),
        row("middlebox-resets", "pairs", From, |pairs| Facts { severed: (whole(pairs), None), ..facts() }),
        row("middlebox-resets", "stray", From, |count| strays(false, 1, whole(count))),
        row("middlebox-resets", "conntrack", From, |part| Facts {
            namespaces: vec![namespace(
                Snmp::default(),
                &[("nf_conntrack_count", &[part]), ("nf_conntrack_max", &[100.0])],
            )],
            ..facts()
        }),
        row("peer-timeouts", "count", From, |count| ended(Cause::Timeout, State::ESTABLISHED, count, 1.0)),
        row("keepalive-deaths", "count", From, |count| {
            ended(Cause::KeepaliveTimeout, State::ESTABLISHED, count, 1.0)
        }),
        row("retransmit-storm", "count", From, |count| again(whole(count), 3.0, 1000)),
        row("retransmit-storm", "in-seconds", From, |seconds| again(30, seconds, 1000)),
        row("retransmit-storm", "part", From, |part| again(whole(part * 10_000.0), 3.0, 1_000_000)),
        row("fin-wait1-stuck", "age", From, |age| standing(State::FIN_WAIT1, 5, 0, age)),
        row("fin-wait1-stuck", "part", From, |part| among(State::FIN_WAIT1, State::ESTABLISHED, part)),
        row("last-ack-stuck", "part", From, |part| among(State::LAST_ACK, State::ESTABLISHED, part)),
        row("fin-wait2-orphans", "part", From, |part| among(State::FIN_WAIT2, State::TIME_WAIT, part)),
        row("fin-wait1-stuck", "count", From, |count| standing(State::FIN_WAIT1, whole(count), 0, 9.0)),
        row("last-ack-stuck", "age", From, |age| standing(State::CLOSING, 5, 0, age)),
        row("last-ack-stuck", "count", From, |count| standing(State::LAST_ACK, whole(count), 0, 9.0)),
        row("fin-wait2-orphans", "count", From, |count| standing(State::FIN_WAIT2, whole(count), 0, 9.0)),
        row("fin-wait2-orphans", "age", From, |age| standing(State::FIN_WAIT2, 100, 0, age)),
        row("unread-close", "count", From, |count| {
            ended(Cause::LocalAbortUnread, State::ESTABLISHED, count, 3.0)
        }),
        row("unread-close", "in-seconds", From, |seconds| {
            ended(Cause::LocalAbortUnread, State::ESTABLISHED, 10.0, seconds)
        }),
        row("linger-zero", "count", From, |count| {
            ended(Cause::LocalAbortLinger, State::ESTABLISHED, count, 3.0)
        }),
        row("linger-zero", "in-seconds", From, |seconds| {
            ended(Cause::LocalAbortLinger, State::ESTABLISHED, 50.0, seconds)
        }),
        row("closed-port", "count", From, |count| strays(true, 1, whole(count))),
        row("closed-port", "ports", From, |ports| strays(true, whole(ports), 1)),
        row("listener-restarts", "count", From, |count| Facts {
            restarts: vec![Restarts {
                port: 80,
                count: whole(count),
                owner: Some(owner()),
                ..Restarts::default()
            }],
            ..facts()
        }),
        row("short-connections", "rate", From, |rate| lives(whole(rate * 10.0), 0.01, 0.01)),
        row("short-connections", "count", From, |count| Facts {
            watched_ns: SECOND,
            ..lives(whole(count), 0.01, 0.01)
        }),
        row("short-connections", "part", UpTo, |part| lives(100, 0.01, part / 100.0 * 0.01)),
        row("short-connections", "round-trip", From, |trip| lives(100, trip, trip)),
        row("sysctls", "ports", Below, |count| Facts {
            namespaces: vec![namespace(
                Snmp::default(),
                &[("ip_local_port_range", &[40_000.0, 39_999.0 + count])],
            )],
            ..facts()
        }),
        row("sysctls", "tw-buckets", Below, |most| Facts {
            namespaces: vec![namespace(Snmp::default(), &[("tcp_max_tw_buckets", &[most])])],
            ..facts()
        }),
    ]
}

fn finds(row: &Row, value: f64, limits: &[String]) -> bool {
    let limits = Limits(limits.iter().map(|limit| limit.parse().unwrap()).collect());
    let mut found = judge(&(row.facts)(value), &limits).into_iter();
    found.any(|finding| finding.rule == row.rule && (row.says)(&finding))
}

#[test]
fn thresholds_hold_and_can_be_set() {
    let rows = rows();
    for (rule, threshold) in RULES.iter().flat_map(|rule| rule.thresholds.iter().map(move |one| (rule, one)))
    {
        let row = rows.iter().find(|row| (row.rule, row.threshold) == (rule.name, threshold.name));
        assert!(row.is_some(), "no facts for {}.{}", rule.name, threshold.name);
        let row = row.unwrap();
        let at = threshold.default;
        let step = if at.fract() == 0.0 { 1.0 } else { at / 10.0 };
        let (more, less) = (at + step, at - step);
        let name = format!("{}.{}", rule.name, threshold.name);
        let all = [less, at, more].map(|value| finds(row, value, &[]));
        let moved = |to: f64| [less, at, more].map(|value| finds(row, value, &[format!("{name}={to}")]));
        match row.fires {
            From => {
                assert_eq!(all, [false, true, true], "{name}");
                assert_eq!(moved(more), [false, false, true], "{name}");
            }
            UpTo => {
                assert_eq!(all, [true, true, false], "{name}");
                assert_eq!(moved(less), [true, false, false], "{name}");
            }
            Below => {
                assert_eq!(all, [true, false, false], "{name}");
                assert_eq!(moved(more), [true, true, false], "{name}");
            }
        }
    }
}

/// What makes a warning critical.
#[test]
fn severities() {
    use Severity::{Critical, Warning};
    let worst = |facts: &Facts| judge(facts, &Limits::default()).first().map(|finding| finding.severity);
    let full = |open| Facts {
        processes: [(PID, Descriptors { open, limit: Some(100) })].into_iter().collect(),
        ..standing(State::CLOSE_WAIT, 5, 5, 99.0)
    };
    let overflows = |over| Facts {
        namespaces: vec![namespace(
            Snmp { time_wait_overflow: over, ..Snmp::default() },
            &[("tcp_max_tw_buckets", &[2000.0])],
        )],
        ..facts()
    };
    let killed = Facts {
        namespaces: vec![namespace(
            Snmp { abort_on_memory: 1, ..Snmp::default() },
            &[("tcp_max_orphans", &[2000.0])],
        )],
        ..facts()
    };
    let memory = |pages| Facts {
        namespaces: vec![stat(Sockstat { pages, ..Sockstat::default() }, ("tcp_mem", &[500, 1000, 1500]))],
        ..facts()
    };
    let cookies = |cookies| Facts {
        namespaces: vec![namespace(Snmp { req_queue_full_do_cookies: cookies, ..Snmp::default() }, &[])],
        ..standing(State::SYN_RECV, 128, 0, 1.0)
    };
    let listening = |laddr| {
        let listener =
            Listener { tuple: Tuple { laddr, lport: 1000, ..Tuple::default() }, ..Listener::default() };
        Facts { listeners: vec![listener], ..strays(true, 1, 10) }
    };
    for (what, facts, expected) in [
        ("nobody listens there", listening(addr(2)), Some(Warning)),
        ("somebody does", listening(addr(1)), None),
        ("descriptors are left", full(94), Some(Warning)),
        ("hardly any are", full(95), Some(Critical)),
        ("a queue that is nearly full", queue(127, 128, 0, 0), Some(Warning)),
        ("a full one", queue(128, 128, 0, 0), Some(Critical)),
        ("one that overflowed between two looks", queue(0, 128, 7, 7), Some(Critical)),
        ("a listener whose SYNs were dropped for something else", queue(0, 128, 7, 0), None),
        ("ports in use", ports(800, 800, 0, 1.0), Some(Warning)),
        ("no port was left", ports(10, 10, 1, 1.0), Some(Critical)),
        ("no overflow of TIME_WAIT", overflows(0), None),
        ("one", overflows(1), Some(Critical)),
        ("an orphan was given up", killed, Some(Critical)),
        ("memory is under pressure", memory(1499), Some(Warning)),
        ("there is none left", memory(1500), Some(Critical)),
        ("many half-open connections", cookies(0), Some(Warning)),
        ("more than the queue holds", cookies(1), Some(Critical)),
    ] {
        assert_eq!(worst(&facts), expected, "{what}");
    }
}

/// Ages are kept of some only: a large leak is no smaller for that.
#[test]
fn ages_stand_for_those_that_are_not_kept() {
    let mut all = standing(State::CLOSE_WAIT, 10_000, 0, 8.0).standing.remove(0);
    all.ages_ns[5_000..].fill(SECOND);
    all.count = 40_000;
    assert_eq!((all.older_than(5 * SECOND), all.older_than(9 * SECOND)), (20_000, 0));
    let grown = Facts { standing: vec![all], ..facts() };
    assert_eq!(judge(&grown, &Limits::default())[0].rule, "close-wait-leak");
}

/// Ten clients of a thousand are gone, and the others have closed meanwhile: that is usual. What was never opened is no excuse.
#[test]
fn dead_clients_among_many_are_usual() {
    for (state, rule) in [(State::FIN_WAIT1, "fin-wait1-stuck"), (State::LAST_ACK, "last-ack-stuck")] {
        let found = |cause, hit| {
            let ends = ended(cause, hit, 990.0, 3.0).ends;
            let found = judge(&Facts { ends, ..standing(state, 10, 0, 9.0) }, &Limits::default());
            found.iter().any(|finding| finding.rule == rule)
        };
        assert!(!found(Cause::PeerFin, State::TIME_WAIT), "{rule}");
        assert!(found(Cause::NoLocalPort, State::SYN_SENT), "{rule}");
    }
}

/// A queue that was full at one look may have been a burst.
#[test]
fn one_look_at_a_queue_is_not_enough() {
    let found = |again, drops| {
        let mut facts = queue(128, 128, drops, drops);
        facts.listeners[0].again = again;
        !judge(&facts, &Limits::default()).is_empty()
    };
    assert_eq!([found(0, 0), found(100, 0), found(103, 0), found(0, 1)], [false, false, true, true]);
}

/// Of a listener that a filter keeps out nothing is told, but that somebody listens there.
#[test]
fn listeners_that_a_filter_keeps_out() {
    let found = |filtered, wanted| {
        let mut facts = Facts { filtered, ..queue(128, 128, 0, 0) };
        facts.listeners[0].wanted = wanted;
        let range: (&str, &[f64]) = ("ip_local_port_range", &[50.0, 60_999.0]);
        facts.namespaces = vec![namespace(Snmp::default(), &[range])];
        judge(&facts, &Limits::default()).into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    assert_eq!(found(false, false), ["accept-queue-full", "sysctls"]);
    assert_eq!(found(true, true), ["accept-queue-full", "sysctls"]);
    assert!(found(true, false).is_empty());
}

/// Counting says the same as asking for each port.
#[test]
fn reserved_ports_are_not_handed_out() {
    for reserved in [&[][..], &[1.0, 5.0], &[90.0, 100.0, 150.0, 150.0, 195.0, 300.0], &[1.0, 65_535.0]]
        .into_iter()
        .chain([&[150.0, 160.0, 120.0, 155.0, 140.0, 141.0][..], &[100.0, 199.0]])
    {
        let range: (&str, &[f64]) = ("ip_local_port_range", &[100.0, 199.0]);
        let namespace = namespace(Snmp::default(), &[range, ("ip_local_reserved_ports", reserved)]);
        let count = (0..=u16::MAX).filter(|port| namespace.hands_out(*port)).count() as u64;
        assert_eq!(namespace.handed_out(), count, "{reserved:?}");
    }
}

/// What stands and is closed in turn is not what is never closed.
#[test]
fn ports_in_time_wait_do_not_add_up_for_ever() {
    let used = |opened, held, time_wait, reuse: f64| {
        let destination = Destination { opened, used: held + time_wait, time_wait, ..destination() };
        let sysctls: &[(&str, &[f64])] = &[
            ("ip_local_port_range", &[10_000.0, 10_999.0]),
            ("tcp_tw_reuse", &[reuse]),
            ("tcp_timestamps", &[1.0]),
        ];
        let namespaces = vec![namespace(Snmp::default(), sysctls)];
        Facts { destinations: vec![destination], namespaces, ..facts() }
    };
    let title = |facts: &Facts| {
        judge(facts, &Limits(vec!["sysctls.ports=0".parse().unwrap()])).pop().map(|one| one.title)
    };
    let says = |facts: &Facts, what: &str| title(facts).is_some_and(|title| title.contains(what));
    // 30 a second wait in TIME_WAIT at first, but 600 at most: 1800 that were closed fill 1000 in another 23 s.
    assert!(says(&used(300, 0, 300, 0.0), "runs out in 23 s"), "{:?}", title(&used(300, 0, 300, 0.0)));
    // 15 a second: never more than 900.
    assert_eq!(title(&used(150, 0, 300, 0.0)), None);
    // The same, and 5 a second stay.
    assert!(says(&used(200, 50, 250, 0.0), "runs out in"), "{:?}", title(&used(200, 50, 250, 0.0)));
    // What waits may be taken over.
    assert_eq!(title(&used(300, 0, 300, 1.0)), None);
}

/// A service with a thousand clients does it to each once.
#[test]
fn what_happens_to_many_peers_is_one_finding() {
    let one = |number: u8| {
        let facts = ended(Cause::LocalAbortUnread, State::ESTABLISHED, 1.0, 1.0);
        let mut ends = facts.ends.into_iter().next().unwrap();
        ends.group = Group { ours: true, port: Some(80), raddr: Some(addr(number)), ..ends.group };
        ends.seconds = Seconds::default();
        ends.seconds.take(u64::from(number) * SECOND);
        ends
    };
    let facts = Facts { ends: (1..=10).map(one).collect(), ..facts() };
    let found = judge(&facts, &Limits::default());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule, found[0].count, found[0].group.raddr), ("unread-close", 10, None));
    assert!(found[0].evidence[0].contains("in 10 different seconds"), "{:?}", found[0].evidence);
}

/// Of a rule that would say the same a hundred times the worst are told, and how many there are.
#[test]
fn the_worst_are_told() {
    let listener = |port| Listener {
        tuple: Tuple { lport: port, ..Tuple::default() },
        most: u32::from(port),
        again: u32::from(port),
        backlog: u32::from(port),
        ..Listener::default()
    };
    let facts = Facts { listeners: (10..20).map(listener).collect(), ..facts() };
    let found = judge(&facts, &Limits::default());
    assert_eq!(found.iter().map(|finding| finding.count).collect::<Vec<_>>(), [19, 18, 17, 16, 15]);
    assert!(found[4].evidence.last().unwrap().contains("5 more"));
}
