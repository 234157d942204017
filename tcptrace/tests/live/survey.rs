//! The survey of the sockets that exist, against `ss`, and under churn.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::linux::fs::MetadataExt as _,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use socket2::{Domain, Socket, Type};
use tcptrace::{
    kernel::survey::{self, Namespaces},
    model::{
        event::OwnerSource,
        found::{Found, Survey, Whereabouts},
        state::State,
    },
};

use crate::support::{
    PATIENCE,
    host::{add_black_hole, run, sysctl},
    netns::{Netns, scenario},
    packet::send_syn,
    tcp::{self, Pair, bound_socket, close_in_order, connect, pair, read_to_end},
    trace::sent_again,
};

/// A survey, taken by a thread of its own as it is meant to be.
fn take(namespaces: &[&Netns]) -> Survey {
    let only: Vec<u32> = namespaces.iter().map(|net| u32::try_from(net.inode()).unwrap()).collect();
    let taken =
        thread::spawn(move || survey::take(&mut Namespaces::default(), &only, OwnerSource::Snapshot, true))
            .join();
    let survey = taken.unwrap();
    assert_eq!(survey.namespaces.len(), namespaces.len(), "not every namespace was read");
    survey
}

/// The sockets of the calling thread's namespace by state, as `ss` counts them.
fn by_ss() -> BTreeMap<State, usize> {
    let mut counts = BTreeMap::new();
    for line in run("ss", &["-tanH"]).lines() {
        let state = line.split_whitespace().next().unwrap().parse().unwrap();
        *counts.entry(state).or_insert(0) += 1;
    }
    counts
}

fn by_survey(survey: &Survey, net: &Netns) -> BTreeMap<State, usize> {
    let mut counts = BTreeMap::new();
    for found in survey.sockets.iter().filter(|found| u64::from(found.tuple.netns) == net.inode()) {
        *counts.entry(found.state).or_insert(0) += 1;
    }
    counts
}

/// One connection in every state that stays, and a socket that is only bound; what is returned keeps them.
fn one_of_each() -> (Vec<(TcpListener, Vec<TcpStream>)>, Socket) {
    let Pair { listener, client, server, .. } = pair();
    let (half, other_half) = connect(&listener);
    drop(half);
    assert_eq!(read_to_end(&other_half), b"");
    let (first, second) = connect(&listener);
    close_in_order(first, second);
    let v6 = TcpListener::bind("[::]:0").unwrap();
    let port = v6.local_addr().unwrap().port();
    let (native, native_server) = (TcpStream::connect(("::1", port)).unwrap(), v6.accept().unwrap().0);
    let (mapped, mapped_server) = (TcpStream::connect(("127.0.0.1", port)).unwrap(), v6.accept().unwrap().0);
    add_black_hole();
    let at = listener.local_addr().unwrap().port();
    send_syn(
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 4711),
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, at),
    );
    let connections = vec![
        (listener, vec![client, server, other_half]),
        (v6, vec![native, native_server, mapped, mapped_server]),
    ];
    (connections, bound_socket().0)
}

/// inet_diag_dump_icsk() walks listeners, connections, minisocks and requests; so does `ss`.
#[test]
fn the_sum_per_state_is_that_of_ss_in_three_namespaces() {
    scenario(|net| {
        let (second, third) = (Netns::new(), Netns::new());
        let all = [net, &second, &third];
        let kept = [one_of_each(), second.enter(one_of_each), third.enter(one_of_each)];
        third.enter(|| {
            // connect() is not to take them up again.
            sysctl("ipv4/tcp_tw_reuse", "0");
            // The kernel's own choice depends on its memory.
            sysctl("ipv4/tcp_max_tw_buckets", "100000");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..20_000 {
                let (client, server) = connect(&listener);
                close_in_order(client, server);
            }
        });
        let before = all.map(|net| net.enter(by_ss));
        let survey = take(&all);
        for (net, counts) in all.into_iter().zip(before) {
            assert_eq!(by_survey(&survey, net), counts);
            for state in [
                State::LISTEN,
                State::ESTABLISHED,
                State::CLOSE_WAIT,
                State::FIN_WAIT2,
                State::TIME_WAIT,
                State::SYN_RECV,
            ] {
                assert!(counts.contains_key(&state), "no {state}");
            }
        }
        let waiting = by_survey(&survey, &third)[&State::TIME_WAIT];
        assert!(waiting > 20_000, "{waiting}; segments sent again: {}", third.enter(sent_again));
        let owned = |found: &&Found| found.ino != 0;
        for found in survey.sockets.iter().filter(owned) {
            assert_eq!(found.owner.unwrap().pid, std::process::id(), "{found:?}");
        }
        drop(kept);
    });
}

