//! Real programs: nginx with 2 workers, wrk, curl, redis. What tcptrace says of each end of every connection is compared
//! with what the program itself wrote down.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio, id},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use crate::support::{
    PATIENCE,
    conns::{Connections, Conns, agree, end_of, owner_of},
    event::Event,
    host::{sockets, sysctl},
    netns::{COMM, scenario},
    process::{Process, await_that},
    story::End,
    tcp::{LOCALHOST, ends_of},
};

/// How many requests nginx is to serve, each over a connection of its own. `TCPTRACE_REQUESTS` says otherwise.
pub(crate) const REQUESTS: usize = 2_000;
const DRIVERS: usize = 4;
pub(crate) const HTTP: u16 = 8080;
pub(crate) const REDIS: u16 = 6379;
/// The file that nginx serves.
const FILE: &str = "file";
const FILE_SIZE: usize = 10_000;

/// A directory, gone when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcptrace-programs-{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What has been written to one of its files.
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits for a server, without a connection to it.
fn await_listener(port: u16) {
    await_that("a server listens", || {
        sockets().iter().any(|socket| (socket.lport, socket.state) == (port, 10))
    });
}

/// Waits until nothing but listeners and TIME_WAIT is left.
fn await_end_of_connections() {
    await_that("all connections have ended", || {
        sockets().iter().all(|socket| matches!(socket.state, 6 | 10))
    });
}

/// An nginx with two workers.
pub(crate) struct Nginx {
    process: Process,
    directory: Directory,
}

/// A line of nginx's access log.
#[derive(Debug)]
struct Served {
    port: u16,
    sent: u64,
    received: u64,
    status: u16,
    worker: u32,
}

impl Nginx {
    /// One that closes after each answer.
    fn start() -> Self {
        Self::start_with("keepalive_timeout 0")
    }

    /// One with a setting of its own.
    pub(crate) fn start_with(setting: &str) -> Self {
        let directory = Directory::new();
        fs::write(directory.file(FILE), vec![b'x'; FILE_SIZE]).unwrap();
        let path = directory.0.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {path}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; worker_processes 2; pid {path}/pid;
             events {{ worker_connections 1024; }}
             http {{
                 {temporary}
                 log_format ours '$remote_port $bytes_sent $request_length $status $pid';
                 access_log {path}/access.log ours;
                 {setting};
                 server {{ listen 127.0.0.1:{HTTP}; root {path}; }}
             }}"
        );
        let file = directory.file("nginx.conf");
        fs::write(&file, config).unwrap();
        // Before it reads its configuration it has another error log.
        let mut command = Command::new("nginx");
        command.arg("-e").arg(directory.file("error.log")).arg("-c").arg(file);
        let (process, _) = Process::start(command.stdin(Stdio::null()));
        await_listener(HTTP);
        Self { process, directory }
    }

    /// What it has served, by the client's port: one after the other where a port came again.
    fn log(&self) -> BTreeMap<u16, Vec<Served>> {
        let mut by_port: BTreeMap<u16, Vec<Served>> = BTreeMap::new();
        for line in self.directory.read("access.log").lines() {
            let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            let [port, sent, received, status, worker] = numbers[..] else { panic!("{line}") };
            let (port, status) = (u16::try_from(port).unwrap(), u16::try_from(status).unwrap());
            let served = Served { port, sent, received, status, worker: u32::try_from(worker).unwrap() };
            by_port.entry(port).or_default().push(served);
        }
        by_port
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers would outlive it if it were killed.
        self.process.terminate();
    }
}

