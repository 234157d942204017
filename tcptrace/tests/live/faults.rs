//! What goes wrong on real hosts: the kernel refuses something, hides something, or calls it by a hostile name.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Command, Output, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    close::{one_connection, story_of},
    support::{
        event::Event,
        host::run,
        netns::{Netns, in_thread, scenario},
        process::{Process, await_that},
        tables::{Tables, sockets},
        tcp::{LOCALHOST, Pair, close_in_order, connect, pair},
        trace::{Trace, command},
    },
};

const TCPTRACE: &str = env!("CARGO_BIN_EXE_tcptrace");

/// A step of a seccomp filter (linux/filter.h).
fn step(code: u32, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: if_true, jf: if_false, k: value }
}

/// Has a system call fail in the child with an errno; if `args` has some, only with these as first and third argument.
fn deny(command: &mut Command, call: libc::c_long, args: Option<(i32, i32)>, errno: i32) {
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let unless = |value: u32, skip: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip);
    let end = |value: u32| step(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // struct seccomp_data: the call's number, the architecture, the instruction, the arguments of 64 bits.
    let mut filter = vec![load(0), unless(u32::try_from(call).unwrap(), if args.is_some() { 5 } else { 1 })];
    if let Some((first, third)) = args {
        filter.extend([load(16), unless(u32::try_from(first).unwrap(), 3)]);
        filter.extend([load(32), unless(u32::try_from(third).unwrap(), 1)]);
    }
    filter
        .extend([end(libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap()), end(libc::SECCOMP_RET_ALLOW)]);
    let install = move || {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).unwrap_or(0),
            filter: filter.as_ptr().cast_mut(),
        };
        #[expect(unsafe_code, reason = "prctl() takes a pointer")]
        // SAFETY: the program points to as many steps as it says, and the kernel copies them.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    #[expect(unsafe_code, reason = "what runs between fork and exec")]
    // SAFETY: only two system calls on memory made before the fork.
    unsafe {
        command.pre_exec(install)
    };
}

/// It must not have run: three lines, and nothing on stdout.
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let starts: Vec<&str> = stderr.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["tcptrace:", "why:", "fix:"], "{stderr}");
    stderr
}

/// Where sock_diag knows no TCP, /proc/net/tcp tells of what was there, and who has it open.
#[test]
fn tcp_diag_is_missing() {
    scenario(|net| {
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let (client, server) = connect(&listener);
        let mut hist = Command::new(TCPTRACE);
        hist.args(["hist", "0.2", "-v", "-o", "json", "-N", &net.inode().to_string()]);
        deny(
            &mut hist,
            libc::SYS_socket,
            Some((libc::AF_NETLINK, libc::NETLINK_SOCK_DIAG)),
            libc::EPROTONOSUPPORT,
        );
        let hist = Trace::start(&mut hist);
        let port = listener.local_addr().unwrap().port();
        let of_port = |event: &Event| event.port("port") == port && event.text("role") == Some("server");
        hist.until("what was there", |events| {
            let row = events.iter().rfind(|event| event.kind() == "port" && of_port(event));
            row.is_some_and(|row| {
                (sockets(row, "LISTEN"), sockets(row, "ESTABLISHED")) == (1, 1)
                    && row.number("pid") == Some(std::process::id().into())
            })
        });
        close_in_order(client, server);
        hist.until("TIME_WAIT", |events| {
            let total = events.iter().rfind(|event| event.kind() == "total");
            total.is_some_and(|total| sockets(total, "TIME_WAIT") == 1 && sockets(total, "ESTABLISHED") == 0)
        });
        hist.process().signal(Signal::INT);
        let log = hist.ended();
        assert!(log.status.success(), "{}", log.stderr);
    });
}

