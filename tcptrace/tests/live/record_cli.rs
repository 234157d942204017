//! `tcptrace record`: what views say of its recordings, against what live ones said at the same time; and what is left
//! when it is killed, or when the disk is full.

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    process::Signal,
    thread::{UnshareFlags, unshare_unsafe},
};
use serde_json::Value;

use crate::support::{
    conns::Conns,
    event::Event,
    host::{Socket, add_black_hole, sockets, sysctl},
    netns::{Netns, scenario},
    packet::send_syn,
    process::{Lines, Process, Watched, await_that, lines_of},
    tables::Tables,
    tcp::{
        LOCALHOST, abort, await_reset, await_unread, bound_socket, close_in_order, connect, pair,
        read_to_end, receive, send,
    },
    trace::{Log, Trace, await_attached},
};

/// States that wait for the acknowledgment of a FIN, as the kernel numbers them.
const FIN_WAIT1: u8 = 4;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// A folder of a test's own, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("tcptrace-record-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// What stands below it, finished or not.
    fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found.sort();
        found
    }

    fn finished(&self) -> usize {
        self.files().iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")).count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed has its own message.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A `tcptrace record`.
struct Recorder {
    process: Process,
    stderr: Arc<Watched<Lines>>,
}

impl Recorder {
    /// Nobody reads its stdout from the moment on that it is attached.
    fn start(net: &Netns, folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["record", "-v", "-N", &net.inode().to_string(), "-O"]).arg(folder).args(args);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (process, pipes) = Process::start(command);
        let stderr = lines_of(pipes.stderr.unwrap());
        await_attached(&stderr);
        Self { process, stderr }
    }

    fn ended(&mut self) -> (ExitStatus, String) {
        let status = self.process.wait();
        assert!(self.stderr.wait(|lines| lines.closed));
        (status, self.stderr.lock().lines.join("\n"))
    }

    /// Ends it as Ctrl-C does; it must end well.
    fn stop(mut self) {
        self.process.signal(Signal::INT);
        let (status, stderr) = self.ended();
        assert!(status.success() && stderr.contains(" 0 lost"), "{status}\n{stderr}");
    }
}

/// What a view says of a recording.
fn replay(args: &[&str], from: &Path) -> Log {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(args).args(["-o", "json", "--from"]).arg(from);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut events: Vec<Event> = text.lines().map(Event::parse).collect();
    let summary = events.pop().unwrap();
    Log { events, summary, lost: 0, status: output.status, stderr }
}

/// Everything of an object but when it was and how long it took: every tool's probes read the clock for themselves.
fn timeless(event: &Event) -> String {
    let Value::Object(mut fields) = event.value() else { panic!("{event:?}") };
    for (name, value) in &mut fields {
        if name == "ts" || name.ends_with("_ts") || name.ends_with("_us") && name != "srtt_us" {
            *value = match &*value {
                Value::Object(times) => times.keys().map(String::as_str).collect::<Vec<_>>().join(" ").into(),
                _ => Value::Null,
            };
        }
    }
    Value::Object(fields).to_string()
}

/// Compares, in any order: rows of a ledger that are alike in all but their times stand in the order of those.
#[track_caller]
fn same(live: &[Event], replayed: &[Event]) {
    let sorted = |events: &[Event]| {
        let mut lines: Vec<String> = events.iter().map(timeless).collect();
        lines.sort();
        lines
    };
    let (live, replayed) = (sorted(live), sorted(replayed));
    let missing: Vec<&String> = live.iter().filter(|line| !replayed.contains(line)).collect();
    let more: Vec<&String> = replayed.iter().filter(|line| !live.contains(line)).collect();
    assert_eq!(live, replayed, "\nonly live: {missing:#?}\nonly in the recording: {more:#?}");
}

/// Connections of all kinds, some of which stay.
fn traffic() -> (TcpListener, Vec<TcpStream>) {
    let (listener, mut open) = {
        let pair = pair();
        (pair.listener, vec![pair.client, pair.server])
    };
    for number in 0..20 {
        let (client, server) = connect(&listener);
        send(&client, 100);
        await_unread(&server, 100);
        if number % 4 == 0 {
            // Closed with data unread.
            drop(server);
            await_reset(&client);
        } else {
            receive(&server, 100);
            close_in_order(client, server);
        }
        let (client, server) = connect(&listener);
        abort(client);
        await_reset(&server);
        let (client, server) = connect(&listener);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        open.extend([client, server]);
        open.truncate(12);
        let (_bound, closed) = bound_socket();
        TcpStream::connect((LOCALHOST, closed)).unwrap_err();
    }
    (listener, open)
}

