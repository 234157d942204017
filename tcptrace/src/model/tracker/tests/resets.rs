//! RSTs and retransmits.

use super::*;

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
    assert_eq!((event.id, event.prev_state, event.retransmits), (None, Some(State::NEW_SYN_RECV), Some(4)));
    assert_eq!(watch.event(synack).retransmits, None);
}