/// As in a container with the usual seccomp profile.
#[test]
fn bpf_is_denied() {
    let mut trace = command(&[]);
    deny(&mut trace, libc::SYS_bpf, None, libc::EPERM);
    // Without `-v`, as a user meets it.
    let mut plain = Command::new(TCPTRACE);
    deny(&mut plain, libc::SYS_bpf, None, libc::EPERM);
    let text = refusal(&plain.output().unwrap());
    assert!(text.contains("Operation not permitted") && text.contains("seccomp"), "{text}");
    assert!(text.contains("lockdown=confidentiality"), "{text}");
    assert_eq!(trace.output().unwrap().status.code(), Some(1));
}

/// tcptrace in a mount namespace in which something else stands at the place of the kernel's BTF.
fn with_btf(script: &str) -> Output {
    let script = format!("{script} && exec \"$@\"");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &script, "sh", TCPTRACE, "-d", "10s"]);
    unshare.output().unwrap()
}

#[test]
fn btf_is_missing() {
    let text = refusal(&with_btf("mount -t tmpfs none /sys/kernel/btf"));
    assert!(text.contains("/sys/kernel/btf/vmlinux") && text.contains("CONFIG_DEBUG_INFO_BTF"), "{text}");
}

#[test]
fn btf_is_damaged() {
    for cut in ["0", "10", "100000"] {
        let script = format!(
            "mount -t tmpfs none /run && head -c {cut} /sys/kernel/btf/vmlinux > /run/btf && mount --bind /run/btf /sys/kernel/btf/vmlinux"
        );
        let text = refusal(&with_btf(&script));
        assert!(text.contains("/sys/kernel/btf/vmlinux"), "{cut}: {text}");
    }
}

#[test]
fn two_watch_at_once() {
    scenario(|net| {
        let (one, other) = (Trace::of(net, &[]), Trace::of(net, &["-r"]));
        let ends = one_connection();
        for trace in [one, other] {
            trace.tells(&story_of(&ends));
        }
    });
}

/// A network namespace that is gone while it is watched: what happened in it was told, and the rest of the host goes on.
#[test]
fn a_namespace_goes() {
    scenario(|net| {
        let gone = Netns::new();
        let nets = format!("{},{}", net.inode(), gone.inode());
        let hist = Tables::start(&nets, &["hist", "0.2"]);
        let Pair { listener, client, server, ends } = gone.enter(pair);
        hist.until("the other one's", |table| sockets(table.last().unwrap(), "ESTABLISHED") == 2);
        close_in_order(client, server);
        drop(listener);
        let closed = ends.listener.lport;
        let inode = gone.inode();
        hist.until("its end", |table| sockets(table.last().unwrap(), "ESTABLISHED") == 0);
        drop(gone);
        // Its TIME_WAIT keeps its number for a while; whether it is there no look can tell.
        let Pair { listener, client, server, .. } = pair();
        hist.until("what happens here", |table| sockets(table.last().unwrap(), "ESTABLISHED") == 2);
        drop((listener, client, server));
        let events = hist.stop();
        let told = |event: &Event| event.number("netns") == Some(inode) && event.port("port") == closed;
        assert!(events.iter().any(told), "{inode} {closed}");
    });
}

/// Bytes that would colour a terminal, break a line, end a field, or be no text at all.
const HOSTILE: &[u8] = b"\x1b[31m\n,\"\xff\x7f;'";

/// Runs a command on a connection, and returns all that it printed.
fn printed(net: &Netns, args: &[&str]) -> String {
    let mut tcptrace = Command::new(TCPTRACE);
    tcptrace.args(args).args(["-v", "--color", "never", "-N", &net.inode().to_string()]);
    let tcptrace = tcptrace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (mut process, pipes) = Process::start(tcptrace);
    let mut said = BufReader::new(pipes.stderr.unwrap()).lines();
    said.find(|line| line.as_ref().unwrap().contains("watching")).unwrap().unwrap();
    let Pair { listener, client, server, .. } = pair();
    close_in_order(client, server);
    refused_connect();
    drop(listener);
    process.signal(Signal::INT);
    let stdout = io::read_to_string(pipes.stdout.unwrap());
    assert!(process.wait().success());
    stdout.expect("what is printed is text")
}

