//! Filters on who owns the socket: process, command name, user, control group.

use std::{
    fs,
    io::Write as _,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{process::Uid, thread::set_thread_res_uid};

use crate::{
    close::{ACTIVE_CLIENT, ACTIVE_SERVER, LISTENER, PASSIVE_CLIENT, PASSIVE_SERVER},
    support::{
        netns::{COMM, in_thread, scenario},
        process::Process,
        story::End,
        tcp::{self, Ends, LOCALHOST, Pair, ends_of, pair, read_to_end},
        trace::{Log, Trace},
    },
};

/// A process of another name that will connect: a curl.
struct Curl {
    process: Process,
    stdin: ChildStdin,
}

impl Curl {
    /// A shell that runs `first`, waits, and then becomes curl.
    fn new(first: &str) -> Self {
        let script = format!("{first} read -r url && exec curl -s --http1.0 --noproxy '*' \"$url\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null());
        let (process, pipes) = Process::start(&mut command);
        Self { process, stdin: pipes.stdin.unwrap() }
    }

    /// Lets it fetch from a listener of ours, which closes its half first.
    fn fetch(mut self) -> Ends {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        writeln!(self.stdin, "http://127.0.0.1:{port}/").unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        // It sends its request in one piece, and it is all to be read: or close() would reset.
        let mut request = [0; 4096];
        let count = server.peek(&mut request).unwrap();
        assert!(request[..count].ends_with(b"\r\n\r\n"));
        tcp::receive(&server, count);
        server.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"");
        assert!(self.process.wait().success());
        let server = End::new(port, peer.port());
        Ends { listener: End::listener(port), server, client: server.peer() }
    }
}

/// Watches with flags that are made from curl's process id, while curl fetches from us.
fn while_curl_fetches(
    first: &str,
    args: impl Fn(u32) -> Vec<String> + Sync,
    check: impl Fn(Trace, Ends, u32) + Sync,
) {
    scenario(|net| {
        let curl = Curl::new(first);
        let pid = curl.process.pid();
        let args = args(pid);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let trace = Trace::of(net, &args);
        let ends = curl.fetch();
        check(trace, ends, pid);
    });
}

fn tells_of_curl(trace: Trace, ends: Ends, pid: u32) -> Log {
    let log = trace.tells_of_others(&[(ends.client, PASSIVE_CLIENT)]);
    log.is_of(pid, "curl");
    log
}

fn tells_of_us(trace: Trace, ends: Ends, _pid: u32) {
    trace.tells(&[(ends.listener, LISTENER), (ends.server, ACTIVE_SERVER)]);
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn processes() {
    while_curl_fetches(
        "",
        |pid| owned(&["-p", &pid.to_string()]),
        |trace, ends, pid| {
            tells_of_curl(trace, ends, pid);
        },
    );
    let own = std::process::id();
    while_curl_fetches("", |_| owned(&["--pid", &own.to_string()]), tells_of_us);
}

/// Six are more than any table on the kernel side holds; the result is the same.
#[test]
fn many_processes() {
    while_curl_fetches(
        "",
        |pid| owned(&["-p", &format!("4000001,4000002,4000003,4000004,4000005,{pid}")]),
        |trace, ends, pid| {
            tells_of_curl(trace, ends, pid);
        },
    );
}

#[test]
fn command_names() {
    while_curl_fetches(
        "",
        |_| owned(&["--comm", "wget,curl"]),
        |trace, ends, pid| {
            tells_of_curl(trace, ends, pid);
        },
    );
    while_curl_fetches("", |_| owned(&["--comm", COMM]), tells_of_us);
}

/// Does something as another user. Linux keeps users by thread.
fn as_user<T: Send>(uid: u32, body: impl FnOnce() -> T + Send) -> T {
    in_thread(|| {
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).unwrap();
        body()
    })
}

fn one_connection() -> Ends {
    let Pair { listener, client, server, ends } = pair();
    tcp::close_in_order(client, server);
    drop(listener);
    ends
}

#[test]
fn users() {
    for flag in ["4242", "1,4242", "1,2,3,4,5,4242"] {
        scenario(|net| {
            let trace = Trace::of(net, &["--uid", flag]);
            one_connection();
            as_user(4243, one_connection);
            let ends = as_user(4242, one_connection);
            let log = trace.tells(&[
                (ends.listener, LISTENER),
                (ends.client, ACTIVE_CLIENT),
                (ends.server, PASSIVE_SERVER),
            ]);
            for event in &log.events {
                assert_eq!(event.number("uid"), Some(4242), "{event:?}");
            }
        });
    }
}

/// A connection has its listener's user until it is accepted (sock_graft()). What came before is held until
/// then, and shown; also who listened is known, wherever the filter is applied.
#[test]
fn users_that_accept() {
    for flag in ["1,2,3,4,5,4242", "4242"] {
        scenario(|net| {
            let trace = Trace::of(net, &["--uid", flag]);
            let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ends = ends_of(&client);
            let (server, _) = as_user(4242, || listener.accept().unwrap());
            tcp::close_in_order(client, server);
            drop(listener);
            trace.tells(&[(ends.server, PASSIVE_SERVER)]);
        });
    }
}

/// A control group of our own, gone when dropped. Processes must have left it by then.
pub(crate) struct Cgroup {
    root: PathBuf,
    directory: PathBuf,
}

impl Cgroup {
    /// One level below another, or below the root.
    pub(crate) fn below(parent: Option<&Self>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcptrace-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::named(parent, &name)
    }

    /// The same by a name, which must be the only one there.
    pub(crate) fn named(parent: Option<&Self>, name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (path, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        });
        let root = root.expect("the live tests need a cgroup2 tree: mount -t cgroup2 none /sys/fs/cgroup");
        let directory = parent.map_or(&root, |parent| &parent.directory).join(name);
        fs::create_dir(&directory).unwrap();
        Self { root, directory }
    }

    /// Its path from the root on, as /proc/PID/cgroup has it.
    pub(crate) fn name(&self) -> String {
        Path::new("/").join(self.directory.strip_prefix(&self.root).unwrap()).display().to_string()
    }

    /// Its id, as the kernel has it.
    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.directory).unwrap().ino()
    }

    /// Lets a process enter it.
    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// A line of shell that enters it.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs &&", self.directory.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Fails only where a test has failed before.
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn control_groups() {
    let outer = Cgroup::below(None);
    let inner = Cgroup::below(Some(&outer));
    let others: Vec<Cgroup> = (0..5).map(|_| Cgroup::below(None)).collect();
    let flags = |cgroups: &[&str]| -> Vec<String> {
        cgroups.iter().flat_map(|path| owned(&["--cgroup", path])).collect()
    };
    let many: Vec<String> = others.iter().chain([&inner]).map(Cgroup::name).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let id = inner.id();
    for args in [
        // Itself, in both spellings; the one above it; as the last of six.
        flags(&[&inner.name()]),
        flags(&[&inner.directory.display().to_string()]),
        flags(&[&outer.name()]),
        flags(&many),
    ] {
        while_curl_fetches(
            &inner.enter(),
            |_| args.clone(),
            |trace, ends, pid| {
                let log = tells_of_curl(trace, ends, pid);
                for event in &log.events {
                    let cgroup = (event.number("cgroup"), event.text("cgroup_path"));
                    assert_eq!(cgroup, (Some(id), Some(inner.name().as_str())), "{event:?}");
                }
            },
        );
    }
    // A curl in the outer one is not in the inner one, and in none of the others.
    while_curl_fetches(
        &outer.enter(),
        |_| flags(&many),
        |trace, _, _| {
            assert_eq!(trace.stop().events.len(), 0);
        },
    );
}