/// `trace`, `conns`, `hist` and `rst` of a recording say what they said live, of what was there before, too, and so do
/// their filters; a recording in several files is one.
#[test]
fn views_say_what_they_said_live() {
    scenario(|net| {
        add_black_hole();
        sysctl("ipv4/tcp_syncookies", "0");
        sysctl("ipv4/tcp_tw_reuse", "0");
        let before = traffic();
        let port = before.0.local_addr().unwrap().port();
        let folder = Folder::new("views");
        let recorder =
            Recorder::start(net, &folder.0, &["--rotate", "1s", "--host", "web-1", "--buffer", "32M"]);
        let inode = net.inode().to_string();
        // However busy the host is, nothing is lost.
        let trace = Trace::of(net, &["--buffer", "32M"]);
        let of_port = Trace::of(net, &["-P", &port.to_string(), "--state", "close-wait", "--buffer", "32M"]);
        let conns = Conns::of(net, &["--buffer", "32M"]);
        let open = Conns::of(net, &["--live", "--buffer", "32M"]);
        let table = |args: &[&str]| Tables::start(&inode, &[args, &["--buffer", "32M"]].concat());
        let (hist, rst, by_comm) = (table(&["hist"]), table(&["rst"]), table(&["hist", "--by", "comm"]));

        let after = traffic();
        drop(before);
        // A FIN that nobody answers is acknowledged 40 ms later: all are to have seen that.
        let is_acknowledged = |socket: &Socket| ![FIN_WAIT1, LAST_ACK, CLOSING].contains(&socket.state);
        await_that("every FIN is acknowledged", || sockets().iter().all(is_acknowledged));
        // A request that stays.
        let peer = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 10_000);
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, after.0.local_addr().unwrap().port());
        send_syn(peer, local);
        await_that("a second file", || folder.finished() >= 2);
        recorder.stop();
        let (hist, rst, by_comm) = (hist.stop(), rst.stop(), by_comm.stop());
        let (conns, open) = (conns.stop().0, open.stop().0);
        let (trace, of_port) = (trace.stop().events, of_port.stop().events);
        let counts = [trace.len(), conns.len(), hist.len(), rst.len()];
        assert!(counts.iter().zip([300, 100, 4, 4]).all(|(count, least)| *count >= least), "{counts:?}");

        let from = |args: &[&str]| replay(args, &folder.0).events;
        same(&hist, &from(&["hist"]));
        same(&by_comm, &from(&["hist", "--by", "comm"]));
        same(&rst, &from(&["rst"]));
        same(&conns, &from(&["conns"]));
        same(&open, &from(&["conns", "--live"]));
        same(&trace, &from(&["trace"]));
        same(&of_port, &from(&["trace", "-P", &port.to_string(), "--state", "close-wait"]));
        assert_eq!(from(&["trace", "-N", &inode]).len(), trace.len());
        assert!(from(&["trace", "--pid", "1"]).is_empty());

        // The same told in lines of JSON.
        let lines: Vec<String> = trace.iter().map(|event| event.value().to_string() + "\n").collect();
        let file = folder.0.join("lines.json");
        fs::write(&file, lines.concat()).unwrap();
        let replayed = replay(&["trace"], &file).events;
        let replayed: Vec<String> = replayed.iter().map(|event| event.value().to_string() + "\n").collect();
        assert_eq!(replayed, lines);
        let resets = |events: Vec<Event>| -> Vec<Event> {
            events.into_iter().filter(|event| event.kind() == "rst").collect()
        };
        same(&resets(rst), &resets(replay(&["rst"], &file).events));

        // Engines find the host and the time in the path.
        let files = folder.files();
        let path = files.iter().find(|path| path.extension().is_some_and(|end| end == "parquet")).unwrap();
        let path = path.strip_prefix(&folder.0).unwrap().to_string_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').collect();
        assert!(
            parts[0] == "host=web-1" && parts[1].starts_with("date=20") && parts[2].starts_with("hour="),
            "{path}"
        );
    });
}

/// Whether the next connection may come: a recorder that is not optimized is to keep up with them.
fn is_time(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() > Duration::from_millis(5))
}

/// `record | tee log`, and tee dies: what comes after that is recorded, too.
#[test]
fn a_recorder_needs_no_reader() {
    scenario(|net| {
        let folder = Folder::new("unread");
        let recorder = Recorder::start(net, &folder.0, &[]);
        let (listener, _open) = traffic();
        let (client, server) = connect(&listener);
        let port = client.local_addr().unwrap().port();
        close_in_order(client, server);
        recorder.stop();
        let replayed = replay(&["conns"], &folder.0).events;
        assert!(replayed.iter().any(|connection| connection.port("lport") == port), "{replayed:#?}");
    });
}

