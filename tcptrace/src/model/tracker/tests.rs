#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use tcptrace_common::record::{Addr, UNKNOWN};

use super::*;
use crate::model::event::Totals;

/// A kernel address, as `sk` is.
const SK: u64 = 0xffff_8880_0000_1000;

/// A socket, to make records of.
#[derive(Clone, Copy, Debug)]
struct Sock {
    sk: u64,
    cookie: u64,
    tuple: Tuple,
}

impl Sock {
    /// `old>new` at a time in µs, by nobody in particular.
    fn at(&self, us: u64, change: &str) -> Record {
        let (old, new) = change.split_once('>').unwrap();
        let (old, new) = (old.parse::<State>().unwrap(), new.parse::<State>().unwrap());
        let kind = if new == State::CLOSE { record::Kind::CLOSE } else { record::Kind::TRANSITION };
        Record { kind, new: new.number(), ..self.hit(us, record::Kind::TRANSITION, old) }
    }

    /// Something else than a transition, in a state.
    fn hit(&self, us: u64, kind: record::Kind, state: State) -> Record {
        Record {
            ts_ns: us * 1000,
            sk: self.sk,
            cookie: self.cookie,
            tuple: self.tuple,
            flags: flags::SOCKET,
            reason: NO_REASON,
            kind,
            old: state.number(),
            new: state.number(),
            ..Record::default()
        }
    }

    /// As the socket's listener looks.
    fn listener(&self) -> Self {
        Self { tuple: Tuple { raddr: addr("0.0.0.0"), rport: 0, ..self.tuple }, ..*self }
    }

    /// The name of a child before 6.15: that of its listener.
    fn named_as(&self, listener: &Self) -> Self {
        Self { sk: self.sk, ..*listener }
    }
}

fn client() -> Sock {
    Sock { sk: SK, cookie: 7, tuple: tuple("10.0.0.9:51344", "10.0.0.5:443") }
}

fn server() -> Sock {
    Sock { sk: SK + 0x1000, cookie: 8, tuple: tuple("10.0.0.5:443", "10.0.0.9:51344") }
}

fn listener() -> Sock {
    Sock { sk: SK + 0x2000, cookie: 9, tuple: tuple("0.0.0.0:443", "0.0.0.0:0") }
}

/// As seen from a kernel that gives no cookies.
fn nameless(sock: Sock) -> Sock {
    Sock { cookie: 0, ..sock }
}