/// Connections by the client's port, those of one port in order, both ends of each: the client's and the server's.
fn pairs(told: &Connections, server: u16) -> BTreeMap<u16, Vec<(&Event, &Event)>> {
    let mut ends: BTreeMap<End, Vec<&Event>> = BTreeMap::new();
    for connection in &told.0 {
        ends.entry(end_of(connection)).or_default().push(connection);
    }
    for connections in ends.values_mut() {
        connections.sort_by_key(|connection| connection.text("opened_ts"));
    }
    let clients = ends.keys().filter(|end| end.rport == server).copied();
    let pairs: BTreeMap<_, Vec<_>> = clients
        .map(|client| {
            let servers = ends.get(&client.peer()).unwrap_or_else(|| panic!("half of {client} was told"));
            assert_eq!(ends[&client].len(), servers.len(), "{client}");
            (client.lport, ends[&client].iter().copied().zip(servers.iter().copied()).collect())
        })
        .collect();
    let count: usize = pairs.values().map(Vec::len).sum();
    assert_eq!(told.0.len(), 2 * count, "each connection has two ends");
    pairs
}

/// What holds for both ends of a connection to a real server: their roles, an owner each, causes that fit together,
/// the same bytes if it ended in order.
fn fit(client: &Event, server: &Event) {
    assert_eq!(client.text("role"), Some("client"), "{client:?}");
    assert_eq!(server.text("role"), Some("server"), "{server:?}");
    for end in [client, server] {
        assert!(owner_of(end).is_some(), "{end:?}");
        assert_ne!(end.text("cause"), Some("unknown"), "{end:?}");
    }
    let causes = [client, server].map(|end| end.text("cause").unwrap());
    assert!(agree(causes[0], causes[1]), "{client:?}\n{server:?}");
    if !causes.contains(&"peer_rst") {
        assert_eq!(bytes(client), swapped(bytes(server)), "{client:?}\n{server:?}");
    }
}

/// What was sent and what was received.
fn bytes(connection: &Event) -> (u64, u64) {
    (connection.number("tx_bytes").unwrap(), connection.number("rx_bytes").unwrap())
}

fn swapped<T>((one, other): (T, T)) -> (T, T) {
    (other, one)
}

/// A connection of nginx against its own words.
fn is_as_logged(server: &Event, line: &Served) {
    assert_eq!(owner_of(server), Some((line.worker, "nginx", "close")), "{server:?}");
    assert_eq!(bytes(server), (line.sent, line.received), "{server:?} {line:?}");
    assert_eq!(line.status, 200, "{line:?}");
}

