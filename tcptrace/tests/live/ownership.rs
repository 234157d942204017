//! Whose connection it was, for sockets that processes share, hand on and leave behind.
//!
//! Who connects owns the connection, for good. A connection that was accepted is its listener's owner's until a
//! process acts on it: that is in process context, with the socket's lock held (`sk_lock.owned`), and not
//! whoever the softirq interrupted.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
};

use io_uring::{opcode, squeue, types};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{
    owners::Cgroup,
    snapshot_cli::Before,
    support::{
        actor::Actor,
        conns::{Conns, owner_of},
        netns::{COMM, Netns, in_thread, scenario},
        process::await_that,
        story::End,
        tcp::{self, LOCALHOST, await_reset, ends_of, read_to_end},
    },
};

/// This test's own process, as the owner of what a scenario connects.
fn us() -> (u32, &'static str, &'static str) {
    (std::process::id(), COMM, "connect")
}

/// The owner of what an actor does to a socket.
fn owner<'a>(actor: &'a Actor, source: &'static str) -> (u32, &'a str, &'static str) {
    (actor.pid(), actor.name(), source)
}

/// Connects to an actor's port from the test itself.
fn client_of(port: u16) -> (TcpStream, End) {
    let client = TcpStream::connect((LOCALHOST, port)).unwrap();
    client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let end = ends_of(&client).client;
    (client, end)
}

/// A server that listens, starts workers that inherit the socket, and leaves the accepting to them. Each connection
/// belongs to the worker that served it, whose process id it has told to the client.
#[test]
fn prefork() {
    const CONNECTIONS: usize = 12;
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let parent = Actor::start("parent");
        let (listener, port) = parent.listen();
        let workers = ["worker-0", "worker-1", "worker-2"].map(|name| parent.starts(name, listener));
        let mut served = Vec::new();
        for number in 0..CONNECTIONS {
            let (client, end) = client_of(port);
            let (worker, listener) = &workers[number % workers.len()];
            let socket = worker.accept(*listener);
            worker.introduce(socket);
            let pid: u32 = String::from_utf8(read_to_end(&client)).unwrap().parse().unwrap();
            drop(client);
            worker.read_to_end(socket);
            worker.close(socket);
            served.push((end, pid));
        }
        let told = conns.tells(2 * CONNECTIONS);
        for (number, (end, pid)) in served.into_iter().enumerate() {
            let (worker, _) = &workers[number % workers.len()];
            assert_eq!(pid, worker.pid());
            assert_eq!(told.owner(end.peer()), owner(worker, "close"));
            assert_eq!(told.of(end.peer()).text("role"), Some("server"));
            assert_eq!(told.owner(end), us());
            assert_eq!(told.of(end).text("role"), Some("client"));
        }
    });
}

/// Nobody has acted on a connection that died in the accept queue: it stays with its listener's owner.
#[test]
fn nobody_accepts() {
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let server = Actor::start("server");
        let (listener, port) = server.listen();
        let (client, aborted) = client_of(port);
        tcp::abort(client);
        // inet_csk_listen_stop() resets what waits.
        let (client, left) = client_of(port);
        server.close(listener);
        await_reset(&client);
        drop(client);
        let told = conns.tells(4);
        for end in [aborted, left] {
            assert_eq!(told.owner(end.peer()), owner(&server, "listener"), "{end}");
            assert_eq!(told.owner(end), us(), "{end}");
        }
        let causes =
            [aborted, left].map(|end| [end.peer(), end].map(|end| told.of(end).text("cause").unwrap()));
        assert_eq!(causes, [["peer_rst", "local_abort_linger"], ["listener_closed", "peer_rst"]]);
    });
}

/// A port that listeners of two processes share (SO_REUSEPORT): a connection could be either's, so it is nobody's
/// until one of them acts.
#[test]
fn listeners_share_a_port() {
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let servers = [Actor::start("left"), Actor::start("right")];
        let port = TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let _listeners = servers.each_ref().map(|server| server.listen_at(port));
        let (client, aborted) = client_of(port);
        tcp::abort(client);
        let told = conns.tells(2);
        assert_eq!(owner_of(told.of(aborted.peer())), None);
        assert_eq!(told.owner(aborted), us());
    });
}