fn addr(text: &str) -> Addr {
    Addr::from_octets(match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

fn tuple(local: &str, remote: &str) -> Tuple {
    let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
    Tuple {
        laddr: addr(&local.ip().to_string()),
        raddr: addr(&remote.ip().to_string()),
        lport: local.port(),
        rport: remote.port(),
        netns: 4_026_531_833,
    }
}

/// The record as made by a process that holds the socket.
fn by(pid: u32, record: Record) -> Record {
    on_cpu(pid, with(flags::OWNED, record))
}

/// The record as made while a process is on the CPU.
fn on_cpu(pid: u32, record: Record) -> Record {
    Record { task_pid: pid, ..record }
}

fn with(flags: u32, record: Record) -> Record {
    Record { flags: record.flags | flags, ..record }
}

/// An orderly close, of which nothing is known of minisocks.
fn quiet() -> CloseDetail {
    CloseDetail { tw_count: UNKNOWN, tw_max: UNKNOWN, ..CloseDetail::default() }
}

/// What the tests look at: `id what µs-in-state role owner`.
fn line(event: &Event) -> String {
    let id = match event.id {
        None => "-".to_owned(),
        Some(Id(id)) if id >> 63 == 1 => format!("own{}", id << 1 >> 1),
        Some(id) => id.to_string(),
    };
    let state = |state: Option<State>| state.map_or("-", State::name);
    let what = match event.kind {
        Kind::Transition => {
            let kernel = event.kernel_new.map(|state| format!("={state}")).unwrap_or_default();
            format!("{}>{}{kernel}", state(event.old), state(event.new))
        }
        kind => format!(
            "{} {} in {}",
            kind.name(),
            event.reason.as_deref().unwrap_or("-"),
            state(event.prev_state)
        ),
    };
    let us = event.in_state_ns.map_or("-".to_owned(), |ns| (ns / 1000).to_string());
    let role = event.role.map_or("-", Role::name);
    let owner = event.owner.map_or("-".to_owned(), |owner| format!("{} {}", owner.source.name(), owner.pid));
    format!("{id} {what} {us} {role} {owner}")
}

struct Watch {
    tracker: Tracker,
}

impl Watch {
    fn new() -> Self {
        let reasons = Reasons::from([(1, Arc::from("NO_SOCKET")), (14, Arc::from("TCP_STATE"))]);
        Self { tracker: Tracker::new(reasons, false) }
    }

    fn raw() -> Self {
        Self { tracker: Tracker::new(Reasons::new(), true) }
    }

    fn events(&mut self, record: Record, detail: &CloseDetail) -> Vec<Event> {
        let mut events = Vec::new();
        let detail = (record.kind == record::Kind::CLOSE).then_some(detail);
        self.tracker.feed(&record, detail, &mut |event| {
            events.push(event);
            Fate::Keep
        });
        events
    }

    fn feed(&mut self, record: Record) -> Vec<String> {
        self.close(record, &quiet())
    }

    fn close(&mut self, record: Record, detail: &CloseDetail) -> Vec<String> {
        self.events(record, detail).iter().map(line).collect()
    }

    /// The one event of a record.
    fn event(&mut self, record: Record) -> Event {
        let mut events = self.events(record, &quiet());
        assert_eq!(events.len(), 1);
        events.remove(0)
    }

    fn tick(&mut self, us: u64) -> Vec<String> {
        let mut lines = Vec::new();
        self.tracker.tick(us * 1000, &mut |event| {
            lines.push(line(&event));
            Fate::Keep
        });
        lines
    }

    /// Transitions of one socket, a ms apart from 1 ms on, the same for all: what is said of each.
    fn story(&mut self, sock: &Sock, changes: &[&str]) -> Vec<String> {
        (1..).zip(changes).flat_map(|(ms, change)| self.feed(sock.at(ms * 1000, change))).collect()
    }
}

const CONNECT: [&str; 2] = ["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED"];
const ACCEPT: [&str; 2] = ["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED"];

// Closing in order.

#[test]
fn a_client_that_closes_first_ends_in_time_wait() {
    let mut watch = Watch::new();
    let unbound = Sock { tuple: Tuple { lport: 0, ..client().tuple }, ..client() };
    let lines: Vec<String> = [
        by(4123, unbound.at(10, "CLOSE>SYN_SENT")),
        client().at(1010, "SYN_SENT>ESTABLISHED"),
        by(4123, client().at(5010, "ESTABLISHED>FIN_WAIT1")),
        with(flags::DEAD, client().at(5110, "FIN_WAIT1>FIN_WAIT2")),
        with(flags::DEAD | flags::DONE, client().at(5160, "FIN_WAIT2>CLOSE")),
    ]
    .into_iter()
    .flat_map(|record| watch.feed(record))
    .collect();
    assert_eq!(
        lines,
        [
            "7 CLOSE>SYN_SENT - client connect 4123",
            "7 SYN_SENT>ESTABLISHED 1000 client connect 4123",
            "7 ESTABLISHED>FIN_WAIT1 4000 client connect 4123",
            "7 FIN_WAIT1>FIN_WAIT2 100 client connect 4123",
            "7 FIN_WAIT2>TIME_WAIT=CLOSE 50 client connect 4123",
        ]
    );
}

#[test]
fn a_server_whose_peer_closes_first_ends_in_close() {
    let mut watch = Watch::new();
    let lines = watch.story(
        &server(),
        &[
            "LISTEN>SYN_RECV",
            "SYN_RECV>ESTABLISHED",
            "ESTABLISHED>CLOSE_WAIT",
            "CLOSE_WAIT>LAST_ACK",
            "LAST_ACK>CLOSE",
        ],
    );
    assert_eq!(
        lines,
        [
            "8 LISTEN>SYN_RECV - server -",
            "8 SYN_RECV>ESTABLISHED 1000 server -",
            "8 ESTABLISHED>CLOSE_WAIT 1000 server -",
            "8 CLOSE_WAIT>LAST_ACK 1000 server -",
            "8 LAST_ACK>CLOSE 1000 server -",
        ]
    );
}

#[test]
fn a_simultaneous_open_is_a_client() {
    let mut watch = Watch::new();
    let lines = watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>SYN_RECV", "SYN_RECV>ESTABLISHED"]);
    assert_eq!(lines[2], "7 SYN_RECV>ESTABLISHED 1000 client -");
}

#[test]
fn a_simultaneous_close_ends_in_time_wait() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    let lines = watch.story(&client(), &["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>CLOSING", "CLOSING>CLOSE"]);
    assert_eq!(lines[2], "7 CLOSING>TIME_WAIT=CLOSE 1000 client -");
}

#[test]
fn an_orphan_waits_on_in_fin_wait2_unless_it_may_not() {
    for (linger2, said) in [
        (0, "7 FIN_WAIT2>FIN_WAIT2=CLOSE 1000 client -"),
        (15_000, "7 FIN_WAIT2>FIN_WAIT2=CLOSE 1000 client -"),
        (-1, "7 FIN_WAIT2>CLOSE 1000 client -"),
    ] {
        let mut watch = Watch::new();
        watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>FIN_WAIT2"]);
        let detail = CloseDetail { linger2, ..quiet() };
        let end = with(flags::DEAD, client().at(3000, "FIN_WAIT2>CLOSE"));
        assert_eq!(watch.close(end, &detail), [said]);
    }
}

#[test]
fn raw_repeats_the_kernels_words() {
    for end in [
        with(flags::DONE, client().at(1000, "FIN_WAIT2>CLOSE")),
        with(flags::DEAD, client().at(1000, "FIN_WAIT2>CLOSE")),
    ] {
        assert_eq!(Watch::raw().feed(end), ["7 FIN_WAIT2>CLOSE - - -"]);
    }
    assert_eq!(Watch::raw().feed(client().at(1000, "CLOSING>CLOSE")), ["7 CLOSING>CLOSE - - -"]);
}

#[test]
fn without_room_for_minisocks_there_is_no_time_wait() {
    for (tw_count, tw_max, after) in [
        (0, 0, "CLOSE"),
        (101, 100, "CLOSE"),
        (100, 100, "TIME_WAIT=CLOSE"),
        (UNKNOWN, 0, "TIME_WAIT=CLOSE"),
        (101, UNKNOWN, "TIME_WAIT=CLOSE"),
    ] {
        let end = with(flags::DONE, client().at(1000, "FIN_WAIT2>CLOSE"));
        let detail = CloseDetail { tw_count, tw_max, ..quiet() };
        assert_eq!(Watch::new().close(end, &detail), [format!("7 FIN_WAIT2>{after} - - -")]);
    }
}

#[test]
fn after_a_reset_there_is_no_time_wait() {
    for kind in [record::Kind::RST_RECEIVED, record::Kind::RST_SENT] {
        let mut watch = Watch::new();
        watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>FIN_WAIT2"]);
        watch.feed(client().hit(2500, kind, State::FIN_WAIT2));
        let end = with(flags::DEAD | flags::DONE, client().at(3000, "FIN_WAIT2>CLOSE"));
        assert_eq!(watch.feed(end), ["7 FIN_WAIT2>CLOSE 1000 client -"]);
    }
}

#[test]
fn a_reset_counts_only_until_the_next_transition() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    // Out of the window: answered, and nothing came of it.
    watch.feed(client().hit(2500, record::Kind::RST_SENT, State::ESTABLISHED));
    watch.feed(client().at(3000, "ESTABLISHED>FIN_WAIT2"));
    let end = with(flags::DEAD | flags::DONE, client().at(4000, "FIN_WAIT2>CLOSE"));
    assert_eq!(watch.feed(end), ["7 FIN_WAIT2>TIME_WAIT=CLOSE 1000 client -"]);
}

