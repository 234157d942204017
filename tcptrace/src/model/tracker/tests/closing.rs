//! How connections close, and what the kernel calls it.

use super::*;

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
        (UNKNOWN, 0, "TIME_WAIT=CLOSE"),
        (101, UNKNOWN, "TIME_WAIT=CLOSE"),
    ] {
        let end = with(flags::DONE, client().at(1000, "FIN_WAIT2>CLOSE"));
        let detail = CloseDetail { tw_count, tw_max, ..quiet() };
        assert_eq!(Watch::new().close(end, &detail), [format!("7 FIN_WAIT2>{after} - - -")]);
    }
}

#[test]
fn where_the_room_is_just_full_sock_diag_tells() {
    let there = |state| Whereabouts::There { state, expires_ms: 60_000 };
    for (flag, found, said) in [
        (flags::DONE, there(State::TIME_WAIT), "7 FIN_WAIT2>TIME_WAIT=CLOSE - - -"),
        (flags::DONE, Whereabouts::Gone, "7 FIN_WAIT2>CLOSE - - -"),
        (flags::DONE, Whereabouts::Unknown, "7 FIN_WAIT2>TIME_WAIT=CLOSE - - -"),
        (flags::DEAD, there(State::FIN_WAIT2), "7 FIN_WAIT2>FIN_WAIT2=CLOSE - - -"),
        (flags::DEAD, Whereabouts::Gone, "7 FIN_WAIT2>CLOSE - - -"),
    ] {
        let mut watch = Watch::new();
        let detail = CloseDetail { tw_count: 100, tw_max: 100, ..quiet() };
        let end = with(flag, client().at(1000, "FIN_WAIT2>CLOSE"));
        assert_eq!(watch.close(end, &detail), [""; 0]);
        assert_eq!(watch.settle(2000, found), [said]);
    }
}

#[test]
fn an_orphan_ends_as_its_minisock_does() {
    let orphan = || {
        let mut watch = Watch::new();
        watch.story(&client(), &["CLOSE>SYN_SENT", "SYN_SENT>FIN_WAIT2"]);
        watch.feed(with(flags::DEAD, client().at(3000, "FIN_WAIT2>CLOSE")));
        watch
    };
    // The time of the peer's FIN is that of the minisock's timer.
    let time_wait = Whereabouts::There { state: State::TIME_WAIT, expires_ms: 59_999 };
    assert_eq!(orphan().settle(10_000, time_wait), ["7 FIN_WAIT2>TIME_WAIT 6000 client - local_fin"]);
    // Its time was up.
    let mut watch = orphan();
    let waits = Whereabouts::There { state: State::FIN_WAIT2, expires_ms: 20 };
    assert_eq!(watch.settle(10_000, waits), [""; 0]);
    assert_eq!(
        watch.settle(40_000, Whereabouts::Gone),
        ["7 FIN_WAIT2>CLOSE 27000 client - fin_wait2_timeout?"]
    );
    // It is gone before.
    assert_eq!(orphan().settle(10_000, Whereabouts::Gone), ["7 FIN_WAIT2>CLOSE 7000 client - peer_rst?"]);
    // Data came for it.
    let mut watch = orphan();
    let rst = Record {
        new: State::TIME_WAIT.number(),
        ..with(flags::PACKET, client().hit(5000, record::Kind::RST_SENT, State::FIN_WAIT2))
    };
    assert_eq!(
        watch.feed(rst),
        ["7 rst_sent - in FIN_WAIT2 - client -", "7 FIN_WAIT2>CLOSE 2000 client - local_abort_other"]
    );
    assert!(watch.tracker.is_empty() && watch.tracker.orphans.is_empty());
    // The peer is on this host, and its FIN was acknowledged.
    let mut watch = orphan();
    watch.story(&server(), &["LISTEN>SYN_RECV", "SYN_RECV>LAST_ACK"]);
    assert_eq!(
        watch.feed(server().at(4000, "LAST_ACK>CLOSE")),
        ["8 LAST_ACK>CLOSE 2000 server -", "7 FIN_WAIT2>TIME_WAIT 1000 client - local_fin"]
    );
    // Nobody can see it.
    let mut watch = orphan();
    assert_eq!(watch.settle(10_000, Whereabouts::Unknown), [""; 0]);
    assert_eq!(watch.settle(200_000_000, Whereabouts::Unknown).len(), 1);
    assert!(watch.tracker.is_empty());
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

#[test]
fn at_the_end_of_time_nothing_wraps() {
    let mut tracker = Tracker::new(Reasons::new(), false, true);
    let mut emit = |_| Fate::Keep;
    // Waits for the RST that it sends, since data was left unread.
    let aborted = Record { ts_ns: u64::MAX, ..server().at(0, "ESTABLISHED>CLOSE") };
    let unread = CloseDetail { unread: 1, ..CloseDetail::default() };
    tracker.feed(&aborted, Some(&unread), &mut emit);
    assert_eq!(tracker.deadline_ns(), Some(u64::MAX));
    // Waits for sock_diag.
    let orphan = Record { ts_ns: u64::MAX, flags: flags::DEAD, ..client().at(0, "FIN_WAIT2>CLOSE") };
    tracker.feed(&orphan, Some(&CloseDetail { tw_count: 1, tw_max: 1, ..CloseDetail::default() }), &mut emit);
    for state in [State::FIN_WAIT2, State::TIME_WAIT] {
        let doubts: Vec<Doubt> = tracker.doubts().collect();
        assert!(state == State::TIME_WAIT || !doubts.is_empty());
        for doubt in doubts {
            let found = Whereabouts::There { state, expires_ms: u32::MAX };
            tracker.settle(&doubt, found, u64::MAX, &mut emit);
        }
    }
    tracker.tick(u64::MAX, &mut emit);
}
