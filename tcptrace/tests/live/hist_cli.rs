//! `tcptrace hist`: what it counts, against `ss` and against the stream.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    process::Command,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use socket2::Socket;
use tcptrace::model::state::State;

use crate::support::{
    event::Event,
    host::{add_black_hole, run, sysctl},
    netns::{Netns, scenario},
    packet::send_syn,
    process::await_that,
    tables::{Tables, sockets},
    tcp::{LOCALHOST, await_reset, close_in_order, connect, pair, read_to_end, stream_socket},
    trace::Trace,
};

/// Connections in each state, on each port.
const EACH: u16 = 200;
pub(crate) const PORTS: [u16; 3] = [8081, 8082, 8083];

/// Sockets by role, port and state.
pub(crate) type Counts = BTreeMap<(&'static str, u16, State), u64>;

/// One port with connections in every state that stays.
pub(crate) struct Parked {
    _listener: std::net::TcpListener,
    _open: Vec<TcpStream>,
    _half_closed: Vec<TcpStream>,
}

pub(crate) fn park(port: u16) -> Parked {
    let socket: Socket = stream_socket(LOCALHOST);
    socket.set_reuse_address(true).unwrap();
    socket.bind(&std::net::SocketAddr::new(LOCALHOST, port).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let (mut open, mut half_closed) = (Vec::new(), Vec::new());
    for number in 0..EACH {
        let (client, server) = connect(&listener);
        open.extend([client, server]);
        let (client, server) = connect(&listener);
        drop(client);
        assert_eq!(read_to_end(&server), b"");
        half_closed.push(server);
        let (client, server) = connect(&listener);
        close_in_order(client, server);
        send_syn(
            SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 10_000 + number),
            SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        );
    }
    Parked { _listener: listener, _open: open, _half_closed: half_closed }
}

/// What `ss` says of the calling thread's namespace.
fn by_ss() -> Counts {
    let mut counts = Counts::new();
    for line in run("ss", &["-tanH"]).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = |end: &str| end.rsplit_once(':').unwrap().1.parse().unwrap_or(0);
        let (local, remote) = (port(words[3]), port(words[4]));
        let key = if PORTS.contains(&local) { ("server", local) } else { ("client", remote) };
        *counts.entry((key.0, key.1, words[0].parse().unwrap())).or_insert(0) += 1;
    }
    counts
}

/// What a table says of a namespace.
pub(crate) fn by_hist(table: &[Event], net: &Netns) -> Counts {
    let mut counts = Counts::new();
    for row in table.iter().filter(|row| row.kind() == "port" && row.number("netns") == Some(net.inode())) {
        let role = if row.text("role") == Some("server") { "server" } else { "client" };
        for (state, count) in row.field("sockets").unwrap().as_object().unwrap() {
            let count = count.as_u64().unwrap();
            if count > 0 {
                *counts.entry((role, row.port("port"), state.parse().unwrap())).or_insert(0) += count;
            }
        }
    }
    counts
}

pub(crate) fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// What `ss -tan` counts per port and state, `hist` counts: in two namespaces, whether it was there before or came
/// after; and nothing when all is gone, although nothing tells that a minisock or a request goes.
#[test]
fn the_counts_are_those_of_ss() {
    scenario(|net| {
        allow_many_files();
        let second = Netns::new();
        let nets = format!("{},{}", net.inode(), second.inode());
        let set_up = || {
            add_black_hole();
            sysctl("ipv4/tcp_max_syn_backlog", "4096");
            sysctl("core/somaxconn", "4096");
            sysctl("ipv4/tcp_syncookies", "0");
            // Minisocks that stay, requests that stay.
            sysctl("ipv4/tcp_tw_reuse", "0");
            sysctl("ipv4/tcp_synack_retries", "10");
        };
        set_up();
        second.enter(set_up);
        // One namespace's were there before, the other's come after.
        let before: Vec<Parked> = PORTS.iter().map(|port| park(*port)).collect();
        let hist = Tables::start(&nets, &["hist", "0.2"]);
        let after: Vec<Parked> = second.enter(|| PORTS.iter().map(|port| park(*port)).collect());
        let expected = [by_ss(), second.enter(by_ss)];
        for counts in &expected {
            for port in PORTS {
                for (role, state) in [
                    ("server", State::LISTEN),
                    ("server", State::ESTABLISHED),
                    ("client", State::ESTABLISHED),
                    ("server", State::CLOSE_WAIT),
                    ("client", State::FIN_WAIT2),
                    ("client", State::TIME_WAIT),
                    ("server", State::SYN_RECV),
                ] {
                    let count = if state == State::LISTEN { 1 } else { u64::from(EACH) };
                    assert_eq!(counts.get(&(role, port, state)), Some(&count), "{role} {port} {state}");
                }
            }
        }
        hist.until("the counts of ss", |table| [by_hist(table, net), by_hist(table, &second)] == expected);
        // The same by a run that finds it all.
        let once = Tables::start(&nets, &["hist", "1", "1"]);
        let table = once.until("a table", |_| true);
        assert_eq!([by_hist(&table, net), by_hist(&table, &second)], expected);

        drop((before, after));
        for state in ["time-wait", "syn-recv", "fin-wait-2", "fin-wait-1", "last-ack", "closing"] {
            let kill = || _ = run("ss", &["-K", "-tanH", "state", state]);
            kill();
            second.enter(kill);
        }
        // Old kernels do not let TIME_WAIT be killed: there it is waited for.
        await_that("ss sees nothing", || by_ss().is_empty() && second.enter(by_ss).is_empty());
        hist.until("nothing but the total", |table| table.len() == 1);
        hist.stop();
    });
}