#[test]
fn data_after_close_is_answered_with_a_reset() {
    let mut watch = Watch::new();
    watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>FIN_WAIT2"]);
    let dead = |record| with(flags::DEAD, record);
    let mut lines = watch.feed(dead(client().hit(2500, record::Kind::RST_RECEIVED, State::FIN_WAIT2)));
    let detail = CloseDetail { sk_err: 104, ..quiet() };
    lines.extend(watch.close(dead(client().at(2500, "FIN_WAIT2>CLOSE")), &detail));
    let rst = client().hit(2501, record::Kind::RST_SENT, State::CLOSE);
    lines.extend(watch.feed(dead(with(flags::PACKET, rst))));
    assert_eq!(
        lines,
        [
            "7 rst_received - in FIN_WAIT2 - client -",
            "7 FIN_WAIT2>CLOSE 500 client -",
            "7 rst_sent - in FIN_WAIT2 - client -",
        ]
    );
}

#[test]
fn the_totals_come_with_the_close() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    let detail = CloseDetail { bytes_acked: 6, bytes_received: 3, srtt_8us: 800, ..quiet() };
    let events = watch.events(client().at(3000, "ESTABLISHED>CLOSE"), &detail);
    let totals = Totals { tx_bytes: 5, rx_bytes: 3, srtt_us: 100, ..Totals::default() };
    assert_eq!(events[0].totals, Some(totals));
    assert!(events[0].closed);
}

// Self transitions.

#[test]
fn a_transition_to_itself_is_only_shown_raw() {
    let close = by(4123, client().at(3500, "FIN_WAIT2>FIN_WAIT2"));
    let end = with(flags::DEAD | flags::DONE, client().at(4000, "FIN_WAIT2>CLOSE"));

    let mut watch = Watch::new();
    watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", "ESTABLISHED>FIN_WAIT2"]);
    assert_eq!(watch.feed(close), [""; 0]);
    // It tells who owns the socket, and does not start the time anew.
    assert_eq!(watch.feed(end), ["7 FIN_WAIT2>TIME_WAIT=CLOSE 1000 client close 4123"]);

    let mut watch = Watch::raw();
    watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED", "ESTABLISHED>FIN_WAIT2"]);
    assert_eq!(watch.feed(close), ["7 FIN_WAIT2>FIN_WAIT2 - client close 4123"]);
    assert_eq!(watch.feed(end), ["7 FIN_WAIT2>CLOSE 1000 client close 4123"]);
}

