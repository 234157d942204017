//! A wire between two network namespaces that does what a test wants: it lets packets through, loses, keeps
//! and delays them, and says things that nobody sent.
//!
//! Each namespace has a TUN device, and the test program is at the far end of both. What is written to a TUN
//! device has been received when write() returns: tun_get_user() hands it to netif_receive_skb().

use std::{
    fs::{File, OpenOptions},
    io::{PipeWriter, Read as _, Write as _, pipe},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    ioctl::{Updater, ioctl},
};

use super::{
    PATIENCE,
    host::{run, sysctl},
    netns::{Netns, scenario},
    process::Watched,
    segment::Segment,
    tcp::{Pair, connect, ends_of, stream_socket},
};

/// The client's address, and the server's.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// `TUNSETIFF`
const SET_INTERFACE: u32 = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: packets, and nothing before them.
const PACKETS_ONLY: u16 = 0x0001 | 0x1000;
/// `struct ifreq`: a name of 16 bytes, and here the flags.
const IFREQ: usize = 40;
const IFREQ_FLAGS: usize = 16;
const NAME: &str = "wire";
/// The MTU of a TUN device is 1500.
const MTU: usize = 1500;

/// Where a packet is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Client,
    Server,
}

/// A segment that came to the wire.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) to: To,
    pub(crate) segment: Segment,
    pub(crate) packet: Vec<u8>,
}

impl Seen {
    pub(crate) fn to_client(&self) -> bool {
        self.to == To::Client
    }

    pub(crate) fn to_server(&self) -> bool {
        self.to == To::Server
    }
}

/// Whether a rule is for a segment.
type Matches = Box<dyn Fn(&Seen) -> bool + Send>;

/// What happens to a segment.
#[derive(Clone, Copy)]
enum Verdict {
    Lose,
    Keep,
    Delay(Duration),
}

struct Rule {
    matches: Matches,
    verdict: Verdict,
    /// For how many segments more.
    left: usize,
}

/// The state of the wire.
struct Inner {
    tuns: [File; 2],
    rules: Vec<Rule>,
    kept: Vec<Seen>,
    delayed: Vec<(Instant, Seen)>,
    seen: Vec<Seen>,
}

/// Two namespaces and what is between them.
pub(crate) struct Wire<'a> {
    pub(crate) client: &'a Netns,
    pub(crate) server: Netns,
    inner: Arc<Watched<Inner>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// Runs a scenario in the client's namespace of a new wire, and no other at the same time.
pub(crate) fn wire_scenario(body: impl Fn(&Wire<'_>) + Sync) {
    scenario(|client| body(&Wire::new(client)));
}

impl<'a> Wire<'a> {
    fn new(client: &'a Netns) -> Self {
        let server = Netns::new();
        let tuns = [client.enter(|| plug(CLIENT)), server.enter(|| plug(SERVER))];
        let ends: Vec<File> = tuns.iter().map(|tun| tun.try_clone().unwrap()).collect();
        let inner = Inner { tuns, rules: vec![], kept: vec![], delayed: vec![], seen: vec![] };
        let inner = Arc::new(Watched::new(inner));
        let (stopped, stop) = pipe().unwrap();
        let carried = Arc::clone(&inner);
        let thread = thread::spawn(move || {
            while let Some(ready) = wait(&carried, &ends, &stopped) {
                carried.change(|inner| inner.carry(&ends, ready));
            }
        });
        Self { client, server, inner, stop: Some(stop), thread: Some(thread) }
    }

    /// A listener on the server's side.
    pub(crate) fn listen(&self) -> TcpListener {
        self.listen_for(128)
    }

    /// One whose queue has room for so many and one more.
    pub(crate) fn listen_for(&self, backlog: i32) -> TcpListener {
        self.server.enter(|| {
            let socket = stream_socket(SERVER.into());
            socket.bind(&server_port(0).into()).unwrap();
            socket.listen(backlog).unwrap();
            // That is how long accept() waits, too.
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.into()
        })
    }

    /// A connection from the client to the server.
    pub(crate) fn pair(&self) -> Pair {
        let listener = self.listen();
        let (client, server) = connect(&listener);
        let ends = ends_of(&client);
        Pair { listener, client, server, ends }
    }

    /// Sets a sysctl of both sides.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        for net in [self.client, &self.server] {
            net.enter(|| sysctl(name, value));
        }
    }

    /// Loses every segment from now on that this is true of.
    pub(crate) fn lose(&self, matches: impl Fn(&Seen) -> bool + Send + 'static) {
        self.rule(Verdict::Lose, usize::MAX, Box::new(matches));
    }

    /// Loses the next one.
    pub(crate) fn lose_one(&self, matches: impl Fn(&Seen) -> bool + Send + 'static) {
        self.rule(Verdict::Lose, 1, Box::new(matches));
    }

    /// Keeps every segment from now on that this is true of, until [`release`](Self::release).
    pub(crate) fn keep(&self, matches: impl Fn(&Seen) -> bool + Send + 'static) {
        self.rule(Verdict::Keep, usize::MAX, Box::new(matches));
    }

    /// Keeps the next one.
    pub(crate) fn keep_one(&self, matches: impl Fn(&Seen) -> bool + Send + 'static) {
        self.rule(Verdict::Keep, 1, Box::new(matches));
    }

    /// Lets every segment from now on that this is true of arrive so much later.
    pub(crate) fn delay(&self, by: Duration, matches: impl Fn(&Seen) -> bool + Send + 'static) {
        self.rule(Verdict::Delay(by), usize::MAX, Box::new(matches));
    }

    fn rule(&self, verdict: Verdict, left: usize, matches: Matches) {
        self.inner.change(|inner| inner.rules.push(Rule { matches, verdict, left }));
    }

    /// Forgets the rules and delivers what was kept, in the order in which it came.
    pub(crate) fn release(&self) {
        self.inner.change(|inner| {
            inner.rules.clear();
            for seen in std::mem::take(&mut inner.kept) {
                inner.deliver(seen.to, &seen.packet);
            }
        });
    }

    /// Waits until a segment like this has come to the wire, and has been received if no rule was against it.
    pub(crate) fn until(&self, what: &str, matches: impl Fn(&Seen) -> bool) {
        self.until_several(what, 1, matches);
    }

    /// Waits until so many have.
    pub(crate) fn until_several(&self, what: &str, count: usize, matches: impl Fn(&Seen) -> bool) {
        let came = |inner: &Inner| inner.seen.iter().filter(|seen| matches(seen)).count() >= count;
        let met = self.inner.wait(came);
        assert!(met, "not after {PATIENCE:?}: {what}\n{}", self.heard());
    }

    /// How many segments like this came to the wire.
    pub(crate) fn count(&self, matches: impl Fn(&Seen) -> bool) -> usize {
        self.inner.lock().seen.iter().filter(|seen| matches(seen)).count()
    }

    /// The last one of them.
    pub(crate) fn last(&self, matches: impl Fn(&Seen) -> bool) -> Seen {
        let last = self.inner.lock().seen.iter().rev().find(|seen| matches(seen)).cloned();
        last.unwrap_or_else(|| panic!("nothing like this came to the wire\n{}", self.heard()))
    }

    /// Says something that nobody sent. It has been received when this returns, unless the socket was in use.
    pub(crate) fn say(&self, to: To, packet: &[u8]) {
        self.inner.lock().deliver(to, packet);
    }

    /// Says a segment.
    pub(crate) fn say_segment(&self, to: To, segment: &Segment) {
        self.say(to, &segment.packet());
    }

    fn heard(&self) -> String {
        let inner = self.inner.lock();
        let lines = inner.seen.iter().map(|seen| format!("to {:?}: {:?}", seen.to, seen.segment));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of its own has had its message.
            let _ = thread.join();
        }
    }
}

