//! Which record belongs to which connection.

use super::*;

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

/// Both probes of transitions can report the same one.
#[test]
fn what_is_reported_twice_is_told_once() {
    let mut watch = Watch::new();
    let sock = client();
    assert_eq!(watch.feed(sock.at(1, "CLOSE>SYN_SENT")).len(), 1);
    assert_eq!(watch.feed(sock.at(2, "CLOSE>SYN_SENT")), [""; 0]);
    assert_eq!(watch.feed(sock.at(5, "SYN_SENT>ESTABLISHED")).len(), 1);
    assert_eq!(watch.feed(sock.at(6, "SYN_SENT>ESTABLISHED")), [""; 0]);
    watch.feed(sock.at(8, "ESTABLISHED>CLOSE"));
    assert_eq!(watch.feed(sock.at(9, "ESTABLISHED>CLOSE")), [""; 0]);
    assert_eq!(watch.tracker.len(), 1);
}

/// Of sockets that are told apart by address only, because their first records were lost, each may do the same.
#[test]
fn what_two_sockets_at_one_address_do_is_told_twice() {
    let mut watch = Watch::new();
    let child = server();
    // Up to 6.14: the child still looks like its listener, and its next record is lost.
    watch.feed(child.named_as(&listener()).at(1, "LISTEN>SYN_RECV"));
    watch.tick(60_000);
    let next = Sock { cookie: 80, ..child };
    for sock in [child, next] {
        assert_eq!(watch.feed(sock.at(60_001, "CLOSE_WAIT>LAST_ACK")).len(), 1);
    }
}