/// kill -9: every finished file reads, and what is missing is what came in the last interval.
#[test]
fn a_killed_recorder_costs_its_last_interval() {
    scenario(|net| {
        let folder = Folder::new("killed");
        let mut recorder = Recorder::start(net, &folder.0, &["--rotate", "1s"]);
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let mut ended = Vec::new();
        await_that("six files", || {
            if is_time(ended.last().map(|(_, at)| *at)) {
                let (client, server) = connect(&listener);
                let port = client.local_addr().unwrap().port();
                close_in_order(client, server);
                ended.push((port, Instant::now()));
            }
            // And one more that is being written.
            folder.finished() >= 6 && folder.files().len() > folder.finished()
        });
        recorder.process.signal(Signal::KILL);
        let killed = Instant::now();
        assert!(!recorder.ended().0.success());

        let left: Vec<PathBuf> = folder.files();
        assert_eq!(left.len(), folder.finished() + 1, "{left:?}");
        let port = listener.local_addr().unwrap().port().to_string();
        let of_clients = ["conns", "-D", &port];
        let replayed = replay(&of_clients, &folder.0).events;
        let told: Vec<u16> = replayed.iter().map(|connection| connection.port("lport")).collect();
        // A second is the interval; what a slow host takes to write a file comes on top.
        let safe = ended.iter().filter(|(_, at)| killed - *at > Duration::from_secs(3));
        let safe: Vec<u16> = safe.map(|(port, _)| *port).collect();
        let first: Vec<u16> = ended.iter().map(|(port, _)| *port).take(told.len()).collect();
        assert_eq!(told, first, "nothing is missing before the end");
        assert!(!safe.is_empty() && told.len() >= safe.len(), "{} of {}", told.len(), safe.len());

        // The next one clears what this one has left, and what it records comes after it.
        let recorder = Recorder::start(net, &folder.0, &[]);
        assert!(
            recorder.stderr.lock().lines.iter().any(|line| line.contains("1 files that a killed recorder"))
        );
        let (client, server) = connect(&listener);
        close_in_order(client, server);
        recorder.stop();
        assert_eq!(folder.files().len(), folder.finished());
        assert_eq!(replay(&of_clients, &folder.0).events.len(), told.len() + 1);
    });
}

/// A small file system on a folder, which only this thread and the processes that it starts see.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        // The folder is to go next.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn make_small(folder: &Path) -> Small {
    #[expect(unsafe_code, reason = "rustix has no safe call that leaves a namespace")]
    // SAFETY: not UnshareFlags::FILES; the descriptors stay shared by all threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).unwrap();
    mount("tmpfs", folder, "tmpfs", MountFlags::empty(), Some(c"size=256k")).unwrap();
    Small(folder.to_owned())
}

/// A full disk: it says so and ends; what was finished stays and reads, and nothing else is left.
#[test]
fn a_full_disk() {
    scenario(|net| {
        let folder = Folder::new("full");
        let _small = make_small(&folder.0);
        let mut recorder = Recorder::start(net, &folder.0, &["--rotate", "1s"]);
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let mut last = None;
        let mut one = || {
            if is_time(last) {
                let (client, server) = connect(&listener);
                close_in_order(client, server);
                last = Some(Instant::now());
            }
        };
        await_that("a file", || {
            one();
            folder.finished() >= 1
        });
        // Somebody else takes the room.
        let mut filler = fs::File::create(folder.0.join("filler")).unwrap();
        let full = io::copy(&mut io::repeat(0), &mut filler).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        drop(filler);
        await_that("the end", || {
            one();
            recorder.stderr.lock().closed
        });
        let (status, stderr) = recorder.ended();
        assert_eq!(status.code(), Some(1), "{stderr}");
        let said: Vec<&str> = stderr.lines().rev().take(3).collect();
        assert!(
            said[2].contains("cannot record to") && said[2].contains(&*folder.0.to_string_lossy()),
            "{stderr}"
        );
        assert!(said[1].contains("No space left") && said[0].contains("make room"), "{stderr}");
        fs::remove_file(folder.0.join("filler")).unwrap();
        assert_eq!(folder.files().len(), folder.finished(), "{:?}", folder.files());
        assert!(!replay(&["conns"], &folder.0).events.is_empty());
    });
}

/// A folder that cannot be written is refused before anything is attached to, with what to do.
#[test]
fn a_folder_that_cannot_be_written() {
    scenario(|net| {
        let folder = Folder::new("file");
        let file = folder.0.join("file");
        fs::write(&file, "").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
            .args(["record", "-N", &net.inode().to_string(), "-O"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("cannot record to") && stderr.contains("Not a directory"), "{stderr}");
        assert!(stderr.contains("\nfix: "), "{stderr}");
    });
}