/// What there is to do.
#[derive(Clone, Copy)]
struct Ready {
    client: bool,
    server: bool,
}

/// Waits until there is a packet or one is due; none when the wire is to end.
fn wait(inner: &Watched<Inner>, ends: &[File], stopped: &impl std::os::fd::AsFd) -> Option<Ready> {
    let due = inner.lock().delayed.iter().map(|(due, _)| *due).min();
    let timeout = due.map(|due| {
        let left = due.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
    });
    let mut fds = [
        PollFd::from_borrowed_fd(ends[0].as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(ends[1].as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => panic!("poll: {error}"),
    }
    let [client, server, stop] = fds.map(|fd| !fd.revents().is_empty());
    (!stop).then_some(Ready { client, server })
}

impl Inner {
    /// Takes what came, and delivers what is due.
    fn carry(&mut self, ends: &[File], ready: Ready) {
        for (mut end, ready, to) in
            [(&ends[0], ready.client, To::Server), (&ends[1], ready.server, To::Client)]
        {
            if ready {
                let mut packet = vec![0; MTU];
                let length = end.read(&mut packet).unwrap();
                packet.truncate(length);
                self.take(to, packet);
            }
        }
        let now = Instant::now();
        while let Some(at) = self.delayed.iter().position(|(due, _)| *due <= now) {
            let (_, seen) = self.delayed.remove(at);
            self.deliver(seen.to, &seen.packet);
        }
    }

    fn take(&mut self, to: To, packet: Vec<u8>) {
        // What the devices send when they come up, and ICMP, are nobody's concern.
        let Some(segment) = Segment::parse(&packet) else { return };
        let seen = Seen { to, segment, packet };
        let rule = self.rules.iter_mut().find(|rule| rule.left > 0 && (rule.matches)(&seen));
        let verdict = rule.map(|rule| {
            rule.left -= 1;
            rule.verdict
        });
        match verdict {
            None => self.deliver(to, &seen.packet),
            Some(Verdict::Lose) => {}
            Some(Verdict::Keep) => self.kept.push(seen.clone()),
            Some(Verdict::Delay(by)) => self.delayed.push((Instant::now() + by, seen.clone())),
        }
        self.seen.push(seen);
    }

    fn deliver(&mut self, to: To, packet: &[u8]) {
        let tun = match to {
            To::Client => &mut self.tuns[0],
            To::Server => &mut self.tuns[1],
        };
        let length = tun.write(packet).unwrap();
        assert_eq!(length, packet.len());
    }
}

/// An address of the server's.
pub(crate) fn server_port(port: u16) -> SocketAddr {
    SocketAddr::from((SERVER, port))
}

/// Gives the calling thread's namespace a TUN device with an address, and nothing to do but TCP on it.
fn plug(addr: Ipv4Addr) -> File {
    // Where there is no IPv6 there is nothing to turn off.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let tun = tun.expect("the live tests need /dev/net/tun (CONFIG_TUN)");
    let mut request = [0; IFREQ];
    request[..NAME.len()].copy_from_slice(NAME.as_bytes());
    request[IFREQ_FLAGS..IFREQ_FLAGS + 2].copy_from_slice(&PACKETS_ONLY.to_ne_bytes());
    #[expect(unsafe_code, reason = "rustix has no safe call for this ioctl")]
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, which has 40 bytes and takes any.
    let made = unsafe { ioctl(&tun, Updater::<SET_INTERFACE, _>::new(&mut request)) };
    made.unwrap();
    run("ip", &["address", "add", &format!("{addr}/24"), "dev", NAME]);
    run("ip", &["link", "set", NAME, "up"]);
    tun
}