/// Accepted by one process, handed to another (SCM_RIGHTS): whoever closes it last owned it. It is the last close()
/// that acts; to close a copy does nothing to the socket.
#[test]
fn a_server_hands_a_connection_on() {
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let (front, back) = (Actor::start("front"), Actor::start("back"));
        let (listener, port) = front.listen();
        let (client, end) = client_of(port);
        let socket = front.accept(listener);
        let given = front.give(socket, &back);
        front.close(socket);
        back.close(given);
        assert_eq!(read_to_end(&client), b"");
        drop(client);
        let told = conns.tells(2);
        assert_eq!(told.owner(end.peer()), owner(&back, "close"));
    });
}

/// Who connected stays the owner, whoever closes.
#[test]
fn a_client_hands_a_connection_on() {
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let (first, second, server) = (Actor::start("first"), Actor::start("second"), Actor::start("server"));
        let (listener, port) = server.listen();
        let (socket, end) = first.connect(port);
        let accepted = server.accept(listener);
        let given = first.give(socket, &second);
        first.close(socket);
        second.close(given);
        server.read_to_end(accepted);
        server.close(accepted);
        let told = conns.tells(2);
        assert_eq!(told.owner(end), owner(&first, "connect"));
        assert_eq!(told.owner(end.peer()), owner(&server, "close"));
    });
}

/// inetd: the server accepts, starts a program that has the connection as its stdin and stdout, and closes its own
/// copy. It was the program's, which closed it by its end.
#[test]
fn a_program_inherits_a_connection() {
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let server = Actor::start("inetd");
        let (listener, port) = server.listen();
        let (client, end) = client_of(port);
        let socket = server.accept(listener);
        let pid = server.exec(socket, "cat");
        tcp::send(&client, 1_000);
        tcp::receive(&client, 1_000);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&client), b"");
        drop(client);
        let told = conns.tells(2);
        assert_eq!(told.owner(end.peer()), (pid, "cat", "close"));
        for end in [end, end.peer()] {
            let connection = told.of(end);
            let bytes = (connection.number("tx_bytes"), connection.number("rx_bytes"));
            assert_eq!(bytes, (Some(1_000), Some(1_000)), "{connection:?}");
        }
    });
}

/// A process that ends, and one that is killed, with connections open at either end: exit_files() closes them in its
/// name, and they keep it though it is gone.
#[test]
fn processes_end_with_connections_open() {
    for end_it in [Actor::exit, Actor::kill] {
        scenario(|net| {
            let conns = Conns::of(net, &[]);
            let server = Actor::start("short-lived");
            let ours = TcpListener::bind((LOCALHOST, 0)).unwrap();
            let (_, out) = server.connect(ours.local_addr().unwrap().port());
            let (accepted, _) = ours.accept().unwrap();
            let (listener, port) = server.listen();
            let (client, end) = client_of(port);
            server.accept(listener);
            let pid = server.pid();
            end_it(server);
            for stream in [accepted, client] {
                assert_eq!(read_to_end(&stream), b"");
            }
            let told = conns.tells(4);
            assert_eq!(told.owner(out), (pid, "short-lived", "connect"));
            assert_eq!(told.owner(end.peer()), (pid, "short-lived", "close"));
            let causes = [out, end.peer()].map(|end| told.of(end).text("cause"));
            assert_eq!(causes, [Some("local_fin"); 2]);
        });
    }
}

/// A process that has the process id that another had. Others may start processes at the same time and be
/// given it, so this takes some tries.
fn reborn(pid: u32, name: &str) -> Actor {
    let last = Path::new("/proc/sys/kernel/ns_last_pid");
    assert!(last.exists(), "this needs CONFIG_CHECKPOINT_RESTORE=y, as in the distributions' kernels");
    let mut actor = None;
    await_that("the process id is given once more", || {
        fs::write(last, (pid - 1).to_string()).unwrap();
        let tried = Actor::start(name);
        let same = tried.pid() == pid;
        actor = same.then_some(tried);
        same
    });
    actor.unwrap()
}

