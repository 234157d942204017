#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv6Addr;

use proptest::{collection::vec, prelude::*, sample::select};
use tcptrace_common::{
    filter::News,
    record::{Kind, Record, Tuple, flags},
};

use super::*;
use crate::model::{
    event::{Comm, Owner},
    tracker::{Fate, Tracker},
};

/// An event of an accepted connection of which all is known: nginx (4123) of user 33 at 10.0.0.5:443, with a
/// client at 10.0.0.9:51344.
fn event() -> Event {
    let record = Record {
        sk: u64::MAX,
        cookie: 7,
        cgroup: 99,
        tuple: tuple("10.0.0.5", 443, "10.0.0.9", 51344),
        uid: 33,
        task_pid: 4123,
        flags: flags::OWNED | flags::SOCKET,
        kind: Kind::TRANSITION,
        old: State::ESTABLISHED.number(),
        new: State::CLOSE_WAIT.number(),
        ..Record::default()
    };
    let mut events = Vec::new();
    Tracker::default().feed(&record, None, &mut |event| {
        events.push(event);
        Fate::Keep
    });
    let owner = Owner { pid: 4123, comm: comm("nginx"), source: OwnerSource::Close };
    Event { owner: Some(owner), cgroup_path: Some("/web/nginx".into()), ..events.remove(0) }
}

fn comm(name: &str) -> Comm {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Comm(bytes)
}

