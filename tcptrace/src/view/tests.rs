#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use tcptrace_common::record::{Addr, Tuple};

use super::{
    fields::{FIELDS, TimeText},
    text::{TextOptions, TimeStyle},
    *,
};
use crate::{
    kernel::clock::Clock,
    model::{
        cause::{Cause, Verdict},
        event::{Comm, History, Id, Kind, Owner, OwnerSource, Role, Totals},
        state::State,
    },
};

mod data;
mod doctor;
mod metrics;
mod report;
mod top;

/// `CLOCK_MONOTONIC` at the start.
const START_NS: u64 = 5_000_000_000;
/// 2026-03-04T05:06:07.890123456Z, the wall's time then.
const WALL_NS: i128 = 1_772_600_767_890_123_456;

fn clock() -> Clock {
    Clock::fixed(START_NS, WALL_NS)
}

fn addr(text: &str) -> Addr {
    Addr::from_octets(match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

fn comm(name: &[u8]) -> Comm {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name);
    Comm(bytes)
}

fn owner(pid: u32, name: &[u8], source: OwnerSource) -> Owner {
    Owner { pid, comm: comm(name), source }
}

/// An event a number of µs after the start, of 10.0.0.5:443 with 10.0.0.9:51344, of which little is known.
fn event(us: u64) -> Event {
    let tuple = Tuple {
        laddr: addr("10.0.0.5"),
        raddr: addr("10.0.0.9"),
        lport: 443,
        rport: 51344,
        netns: 4_026_531_833,
    };
    Event {
        task_pid: Some(0),
        task_comm: comm(b"swapper/1"),
        ..Event::new(START_NS + us * 1000, Kind::Transition, tuple)
    }
}

/// A transition of nginx's connection.
fn transition(us: u64, old: State, new: State) -> Event {
    Event {
        old: Some(old),
        new: Some(new),
        id: Some(Id(0x51c2)),
        role: Some(Role::Server),
        owner: Some(owner(4123, b"nginx", OwnerSource::Listener)),
        uid: Some(33),
        ..event(us)
    }
}

fn rst(us: u64, kind: Kind, reason: Option<&str>, prev_state: Option<State>) -> Event {
    Event {
        kind,
        reason: reason.map(Arc::from),
        prev_state,
        old: None,
        new: None,
        ..transition(us, State::CLOSE, State::CLOSE)
    }
}

fn tuple(laddr: &str, lport: u16, raddr: &str, rport: u16) -> Tuple {
    Tuple { laddr: addr(laddr), raddr: addr(raddr), lport, rport, ..event(0).tuple }
}

/// A connection of nginx's that its peer reset, and one that is open.
pub(crate) fn connections() -> Vec<Event> {
    let mut history = History { opened_ns: Some(START_NS + 100_000), ..History::default() };
    history.spend(State::SYN_RECV, Some(31_337));
    history.spend(State::ESTABLISHED, Some(12_345_678));
    history.spend(State::CLOSE_WAIT, Some(61_000_000_000));
    history.duration_ns = Some(61_012_377_015);
    let reset = Event {
        kind: Kind::Connection,
        old: None,
        new: Some(State::CLOSE),
        prev_state: Some(State::CLOSE_WAIT),
        verdict: Some(Verdict::read(Cause::PeerRst)),
        totals: Some(Totals { sk_err: 32, retransmits: 2, tx_bytes: 15_000, rx_bytes: 78, srtt_us: 123 }),
        history: Some(Box::new(history)),
        closed: true,
        ..transition(61_012_500, State::CLOSE_WAIT, State::CLOSE)
    };
    let mut history = History::default();
    history.spend(State::ESTABLISHED, None);
    vec![
        Event {
            new: Some(State::ESTABLISHED),
            prev_state: None,
            verdict: None,
            history: Some(Box::new(history)),
            owner: None,
            role: None,
            closed: false,
            tuple: tuple("2001:db8::5", 443, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 5432),
            ..reset.clone()
        },
        Event {
            verdict: Some(Verdict::inferred(Cause::ConnectTimeout)),
            role: Some(Role::Client),
            prev_state: Some(State::SYN_SENT),
            totals: Some(Totals::default()),
            ..reset.clone()
        },
        reset,
    ]
}

#[test]
fn connections_as_text() {
    for (name, columns, wide, verbose) in
        [("file", None, false, false), ("80_columns", Some(80), false, false), ("wide", None, true, true)]
    {
        let options = TextOptions { columns, wide, verbose, header: true, ..TextOptions::default() };
        let mut view = Connections::new(clock(), options);
        for event in connections() {
            view.event(&event);
        }
        let mut out = Vec::new();
        view.take(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            columns.is_none_or(|room| text.lines().all(|line| line.chars().count() <= room.into())),
            "{text}"
        );
        insta::assert_snapshot!(format!("connections_{name}"), text);
    }
}

/// One of everything.
fn transitions() -> Vec<Event> {
    let server = transition;
    let client = |us, old, new, source| Event {
        id: Some(Id(0x51c3)),
        tuple: tuple("2001:db8::5", 40000, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 5432),
        role: Some(Role::Client),
        owner: Some(owner(987_654, b"worker_process1", source)),
        uid: Some(1000),
        task_pid: Some(987_654),
        task_comm: comm(b"worker_process1"),
        cgroup: Some(4711),
        cgroup_path: Some("/system.slice/worker@1.service".into()),
        ..transition(us, old, new)
    };
    let syn = client(300, State::CLOSE, State::SYN_SENT, OwnerSource::Connect);
    vec![
        // A server's connection from its beginning.
        Event {
            tuple: tuple("::", 443, "::", 0),
            id: Some(Id(9)),
            role: Some(Role::Listener),
            owner: Some(owner(4123, b"nginx", OwnerSource::Listen)),
            ..server(1, State::CLOSE, State::LISTEN)
        },
        Event { unaccepted: true, ..server(100, State::LISTEN, State::SYN_RECV) },
        Event { in_state_ns: Some(31_337), ..server(131, State::SYN_RECV, State::ESTABLISHED) },
        Event { in_state_ns: Some(12_345_678), ..server(12_477, State::ESTABLISHED, State::CLOSE_WAIT) },
        Event {
            in_state_ns: Some(86_400_123_456_789),
            owner: Some(owner(4124, b"nginx", OwnerSource::Close)),
            ..server(86_400_135_933, State::CLOSE_WAIT, State::LAST_ACK)
        },
        Event {
            in_state_ns: Some(0),
            verdict: Some(Verdict::read(Cause::PeerFin)),
            totals: Some(Totals { tx_bytes: 15_000, rx_bytes: 78, srtt_us: 123, ..Totals::default() }),
            closed: true,
            ..server(86_400_135_940, State::LAST_ACK, State::CLOSE)
        },
        // A client that has no port yet, and its long addresses.
        Event { tuple: Tuple { lport: 0, ..syn.tuple }, ..syn },
        Event {
            in_state_ns: Some(999_999),
            ..client(1300, State::SYN_SENT, State::ESTABLISHED, OwnerSource::Connect)
        },
        Event {
            in_state_ns: Some(1_000_000_000),
            kernel_new: Some(State::CLOSE),
            closed: true,
            ..client(1_001_300, State::FIN_WAIT2, State::TIME_WAIT, OwnerSource::Connect)
        },
        // An orphan.
        Event {
            in_state_ns: Some(9_999_999),
            kernel_new: Some(State::CLOSE),
            totals: Some(Totals { sk_err: 110, retransmits: 15, ..Totals::default() }),
            closed: true,
            ..client(2_000_000, State::FIN_WAIT2, State::FIN_WAIT2, OwnerSource::Connect)
        },
        // IPv4 on an IPv6 socket; nobody knows whose.
        Event {
            tuple: tuple("::ffff:255.255.255.255", 65535, "::ffff:192.168.100.200", 65535),
            id: Some(Id(1 << 63 | 0xab)),
            role: None,
            owner: None,
            ..server(3_000_000, State::FIN_WAIT1, State::CLOSING)
        },
    ]
}

/// Resets, retransmits and names that mean harm.
fn others() -> Vec<Event> {
    let hostile = |us, name: &[u8]| Event {
        owner: Some(owner(666, name, OwnerSource::Close)),
        task_pid: Some(666),
        task_comm: comm(name),
        ..transition(us, State::ESTABLISHED, State::FIN_WAIT1)
    };
    let error = |us, sk_err| Event {
        totals: Some(Totals { sk_err, ..Totals::default() }),
        ..transition(us, State::ESTABLISHED, State::CLOSE)
    };
    vec![
        rst(4_000_000, Kind::RstSent, Some("TCP_ABORT_ON_CLOSE"), Some(State::ESTABLISHED)),
        rst(4_000_001, Kind::RstSent, Some("TCP_INVALID_ACK_SEQUENCE"), Some(State::SYN_SENT)),
        rst(4_000_002, Kind::RstSent, Some("TCP_STATE"), None),
        rst(4_000_003, Kind::RstReceived, None, Some(State::CLOSE_WAIT)),
        rst(4_000_004, Kind::RstSent, None, None),
        Event {
            unaccepted: true,
            ..rst(4_000_005, Kind::RstSent, Some("TCP_STATE"), Some(State::ESTABLISHED))
        },
        Event { kind: Kind::RstSent, reason: Some(Arc::from("NO_SOCKET")), closed: true, ..event(4_000_006) },
        rst(4_100_000, Kind::Retransmit, None, Some(State::ESTABLISHED)),
        Event {
            kind: Kind::Retransmit,
            prev_state: Some(State::NEW_SYN_RECV),
            retransmits: Some(3),
            ..event(4_200_000)
        },
        Event {
            retransmits: None,
            cgroup: Some(4712),
            cgroup_path: Some(
                "/kubepods.slice/kubepods-pod57e67067_89e4_4001_bdd4_8632d39ea02b.slice/cri-containerd-\
                 9b0c3a5f4f2a8f7f0e1d2c3b4a5968778695a4b3c2d1e0ff00112233445566aa.scope"
                    .into(),
            ),
            ..rst(4_300_000, Kind::Retransmit, None, Some(State::NEW_SYN_RECV))
        },
        hostile(5_000_000, b"a\x1b[31mred\x1b[0m"),
        hostile(5_000_001, b"new\nline\ttab"),
        hostile(5_000_002, b"comma,\"quote\""),
        hostile(5_000_003, b"\xff\xfe\xc5"),
        hostile(5_000_004, "żółw_źdźb".as_bytes()),
        error(6_000_000, 104),
        error(6_000_001, 99_999),
    ]
}

pub(crate) fn events() -> Vec<Event> {
    [transitions(), others()].concat()
}

fn lost() -> Loss {
    Loss { full: [70, 30, 1, 2, 4, 5], skipped: 6, unreadable: 7, gaps: 0, beyond: 0 }
}

fn summary() -> Summary {
    Summary {
        ts_ns: START_NS + 7_500_000_000,
        events: 28,
        lost: Loss { skipped: 125, ..Loss::default() },
        elapsed_us: 7_500_000,
    }
}

/// All of it in one view.
fn render(view: &mut dyn View) -> String {
    for event in events() {
        view.event(&event);
    }
    let few = Loss { full: [1, 0, 0, 0, 0, 0], ..Loss::default() };
    view.lost(START_NS + 7_000_000_000, &few);
    view.lost(START_NS + 7_000_000_000, &lost());
    view.summary(&summary());
    take(view)
}

fn take(view: &mut dyn View) -> String {
    let mut out = Vec::new();
    view.take(&mut out);
    String::from_utf8(out).unwrap()
}

fn text(options: &TextOptions) -> String {
    render(&mut Text::new(clock(), TextOptions { header: true, ..options.clone() }))
}

// Text.

#[test]
fn text_in_a_file() {
    insta::assert_snapshot!(text(&TextOptions::default()));
}

#[test]
fn text_in_a_file_wide() {
    insta::assert_snapshot!(text(&TextOptions { wide: true, ..TextOptions::default() }));
}

#[track_caller]
fn on_terminal(columns: u16, wide: bool) -> String {
    let text = text(&TextOptions { columns: Some(columns), wide, ..TextOptions::default() });
    for line in text.lines() {
        assert!(line.chars().count() <= columns.into(), "longer than {columns}: {line}");
    }
    text
}

#[test]
fn text_on_120_columns() {
    insta::assert_snapshot!(on_terminal(120, false));
}

#[test]
fn text_on_100_columns() {
    insta::assert_snapshot!(on_terminal(100, false));
}

#[test]
fn text_on_80_columns() {
    insta::assert_snapshot!(on_terminal(80, false));
}

#[test]
fn text_on_60_columns() {
    insta::assert_snapshot!(on_terminal(60, false));
}

#[test]
fn text_on_40_columns() {
    insta::assert_snapshot!(on_terminal(40, false));
}

#[test]
fn text_on_200_columns_wide() {
    insta::assert_snapshot!(on_terminal(200, true));
}

#[test]
fn no_terminal_is_too_narrow() {
    for columns in 1..250 {
        let lines = on_terminal(columns, columns % 2 == 0).lines().count();
        // The header, the losses, and a line for each event.
        assert_eq!(lines, 1 + 2 + events().len());
    }
}

#[test]
fn no_time_in_a_state_is_cut_to_a_smaller_one() {
    let event = Event { in_state_ns: Some(1_000_000_000), ..transition(1, State::ESTABLISHED, State::CLOSE) };
    for columns in 30..130 {
        let options = TextOptions { columns: Some(columns), ..TextOptions::default() };
        let mut view = Text::new(clock(), options);
        view.event(&event);
        let line = take(&mut view);
        let last = line.split_whitespace().next_back().unwrap();
        assert!(!["1", "10", "100"].contains(&last), "{columns} columns: {line}");
    }
}

#[test]
fn text_in_colour() {
    let options = TextOptions { color: true, columns: Some(80), ..TextOptions::default() };
    let coloured = text(&options);
    insta::assert_snapshot!(coloured.replace('\x1b', "␛"));
    // Without its colours it is what it would be without colours.
    let bare: String = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(bare, on_terminal(80, false));
}

#[test]
fn text_with_the_time_of_day() {
    let options =
        TextOptions { time: TimeStyle::Clock, header: true, columns: Some(80), ..TextOptions::default() };
    let mut view = Text::new(clock(), options);
    for event in [transition(0, State::SYN_RECV, State::ESTABLISHED), transitions().remove(7)] {
        view.event(&event);
    }
    let text = take(&mut view);
    // As it is wherever this runs.
    let first = jiff::Timestamp::from_nanosecond(WALL_NS).unwrap().to_zoned(jiff::tz::TimeZone::system());
    let second = first.checked_add(jiff::SignedDuration::from_micros(1300)).unwrap();
    let mut lines = text.lines().skip(1);
    for time in [first, second] {
        let shown = time.strftime("%H:%M:%S%.3f ").to_string();
        assert!(lines.next().unwrap().starts_with(&shown), "{shown}\n{text}");
    }
    let redacted: Vec<String> = text
        .lines()
        .map(|line| {
            let (time, rest) = line.split_at(12);
            time.replace(|c: char| c.is_ascii_digit(), "0") + rest
        })
        .collect();
    insta::assert_snapshot!(redacted.join("\n"));
}

#[test]
fn a_time_that_was_asked_for_gives_way_last() {
    let starts = |time, columns: u16, title: &str| {
        let options = TextOptions { time, columns: Some(columns), header: true, ..TextOptions::default() };
        let text = text(&options);
        assert!(text.starts_with(title), "{columns}: {text}");
    };
    starts(TimeStyle::SinceStart, 95, "TIME(s)  PID");
    starts(TimeStyle::SinceStart, 90, "PID");
    for columns in [74, 80, 90] {
        starts(TimeStyle::SinceStartKept, columns, "TIME(s) ");
    }
    for columns in [78, 80, 90] {
        starts(TimeStyle::Clock, columns, "TIME  ");
    }
    starts(TimeStyle::Clock, 70, "TIME  ");
    starts(TimeStyle::Clock, 60, "TIME  ");
    starts(TimeStyle::Clock, 40, "LPORT");
}

#[test]
fn the_header_comes_once_and_only_if_wanted() {
    let mut view = Text::new(clock(), TextOptions { header: true, ..TextOptions::default() });
    view.event(&event(1));
    let first = take(&mut view);
    assert!(first.starts_with("TIME(s)"));
    assert_eq!(first.lines().count(), 2);
    view.event(&event(1));
    assert_eq!(first.lines().nth(1), take(&mut view).lines().next());
    let mut view = Text::new(clock(), TextOptions::default());
    view.event(&event(1));
    assert_eq!(take(&mut view).lines().count(), 1);
}

#[test]
fn a_terminal_may_change_its_width() {
    let options = |columns| TextOptions { columns, ..TextOptions::default() };
    let line = |view: &mut Text| {
        view.event(&transitions()[7]);
        take(view)
    };
    let narrow = line(&mut Text::new(clock(), options(Some(60))));
    let mut view = Text::new(clock(), options(Some(120)));
    let broad = line(&mut view);
    assert_ne!(broad, narrow);
    view.resize(60);
    assert_eq!(line(&mut view), narrow);
    view.resize(120);
    assert_eq!(line(&mut view), broad);
    // A file has no width.
    let mut view = Text::new(clock(), options(None));
    let unlimited = line(&mut view);
    view.resize(60);
    assert_eq!(line(&mut view), unlimited);
}

#[test]
fn times_fit_their_columns() {
    let cells = |us: u64, in_state_ns| {
        let event = Event { in_state_ns, ..transition(us, State::SYN_RECV, State::ESTABLISHED) };
        let mut view = Text::new(clock(), TextOptions::default());
        view.event(&event);
        let line = take(&mut view);
        let mut words = line.split_whitespace();
        (words.next().unwrap().to_owned(), words.next_back().unwrap().to_owned())
    };
    for (us, shown) in [
        (0, "0.000000"),
        (1, "0.000001"),
        (9_999_999, "9.999999"),
        (10_000_000, "10.00000"),
        (99_999_999, "99.99999"),
        (100_000_000, "100.0000"),
        (1_000_000_000, "1000.000"),
        // Who leaves it on all day still sees columns.
        (10_000_000_000, "10000.00"),
        (86_400_135_933, "86400.13"),
        (999_999_000_000, "999999.0"),
    ] {
        assert_eq!(cells(us, None).0, shown);
    }
    for (ns, shown) in [
        (None, "-"),
        (Some(0), "0.000"),
        (Some(999), "0.000"),
        (Some(1000), "0.001"),
        (Some(9_999_999), "9.999"),
        (Some(10_000_000), "10.0"),
        (Some(999_999_999), "999.9"),
        (Some(1_000_000_000), "1000"),
        (Some(u64::MAX), "18446744073709"),
    ] {
        assert_eq!(cells(0, ns).1, shown);
    }
}

#[test]
fn no_view_lets_a_control_byte_through() {
    let mut views: [Box<dyn View>; 3] = [
        Box::new(Text::new(clock(), TextOptions { wide: true, ..TextOptions::default() })),
        Box::new(Csv::new(clock(), true)),
        Box::new(Json::new(clock())),
    ];
    for byte in 1..=255 {
        let name = comm(&[b'a', byte, b'b']);
        let event =
            Event { owner: Some(owner(1, name.bytes(), OwnerSource::Close)), task_comm: name, ..event(1) };
        for view in &mut views {
            view.event(&event);
        }
    }
    for view in &mut views {
        let text = take(&mut **view);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
