//! Agreement with others who count the same things: the kernel's own counters, and bpftrace.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    net::connect_unspec,
    process::Signal,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use socket2::SockRef;
use tcptrace::model::state::State;

use crate::support::{
    PATIENCE,
    event::Event,
    host::{KERNEL, run, sysctl, tcp_counters},
    netns::scenario,
    process::{Lines, Process, Watched, await_that, lines_of},
    tcp::{self, connect},
    trace::Trace,
};

/// A client at a port that it had before it connected, so that every one of its events has it.
fn bound_client(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (socket, _) = tcp::bound_socket();
    socket.connect(&listener.local_addr().unwrap().into()).unwrap();
    (socket.into(), listener.accept().unwrap().0)
}

/// Ends connections to a listener in every way that is quick, the listener itself last. Returns the ports of
/// the clients.
fn many_ends(listener: TcpListener) -> Vec<u16> {
    let port = listener.local_addr().unwrap().port();
    let mut clients = Vec::new();
    let mut next = || {
        let (client, server) = bound_client(&listener);
        clients.push(client.local_addr().unwrap().port());
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    };

    // In order; and with a close() that repeats the state.
    let (client, server) = next();
    tcp::close_in_order(client, server);
    let (client, server) = next();
    server.shutdown(Shutdown::Write).unwrap();
    drop(server);
    drop(client);

    // Reset in ESTABLISHED by SO_LINGER 0, unread data and connect(AF_UNSPEC), and in CLOSE_WAIT.
    let (client, server) = next();
    tcp::abort(client);
    tcp::await_reset(&server);
    let (client, server) = next();
    tcp::send(&client, 10);
    tcp::await_unread(&server, 10);
    drop(server);
    tcp::await_reset(&client);
    let (client, server) = next();
    connect_unspec(client.as_fd()).unwrap();
    tcp::await_reset(&server);
    let (client, server) = next();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(tcp::read_to_end(&server), b"");
    tcp::abort(server);
    tcp::await_reset(&client);

    // Killed.
    let (client, server) = next();
    let filter = format!("sport = :{}", client.local_addr().unwrap().port());
    run("ss", &["-K", "-H", "-t", "-n", "state", "established", &filter]);
    tcp::await_reset(&server);
    drop((client, server));

    // Data after close: after the FIN has been acknowledged, so for an orphan or for its minisock.
    let (client, server) = next();
    drop(client);
    assert_eq!(tcp::read_to_end(&server), b"");
    SockRef::from(&server).set_tcp_quickack(true).unwrap();
    tcp::send(&server, 1);
    await_that("the RST came", || server.take_error().unwrap().is_some());

    // Never accepted; and refused.
    let (waiting, waiting_port) = tcp::bound_socket();
    waiting.connect(&listener.local_addr().unwrap().into()).unwrap();
    clients.push(waiting_port);
    drop(listener);
    tcp::await_reset(&waiting.into());
    let (refused, refused_port) = tcp::bound_socket();
    let error = refused.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    clients.push(refused_port);
    clients
}

