//! Processes of their own that do to sockets what a test tells them, one thing after the other.
//!
//! An actor is this test program, started once more: [`entry`] is what it runs. Its stdin is a socket on which it
//! gets its orders, and sockets with them (SCM_RIGHTS). When that closes it ends, so it never outlives its test.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio, id},
    thread,
};

use rustix::{
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::{Pid, Resource, Rlimit, Signal, Uid, prlimit},
    stdio::dup2_stderr,
    thread::set_thread_res_uid,
};
use socket2::{SockRef, Socket};

use super::{
    PATIENCE,
    process::Process,
    story::End,
    tcp::{LOCALHOST, stream_socket},
};

/// What an actor is called, by its environment; no actor without.
const NAME: &str = "TCPTRACE_ACTOR";
/// No order and no answer is longer.
const LONGEST: usize = 1_024;
const BACKLOG: i32 = 128;

/// A process that does what it is told. It ends when dropped.
pub(crate) struct Actor {
    name: String,
    pid: u32,
    control: OwnedFd,
    /// Unless another actor started it.
    process: Option<Process>,
}

/// A socket that an actor holds, by its place in the actor's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held(usize);

impl Actor {
    /// Starts one as a child of the test. It is called `name`, of at most 15 bytes, as the kernel sees it.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_by(name, Command::spawn)
    }

    /// As [`start`](Self::start), where more is to be done at the start than to start.
    pub(crate) fn start_by(name: &str, spawn: impl FnOnce(&mut Command) -> io::Result<Child>) -> Self {
        let (control, theirs) = control();
        let child = spawn(command(name).stdin(theirs)).unwrap();
        let process = Process::of(name, child);
        Self { name: name.to_owned(), pid: process.pid(), control, process: Some(process) }.ready()
    }

    /// Lets this one start another, which inherits a socket as children do. It is the other's first.
    pub(crate) fn starts(&self, name: &str, socket: Held) -> (Self, Held) {
        let (control, theirs) = control();
        let (answer, _) = self.order(&format!("start {} {name}", socket.0), Some(theirs.as_fd()));
        drop(theirs);
        let other = Self { name: name.to_owned(), pid: answer.parse().unwrap(), control, process: None };
        (other.ready(), Held(0))
    }

    /// Whoever has been heard has its name.
    fn ready(self) -> Self {
        self.tell("hello");
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Lets it have so many descriptors at most.
    pub(crate) fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        let pid = Pid::from_raw(self.pid.try_into().unwrap());
        prlimit(pid, Resource::Nofile, limit).unwrap();
    }

    /// Listens at a port that the kernel chooses.
    pub(crate) fn listen(&self) -> (Held, u16) {
        self.listen_at(0)
    }

    /// Listens at a port, which others may share (SO_REUSEPORT) if they listen like that too.
    pub(crate) fn listen_at(&self, port: u16) -> (Held, u16) {
        let (socket, ports) = two(&self.tell(&format!("listen {port}")));
        (socket, ports.parse().unwrap())
    }

    /// Connects to a port.
    pub(crate) fn connect(&self, port: u16) -> (Held, End) {
        let (socket, local) = two(&self.tell(&format!("connect {port}")));
        (socket, End::new(local.parse().unwrap(), port))
    }

    /// Accepts the next connection.
    pub(crate) fn accept(&self, listener: Held) -> Held {
        held(&self.tell(&format!("accept {}", listener.0)))
    }

    /// Closes its own descriptor of a socket.
    pub(crate) fn close(&self, socket: Held) {
        self.tell(&format!("close {}", socket.0));
    }

    /// Closes its half of a connection.
    pub(crate) fn shutdown(&self, socket: Held) {
        self.tell(&format!("shutdown {}", socket.0));
    }

    /// Sends its process id and closes its half.
    pub(crate) fn introduce(&self, socket: Held) {
        self.tell(&format!("introduce {}", socket.0));
    }

    /// Reads until the peer has closed its half.
    pub(crate) fn read_to_end(&self, socket: Held) {
        self.tell(&format!("read {}", socket.0));
    }

    /// Hands a socket to another process, and keeps its own descriptor.
    pub(crate) fn give(&self, socket: Held, to: &Self) -> Held {
        let (_, fd) = self.order(&format!("give {}", socket.0), None);
        let (answer, _) = to.order("take", Some(fd.expect("a socket was given").as_fd()));
        held(&answer)
    }

    /// Starts a program with a socket as its stdin and stdout, as inetd does, and closes its own descriptor.
    pub(crate) fn exec(&self, socket: Held, program: &str) -> u32 {
        self.tell(&format!("exec {} {program}", socket.0)).parse().unwrap()
    }

    /// Becomes another user from here on.
    pub(crate) fn become_user(&self, uid: u32) {
        self.tell(&format!("user {uid}"));
    }

    /// Ends with exit(), which closes whatever is open.
    pub(crate) fn exit(self) {
        let Self { control, process, .. } = self;
        drop(control);
        let status = process.expect("only its parent can wait for it").wait();
        assert!(status.success(), "{status}");
    }

    /// Is killed.
    pub(crate) fn kill(mut self) {
        let process = self.process.as_mut().expect("only its parent can wait for it");
        process.signal(Signal::KILL);
        process.wait();
    }

    fn tell(&self, order: &str) -> String {
        self.order(order, None).0
    }

    /// Gives an order and waits for the answer.
    fn order(&self, order: &str, fd: Option<BorrowedFd<'_>>) -> (String, Option<OwnedFd>) {
        send(self.control.as_fd(), order, fd);
        let (answer, fd) = receive(self.control.as_fd());
        let answer = answer.unwrap_or_else(|| panic!("{} does not answer: {order}", self.name));
        assert!(!answer.starts_with("error"), "{}: {order}: {answer}", self.name);
        (answer, fd)
    }
}