/// The process id of a dead owner is given to another process: what the first one owned keeps its name, be it an
/// orphan (FIN_WAIT2, nobody has it open) or open in a third process.
#[test]
fn a_process_id_is_given_once_more() {
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let (server, heir) = (Actor::start("server"), Actor::start("heir"));
        let (listener, port) = server.listen();
        let first = Actor::start("first");
        let (_, orphan) = first.connect(port);
        let orphans_peer = server.accept(listener);
        let (socket, inherited) = first.connect(port);
        let inheriteds_peer = server.accept(listener);
        let given = first.give(socket, &heir);
        let pid = first.pid();
        first.exit();

        let second = reborn(pid, "second");
        let (socket, own) = second.connect(port);
        let owns_peer = server.accept(listener);
        second.close(socket);
        heir.close(given);
        for socket in [orphans_peer, inheriteds_peer, owns_peer] {
            server.read_to_end(socket);
            server.close(socket);
        }
        let told = conns.tells(6);
        assert_eq!(told.owner(orphan), (pid, "first", "connect"));
        assert_eq!(told.owner(inherited), (pid, "first", "connect"));
        assert_eq!(told.owner(own), (pid, "second", "connect"));
    });
}

/// As a container is: a network namespace, a process id namespace and a control group of its own. tcptrace sees it
/// from the host, so the process id is the host's.
#[test]
fn containers() {
    scenario(|_| {
        let net = Netns::new();
        let group = Cgroup::below(None);
        let conns = Conns::of(&net, &[]);
        let inside = net.enter(|| {
            Actor::start_by("contained", |command| {
                in_thread(|| {
                    #[expect(unsafe_code, reason = "rustix has no safe call that leaves a namespace")]
                    // SAFETY: not UnshareFlags::FILES; the descriptors stay shared by all threads.
                    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
                    command.spawn()
                })
            })
        });
        // A socket has the control group of the process that makes it (sk_alloc()).
        group.take(inside.pid());
        let (listener, port) = inside.listen();
        let (client, end) = inside.connect(port);
        let server = inside.accept(listener);
        // Who tells its own process id tells that of its namespace.
        inside.introduce(server);
        inside.read_to_end(client);
        inside.close(client);
        inside.close(server);
        let told = conns.tells(2);
        let expected = (Some(group.id()), Some(group.name()));
        for (end, source) in [(end, "connect"), (end.peer(), "close")] {
            assert_eq!(told.owner(end), owner(&inside, source));
            let connection = told.of(end);
            let cgroup = (connection.number("cgroup"), connection.text("cgroup_path").map(str::to_owned));
            assert_eq!(cgroup, expected, "{connection:?}");
            assert_eq!(connection.number("netns"), Some(net.inode()), "{connection:?}");
        }
        // It told "1".
        assert_eq!(told.of(end).number("rx_bytes"), Some(1));
        inside.exit();
    });
}

/// A server that listens as root and then becomes another user: its connections are that user's, as accept() makes
/// them (sock_graft()).
#[test]
fn a_server_becomes_another_user() {
    const USER: u32 = 4242;
    scenario(|net| {
        let conns = Conns::of(net, &[]);
        let server = Actor::start("setuid");
        let (listener, port) = server.listen();
        server.become_user(USER);
        let (client, end) = client_of(port);
        let socket = server.accept(listener);
        server.close(socket);
        assert_eq!(read_to_end(&client), b"");
        drop(client);
        let told = conns.tells(2);
        assert_eq!(told.owner(end.peer()), owner(&server, "close"));
        assert_eq!(told.of(end.peer()).number("uid"), Some(u64::from(USER)));
        assert_eq!(told.of(end).number("uid"), Some(0));
    });
}

/// Connections and a listener that were there before tcptrace was: the snapshot knows whose they are. Who
/// closes first goes to TIME_WAIT, and the line says whose that is.
#[test]
fn sockets_from_before() {
    scenario(|net| {
        let before = Before::new();
        let conns = Conns::of(net, &[]);
        before.close();
        let Before { server, listener, port, client, end, .. } = before;
        let (later, after) = client_of(port);
        let accepted = server.accept(listener);
        server.close(accepted);
        assert_eq!(read_to_end(&later), b"");
        drop(later);
        let told = conns.tells(4);
        assert_eq!(told.owner(end), owner(&client, "snapshot"));
        assert_eq!(told.of(end).text("new"), Some("TIME_WAIT"));
        assert_eq!(told.owner(end.peer()), owner(&server, "snapshot"));
        assert_eq!(told.of(end.peer()).text("new"), Some("CLOSE"));
        assert_eq!(told.owner(after.peer()), owner(&server, "close"));
        assert_eq!(told.owner(after), us());
    });
}