/// Makes requests, each over a connection of its own, which it closes after nginx has. Returns how many bytes were
/// sent and received, by the client's port: one after the other where a port came again.
pub(crate) fn drive(requests: usize) -> BTreeMap<u16, Vec<(u64, u64)>> {
    let next = AtomicUsize::new(0);
    let request = || {
        let mut made = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < requests {
            // One after the other of different lengths.
            let request = format!("GET /{FILE}?{} HTTP/1.0\r\n\r\n", "x".repeat(made.len() % 100));
            let mut stream = TcpStream::connect((LOCALHOST, HTTP)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            let port = ends_of(&stream).client.lport;
            made.push((Instant::now(), port, (request.len() as u64, answer.len() as u64)));
        }
        made
    };
    let mut made: Vec<_> = thread::scope(|scope| {
        let drivers: Vec<_> = (0..DRIVERS).map(|_| scope.spawn(request)).collect();
        drivers.into_iter().flat_map(|driver| driver.join().unwrap()).collect()
    });
    made.sort_unstable();
    let mut by_port: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    for (_, port, bytes) in made {
        by_port.entry(port).or_default().push(bytes);
    }
    by_port
}

fn requests() -> usize {
    env::var("TCPTRACE_REQUESTS")
        .map_or(REQUESTS, |count| count.parse().expect("TCPTRACE_REQUESTS is a number"))
}

/// So that a run does not use up the ports. Some come twice all the same: what is in TIME_WAIT is on nginx's side, and
/// does not keep a client from them.
pub(crate) fn widen_ports() {
    sysctl("ipv4/ip_local_port_range", "10000 65535");
}

/// Each of many connections has its worker and both ends the bytes of nginx's log.
fn serves_a_crowd(nginx: &Nginx, conns: Conns) {
    let requests = requests();
    let driven = drive(requests);
    await_end_of_connections();
    let told = conns.tells(2 * requests);
    let log = nginx.log();
    let mut workers: Vec<u32> = Vec::new();
    for (port, pairs) in pairs(&told, HTTP) {
        assert_eq!((log[&port].len(), driven[&port].len()), (pairs.len(), pairs.len()), "{port}");
        for (index, (client, server)) in pairs.into_iter().enumerate() {
            fit(client, server);
            is_as_logged(server, &log[&port][index]);
            assert_eq!(log[&port][index].port, server.port("rport"));
            assert_eq!((server.text("cause"), server.text("new")), (Some("local_fin"), Some("TIME_WAIT")));
            assert_eq!(owner_of(client), Some((id(), COMM, "connect")), "{client:?}");
            assert_eq!(bytes(client), driven[&port][index], "{client:?}");
            assert_eq!((client.text("cause"), client.text("new")), (Some("peer_fin"), Some("CLOSE")));
            workers.push(log[&port][index].worker);
        }
    }
    workers.sort_unstable();
    workers.dedup();
    assert!((1..=2).contains(&workers.len()) && !workers.contains(&nginx.process.pid()), "{workers:?}");
}

/// nginx starts under tcptrace's eyes: its master listens, its workers serve.
#[test]
fn nginx_serves_a_crowd() {
    scenario(|net| {
        widen_ports();
        let conns = Conns::of(net, &["--buffer", "64M"]);
        let nginx = Nginx::start();
        serves_a_crowd(&nginx, conns);
    });
}

/// nginx was there before: the listener's owner is of the snapshot, the workers own what they serve all the same.
#[test]
fn nginx_from_before_serves_a_crowd() {
    scenario(|net| {
        widen_ports();
        let nginx = Nginx::start();
        let conns = Conns::of(net, &["--buffer", "64M"]);
        serves_a_crowd(&nginx, conns);
    });
}

/// wrk for a second, as fast as both can. It closes as soon as it has all of an answer, sometimes before nginx does; and
/// in the end what it has open, in the middle of anything.
#[test]
fn wrk() {
    const CONNECTIONS: usize = 8;
    scenario(|net| {
        widen_ports();
        let conns = Conns::of(net, &["--buffer", "256M"]);
        let nginx = Nginx::start();
        let mut command = Command::new("wrk");
        command.args(["-t", "2", "-c", &CONNECTIONS.to_string(), "-d", "1s", "-H", "Connection: close"]);
        command.arg(url()).stdin(Stdio::null()).stdout(Stdio::piped());
        let (mut process, pipes) = Process::start(&mut command);
        let said = std::io::read_to_string(pipes.stdout.unwrap()).unwrap();
        assert!(process.wait().success());
        await_end_of_connections();
        let told = conns.stop();

        let log = nginx.log();
        let (mut whole, mut reset, mut silent) = (0, 0, 0);
        for (port, pairs) in pairs(&told, HTTP) {
            let mut served = log.get(&port).into_iter().flatten();
            for (client, server) in pairs {
                fit(client, server);
                assert_eq!(owner_of(client), Some((process.pid(), "wrk", "connect")), "{client:?}");
                assert_eq!(owner_of(server).unwrap().1, "nginx", "{server:?}");
                match (server.text("cause"), bytes(server)) {
                    (_, (0, 0)) => silent += 1,
                    (Some("peer_rst"), _) => {
                        served.next();
                        reset += 1;
                    }
                    _ => {
                        is_as_logged(server, served.next().unwrap());
                        whole += 1;
                    }
                }
            }
            assert!(served.next().is_none(), "{port}: nginx served more");
        }
        // "12345 requests in 1.00s, 0.12GB read": it stops to count before it stops.
        let line = said.lines().find(|line| line.contains("requests in")).unwrap();
        let counted: usize = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(whole >= counted, "{whole} of {counted}");
        // One more, because it tries the address first (script_resolve()).
        assert!(silent <= CONNECTIONS + 1 && reset <= CONNECTIONS, "{silent} silent, {reset} reset: {said}");
    });
}

/// What nginx serves.
pub(crate) fn url() -> String {
    format!("http://{}:{HTTP}/{FILE}", Ipv4Addr::LOCALHOST)
}

/// One request of curl, which counts the bytes itself.
#[test]
fn curl() {
    scenario(|net| {
        let nginx = Nginx::start();
        let conns = Conns::of(net, &[]);
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "--noproxy",
            "*",
            "-w",
            "%{size_request} %{size_header} %{size_download} %{local_port}",
        ]);
        command.arg("-o").arg(nginx.directory.file("fetched")).arg(url());
        let (mut process, pipes) = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let said = std::io::read_to_string(pipes.stdout.unwrap()).unwrap();
        assert!(process.wait().success());
        let numbers: Vec<u64> = said.split(' ').map(|word| word.parse().unwrap()).collect();
        let [request, header, body, port] = numbers[..] else { panic!("{said}") };
        assert_eq!(body, FILE_SIZE as u64);

        let told = conns.tells(2);
        let end = End::new(u16::try_from(port).unwrap(), HTTP);
        let (client, server) = (told.of(end), told.of(end.peer()));
        fit(client, server);
        assert_eq!(owner_of(client), Some((process.pid(), "curl", "connect")));
        assert_eq!(bytes(client), (request, header + body), "{client:?}");
        is_as_logged(server, &nginx.log()[&end.lport][0]);
    });
}