// Children under their listener's name.

#[test]
fn a_child_under_its_listeners_name_waits_for_its_own() {
    for nameless in [false, true] {
        let strip = |sock: Sock| if nameless { Sock { cookie: 0, ..sock } } else { sock };
        let (server, listener) = (strip(server()), strip(listener()));
        let mut watch = Watch::new();
        watch.feed(by(80, listener.at(1, "CLOSE>LISTEN")));
        assert_eq!(watch.feed(server.named_as(&listener).at(1000, "LISTEN>SYN_RECV")), [""; 0]);
        let events = watch.events(server.at(1030, "SYN_RECV>ESTABLISHED"), &quiet());
        let id = if nameless { "own2" } else { "8" };
        assert_eq!(
            events.iter().map(line).collect::<Vec<_>>(),
            [
                format!("{id} LISTEN>SYN_RECV - server listener 80"),
                format!("{id} SYN_RECV>ESTABLISHED 30 server listener 80"),
            ]
        );
        assert_eq!(events[0].tuple, server.tuple);
        assert_eq!((events[0].ts_ns, events[1].ts_ns), (1_000_000, 1_030_000));
        assert_eq!(watch.feed(server.at(2030, "ESTABLISHED>CLOSE_WAIT")).len(), 1);
    }
}

#[test]
fn a_child_that_fails_at_once_is_told_of_too() {
    let mut watch = Watch::new();
    watch.feed(server().named_as(&listener()).at(1000, "LISTEN>SYN_RECV"));
    assert_eq!(
        watch.feed(server().at(1030, "SYN_RECV>CLOSE")),
        ["8 LISTEN>SYN_RECV - server -", "8 SYN_RECV>CLOSE 30 server -"]
    );
}

#[test]
fn a_child_that_never_gets_its_own_name_is_reported_after_a_while() {
    let mut watch = Watch::new();
    watch.feed(by(80, listener().at(1, "CLOSE>LISTEN")));
    watch.feed(server().named_as(&listener()).at(1000, "LISTEN>SYN_RECV"));
    assert_eq!(watch.tick(51_000), [""; 0]);
    assert_eq!(watch.tick(51_001), ["own1 LISTEN>SYN_RECV - server listener 80"]);
    assert_eq!(watch.tick(200_000), [""; 0]);
    // Should it come after all, then it is the same connection, and its listener another.
    let event = watch.event(server().at(300_000, "SYN_RECV>ESTABLISHED"));
    assert_eq!(line(&event), "own1 SYN_RECV>ESTABLISHED 299000 server listener 80");
    assert_eq!(event.tuple, server().tuple);
    assert_eq!(watch.feed(listener().at(300_001, "LISTEN>CLOSE")).len(), 1);
}

#[test]
fn of_two_children_at_one_address_the_first_is_gone() {
    let mut watch = Watch::new();
    let child = server().named_as(&listener());
    watch.feed(child.at(1000, "LISTEN>SYN_RECV"));
    assert_eq!(watch.feed(child.at(2000, "LISTEN>SYN_RECV")), ["own1 LISTEN>SYN_RECV - server -"]);
    assert_eq!(
        watch.feed(server().at(2010, "SYN_RECV>ESTABLISHED")),
        ["8 LISTEN>SYN_RECV - server -", "8 SYN_RECV>ESTABLISHED 10 server -"]
    );
    assert_eq!(watch.feed(server().at(3010, "ESTABLISHED>CLOSE")), ["8 ESTABLISHED>CLOSE 1000 server -"]);
    watch.tick(100_000);
    assert!(watch.tracker.is_empty());
}

#[test]
fn a_child_gives_its_name_to_no_other_socket_at_its_address() {
    let mut watch = Watch::new();
    watch.feed(server().named_as(&listener()).at(1000, "LISTEN>SYN_RECV"));
    // Its second record was lost, and its memory is another socket's now.
    let other = Sock { sk: server().sk, ..client() };
    let lines = watch.feed(other.at(2000, "CLOSE>SYN_SENT"));
    assert_eq!(lines.last().unwrap(), "7 CLOSE>SYN_SENT - client -");
    assert!(lines.iter().all(|line| !line.starts_with("7 LISTEN>")), "{lines:?}");
}

// Identity.

