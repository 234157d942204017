//! Many connections: at once, and one after the other as fast as possible.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Seek as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    process::Stdio,
    time::Instant,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::{
    close::{ACTIVE_CLIENT, LISTENER, PASSIVE_SERVER},
    support::{
        event::Event,
        netns::scenario,
        process::{Process, await_that, lines_of},
        story::Expected,
        tcp::{LOCALHOST, connect, ends_of, read_to_end},
        trace::{Trace, await_attached, command},
    },
};

/// Transitions of one connection, both ends together, however they close: five each.
const TRANSITIONS: u64 = 10;
/// Connections from one address to another before their ports begin to run out.
const CONNECTIONS_PER_ADDRESS: u64 = 20_000;

/// Opens and closes connections one after the other, and a listener around them, until all of them have come
/// to their end. Returns how many transitions that made.
pub(crate) fn churn(connections: u64) -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    for number in 0..connections {
        let host = u8::try_from(number / CONNECTIONS_PER_ADDRESS % 254).unwrap() + 1;
        let client = TcpStream::connect((Ipv4Addr::new(127, 0, 0, host), port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        drop(client);
        drop(server);
    }
    drop(listener);
    await_that("all connections have ended", are_all_over);
    connections * TRANSITIONS + 2
}

/// Whether nothing but minisocks is left in this namespace: they are in TIME_WAIT (06), or in FIN_WAIT2 (05)
/// without an inode.
fn are_all_over() -> bool {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    table.lines().skip(1).all(|line| matches!(line.split_whitespace().nth(3), Some("05" | "06")))
}

/// A thousand connections that are all open at the same time, each told of from beginning to end.
#[test]
fn a_thousand_at_once() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    scenario(|net| {
        let trace = Trace::of(net, &[]);
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let (clients, servers): (Vec<_>, Vec<_>) = (0..1_000).map(|_| connect(&listener)).unzip();
        let mut expected: Vec<Expected<'_>> = vec![(ends_of(&clients[0]).listener, LISTENER)];
        for client in &clients {
            let ends = ends_of(client);
            expected.extend([(ends.client, ACTIVE_CLIENT), (ends.server, PASSIVE_SERVER)]);
        }
        for client in &clients {
            client.shutdown(Shutdown::Write).unwrap();
        }
        for server in servers {
            assert_eq!(read_to_end(&server), b"");
        }
        for client in &clients {
            assert_eq!(read_to_end(client), b"");
        }
        drop((clients, listener));
        trace.tells(&expected);
    });
}

/// The ring of the default size loses nothing of what one thread can do. `TCPTRACE_CHURN` says how many
/// connections; 20,000 are three times the ring.
///
/// That is a promise of the optimised program (`cargo test --release`). Without optimisation it reads too
/// slowly, and then only the count of what was lost has to be right.
#[test]
#[expect(clippy::print_stdout, reason = "the numbers are of interest, whether it fails or not")]
fn churn_loses_nothing() {
    let connections =
        env::var("TCPTRACE_CHURN").map_or(20_000, |count| count.parse().expect("TCPTRACE_CHURN is a number"));
    scenario(|net| {
        let path = env::temp_dir().join(format!("tcptrace-churn-{}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        // The open file is enough.
        fs::remove_file(&path).unwrap();
        let mut tcptrace = command(&["-N", &net.inode().to_string()]);
        tcptrace.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(Stdio::piped());
        let (mut process, pipes) = Process::start(&mut tcptrace);
        await_attached(&lines_of(pipes.stderr.unwrap()));
        let since = Instant::now();
        let generated = churn(connections);
        let took = since.elapsed();
        process.signal(Signal::TERM);
        let status = process.wait();
        assert!(status.success(), "{status}");

        file.rewind().unwrap();
        // What becomes of an orphan is told, but no event of the kernel's.
        let (mut told, mut found, mut lost) = (0, 0, 0);
        let mut line = String::new();
        for next in BufReader::new(file).lines() {
            line = next.unwrap();
            if line.contains(r#""kind":"transition""#) {
                told += 1;
                found += u64::from(!line.contains(r#""task_pid""#));
            } else if line.contains(r#""kind":"lost""#) {
                lost += Event::parse(&line).number("lost").unwrap();
            }
        }
        println!("{connections} connections in {took:?}: {generated} events, {told} told, {lost} lost");
        let summary = Event::parse(&line);
        assert_eq!(summary.number("events"), Some(told), "{summary:?}");
        assert_eq!(summary.number("lost"), Some(lost), "{summary:?}");
        assert_eq!(told - found + lost, generated);
        assert!(lost == 0 || cfg!(debug_assertions), "{lost} of {generated} were lost");
    });
}