fn addr(text: &str) -> Addr {
    Addr::from_octets(match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

fn tuple(laddr: &str, lport: u16, raddr: &str, rport: u16) -> Tuple {
    Tuple { laddr: addr(laddr), raddr: addr(raddr), lport, rport, netns: 1 }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn cgroup(path: &str) -> Cgroup {
    Cgroup { id: 1, level: u32::try_from(path.matches('/').count()).unwrap(), path: Arc::from(path) }
}

fn all() -> Filter {
    Filter::default()
}

/// Filters that [`event`] passes, each with one that it does not.
fn pairs() -> Vec<(Filter, Filter)> {
    vec![
        (Filter { pids: vec![1, 4123], ..all() }, Filter { pids: vec![1], ..all() }),
        (
            Filter { comms: vec!["nginx".into()], ..all() },
            Filter { comms: vec!["ngin".into(), "nginx2".into(), "NGINX".into()], ..all() },
        ),
        (Filter { lports: vec![80..=80, 440..=443], ..all() }, Filter { lports: vec![444..=445], ..all() }),
        (Filter { rports: vec![51344..=51344], ..all() }, Filter { rports: vec![443..=443], ..all() }),
        (Filter { ports: vec![443..=443], ..all() }, Filter { ports: vec![80..=80], ..all() }),
        (Filter { ports: vec![51000..=52000], ..all() }, Filter { ports: vec![444..=51343], ..all() }),
        (
            Filter { laddrs: nets(&["10.0.0.4/31"]), ..all() },
            Filter { laddrs: nets(&["10.0.0.9/32", "10.0.0.6/31"]), ..all() },
        ),
        (
            Filter { raddrs: nets(&["2001:db8::/32", "10.0.0.8/29"]), ..all() },
            Filter { raddrs: nets(&["10.0.0.5/32"]), ..all() },
        ),
        (
            Filter { addrs: nets(&["10.0.0.9/32"]), ..all() },
            Filter { addrs: nets(&["10.0.1.0/24", "::/0"]), ..all() },
        ),
        (Filter { family: Some(Family::V4), ..all() }, Filter { family: Some(Family::V6), ..all() }),
        (Filter { netns: vec![2, 1], ..all() }, Filter { netns: vec![2], ..all() }),
        (Filter { uids: vec![0, 33], ..all() }, Filter { uids: vec![0], ..all() }),
        (
            Filter { cgroups: vec![Cgroup { id: 99, ..cgroup("/x") }], ..all() },
            Filter { cgroups: vec![cgroup("/x"), cgroup("/web/n")], ..all() },
        ),
    ]
}

#[test]
fn an_empty_filter_admits_everything() {
    assert_eq!(all().judge(&event()), Verdict::Admit);
    assert!(all().shows(&event()));
    assert_eq!(all().kernel_part(true).tests, 0);
}

#[test]
fn each_test_admits_and_refuses() {
    for (passes, fails) in pairs() {
        assert_eq!(passes.judge(&event()), Verdict::Admit, "{passes:?}");
        assert_eq!(fails.judge(&event()), Verdict::Refuse, "{fails:?}");
    }
}

#[test]
fn tests_are_combined_with_and() {
    let both = Filter { lports: vec![443..=443], rports: vec![51344..=51344], ..all() };
    assert_eq!(both.judge(&event()), Verdict::Admit);
    let one = Filter { lports: vec![443..=443], rports: vec![1..=1], ..all() };
    assert_eq!(one.judge(&event()), Verdict::Refuse);
    // What one test refuses no later event can mend.
    let unowned = Event { owner: None, ..event() };
    let one = Filter { pids: vec![4123], rports: vec![1..=1], ..all() };
    assert_eq!(one.judge(&unowned), Verdict::Refuse);
    let both = Filter { pids: vec![4123], rports: vec![51344..=51344], ..all() };
    assert_eq!(both.judge(&unowned), Verdict::Undecided);
}

/// An unknown fact leaves a filter undecided, until the socket is closed.
#[track_caller]
fn undecided(filter: &Filter, event: &Event) {
    assert_eq!(filter.judge(event), Verdict::Undecided, "{filter:?}");
    let closed = Event { closed: true, ..event.clone() };
    assert_eq!(filter.judge(&closed), Verdict::Refuse, "{filter:?}");
}

#[test]
fn a_port_that_is_not_chosen_yet_is_waited_for() {
    let portless = Event { tuple: Tuple { lport: 0, ..event().tuple }, ..event() };
    undecided(&Filter { lports: vec![443..=443], ..all() }, &portless);
    undecided(&Filter { ports: vec![443..=443], ..all() }, &portless);
    // The peer's is known.
    assert_eq!(Filter { ports: vec![51344..=51344], ..all() }.judge(&portless), Verdict::Admit);
    assert_eq!(Filter { rports: vec![443..=443], ..all() }.judge(&portless), Verdict::Refuse);
}

#[test]
fn a_listener_has_no_peer() {
    let tuple = Tuple { raddr: addr("0.0.0.0"), rport: 0, ..event().tuple };
    let listener = Event { tuple, ..event() };
    assert_eq!(Filter { rports: vec![1..=65535], ..all() }.judge(&listener), Verdict::Refuse);
    assert_eq!(Filter { ports: vec![443..=443], ..all() }.judge(&listener), Verdict::Admit);
    assert_eq!(Filter { raddrs: nets(&["10.0.0.0/8"]), ..all() }.judge(&listener), Verdict::Refuse);
}

#[test]
fn the_user_of_a_connection_that_nobody_accepted_is_waited_for() {
    let unaccepted = Event { unaccepted: true, ..event() };
    undecided(&Filter { uids: vec![0], ..all() }, &unaccepted);
    assert_eq!(Filter { uids: vec![33], ..all() }.judge(&unaccepted), Verdict::Admit);
    let without_socket = Event { uid: None, ..event() };
    assert_eq!(Filter { uids: vec![0], ..all() }.judge(&without_socket), Verdict::Refuse);
}

#[test]
fn an_owner_that_may_change_is_waited_for() {
    let listeners = Owner { source: OwnerSource::Listener, ..event().owner.unwrap() };
    for (owner, wanted) in [(Some(listeners), Verdict::Admit), (None, Verdict::Undecided)] {
        let event = Event { owner, ..event() };
        undecided(&Filter { pids: vec![1], ..all() }, &event);
        undecided(&Filter { comms: vec!["sshd".into()], ..all() }, &event);
        assert_eq!(Filter { pids: vec![4123], ..all() }.judge(&event), wanted);
        assert_eq!(Filter { comms: vec!["nginx".into()], ..all() }.judge(&event), wanted);
    }
    // Nobody will ever own what belongs to no connection.
    let nobodys = Event { owner: None, id: None, ..event() };
    assert_eq!(Filter { pids: vec![1], ..all() }.judge(&nobodys), Verdict::Refuse);
}

#[test]
fn an_owner_does_not_judge_the_socket() {
    let filter = Filter { pids: vec![1], comms: vec!["sshd".into()], lports: vec![443..=443], ..all() };
    assert_eq!(filter.judge(&event()), Verdict::Refuse);
    assert_eq!(filter.judge_socket(&event()), Verdict::Admit);
    let elsewhere = Filter { lports: vec![80..=80], ..filter };
    assert_eq!(elsewhere.judge_socket(&event()), Verdict::Refuse);
}

#[test]
fn a_known_owner_is_final() {
    for source in [OwnerSource::Connect, OwnerSource::Listen, OwnerSource::Close] {
        let event = Event { owner: Some(Owner { source, ..event().owner.unwrap() }), ..event() };
        assert_eq!(Filter { pids: vec![1], ..all() }.judge(&event), Verdict::Refuse);
        assert_eq!(Filter { comms: vec!["sshd".into()], ..all() }.judge(&event), Verdict::Refuse);
    }
}

#[test]
fn a_comm_of_any_bytes_is_compared_whole() {
    let named = |name| Event { owner: Some(Owner { comm: comm(name), ..event().owner.unwrap() }), ..event() };
    let wants = |name: &str| Filter { comms: vec![name.into()], ..all() };
    assert_eq!(wants("żółw 1").judge(&named("żółw 1")), Verdict::Admit);
    assert_eq!(wants("abcdefghijklmno").judge(&named("abcdefghijklmno")), Verdict::Admit);
    assert_eq!(wants("abcdefghijklmnop").judge(&named("abcdefghijklmno")), Verdict::Refuse);
}

#[test]
fn a_cgroup_holds_what_is_below_it() {
    for (wanted, path, held) in [
        ("/", "/", true),
        ("/", "/system.slice", true),
        ("/", "/system.slice/nginx.service", true),
        ("/system.slice", "/system.slice", true),
        ("/system.slice", "/system.slice/nginx.service", true),
        ("/system.slice", "/system.slices", false),
        ("/system.slice", "/system", false),
        ("/system.slice", "/", false),
        ("/system.slice", "/user.slice/system.slice", false),
        ("/system.slice/", "/system.slice/nginx.service", true),
    ] {
        let event = Event { cgroup_path: Some(path.into()), ..event() };
        let filter = Filter { cgroups: vec![cgroup("/other"), cgroup(wanted)], ..all() };
        let verdict = if held { Verdict::Admit } else { Verdict::Refuse };
        assert_eq!(filter.judge(&event), verdict, "{path} in {wanted}");
    }
}

#[test]
fn a_cgroup_is_known_by_its_id_where_its_path_is_not() {
    let filter = Filter { cgroups: vec![Cgroup { id: 99, ..cgroup("/gone") }], ..all() };
    assert_eq!(filter.judge(&Event { cgroup_path: None, ..event() }), Verdict::Admit);
    let other = Event { cgroup: Some(98), cgroup_path: None, ..event() };
    assert_eq!(filter.judge(&other), Verdict::Refuse);
    let none = Event { cgroup: None, cgroup_path: None, ..event() };
    assert_eq!(filter.judge(&none), Verdict::Refuse);
}

/// A connection whose container is not known yet waits for it, until it is closed.
#[test]
fn a_container_is_told_by_the_path() {
    let id = "9b0c3a5f4f2a8f7f0e1d2c3b4a5968778695a4b3c2d1e0ff00112233445566aa";
    let filter = |wanted: &str| Filter { containers: vec!["other".into(), wanted.into()], ..all() };
    let at = |path: &str| Event { cgroup_path: Some(path.into()), ..event() };
    let inside = at(&format!("/system.slice/docker-{id}.scope/init"));
    assert_eq!(filter("9b0c3a5f4f2a").judge(&inside), Verdict::Admit);
    assert_eq!(filter("9b0c3a5f4f2b").judge(&inside), Verdict::Refuse);
    assert_eq!(filter("nginx").judge(&at("/system.slice/nginx.service")), Verdict::Admit);
    assert_eq!(filter("nginx").judge(&at("/")), Verdict::Refuse);
    let unknown = Event { cgroup: Some(1), cgroup_path: None, ..event() };
    assert_eq!(filter("nginx").judge(&unknown), Verdict::Undecided);
    assert_eq!(filter("nginx").judge_socket(&unknown), Verdict::Undecided);
    assert_eq!(filter("nginx").judge(&Event { closed: true, ..unknown.clone() }), Verdict::Refuse);
    assert_eq!(filter("nginx").judge(&Event { cgroup: None, ..unknown }), Verdict::Refuse);
    // The kernel side cannot tell.
    assert_eq!(filter("nginx").kernel_part(true).tests, 0);
}

#[test]
fn blocks_meet_addresses_of_their_own_family() {
    for (block, address, held) in [
        ("0.0.0.0/0", "10.0.0.5", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "10.0.0.5", false),
        ("10.0.0.0/8", "10.255.255.255", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        // An IPv4-compatible address is no IPv4.
        ("10.0.0.0/8", "::10.0.0.5", false),
        ("2001:db8::/33", "2001:db8:7fff::1", true),
        ("2001:db8::/33", "2001:db8:8000::1", false),
        ("2001:db8::1/128", "2001:db8::1", true),
        ("2001:db8::1/128", "2001:db8::2", false),
    ] {
        let event = Event { tuple: tuple(address, 1, address, 2), ..event() };
        let verdict = if held { Verdict::Admit } else { Verdict::Refuse };
        for filter in [
            Filter { laddrs: nets(&[block]), ..all() },
            Filter { raddrs: nets(&[block]), ..all() },
            Filter { addrs: nets(&[block]), ..all() },
        ] {
            assert_eq!(filter.judge(&event), verdict, "{address} in {block}");
            // The kernel side may let more pass.
            let admits = filter.kernel_part(true).admits_tuple(&event.tuple, News::default());
            assert!(admits || !held, "{address} in {block}");
        }
    }
}

#[test]
fn states_choose_events_and_no_connections() {
    let filter = Filter { states: vec![State::TIME_WAIT, State::CLOSE_WAIT], ..all() };
    assert_eq!(filter.judge(&Event { new: Some(State::LISTEN), ..event() }), Verdict::Admit);
    let bare = Event { old: None, new: None, kernel_new: None, prev_state: None, ..event() };
    assert!(!filter.shows(&bare));
    for wanted in filter.states.clone() {
        let wanted = Some(wanted);
        assert!(filter.shows(&Event { old: wanted, ..bare.clone() }));
        assert!(filter.shows(&Event { new: wanted, ..bare.clone() }));
        assert!(filter.shows(&Event { prev_state: wanted, ..bare.clone() }));
    }
    // Asking for CLOSE shows what the kernel calls so.
    let close = Filter { states: vec![State::CLOSE], ..all() };
    assert!(close.shows(&Event { kernel_new: Some(State::CLOSE), ..bare.clone() }));
    assert!(!close.shows(&Event { old: Some(State::ESTABLISHED), ..bare }));
}

#[test]
fn only_users_and_owners_change() {
    assert!(Filter { pids: vec![1], ..all() }.follows_owners());
    assert!(Filter { comms: vec!["a".into()], ..all() }.follows_owners());
    assert!(Filter { uids: vec![1], ..all() }.follows_owners());
    assert!(!Filter { lports: vec![1..=1], netns: vec![1], ..all() }.follows_owners());
}

// The kernel side's part.

/// Whether the probes would write a record of this event: `admitted` and `admitted_without_socket` of
/// tcptrace-ebpf/src/sock.rs, without cgroups.
fn kernel_admits(filter: &Filter, event: &Event) -> bool {
    kernel_admits_news(filter, event, News::default())
}

/// As [`kernel_admits`], of an event that may be the first to tell port and user.
fn kernel_admits_news(filter: &Filter, event: &Event, news: News) -> bool {
    let part = filter.kernel_part(false);
    part.admits_tuple(&event.tuple, news)
        && match event.uid {
            Some(uid) => part.admits_uid(uid, event.unaccepted, news),
            None => !part.has(tests::UID),
        }
}

#[test]
fn what_does_not_fit_the_kernels_tables_passes() {
    let many = |n: u16| (1..=n).map(|port| port..=port).collect::<Vec<_>>();
    let blocks = |n: u8| (1..=n).map(|n| format!("192.0.2.{n}/32").parse().unwrap()).collect::<Vec<IpNet>>();
    let cgroups = |n: usize| vec![cgroup("/x"); n];
    for (fits, exceeds) in [
        (Filter { lports: many(8), ..all() }, Filter { lports: many(9), ..all() }),
        (Filter { rports: many(8), ..all() }, Filter { rports: many(9), ..all() }),
        (Filter { ports: many(8), ..all() }, Filter { ports: many(9), ..all() }),
        (Filter { laddrs: blocks(4), ..all() }, Filter { laddrs: blocks(5), ..all() }),
        (Filter { raddrs: blocks(4), ..all() }, Filter { raddrs: blocks(5), ..all() }),
        (Filter { addrs: blocks(4), ..all() }, Filter { addrs: blocks(5), ..all() }),
        (Filter { netns: vec![2; 4], ..all() }, Filter { netns: vec![2; 5], ..all() }),
        (Filter { uids: vec![0; 4], ..all() }, Filter { uids: vec![0; 5], ..all() }),
        (Filter { cgroups: cgroups(4), ..all() }, Filter { cgroups: cgroups(5), ..all() }),
    ] {
        assert_eq!(fits.kernel_part(true).tests.count_ones(), 1, "{fits:?}");
        assert_eq!(exceeds.kernel_part(true).tests, 0, "{exceeds:?}");
        // And is refused by the user side.
        assert!(kernel_admits(&exceeds, &event()));
        assert_eq!(exceeds.judge(&event()), Verdict::Refuse, "{exceeds:?}");
        assert_eq!(kernel_admits(&fits, &event()), !fits.cgroups.is_empty(), "{fits:?}");
    }
}

#[test]
fn what_only_the_user_side_can_tell_passes() {
    let filter = Filter {
        pids: vec![1],
        comms: vec!["a".into()],
        states: vec![State::LISTEN],
        cgroups: vec![cgroup("/x")],
        ..all()
    };
    assert_eq!(filter.kernel_part(false).tests, 0);
    assert_eq!(filter.kernel_part(true).tests, tests::CGROUP);
}

#[test]
fn an_unused_slot_is_no_value() {
    let root = Event { uid: Some(0), ..event() };
    assert!(!kernel_admits(&Filter { uids: vec![33], ..all() }, &root));
    assert!(kernel_admits(&Filter { uids: vec![0], ..all() }, &root));
    let zero = Event { tuple: tuple("::", 1, "::", 1), ..event() };
    assert!(!kernel_admits(&Filter { raddrs: nets(&["10.0.0.0/8"]), ..all() }, &zero));
}

const ADDRS: [&str; 11] = [
    "0.0.0.0",
    "::",
    "10.0.0.5",
    "10.0.1.5",
    "192.168.255.1",
    "255.255.255.255",
    "::1",
    "::10.0.0.5",
    "2001:db8::1",
    "2001:db8:1::1",
    "fe80::1",
];

fn any_ports() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    let range = (1..9u16, 0..3u16).prop_map(|(first, more)| first..=first + more);
    prop_oneof![2 => Just(Vec::new()), 1 => vec(range, 1..=PORTS)]
}

fn any_blocks() -> impl Strategy<Value = Vec<IpNet>> {
    let ip = select(ADDRS.to_vec()).prop_map(|text| text.parse::<IpAddr>().unwrap());
    let ip = prop_oneof![4 => ip, 1 => Just(IpAddr::from(Ipv6Addr::from([0xff; 16])))];
    let block = (ip, 0..=128u8).prop_map(|(ip, length)| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length % (most + 1)).unwrap()
    });
    prop_oneof![2 => Just(Vec::new()), 1 => vec(block, 1..=BLOCKS)]
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let family = prop_oneof![3 => Just(None), 1 => Just(Some(Family::V4)), 1 => Just(Some(Family::V6))];
    let numbers = || prop_oneof![2 => Just(Vec::new()), 1 => vec(1..4u32, 1..=VALUES)];
    let uids = prop_oneof![2 => Just(Vec::new()), 1 => vec(0..3u32, 1..=VALUES)];
    (
        (any_ports(), any_ports(), any_ports()),
        (any_blocks(), any_blocks(), any_blocks()),
        (family, numbers(), uids),
    )
        .prop_map(|((lports, rports, ports), (laddrs, raddrs, addrs), (family, netns, uids))| Filter {
            lports,
            rports,
            ports,
            laddrs,
            raddrs,
            addrs,
            family,
            netns,
            uids,
            ..all()
        })
}

/// An event of anything, or of an accepted connection of which everything is there.
fn any_event(complete: bool) -> impl Strategy<Value = Event> {
    let least = u16::from(complete);
    let address = || select(ADDRS[if complete { 2.. } else { 0.. }].to_vec());
    let ends = (address(), least..9, address(), least..9, u32::from(least)..3);
    let user = prop::option::of(0..3u32);
    let id = any::<bool>();
    (ends, user, id, any::<bool>(), any::<bool>()).prop_map(
        move |((laddr, lport, raddr, rport, netns), uid, has_id, unaccepted, closed)| Event {
            tuple: Tuple { netns, ..tuple(laddr, lport, raddr, rport) },
            uid,
            id: event().id.filter(|_| has_id),
            unaccepted: !complete && unaccepted && uid.is_some(),
            closed,
            ..event()
        },
    )
}

/// Whether a block of IPv6 addresses holds IPv4-mapped ones, which to the kernel side are IPv4.
fn holds_mapped(block: &IpNet) -> bool {
    let mapped: IpNet = "::ffff:0:0/96".parse().unwrap();
    block.contains(&mapped) || mapped.contains(block)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_the_kernel_side_refuses_the_user_side_never_admits(
        filter in any_filter(),
        event in any_event(false),
    ) {
        if !kernel_admits(&filter, &event) {
            prop_assert_ne!(filter.judge(&event), Verdict::Admit);
        }
    }

    #[test]
    fn what_is_news_passes_the_kernel_side_more_easily(filter in any_filter(), event in any_event(false)) {
        let news = kernel_admits_news(&filter, &event, News { port: true, user: true });
        prop_assert!(news || !kernel_admits(&filter, &event));
        // A port or a user never keeps news back.
        if !news {
            let rest = Filter { lports: Vec::new(), ports: Vec::new(), uids: Vec::new(), ..filter };
            prop_assert!(event.uid.is_none() || !kernel_admits(&rest, &event));
        }
    }

    #[test]
    fn of_what_is_known_both_sides_say_the_same(mut filter in any_filter(), event in any_event(true)) {
        for blocks in [&mut filter.laddrs, &mut filter.raddrs, &mut filter.addrs] {
            blocks.retain(|block| !holds_mapped(block));
        }
        let expected = if kernel_admits(&filter, &event) { Verdict::Admit } else { Verdict::Refuse };
        prop_assert_eq!(filter.judge(&event), expected);
        prop_assert_eq!(filter.judge_socket(&event), expected);
    }
}