#[test]
fn without_cookies_an_address_used_again_is_another_connection() {
    let sock = nameless(client());
    let mut watch = Watch::new();
    watch.feed(by(1, sock.at(1000, "CLOSE>SYN_SENT")));
    assert_eq!(watch.feed(sock.at(2000, "SYN_SENT>CLOSE")), ["own1 SYN_SENT>CLOSE 1000 client connect 1"]);
    assert_eq!(
        watch.feed(by(2, sock.at(2001, "CLOSE>SYN_SENT"))),
        ["own2 CLOSE>SYN_SENT - client connect 2"]
    );
    // The end of this one is not seen.
    let child = Sock { sk: sock.sk, ..nameless(server()) };
    assert_eq!(watch.feed(child.at(3000, "LISTEN>SYN_RECV")), ["own3 LISTEN>SYN_RECV - server -"]);
    // The end of the first is long over and must not take the third along.
    watch.tick(1_000_000);
    assert_eq!(
        watch.feed(child.at(1_000_001, "SYN_RECV>ESTABLISHED")),
        ["own3 SYN_RECV>ESTABLISHED 997001 server -"]
    );
}

#[test]
fn without_cookies_a_new_connection_is_told_from_a_closed_one_without_its_first_record() {
    let sock = nameless(client());
    let mut watch = Watch::new();
    watch.feed(by(1, sock.at(1000, "CLOSE>SYN_SENT")));
    watch.feed(sock.at(2000, "SYN_SENT>CLOSE"));
    // The new socket's LISTEN>SYN_RECV was lost.
    let child = Sock { sk: sock.sk, ..nameless(server()) };
    assert_eq!(watch.feed(child.at(2100, "SYN_RECV>ESTABLISHED")), ["own2 SYN_RECV>ESTABLISHED - - -"]);
}

#[test]
fn with_cookies_an_address_used_again_does_not_matter() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    let other = Sock { sk: client().sk, ..server() };
    assert_eq!(watch.story(&other, &ACCEPT)[1], "8 SYN_RECV>ESTABLISHED 1000 server -");
    assert_eq!(
        watch.feed(client().at(9000, "ESTABLISHED>CLOSE_WAIT")),
        ["7 ESTABLISHED>CLOSE_WAIT 7000 client -"]
    );
}

#[test]
fn a_cookie_given_halfway_does_not_split_the_connection() {
    let mut watch = Watch::new();
    watch.story(&nameless(client()), &CONNECT);
    assert_eq!(
        watch.feed(client().at(3000, "ESTABLISHED>CLOSE_WAIT")),
        ["own1 ESTABLISHED>CLOSE_WAIT 1000 client -"]
    );
    assert_eq!(watch.tracker.len(), 1);
}

#[test]
fn a_socket_that_connects_again_begins_anew() {
    let mut watch = Watch::new();
    watch.feed(by(1, client().at(1000, "CLOSE>SYN_SENT")));
    watch.feed(client().at(2000, "SYN_SENT>CLOSE"));
    assert_eq!(
        watch.feed(by(2, client().at(3000, "CLOSE>SYN_SENT"))),
        ["7 CLOSE>SYN_SENT - client connect 2"]
    );
    // What is over of the first must not end the second.
    assert_eq!(watch.tick(60_000), [""; 0]);
    assert_eq!(
        watch.feed(client().at(61_000, "SYN_SENT>ESTABLISHED")),
        ["7 SYN_SENT>ESTABLISHED 58000 client connect 2"]
    );
}

#[test]
fn a_port_once_known_stays_known() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    let portless = Sock { tuple: Tuple { lport: 0, ..client().tuple }, ..client() };
    assert_eq!(watch.event(portless.at(3000, "ESTABLISHED>CLOSE")).tuple, client().tuple);
}

// What was not seen.

#[test]
fn no_time_is_told_of_a_state_whose_beginning_was_not_seen() {
    let mut watch = Watch::new();
    assert_eq!(watch.feed(client().at(1000, "ESTABLISHED>CLOSE_WAIT")), ["7 ESTABLISHED>CLOSE_WAIT - - -"]);
    assert_eq!(watch.feed(client().at(2000, "CLOSE_WAIT>LAST_ACK")), ["7 CLOSE_WAIT>LAST_ACK 1000 - -"]);
}

#[test]
fn no_time_is_told_across_a_lost_record() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    // ESTABLISHED>FIN_WAIT1 is missing.
    assert_eq!(watch.feed(client().at(9000, "FIN_WAIT1>FIN_WAIT2")), ["7 FIN_WAIT1>FIN_WAIT2 - client -"]);
    assert_eq!(
        watch.feed(with(flags::DONE, client().at(9500, "FIN_WAIT2>CLOSE"))),
        ["7 FIN_WAIT2>TIME_WAIT=CLOSE 500 client -"]
    );
}

#[test]
fn time_that_steps_back_between_cpus_is_no_time() {
    let mut watch = Watch::new();
    watch.feed(client().at(1000, "CLOSE>SYN_SENT"));
    assert_eq!(watch.feed(client().at(999, "SYN_SENT>ESTABLISHED")), ["7 SYN_SENT>ESTABLISHED 0 client -"]);
}

