//! `hist` and `rst` from recorded events.

use super::*;
use crate::{
    model::{
        found::{Form, Found, Survey},
        health::{Health, Snmp},
        socket::Socket,
        tally::{By, Sort, Tally},
    },
    view::report::{self, Page, Report, Resets, text::Options},
};

const SECOND_NS: u64 = 1_000_000_000;

pub(super) fn cgroups() -> report::Cgroups {
    Box::new(|id| (id == 4711).then(|| "/system.slice/nginx.service".into()))
}

/// A host's sockets: a leaking server, a client of two services, a peer in another namespace, and an abandoned minisock.
pub(super) fn sockets() -> Vec<Socket> {
    let nginx = owner(4123, b"nginx", OwnerSource::Listen);
    let worker = owner(4124, b"nginx", OwnerSource::Close);
    let php = owner(5000, b"php-fpm8.2", OwnerSource::Connect);
    let one = |tuple, state, role, owner| Socket {
        id: Some(Id(1)),
        tuple,
        state,
        since_ns: Some(START_NS),
        at_latest_ns: None,
        role: Some(role),
        owner: Some(owner),
        uid: Some(33),
        cgroup: 4711,
    };
    let mut sockets = vec![one(tuple("0.0.0.0", 443, "0.0.0.0", 0), State::LISTEN, Role::Listener, nginx)];
    for port in 50_000..50_120 {
        let ends = tuple("10.0.0.5", 443, "10.0.0.9", port);
        let state = if port < 50_100 { State::CLOSE_WAIT } else { State::ESTABLISHED };
        sockets.push(one(ends, state, Role::Server, worker));
    }
    for port in 40_000..40_007 {
        let ends = tuple("10.0.0.5", port, "10.0.0.77", 5432);
        sockets.push(one(ends, State::ESTABLISHED, Role::Client, php));
    }
    let ends = tuple("10.0.0.5", 40_100, "10.0.0.78", 11_211);
    sockets.push(one(ends, State::SYN_SENT, Role::Client, php));
    sockets
}

fn minisocks() -> Survey {
    let one = |rport| {
        let ends = tuple("10.0.0.5", 443, "2001:db8::9", rport);
        let expires_ms = Some(60_000);
        Found { cookie: u64::from(rport), expires_ms, ..Found::new(ends, State::TIME_WAIT, Form::Minisock) }
    };
    let netns = one(1).tuple.netns;
    let health = vec![counted_by_the_kernel(netns, START_NS, 10, 3)];
    Survey { sockets: (1..=2500).map(one).collect(), namespaces: vec![netns], health }
}

fn counted_by_the_kernel(netns: u32, at_ns: u64, out_rsts: u64, estab_resets: u64) -> Health {
    Health { counters: Snmp { netns, at_ns, estab_resets, out_rsts, ..Snmp::default() }, ..Health::default() }
}

/// A tally at its start, with what was there.
fn begun(by: By) -> Tally {
    let mut tally = Tally::new(by, 32_768..=60_999, true);
    tally.surveyed(&minisocks(), START_NS, |_| true);
    let before = sockets().into_iter().filter(|socket| socket.state != State::CLOSE_WAIT);
    tally.table(before, Sort::Sockets, 50, START_NS);
    tally
}

/// Two seconds of it.
pub(super) fn counted(by: By) -> Tally {
    let mut tally = begun(by);
    for event in events() {
        tally.event(&event);
    }
    tally
}

fn written(report: &mut dyn Report) -> String {
    let mut out = Vec::new();
    report.take(&mut out);
    String::from_utf8(out).unwrap()
}

fn options(columns: Option<u16>) -> Options {
    Options { columns, wide: false, color: false, header: true, repeated: true }
}

/// Every page of `hist` for a terminal of so many columns.
fn hist(report: &mut dyn Report) -> String {
    let mut tally = counted(By::Port);
    let table = tally.table(sockets().into_iter(), Sort::Sockets, 3, START_NS + 2 * SECOND_NS);
    report.page(&Page::Ports(&table));
    report.page(&Page::Times(tally.times().unwrap(), &table));
    report.page(&Page::Matrix(tally.matrix(), &table));
    written(report)
}