/// A connect to a port where nobody listens.
fn refused_connect() {
    let port = TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    assert!(TcpStream::connect((LOCALHOST, port)).is_err());
}

fn is_harmful(c: char) -> bool {
    c.is_control() && c != '\n' || c == char::REPLACEMENT_CHARACTER
}

/// Nothing that a command prints harms a terminal, and what is for programs can be read by them. Returns the text, the
/// JSON and the CSV.
fn harmless(net: &Netns, command: &[&str]) -> [String; 3] {
    let [text, json, table] =
        ["text", "json", "csv"].map(|format| printed(net, &[command, &["-o", format]].concat()));
    assert!(!text.contains(is_harmful), "{command:?}: {text:?}");
    assert!(!json.contains(is_harmful), "{command:?}: {json:?}");
    for line in json.lines() {
        let parsed = serde_json::from_str::<Value>(line);
        assert!(parsed.is_ok_and(|object| object.is_object()), "{command:?}: {line}");
    }
    assert!(!table.contains(is_harmful), "{command:?}: {table:?}");
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(table.as_bytes());
    for row in reader.records() {
        row.unwrap_or_else(|error| panic!("{command:?}: {error}: {table:?}"));
    }
    [text, json, table]
}

#[test]
fn hostile_names_do_no_harm() {
    scenario(|net| {
        fs::write("/proc/self/comm", HOSTILE).unwrap();
        let commands: [&[&str]; 4] = [&["trace"], &["conns"], &["hist", "--by", "comm"], &["rst"]];
        for command in commands {
            for printed in harmless(net, command) {
                assert!(printed.contains("?[31m?"), "{command:?}: {printed}");
            }
        }
    });
}

/// The same of a cgroup. The kernel takes no newline in its name.
#[test]
fn a_hostile_cgroup_does_no_harm() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroup2 = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
    let root = std::path::PathBuf::from(cgroup2.split(' ').nth(4).unwrap());
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let path = root.join(format!("\x1b[31m,\"{}", std::process::id()));
    scenario(|net| {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.procs"), std::process::id().to_string()).unwrap();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let told = [harmless(net, &["trace"]), harmless(net, &["hist", "--by", "cgroup"])];
            assert!(told.concat().iter().filter(|printed| printed.contains("[31m")).count() >= 5, "{told:?}");
        }));
        fs::write(root.join(own).join("cgroup.procs"), std::process::id().to_string()).unwrap();
        await_that("the cgroup is empty", || fs::remove_dir(&path).is_ok());
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The ids of all BPF programs of this name's beginning in the kernel.
fn ours() -> usize {
    let list: Value = serde_json::from_str(&run("bpftool", &["prog", "list", "-j"])).unwrap();
    let is_ours = |program: &&Value| {
        let name = program["name"].as_str().unwrap_or_default();
        ["inet_sock_set_s", "tcp_send_reset", "tcp_receive_res"].contains(&name)
    };
    list.as_array().unwrap().iter().filter(is_ours).count()
}

/// Killed after its first words, its second, and so on, also before any: nothing stays, and the next one starts.
#[test]
fn killed_at_any_moment() {
    scenario(|net| {
        in_thread(|| {
            for moment in 0..8 {
                let mut trace = command(&["-vv", "-N", &net.inode().to_string()]);
                let trace = trace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
                let (mut process, pipes) = Process::start(trace);
                let mut said = BufReader::new(pipes.stderr.unwrap()).lines();
                for _ in 0..moment {
                    said.next();
                }
                process.signal(Signal::KILL);
                process.wait();
            }
        });
        await_that("the programs are gone", || ours() == 0);
        Trace::of(net, &[]).stop();
        await_that("the programs are gone", || ours() == 0);
    });
}