#[test]
fn what_is_no_record_of_ours_says_nothing() {
    let mut watch = Watch::new();
    let good = client().at(1000, "ESTABLISHED>CLOSE_WAIT");
    for bad in [
        Record { old: 0, ..good },
        Record { new: 0, ..good },
        Record { old: 13, ..good },
        Record { new: 255, ..good },
        Record { kind: record::Kind(6), ..good },
    ] {
        assert_eq!(watch.feed(bad), [""; 0]);
    }
    assert!(watch.tracker.is_empty());
}

// Resets.

fn rst(sock: &Sock, us: u64, state: State) -> Record {
    Record { reason: 14, ..sock.hit(us, record::Kind::RST_SENT, state) }
}

#[test]
fn a_reset_that_a_close_sends_belongs_to_it_for_a_while() {
    for (us, said) in [
        (3010, "7 rst_sent TCP_STATE in ESTABLISHED - client connect 1"),
        (53_000, "7 rst_sent TCP_STATE in ESTABLISHED - client connect 1"),
        (53_001, "7 rst_sent TCP_STATE in - - - -"),
    ] {
        let mut watch = Watch::new();
        watch.feed(by(1, client().at(1000, "CLOSE>SYN_SENT")));
        watch.feed(client().at(2000, "SYN_SENT>ESTABLISHED"));
        watch.feed(by(1, client().at(3000, "ESTABLISHED>CLOSE")));
        let event = watch.event(rst(&client(), us, State::CLOSE));
        assert_eq!((line(&event).as_str(), event.tuple), (said, client().tuple));
    }
}

#[test]
fn a_socket_killed_by_ss_is_reset_first_and_not_owned_by_ss() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    assert_eq!(
        watch.feed(by(666, rst(&client(), 3000, State::ESTABLISHED))),
        ["7 rst_sent TCP_STATE in ESTABLISHED - client -"]
    );
    let detail = CloseDetail { sk_err: ECONNABORTED, ..quiet() };
    assert_eq!(
        watch.close(by(666, client().at(3001, "ESTABLISHED>CLOSE")), &detail),
        ["7 ESTABLISHED>CLOSE 1001 client -"]
    );
}

#[test]
fn a_reset_from_a_listener_has_only_its_owner() {
    let packet = Record { tuple: server().tuple, ..rst(&listener(), 2000, State::LISTEN) };
    let packet = with(flags::PACKET, packet);
    let mut watch = Watch::new();
    let unknown = watch.event(packet);
    assert_eq!(line(&unknown), "- rst_sent TCP_STATE in LISTEN - - -");
    watch.feed(by(80, listener().at(1000, "CLOSE>LISTEN")));
    let event = watch.event(packet);
    assert_eq!(line(&event), "- rst_sent TCP_STATE in LISTEN - - listen 80");
    assert_eq!(event.tuple, server().tuple);
    assert_eq!(event.id, None);
}

#[test]
fn a_reset_without_a_socket_has_only_its_packet() {
    let nothing = Sock { sk: 0, cookie: 0, tuple: server().tuple };
    let packet = Record {
        old: 0,
        new: 0,
        reason: 1,
        flags: flags::PACKET,
        ..nothing.hit(1000, record::Kind::RST_SENT, State::CLOSE)
    };
    let event = Watch::new().event(packet);
    assert_eq!(line(&event), "- rst_sent NO_SOCKET in - - - -");
    assert_eq!((event.uid, event.unaccepted, event.closed), (None, false, true));
    assert_eq!(event.tuple, server().tuple);
}

#[test]
fn a_reset_from_a_minisock_is_the_connections() {
    let minisock = |state: State, us| Record {
        sk: SK + 0x9000,
        new: State::TIME_WAIT.number(),
        flags: flags::PACKET,
        ..rst(&client(), us, state)
    };
    let mut watch = Watch::new();
    let event = watch.event(minisock(State::FIN_WAIT2, 1000));
    assert_eq!(line(&event), "7 rst_sent TCP_STATE in FIN_WAIT2 - - -");
    assert_eq!((event.uid, event.unaccepted), (None, false));
    // Nothing more will be learned of it.
    assert!(event.closed);

    watch.feed(by(1, client().at(2000, "CLOSE>SYN_SENT")));
    watch.feed(with(flags::DONE, client().at(3000, "FIN_WAIT2>CLOSE")));
    let event = watch.event(minisock(State::TIME_WAIT, 3001));
    assert_eq!(line(&event), "7 rst_sent TCP_STATE in TIME_WAIT - client connect 1");
    assert_eq!(event.uid, None);
}

#[test]
fn a_reason_without_a_name_keeps_its_number() {
    let record = Record { reason: 99, ..rst(&client(), 1000, State::ESTABLISHED) };
    assert_eq!(Watch::new().feed(record), ["7 rst_sent REASON_99 in ESTABLISHED - - -"]);
    let record = Record { reason: NO_REASON, ..record };
    assert_eq!(Watch::new().feed(record), ["7 rst_sent - in ESTABLISHED - - -"]);
}