/// Both ends of a channel that keeps messages apart.
fn control() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    SockRef::from(&ours).set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, theirs)
}

fn command(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", concat!("support::actor::", "entry"), "--ignored", "--quiet", "--nocapture"]);
    command.env(NAME, name).stdout(Stdio::null());
    command
}

fn send(control: BorrowedFd<'_>, text: &str, fd: Option<BorrowedFd<'_>>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    // An actor that has died is noticed by its answer.
    let _ = sendmsg(control, &[io::IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL);
}

/// The next message; nothing when the other side has gone.
fn receive(control: BorrowedFd<'_>) -> (Option<String>, Option<OwnedFd>) {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let count = recvmsg(control, &mut [io::IoSliceMut::new(&mut bytes)], &mut ancillary, flags);
    let count = count.map_or(0, |message| message.bytes);
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fd = fds.last();
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    (Some(text).filter(|text| !text.is_empty()), fd)
}

fn held(answer: &str) -> Held {
    Held(answer.parse().unwrap())
}

fn two(answer: &str) -> (Held, String) {
    let (socket, rest) = answer.split_once(' ').unwrap();
    (held(socket), rest.to_owned())
}

/// What an actor runs.
#[test]
#[ignore = "it is what the actors in the other tests run"]
fn entry() {
    let Ok(name) = env::var(NAME) else { return };
    // The thread that does it all, and the first one, which /proc/PID/comm shows.
    for path in ["/proc/thread-self/comm", "/proc/self/comm"] {
        fs::write(path, &name).unwrap();
    }
    let mut stage = Stage::default();
    if env::var(INHERITS).is_ok() {
        // It was passed on as stderr.
        stage.keep(Socket::from(io::stderr().as_fd().try_clone_to_owned().unwrap()));
        dup2_stderr(fs::File::options().write(true).open("/dev/null").unwrap()).unwrap();
    }
    let control = io::stdin().as_fd().try_clone_to_owned().unwrap();
    while let (Some(order), fd) = receive(control.as_fd()) {
        match stage.play(&order, fd) {
            Ok((answer, fd)) => send(control.as_fd(), &answer, fd),
            Err(error) => send(control.as_fd(), &format!("error: {error}"), None),
        }
    }
    std::process::exit(0);
}

/// Set for an actor that inherits a socket from another.
const INHERITS: &str = "TCPTRACE_ACTOR_INHERITS";

/// The sockets of an actor, on its own side.
#[derive(Default)]
struct Stage {
    sockets: Vec<Option<Socket>>,
}

impl Stage {
    fn keep(&mut self, socket: Socket) -> String {
        self.sockets.push(Some(socket));
        (self.sockets.len() - 1).to_string()
    }

    fn socket(&self, index: &str) -> &Socket {
        self.sockets[index.parse::<usize>().unwrap()].as_ref().unwrap()
    }

    fn close(&mut self, index: &str) {
        self.sockets[index.parse::<usize>().unwrap()] = None;
    }

    /// Carries an order out. Returns the answer, and a socket to go with it.
    fn play(&mut self, order: &str, fd: Option<OwnedFd>) -> io::Result<(String, Option<BorrowedFd<'_>>)> {
        let words: Vec<&str> = order.split(' ').collect();
        let done = "done".to_owned();
        let answer = match words[..] {
            ["hello"] => done,
            ["listen", port] => {
                let socket = stream_socket(LOCALHOST);
                if port != "0" {
                    socket.set_reuse_port(true)?;
                }
                socket.bind(&SocketAddr::new(LOCALHOST, port.parse().unwrap()).into())?;
                socket.listen(BACKLOG)?;
                let port = local_port(&socket)?;
                format!("{} {port}", self.keep(socket))
            }
            ["connect", port] => {
                let socket = stream_socket(LOCALHOST);
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.connect(&SocketAddr::new(LOCALHOST, port.parse().unwrap()).into())?;
                let port = local_port(&socket)?;
                format!("{} {port}", self.keep(socket))
            }
            ["accept", listener] => {
                let listener = self.socket(listener);
                listener.set_read_timeout(Some(PATIENCE))?;
                let (socket, _) = listener.accept()?;
                socket.set_read_timeout(Some(PATIENCE))?;
                self.keep(socket)
            }
            ["close", socket] => {
                self.close(socket);
                done
            }
            ["shutdown", socket] => {
                self.socket(socket).shutdown(std::net::Shutdown::Write)?;
                done
            }
            ["introduce", socket] => {
                let mut socket = self.socket(socket);
                write!(socket, "{}", id())?;
                socket.shutdown(std::net::Shutdown::Write)?;
                done
            }
            ["read", socket] => {
                let mut socket = self.socket(socket);
                while socket.read(&mut [0; LONGEST])? > 0 {}
                done
            }
            ["take"] => self.keep(Socket::from(fd.ok_or(io::ErrorKind::NotFound)?)),
            ["give", socket] => return Ok((done, Some(self.socket(socket).as_fd()))),
            ["start", socket, name] => {
                let control = fd.ok_or(io::ErrorKind::NotFound)?;
                let socket = self.socket(socket).as_fd().try_clone_to_owned()?;
                reap(command(name).env(INHERITS, "1").stdin(control).stderr(socket).spawn()?)
            }
            ["exec", socket, program] => {
                let stdin = self.socket(socket).as_fd().try_clone_to_owned()?;
                let stdout = stdin.try_clone()?;
                self.close(socket);
                reap(Command::new(program).stdin(stdin).stdout(stdout).spawn()?)
            }
            ["user", uid] => {
                let uid = Uid::from_raw(uid.parse().unwrap());
                set_thread_res_uid(uid, uid, uid)?;
                done
            }
            _ => return Err(io::Error::other(format!("what is {order}?"))),
        };
        Ok((answer, None))
    }
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    Ok(socket.local_addr()?.as_socket().unwrap().port())
}

/// Waits for a child in a thread of its own. Returns its process id.
fn reap(mut child: Child) -> String {
    let pid = child.id();
    thread::spawn(move || child.wait());
    pid.to_string()
}