/// Sockets that there is no room for are told of, in the table and at the end.
#[test]
fn what_is_beyond_the_limit_is_told() {
    scenario(|net| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["hist", "0.2", "-v", "-o", "json", "--max-sockets", "50", "--strict"]);
        let hist = Trace::start(command.args(["-N", &net.inode().to_string()]));
        let listener = pair().listener;
        let open: Vec<_> = (0..100).map(|_| connect(&listener)).collect();
        let beyond =
            |events: &[Event]| -> u64 { events.iter().filter_map(|event| event.number("beyond")).sum() };
        // A listener and both ends of a hundred connections; those of the pair may not be forgotten yet.
        hist.until("all that has no room", |events| beyond(events) >= 151);
        hist.until("a table", |events| events.last().is_some_and(|event| event.kind() == "total"));
        hist.process().signal(Signal::INT);
        let log = hist.ended();
        let total = log.events.iter().rfind(|event| event.kind() == "total").unwrap();
        assert!((46..=50).contains(&(sockets(total, "ESTABLISHED") + sockets(total, "LISTEN"))), "{total:?}");
        let told = log.summary.number("beyond").unwrap();
        assert!((151..=155).contains(&told), "{told}");
        assert_eq!((log.status.code(), log.summary.number("lost")), (Some(3), Some(0)), "{:?}", log.summary);
        drop(open);
    });
}

/// A server that never closes: the port, whose it is, how many, since when, and how many more there are.
#[test]
fn a_leak_shows() {
    scenario(|net| {
        let hist = Tables::start(&net.inode().to_string(), &["hist", "0.3"]);
        let listener = pair().listener;
        let port = listener.local_addr().unwrap().port();
        let leaked: Vec<TcpStream> = (0..100)
            .map(|_| {
                let (client, server) = connect(&listener);
                client.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(read_to_end(&server), b"");
                drop(client);
                server
            })
            .collect();
        let of_port = |row: &&Event| row.port("port") == port && row.text("role") == Some("server");
        let mut growth = 0;
        let table = hist.until("a hundred in CLOSE_WAIT, and then no more", |table| {
            let Some(row) = table.iter().find(of_port) else { return false };
            let grown = row.number("close_wait_growth");
            growth = growth.max(grown.unwrap_or(0));
            sockets(row, "CLOSE_WAIT") == 100 && grown == Some(0)
        });
        let row = table.iter().find(of_port).unwrap();
        assert!((1..=100).contains(&growth), "{growth}");
        assert_eq!(row.number("pid"), Some(std::process::id().into()));
        assert_eq!(sockets(row, "LISTEN"), 1);
        let age = row.micros("oldest_close_wait_us").unwrap();
        assert!((1.0..60e6).contains(&age), "{age}");
        // Who looks later knows how long at least: since the FIN came.
        let later = Tables::start(&net.inode().to_string(), &["hist", "1", "1"]);
        let table = later.until("a table", |_| true);
        let row = table.iter().find(of_port).unwrap();
        let found = row.micros("oldest_close_wait_us").unwrap();
        assert!((age - 20e3..60e6).contains(&found), "{age} {found}");
        drop(leaked);
        hist.until("no CLOSE_WAIT", |table| table.iter().all(|row| sockets(row, "CLOSE_WAIT") == 0));
        hist.stop();
    });
}