/// A thread can leave its process's namespace: then only that thread's entry in /proc leads there.
#[test]
fn a_namespace_that_only_a_thread_is_in_is_read() {
    scenario(|net| {
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let (stop, stopped) = mpsc::channel::<()>();
            scope.spawn(move || {
                #[expect(unsafe_code, reason = "rustix has no safe call that leaves a namespace")]
                // SAFETY: not UnshareFlags::FILES; the descriptors stay shared by all threads.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
                let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                listener.listen(1).unwrap();
                tell.send(fs::metadata("/proc/thread-self/ns/net").unwrap().st_ino()).unwrap();
                stopped.recv().unwrap_err();
            });
            let inode = told.recv().unwrap();
            assert_ne!(inode, net.inode());
            let survey = thread::spawn(move || {
                let only = [u32::try_from(inode).unwrap()];
                survey::take(&mut Namespaces::default(), &only, OwnerSource::Snapshot, true)
            });
            let survey = survey.join().unwrap();
            drop(stop);
            assert_eq!(survey.sockets.iter().map(|found| found.state).collect::<Vec<_>>(), [State::LISTEN]);
        });
    });
}

/// Connections that are there all the time are there once in every survey, whatever comes and goes beside them.
#[test]
fn under_churn_nothing_is_doubled_or_missed() {
    scenario(|net| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().port();
        let standing: Vec<(TcpStream, TcpStream)> = (0..100).map(|_| connect(&listener)).collect();
        let ports: Vec<u16> =
            standing.iter().map(|(client, _)| client.local_addr().unwrap().port()).collect();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                while !done.load(Ordering::Relaxed) {
                    let (client, server) = connect(&listener);
                    close_in_order(client, server);
                }
            });
            for _ in 0..20 {
                let survey = take(&[net]);
                let mut seen: HashMap<u16, usize> = HashMap::new();
                // Connections to different listeners can share a local port.
                let standing = |found: &&Found| found.state == State::ESTABLISHED && found.tuple.rport == at;
                for found in survey.sockets.iter().filter(standing) {
                    *seen.entry(found.tuple.lport).or_default() += 1;
                }
                let right: Vec<usize> =
                    ports.iter().map(|port| seen.get(port).copied().unwrap_or(0)).collect();
                if right.iter().any(|count| *count != 1) {
                    done.store(true, Ordering::Relaxed);
                    panic!("{right:?}");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

/// tcp_timewait_state_process(): the FIN turns FIN_WAIT2 into TIME_WAIT, for a whole minute again.
#[test]
fn a_minisock_is_followed() {
    scenario(|net| {
        let Pair { client, server, .. } = pair();
        let port = client.local_addr().unwrap().port();
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        let minisock = |state: State| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let survey = take(&[net]);
                let of_client = |found: &&Found| found.tuple.lport == port && found.state == state;
                if let Some(found) = survey.sockets.iter().find(of_client) {
                    return found.clone();
                }
                assert!(Instant::now() < deadline, "no minisock in {state}");
            }
        };
        let check = |minisocks: Vec<(u64, tcptrace_common::record::Tuple)>| {
            thread::spawn(move || survey::check(&mut Namespaces::default(), &minisocks)).join().unwrap()
        };
        let found = minisock(State::FIN_WAIT2);
        let waits = |state: State| {
            move |answer: &Whereabouts| match answer {
                Whereabouts::There { state: at, expires_ms } => {
                    *at == state && (50_000..=60_000).contains(expires_ms)
                }
                _ => false,
            }
        };
        assert!(check(vec![(found.cookie, found.tuple)]).iter().all(waits(State::FIN_WAIT2)));
        tcp::send(&server, 0);
        drop(server);
        assert_eq!(minisock(State::TIME_WAIT).cookie, found.cookie);
        // One by one, and many at once.
        for count in [1, 300] {
            let answers = check(vec![(found.cookie, found.tuple); count]);
            assert_eq!(answers.len(), count);
            assert!(answers.iter().all(waits(State::TIME_WAIT)), "{answers:?}");
        }
        assert_eq!(check(vec![(found.cookie + 1_000_000, found.tuple)]), [Whereabouts::Gone]);
        let mut nowhere = found.tuple;
        nowhere.netns = 1;
        assert_eq!(check(vec![(found.cookie, nowhere)]), [Whereabouts::Unknown]);
    });
}
