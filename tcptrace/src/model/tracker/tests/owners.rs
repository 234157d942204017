//! Whose a connection is.

use super::*;

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
    assert_eq!((event.task_pid, event.task_comm.bytes()), (Some(5), b"nginx".as_slice()));
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