/// Every transition of the stream is in the matrix, and in the times if its beginning was seen.
#[test]
fn matrix_and_times_are_those_of_the_stream() {
    scenario(|net| {
        let nets = net.inode().to_string();
        let trace = Trace::of(net, &[]);
        let matrix = Tables::start(&nets, &["hist", "--matrix"]);
        let times = Tables::start(&nets, &["hist", "--time-in-state"]);
        let listener = pair().listener;
        for number in 0..500 {
            let (client, server) = connect(&listener);
            match number % 3 {
                0 => close_in_order(client, server),
                1 => close_in_order(server, client),
                _ => {
                    crate::support::tcp::abort(client);
                    await_reset(&server);
                }
            }
        }
        drop(listener);
        let events = trace.stop().events;
        let mut streamed: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut stays: BTreeMap<String, u64> = BTreeMap::new();
        for event in events.iter().filter(|event| event.kind() == "transition") {
            let (old, new) = (event.text("old").unwrap(), event.text("new").unwrap());
            *streamed.entry((old.to_owned(), new.to_owned())).or_default() += 1;
            if event.field("in_state_us").is_some() && old != new && old != "LISTEN" {
                *stays.entry(old.to_owned()).or_default() += 1;
            }
        }
        let counted: BTreeMap<_, _> = matrix
            .stop()
            .iter()
            .filter(|row| row.kind() == "matrix")
            .map(|row| {
                let name = |field| row.text(field).unwrap().to_owned();
                ((name("old"), name("new")), row.number("count").unwrap())
            })
            .collect();
        assert_eq!(counted, streamed);

        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        for row in times.stop().iter().filter(|row| row.kind() == "state_time") {
            *told.entry(row.text("state").unwrap().to_owned()).or_default() += row.number("count").unwrap();
            let buckets = row.field("buckets").unwrap().as_array().unwrap();
            let sum: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
            assert_eq!(Some(sum), row.number("count"));
        }
        // The times themselves are each tcptrace's own.
        assert_eq!(told, stays);
    });
}

/// Rows by other things than the port.
#[test]
fn rows_of_other_kinds() {
    scenario(|net| {
        let kept = pair();
        let nets = net.inode().to_string();
        let own = u64::from(std::process::id());
        for by in ["pid", "comm", "netns", "raddr", "cgroup"] {
            let hist = Tables::start(&nets, &["hist", "1", "1", "--by", by]);
            let table = hist.until("a table", |_| true);
            let row = table.iter().find(|row| row.kind() == by && sockets(row, "ESTABLISHED") == 2);
            let row = row.unwrap_or_else(|| panic!("{by}: {table:?}"));
            assert_eq!(row.number("pid"), Some(own), "{row:?}");
            assert!(row.field(by).is_some(), "{row:?}");
        }
        let causes = Tables::start(&nets, &["hist", "--by", "cause"]);
        close_in_order(kept.client, kept.server);
        let table = causes.stop();
        for cause in ["local_fin", "peer_fin"] {
            let row = table.iter().find(|row| row.text("cause") == Some(cause)).unwrap();
            assert_eq!(row.number("closed"), Some(1), "{row:?}");
        }
    });
}

/// What has no room of its own is summed.
#[test]
fn the_rest_is_summed() {
    scenario(|net| {
        let listeners: Vec<_> = (0..5).map(|_| pair()).collect();
        let hist =
            Tables::start(&net.inode().to_string(), &["hist", "1", "1", "--top", "2", "--sort", "port"]);
        let table = hist.until("a table", |_| true);
        let other = table.iter().find(|row| row.field("other").is_some()).unwrap();
        let total = table.last().unwrap();
        assert_eq!(table.len(), 4, "{table:?}");
        assert_eq!((sockets(total, "LISTEN"), sockets(total, "ESTABLISHED")), (5, 10));
        let shown: u64 = table[..2].iter().map(|row| sockets(row, "ESTABLISHED")).sum();
        assert_eq!(shown + sockets(other, "ESTABLISHED"), 10);
        drop(listeners);
    });
}