/// A redis without a disk.
pub(crate) struct Redis {
    process: Process,
    _directory: Directory,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let directory = Directory::new();
        // The server is in Debian's redis-tools under this name; the package redis-server has a service and a link.
        let program = env::split_paths(&env::var_os("PATH").unwrap())
            .map(|path| path.join("redis-check-rdb"))
            .find(|path| path.exists())
            .expect("the live tests need the program redis-check-rdb");
        let link = directory.file("redis-server");
        symlink(program, &link).unwrap();
        let mut command = Command::new(link);
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &REDIS.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(&directory.0).stdin(Stdio::null()).stdout(Stdio::null());
        let (process, _) = Process::start(&mut command);
        await_listener(REDIS);
        Self { process, _directory: directory }
    }

    /// How many connections it has accepted; with this one, which it closes.
    fn connections(&self) -> usize {
        let mut stream = TcpStream::connect((LOCALHOST, REDIS)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"INFO stats\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let count = answer.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap_or_else(|| panic!("{} says {answer}", self.process.pid())).parse().unwrap()
    }
}

/// redis-benchmark keeps its connections, or makes one for each request. It closes first in any case.
#[test]
fn redis() {
    for (keep, at_least) in [("1", 20), ("0", 2_000)] {
        scenario(|net| {
            widen_ports();
            let conns = Conns::of(net, &["--buffer", "64M"]);
            let redis = Redis::start();
            let mut command = Command::new("redis-benchmark");
            command.args([
                "-h",
                "127.0.0.1",
                "-p",
                &REDIS.to_string(),
                "-c",
                "20",
                "-n",
                "2000",
                "-t",
                "set",
            ]);
            command.args(["-q", "-k", keep]).stdin(Stdio::null()).stdout(Stdio::null());
            let (mut process, _) = Process::start(&mut command);
            assert!(process.wait().success());
            let count = redis.connections();
            await_end_of_connections();

            assert!(count > at_least, "{count}");
            let told = conns.tells(2 * count);
            let (mut of_benchmark, mut of_us) = (0, 0);
            for (client, server) in pairs(&told, REDIS).into_values().flatten() {
                fit(client, server);
                assert_eq!(owner_of(server), Some((redis.process.pid(), "redis-server", "close")));
                let (pid, comm, source) = owner_of(client).unwrap();
                if pid == id() {
                    of_us += 1;
                    continue;
                }
                assert_eq!((pid, comm, source), (process.pid(), "redis-benchmark", "connect"), "{client:?}");
                let causes = (client.text("cause"), server.text("cause"));
                assert_eq!(causes, (Some("local_fin"), Some("peer_fin")), "{client:?}\n{server:?}");
                of_benchmark += 1;
            }
            assert_eq!((of_benchmark, of_us), (count - 1, 1));
        });
    }
}