pub(super) fn resets() -> Resets {
    let mut tally = counted(By::Port);
    let netns = events().first().unwrap().tuple.netns;
    let late_ns = START_NS + 60 * SECOND_NS;
    let late = counted_by_the_kernel(netns, late_ns, 18, 5);
    tally.surveyed(&Survey { health: vec![late], ..Survey::default() }, late_ns, |_| true);
    Resets {
        at_ns: START_NS + 2 * SECOND_NS,
        interval_ns: 2 * SECOND_NS,
        rows: tally.ledger.take(),
        left_out: 3,
        reconciled: Some(tally.ledger.reconciled()),
        reasons: true,
    }
}

fn rst(report: &mut dyn Report) -> String {
    report.page(&Page::Resets(&resets()));
    written(report)
}

fn on(columns: Option<u16>) -> report::text::Text {
    report::text::Text::new(clock(), options(columns), cgroups())
}

#[test]
fn hist_in_a_file() {
    insta::assert_snapshot!(hist(&mut on(None)));
}

#[test]
fn hist_on_120_columns() {
    insta::assert_snapshot!(hist(&mut on(Some(120))));
}

#[test]
fn hist_on_80_columns() {
    insta::assert_snapshot!(hist(&mut on(Some(80))));
}

#[test]
fn rst_in_a_file() {
    insta::assert_snapshot!(rst(&mut on(None)));
}

#[test]
fn rst_on_80_columns() {
    insta::assert_snapshot!(rst(&mut on(Some(80))));
}

#[test]
fn rst_on_60_columns() {
    insta::assert_snapshot!(rst(&mut on(Some(60))));
}

#[test]
fn hist_as_json() {
    insta::assert_snapshot!(hist(&mut report::Json::new(clock(), cgroups())));
}

#[test]
fn rst_as_json() {
    insta::assert_snapshot!(rst(&mut report::Json::new(clock(), cgroups())));
}

#[test]
fn rst_as_csv() {
    insta::assert_snapshot!(rst(&mut report::Csv::new(clock(), true, cgroups())));
}

#[test]
fn every_line_of_json_is_an_object_and_every_row_of_csv_as_long() {
    let json =
        hist(&mut report::Json::new(clock(), cgroups())) + &rst(&mut report::Json::new(clock(), cgroups()));
    for line in json.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object(), "{line}");
    }
    for by in By::ALL {
        let mut tally = counted(by);
        let table = tally.table(sockets().into_iter(), Sort::Sockets, 50, START_NS + SECOND_NS);
        let mut csv = report::Csv::new(clock(), true, cgroups());
        csv.page(&Page::Ports(&table));
        let text = written(&mut csv);
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        assert!(reader.records().all(|record| record.is_ok()), "{text}");
        assert!(text.lines().count() > 2, "{text}");
    }
}

#[test]
fn no_terminal_is_too_narrow_for_a_table() {
    for columns in 1..200 {
        for page in [hist(&mut on(Some(columns))), rst(&mut on(Some(columns)))] {
            let longest = page.lines().map(|line| line.chars().count()).max().unwrap();
            // Sentences are not cut below 20.
            assert!(longest <= usize::from(columns.max(40)), "{columns}: {longest}\n{page}");
        }
    }
}

#[test]
fn rows_by_other_things() {
    let mut text = String::new();
    for by in By::ALL {
        let mut tally = counted(by);
        let table = tally.table(sockets().into_iter(), Sort::Sockets, 4, START_NS + 2 * SECOND_NS);
        let mut report = on(Some(100));
        report.page(&Page::Ports(&table));
        text.push_str(&written(&mut report));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn times_are_said_as_people_do() {
    use report::text::{duration, rate};
    let said = [0, 950_000_000, 59 * SECOND_NS, 61 * SECOND_NS, 3_700 * SECOND_NS, 90_000 * SECOND_NS];
    assert_eq!(said.map(duration), ["0.0s", "0.9s", "59s", "1m01s", "1h01m", "1d01h"]);
    assert_eq!([0, 1, 15, 300].map(|count| rate(count, 30 * SECOND_NS)), ["0", "<0.1", "0.5", "10"]);
}
