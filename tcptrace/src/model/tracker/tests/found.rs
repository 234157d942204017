//! Sockets that a survey found.

use super::*;
use crate::model::found::{Counters, Form, Found, Survey};

fn found(sock: &Sock, state: State, pid: Option<u32>) -> Found {
    let owner = pid.map(|pid| Owner { pid, comm: Comm::default(), source: OwnerSource::Snapshot });
    let listens = state == State::LISTEN;
    Found {
        cookie: sock.cookie,
        ino: 1,
        uid: Some(33),
        cgroup: 1,
        owner,
        // A client's SYN is acknowledged beside its payload.
        counters: (!listens).then(|| Counters {
            bytes_acked: u64::from(sock.tuple == client().tuple),
            ..Counters::default()
        }),
        ..Found::new(sock.tuple, state, Form::Socket)
    }
}

fn survey(sockets: Vec<Found>) -> Survey {
    Survey { sockets, namespaces: vec![client().tuple.netns], health: vec![] }
}

impl Watch {
    fn adopt(&mut self, us: u64, survey: &Survey) -> Vec<String> {
        let mut lines = Vec::new();
        self.tracker.adopt(survey, us * 1000, &mut |event| {
            lines.push(format!("{} {}", event.new.unwrap(), line(&event)));
            Fate::Keep
        });
        lines
    }

    fn reconcile(&mut self, us: u64, survey: &Survey) -> Vec<String> {
        let mut lines = Vec::new();
        self.tracker.reconcile(survey, us * 1000, &mut |event| {
            lines.push(line(&event));
            Fate::Keep
        });
        lines
    }
}

#[test]
fn what_was_there_before_has_an_owner_and_a_role() {
    let mut watch = Watch::new();
    let open = watch.adopt(
        1,
        &survey(vec![
            found(&server(), State::ESTABLISHED, Some(2)),
            found(&client(), State::ESTABLISHED, Some(1)),
            found(&listener(), State::LISTEN, Some(80)),
        ]),
    );
    assert_eq!(
        open,
        [
            "ESTABLISHED 8 connection - in - - server snapshot 2",
            "ESTABLISHED 7 connection - in - - client snapshot 1"
        ]
    );
    assert_eq!(
        watch.feed(server().at(1000, "ESTABLISHED>CLOSE_WAIT")),
        ["8 ESTABLISHED>CLOSE_WAIT - server snapshot 2"]
    );
    // A child of the listener that was there.
    let child = Sock { sk: SK + 0x9000, cookie: 6, tuple: tuple("10.0.0.5:443", "10.0.0.9:51999") };
    assert_eq!(watch.feed(child.at(2000, "LISTEN>SYN_RECV")), ["6 LISTEN>SYN_RECV - server listener 80"]);
}

#[test]
fn live_records_win() {
    let mut watch = Watch::new();
    watch.story(&client(), &CONNECT);
    watch.adopt(10_000, &survey(vec![found(&client(), State::ESTABLISHED, Some(5))]));
    // What is known of its time stays, and an owner comes to it.
    assert_eq!(
        watch.feed(client().at(12_000, "ESTABLISHED>FIN_WAIT1")),
        ["7 ESTABLISHED>FIN_WAIT1 10000 client snapshot 5"]
    );
    // A record that is older than what the survey saw.
    let mut watch = Watch::new();
    watch.adopt(10_000, &survey(vec![found(&client(), State::CLOSE_WAIT, Some(5))]));
    assert_eq!(
        watch.feed(client().at(9000, "ESTABLISHED>CLOSE_WAIT")),
        ["7 ESTABLISHED>CLOSE_WAIT - client snapshot 5"]
    );
}

#[test]
fn what_is_gone_in_two_surveys_is_given_up() {
    let mut watch = Watch { tracker: Tracker::new(Reasons::new(), false, true) };
    watch.story(&client(), &CONNECT);
    let nothing = survey(vec![]);
    assert_eq!(watch.reconcile(10_000, &nothing), [""; 0]);
    assert_eq!(watch.tracker.reconcile(&nothing, 10_000_000, &mut |_| Fate::Keep), 1);
    watch.story(&client(), &CONNECT);
    assert_eq!(watch.reconcile(10_000, &nothing), [""; 0]);
    assert_eq!(watch.reconcile(20_000, &nothing), ["7 connection - in ESTABLISHED - client - unknown?"]);
    assert!(watch.tracker.is_empty());
    // Another namespace says nothing of this one.
    watch.story(&client(), &CONNECT);
    let elsewhere = Survey { sockets: vec![], namespaces: vec![1], health: vec![] };
    for us in [10_000, 20_000, 30_000] {
        assert_eq!(watch.reconcile(us, &elsewhere), [""; 0]);
    }
    // One that is there again has not been missed.
    let there = survey(vec![found(&client(), State::ESTABLISHED, None)]);
    // One that becomes a minisock during the survey has been missed once; the record that tells of it comes next.
    let turned = survey(vec![Found { form: Form::Minisock, ..found(&client(), State::FIN_WAIT2, None) }]);
    for (us, survey) in [
        (40_000, &nothing),
        (50_000, &there),
        (60_000, &nothing),
        (70_000, &there),
        (80_000, &turned),
        (90_000, &there),
    ] {
        watch.adopt(us, survey);
        assert_eq!(watch.reconcile(us, survey), [""; 0]);
    }
}

#[test]
fn a_socket_found_without_a_cookie_is_recognised_by_its_ends() {
    let mut watch = Watch::new();
    watch.adopt(1, &survey(vec![found(&nameless(client()), State::ESTABLISHED, Some(5))]));
    assert_eq!(
        watch.feed(client().at(1000, "ESTABLISHED>FIN_WAIT1")),
        ["own1 ESTABLISHED>FIN_WAIT1 - client snapshot 5"]
    );
    assert!(watch.tracker.strangers.is_empty());
}

/// docs/architecture.md states what a socket costs; this holds it.
#[test]
fn a_socket_takes_no_more_memory_than_stated() {
    assert!(size_of::<(Key, Conn)>() <= 192, "{}", size_of::<(Key, Conn)>());
    assert!(size_of::<History>() <= 144, "{}", size_of::<History>());
}