/// As above, and nobody acts on the connection after the start: the listener's owner from the snapshot it is.
#[test]
fn a_listener_from_before() {
    scenario(|net| {
        let server = Actor::start("old-server");
        let (_listener, port) = server.listen();
        let conns = Conns::of(net, &[]);
        let (client, end) = client_of(port);
        tcp::abort(client);
        let told = conns.tells(2);
        assert_eq!(told.owner(end.peer()), owner(&server, "listener"));
    });
}

/// When a process started, in clock ticks since boot (proc(5)).
fn start_of(actor: &Actor) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", actor.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// An actor that started a clock tick later than another, at least.
fn younger(than: &Actor, name: &str) -> Actor {
    let mut actor = Actor::start(name);
    await_that("a clock tick goes by", || {
        let later = start_of(&actor) > start_of(than);
        if !later {
            actor = Actor::start(name);
        }
        later
    });
    actor
}

/// Of several processes that have a connection open at the start the one that has run longest owns it; neither the
/// one that made it, if that has closed it, nor who closes it in the end.
#[test]
fn several_have_a_connection_open() {
    scenario(|net| {
        let old = Actor::start("old");
        let middle = younger(&old, "middle");
        let young = younger(&middle, "young");
        let server = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let (by_old, shared) = old.connect(port);
        let (by_young, made_by_young) = young.connect(port);
        let (by_old_too, passed_on) = old.connect(port);
        let accepted: [TcpStream; 3] = std::array::from_fn(|_| server.accept().unwrap().0);
        // All three; the two younger ones; not the one that made it.
        let copies = [
            (&middle, old.give(by_old, &middle)),
            (&young, old.give(by_old, &young)),
            (&middle, { young.give(by_young, &middle) }),
        ];
        let moved = [(&middle, old.give(by_old_too, &middle)), (&young, old.give(by_old_too, &young))];
        old.close(by_old_too);
        let conns = Conns::of(net, &[]);
        old.close(by_old);
        for (actor, socket) in copies.into_iter().chain(moved) {
            actor.close(socket);
        }
        young.close(by_young);
        for stream in accepted {
            assert_eq!(read_to_end(&stream), b"");
        }
        let told = conns.tells(6);
        assert_eq!(told.owner(shared), owner(&old, "snapshot"));
        assert_eq!(told.owner(made_by_young), owner(&middle, "snapshot"));
        assert_eq!(told.owner(passed_on), owner(&middle, "snapshot"));
    });
}

/// io_uring connects by a thread of the kernel's making, in the process that asked for it.
#[test]
fn by_io_uring() {
    scenario(|net| {
        let Some(polled) = ring(io_uring::IoUring::builder().setup_sqpoll(1000)) else { return };
        let worked = ring(&mut io_uring::IoUring::builder()).unwrap();
        let conns = Conns::of(net, &[]);
        let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
        let to = socket2::SockAddr::from(listener.local_addr().unwrap());
        let mut ends = Vec::new();
        // By a poller of the queue; then by a worker, because it is not to be tried at once.
        for (mut ring, flags) in [(polled, squeue::Flags::empty()), (worked, squeue::Flags::ASYNC)] {
            let socket = tcp::stream_socket(LOCALHOST);
            let connect = opcode::Connect::new(types::Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len());
            #[expect(unsafe_code, reason = "io_uring takes addresses")]
            // SAFETY: the socket and the address live until the answer is there.
            unsafe { ring.submission().push(&connect.build().flags(flags)) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            assert_eq!(ring.completion().next().unwrap().result(), 0);
            let client = TcpStream::from(socket);
            ends.push(ends_of(&client).client);
            let (server, _) = listener.accept().unwrap();
            tcp::close_in_order(client, server);
        }
        let told = conns.tells(4);
        for end in ends {
            assert_eq!(told.owner(end), us());
        }
    });
}

/// `None` where the kernel has no io_uring, or does not let it be used.
fn ring(builder: &mut io_uring::Builder) -> Option<io_uring::IoUring> {
    match builder.build(4) {
        Ok(ring) => Some(ring),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => None,
        Err(error) => panic!("{error}"),
    }
}