#[test]
fn a_reset_received_belongs_to_the_connection_it_ends() {
    let mut watch = Watch::new();
    let hit = |sock: &Sock, us| sock.hit(us, record::Kind::RST_RECEIVED, State::ESTABLISHED);
    assert_eq!(watch.feed(hit(&client(), 500)), ["7 rst_received - in ESTABLISHED - - -"]);
    assert_eq!(watch.feed(hit(&nameless(client()), 600)), ["- rst_received - in ESTABLISHED - - -"]);
    watch.story(&client(), &CONNECT);
    assert_eq!(watch.feed(hit(&client(), 2500)), ["7 rst_received - in ESTABLISHED - client -"]);
}

// Retransmits.

#[test]
fn retransmits_belong_to_their_connection() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    let segment = Record { reason: 0, ..client().hit(2500, record::Kind::RETRANSMIT, State::ESTABLISHED) };
    let event = watch.event(segment);
    assert_eq!(line(&event), "7 retransmit - in ESTABLISHED - client -");
    assert_eq!(event.retransmits, None);

    let request = Sock { sk: SK + 0x5000, cookie: 0, tuple: server().tuple };
    let synack = request.hit(2600, record::Kind::RETRANSMIT_SYNACK, State::NEW_SYN_RECV);
    let event = watch.event(Record { reason: 3, ..synack });
    assert_eq!((event.id, event.prev_state, event.retransmits), (None, Some(State::NEW_SYN_RECV), Some(3)));
    assert_eq!(watch.event(synack).retransmits, None);
}

// Owners.

#[test]
fn connect_listen_and_close_tell_the_owner() {
    let owner = |record: Record| {
        Watch::new().event(record).owner.map(|owner| format!("{} {}", owner.source.name(), owner.pid))
    };
    for (change, source) in [
        ("CLOSE>SYN_SENT", "connect"),
        ("CLOSE>LISTEN", "listen"),
        ("ESTABLISHED>FIN_WAIT1", "close"),
        ("ESTABLISHED>CLOSE_WAIT", "close"),
        ("ESTABLISHED>CLOSE", "close"),
        ("LISTEN>CLOSE", "close"),
    ] {
        let record = on_cpu(5, client().at(1000, change));
        assert_eq!(owner(with(flags::OWNED, record)).as_deref(), Some(&*format!("{source} 5")), "{change}");
        // Softirq work runs on anyone's back.
        assert_eq!(owner(record), None, "{change}");
        assert_eq!(owner(with(flags::OWNED | flags::KTHREAD, record)), None, "{change}");
        assert_eq!(owner(with(flags::OWNED | flags::KERNEL_SOCKET, record)), None, "{change}");
    }
}

#[test]
fn the_task_on_the_cpu_is_reported_whether_owner_or_not() {
    let comm = *b"nginx\0\0\0\0\0\0\0\0\0\0\0";
    let words = [0, 8].map(|at| u64::from_ne_bytes(comm[at..at + 8].try_into().unwrap()));
    let record = Record { task_comm: words, ..on_cpu(5, client().at(1000, "ESTABLISHED>CLOSE_WAIT")) };
    let event = Watch::new().event(record);
    assert_eq!((event.task_pid, event.task_comm.bytes()), (5, b"nginx".as_slice()));
    assert_eq!(event.owner, None);
    let owner = Watch::new().event(with(flags::OWNED, record)).owner.unwrap();
    assert_eq!((owner.pid, owner.comm.bytes()), (5, b"nginx".as_slice()));
}

#[test]
fn who_connected_stays_the_owner_when_another_closes() {
    let mut watch = Watch::new();
    watch.feed(by(1, client().at(1000, "CLOSE>SYN_SENT")));
    assert_eq!(
        watch.feed(by(2, client().at(2000, "SYN_SENT>CLOSE"))),
        ["7 SYN_SENT>CLOSE 1000 client connect 1"]
    );
}

#[test]
fn an_accepted_connection_is_its_listeners_until_somebody_acts() {
    let mut watch = Watch::new();
    watch.feed(by(80, listener().at(1, "CLOSE>LISTEN")));
    assert_eq!(watch.story(&server(), &ACCEPT)[1], "8 SYN_RECV>ESTABLISHED 1000 server listener 80");
    assert_eq!(
        watch.feed(by(81, server().at(3000, "ESTABLISHED>CLOSE_WAIT"))),
        ["8 ESTABLISHED>CLOSE_WAIT 1000 server close 81"]
    );
    assert_eq!(
        watch.feed(by(82, server().at(4000, "CLOSE_WAIT>LAST_ACK"))),
        ["8 CLOSE_WAIT>LAST_ACK 1000 server close 81"]
    );
}