/// tcp_set_state() counts what leaves ESTABLISHED or CLOSE_WAIT for CLOSE, and whoever sends a RST counts that,
/// next to our probes.
#[test]
fn with_the_kernels_counters() {
    for fin_timeout in ["60", "100"] {
        scenario(|net| {
            sysctl("ipv4/tcp_fin_timeout", fin_timeout);
            let trace = Trace::of(net, &[]);
            let before = tcp_counters();
            many_ends(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
            let after = tcp_counters();
            let log = trace.stop();
            let counted = |name: &str| usize::try_from(after[name] - before[name]).unwrap();
            let told =
                |holds: &dyn Fn(&Event) -> bool| log.events.iter().filter(|event| holds(event)).count();

            let resets = told(&|event| event.is("ESTABLISHED", "CLOSE") || event.is("CLOSE_WAIT", "CLOSE"));
            assert_eq!(resets, counted("EstabResets"));
            let sent = told(&|event| event.kind() == "rst_sent");
            if KERNEL.stray_resets {
                assert_eq!(sent, counted("OutRsts"));
            } else {
                // One without a socket, and one for a minisock unless the orphan stays.
                let hidden = if fin_timeout == "60" { 2 } else { 1 };
                assert_eq!(sent + hidden, counted("OutRsts"));
            }
            assert!(resets >= 10 && sent >= 8, "{resets} resets, {sent} RSTs: what was there to count?");
            let opened = told(&|event| event.is("LISTEN", "SYN_RECV"));
            assert_eq!(opened, counted("PassiveOpens"));
            let connects = told(&|event| event.is("CLOSE", "SYN_SENT"));
            assert_eq!(connects, counted("ActiveOpens"));
        });
    }
}

/// A port that only one test uses, outside the range that clients get theirs from: bpftrace sees all network
/// namespaces.
const PORT: u16 = 61_999;

/// What one end went through: numbers of the states left and entered, in order.
type Steps = BTreeMap<(u16, u16), Vec<(u8, u8)>>;

fn start_bpftrace() -> (Process, Arc<Watched<Lines>>) {
    let program = format!(
        "tracepoint:sock:inet_sock_set_state \
         /args->protocol == 6 && (args->sport == {PORT} || args->dport == {PORT})/ \
         {{ printf(\"%d %d %d %d\\n\", args->sport, args->dport, args->oldstate, args->newstate); }}"
    );
    // It looks for tracefs below /sys; in a mount namespace of its own nothing stays mounted.
    let script = "mount -t tracefs none /sys/kernel/tracing && mount -t debugfs none /sys/kernel/debug && \
                  exec bpftrace -e \"$1\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &program]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (process, pipes) = Process::start(&mut command);
    let (stdout, stderr) = (lines_of(pipes.stdout.unwrap()), lines_of(pipes.stderr.unwrap()));
    let attaching = |lines: &Lines| lines.lines.iter().any(|line| line.starts_with("Attaching"));
    let attaching = stdout.wait(|lines| attaching(lines) || lines.closed) && attaching(&stdout.lock());
    assert!(attaching, "the live tests need bpftrace:\n{}", stderr.lock().lines.join("\n"));
    (process, stdout)
}

/// What bpftrace printed, by end.
fn steps_of_bpftrace(lines: &[String]) -> Steps {
    let mut steps = Steps::new();
    for line in lines {
        let numbers: Vec<u16> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [sport, dport, old, new] = numbers[..] else { continue };
        let step = (u8::try_from(old).unwrap(), u8::try_from(new).unwrap());
        steps.entry((sport, dport)).or_default().push(step);
    }
    steps
}

/// What tcptrace --raw told, by end.
fn steps_of_tcptrace(events: &[Event]) -> Steps {
    let mut steps = Steps::new();
    for event in events.iter().filter(|event| event.kind() == "transition") {
        let number = |name| event.text(name).unwrap().parse::<State>().unwrap().number();
        let ports = (event.port("lport"), event.port("rport"));
        steps.entry(ports).or_default().push((number("old"), number("new")));
    }
    steps
}

/// --raw and a bpftrace one-liner see the same, event by event and in the same order.
#[test]
fn with_bpftrace() {
    scenario(|net| {
        let port = PORT.to_string();
        let trace = Trace::of(net, &["--raw", "-P", &port]);
        let (mut bpftrace, printed) = start_bpftrace();
        // bpftrace has one buffer for each CPU and reads them one after the other: to get events in order, all
        // have to happen on one.
        let mut cpus = CpuSet::new();
        let allowed = sched_getaffinity(None).unwrap();
        cpus.set((0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap());
        sched_setaffinity(None, &cpus).unwrap();

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap();
        // "Attaching" is said before it is done.
        let saw_anything = |lines: &Lines| lines.lines.iter().any(|line| line.starts_with(&port));
        await_that("bpftrace sees connections", || {
            let (client, server) = connect(&listener);
            tcp::close_in_order(client, server);
            saw_anything(&printed.lock())
        });
        let clients = many_ends(listener);
        // What it has not printed when it is interrupted it does not print any more.
        let over = |lines: &Lines| {
            let steps = steps_of_bpftrace(&lines.lines);
            let ended =
                |steps: &Vec<(u8, u8)>| steps.last().is_some_and(|(_, new)| *new == State::CLOSE.number());
            clients.iter().all(|client| {
                // A refused connect has no other end.
                let server_ended = steps.get(&(PORT, *client)).is_none_or(ended);
                steps.get(&(*client, PORT)).is_some_and(ended) && server_ended
            })
        };
        await_that("bpftrace has printed every end", || {
            // It hands on what it has when there is more.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)));
            over(&printed.lock())
        });
        bpftrace.signal(Signal::INT);
        assert!(printed.wait(|lines| lines.closed), "bpftrace has not ended");
        assert!(bpftrace.wait().success());
        let log = trace.stop();

        let mut theirs = steps_of_bpftrace(&printed.lock().lines);
        let mut ours = steps_of_tcptrace(&log.events);
        // Up to 6.14 the child is still its listener's copy at LISTEN>SYN_RECV, and bpftrace repeats it.
        let (listen, syn_recv) = (State::LISTEN.number(), State::SYN_RECV.number());
        let birth = (listen, syn_recv);
        if theirs.get(&(PORT, 0)).is_some_and(|steps| steps.contains(&birth)) {
            for steps in [&mut theirs, &mut ours] {
                for steps in steps.values_mut() {
                    steps.retain(|step| *step != birth);
                }
            }
        }
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for client in clients {
            for end in [(client, PORT), (PORT, client)] {
                assert_eq!(ours.get(&end), theirs.get(&end), "{end:?}");
                let steps = ours.get(&end).map_or(0, Vec::len);
                *counts.entry(if end.0 == PORT { "server" } else { "client" }).or_default() += steps;
            }
        }
        assert!(counts["client"] > 30 && counts["server"] > 30, "{counts:?}");
    });
}