#[test]
fn a_connection_that_dies_with_its_listener_stays_its_listeners() {
    let mut watch = Watch::new();
    watch.feed(by(80, listener().at(1, "CLOSE>LISTEN")));
    watch.story(&server(), &ACCEPT);
    watch.feed(by(80, listener().at(3000, "LISTEN>CLOSE")));
    let unaccepted = Record { flags: 0, ..on_cpu(80, server().at(3001, "ESTABLISHED>CLOSE")) };
    let event = watch.event(unaccepted);
    assert_eq!(line(&event), "8 ESTABLISHED>CLOSE 1001 server listener 80");
    assert!(event.unaccepted);
}

/// The owner of a child of these listeners: local end, network namespace, process.
fn childs_owner(listeners: &[(&str, u32, u32)]) -> Option<u32> {
    let mut watch = Watch::new();
    for (n, (local, netns, pid)) in (0..).zip(listeners) {
        let tuple = Tuple { netns: *netns, ..tuple(local, "0.0.0.0:0") };
        let sock = Sock { sk: SK + 0x10_0000 + n * 0x1000, cookie: 100 + n, tuple };
        watch.feed(by(*pid, sock.at(1, "CLOSE>LISTEN")));
    }
    let child = Sock { tuple: Tuple { netns: 1, ..server().tuple }, ..server() };
    watch.event(child.at(1000, "LISTEN>SYN_RECV")).owner.map(|owner| owner.pid)
}

#[test]
fn the_listener_that_fits_best_gives_the_owner() {
    assert_eq!(childs_owner(&[]), None);
    assert_eq!(childs_owner(&[("0.0.0.0:443", 1, 80)]), Some(80));
    assert_eq!(childs_owner(&[("[::]:443", 1, 80)]), Some(80));
    assert_eq!(childs_owner(&[("10.0.0.5:443", 1, 80)]), Some(80));
    assert_eq!(childs_owner(&[("10.0.0.5:443", 1, 80), ("0.0.0.0:443", 1, 81)]), Some(80));
    assert_eq!(childs_owner(&[("0.0.0.0:443", 1, 81), ("10.0.0.5:443", 1, 80)]), Some(80));
    for other in [("0.0.0.0:443", 2, 80), ("0.0.0.0:80", 1, 80), ("10.0.0.6:443", 1, 80)] {
        assert_eq!(childs_owner(&[other]), None, "{other:?}");
    }
}

#[test]
fn of_processes_that_share_a_port_none_is_the_owner() {
    assert_eq!(childs_owner(&[("0.0.0.0:443", 1, 80), ("0.0.0.0:443", 1, 80)]), Some(80));
    assert_eq!(childs_owner(&[("0.0.0.0:443", 1, 80), ("0.0.0.0:443", 1, 81)]), None);
    assert_eq!(childs_owner(&[("0.0.0.0:443", 1, 80), ("[::]:443", 1, 81)]), None);
}

#[test]
fn a_listener_that_closed_gives_no_owner() {
    let mut watch = Watch::new();
    watch.feed(by(80, listener().at(1, "CLOSE>LISTEN")));
    watch.feed(by(80, listener().at(2, "LISTEN>CLOSE")));
    assert_eq!(watch.feed(server().at(1000, "LISTEN>SYN_RECV")), ["8 LISTEN>SYN_RECV - server -"]);
    // Nor does one that became a client without having been seen to close.
    watch.feed(by(80, listener().at(2000, "CLOSE>LISTEN")));
    watch.feed(by(80, listener().at(2001, "CLOSE>SYN_SENT")));
    assert_eq!(watch.feed(server().at(3000, "LISTEN>SYN_RECV")), ["8 LISTEN>SYN_RECV - server -"]);
    assert!(watch.tracker.listeners.is_empty());
}

#[test]
fn a_listener_whose_port_is_chosen_late_is_forgotten_too() {
    let mut watch = Watch::new();
    // listen() without bind(): the port is chosen after CLOSE>LISTEN.
    let portless = Sock { tuple: Tuple { lport: 0, ..listener().tuple }, ..listener() };
    watch.feed(by(80, portless.at(1, "CLOSE>LISTEN")));
    watch.feed(by(80, listener().at(2, "LISTEN>CLOSE")));
    watch.tick(1_000_000);
    assert!(watch.tracker.is_empty());
    assert!(watch.tracker.listeners.is_empty(), "{:?}", watch.tracker.listeners);
}

// Memory.

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
    fn no_records_make_it_panic_and_closing_all_empties_it(
        records in vec(any_record(), 0..60),
        ticks in vec(any::<bool>(), 60),
        raw: bool,
    ) {
        let mut tracker = Tracker::new(Reasons::new(), raw);
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
        tracker.tick(3_000_000_000, &mut |_| Fate::Keep);
        prop_assert!(tracker.is_empty(), "{:?}", tracker);
        prop_assert!(tracker.ended.is_empty());
    }
}
