#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};

use tcptrace_common::record::{Addr, UNKNOWN};

use super::*;
use crate::model::{event::Totals, found::Whereabouts};

mod closing;
mod found;
mod identity;
mod memory;
mod owners;
mod resets;

/// A kernel address, as `sk` is.
const SK: u64 = 0xffff_8880_0000_1000;

/// A socket, to make records of.
#[derive(Clone, Copy, Debug)]
struct Sock {
    sk: u64,
    cookie: u64,
    tuple: Tuple,
}

impl Sock {
    /// `old>new` at a time in µs, by nobody in particular.
    fn at(&self, us: u64, change: &str) -> Record {
        let (old, new) = change.split_once('>').unwrap();
        let (old, new) = (old.parse::<State>().unwrap(), new.parse::<State>().unwrap());
        let kind = if new == State::CLOSE { record::Kind::CLOSE } else { record::Kind::TRANSITION };
        Record { kind, new: new.number(), ..self.hit(us, record::Kind::TRANSITION, old) }
    }

    /// Something else than a transition, in a state.
    fn hit(&self, us: u64, kind: record::Kind, state: State) -> Record {
        Record {
            ts_ns: us * 1000,
            sk: self.sk,
            cookie: self.cookie,
            tuple: self.tuple,
            flags: flags::SOCKET,
            reason: NO_REASON,
            kind,
            old: state.number(),
            new: state.number(),
            ..Record::default()
        }
    }

    /// As the socket's listener looks.
    fn listener(&self) -> Self {
        Self { tuple: Tuple { raddr: addr("0.0.0.0"), rport: 0, ..self.tuple }, ..*self }
    }

    /// The name of a child before 6.15: that of its listener.
    fn named_as(&self, listener: &Self) -> Self {
        Self { sk: self.sk, ..*listener }
    }
}

fn client() -> Sock {
    Sock { sk: SK, cookie: 7, tuple: tuple("10.0.0.9:51344", "10.0.0.5:443") }
}

fn server() -> Sock {
    Sock { sk: SK + 0x1000, cookie: 8, tuple: tuple("10.0.0.5:443", "10.0.0.9:51344") }
}

fn listener() -> Sock {
    Sock { sk: SK + 0x2000, cookie: 9, tuple: tuple("0.0.0.0:443", "0.0.0.0:0") }
}

/// As seen from a kernel that gives no cookies.
fn nameless(sock: Sock) -> Sock {
    Sock { cookie: 0, ..sock }
}

fn addr(text: &str) -> Addr {
    Addr::from_octets(match text.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    })
}

fn tuple(local: &str, remote: &str) -> Tuple {
    let (local, remote): (SocketAddr, SocketAddr) = (local.parse().unwrap(), remote.parse().unwrap());
    Tuple {
        laddr: addr(&local.ip().to_string()),
        raddr: addr(&remote.ip().to_string()),
        lport: local.port(),
        rport: remote.port(),
        netns: 4_026_531_833,
    }
}

/// The record as made by a process that holds the socket.
fn by(pid: u32, record: Record) -> Record {
    on_cpu(pid, with(flags::OWNED, record))
}

/// The record as made while a process is on the CPU.
fn on_cpu(pid: u32, record: Record) -> Record {
    Record { task_pid: pid, ..record }
}

fn with(flags: u32, record: Record) -> Record {
    Record { flags: record.flags | flags, ..record }
}

/// An orderly close, of which nothing is known of minisocks.
fn quiet() -> CloseDetail {
    CloseDetail { tw_count: UNKNOWN, tw_max: UNKNOWN, ..CloseDetail::default() }
}

/// What the tests look at: `id what µs-in-state role owner`, and the cause of what is told later than its record.
fn line(event: &Event) -> String {
    let id = match event.id {
        None => "-".to_owned(),
        Some(Id(id)) if id >> 63 == 1 => format!("own{}", id << 1 >> 1),
        Some(id) => id.to_string(),
    };
    let state = |state: Option<State>| state.map_or("-", State::name);
    let what = match event.kind {
        Kind::Transition => {
            let kernel = event.kernel_new.map(|state| format!("={state}")).unwrap_or_default();
            format!("{}>{}{kernel}", state(event.old), state(event.new))
        }
        kind => format!(
            "{} {} in {}",
            kind.name(),
            event.reason.as_deref().unwrap_or("-"),
            state(event.prev_state)
        ),
    };
    let us = event.in_state_ns.map_or("-".to_owned(), |ns| (ns / 1000).to_string());
    let role = event.role.map_or("-", Role::name);
    let owner = event.owner.map_or("-".to_owned(), |owner| format!("{} {}", owner.source.name(), owner.pid));
    let cause = match event.verdict.filter(|_| event.kernel_new.is_none() && event.task_pid.is_none()) {
        Some(verdict) => format!(" {}{}", verdict.cause.name(), if verdict.inferred { "?" } else { "" }),
        None => String::new(),
    };
    format!("{id} {what} {us} {role} {owner}{cause}")
}

struct Watch {
    tracker: Tracker,
}

impl Watch {
    fn new() -> Self {
        let reasons = Reasons::from([(1, Arc::from("NO_SOCKET")), (14, Arc::from("TCP_STATE"))]);
        Self { tracker: Tracker::new(reasons, false, false) }
    }

    fn raw() -> Self {
        Self { tracker: Tracker::new(Reasons::new(), true, false) }
    }

    fn events(&mut self, record: Record, detail: &CloseDetail) -> Vec<Event> {
        let mut events = Vec::new();
        let detail = (record.kind == record::Kind::CLOSE).then_some(detail);
        self.tracker.feed(&record, detail, &mut |event| {
            events.push(event);
            Fate::Keep
        });
        events
    }

    fn feed(&mut self, record: Record) -> Vec<String> {
        self.close(record, &quiet())
    }

    fn close(&mut self, record: Record, detail: &CloseDetail) -> Vec<String> {
        self.events(record, detail).iter().map(line).collect()
    }

    /// The one event of a record.
    fn event(&mut self, record: Record) -> Event {
        let mut events = self.events(record, &quiet());
        assert_eq!(events.len(), 1);
        events.remove(0)
    }

    fn tick(&mut self, us: u64) -> Vec<String> {
        let mut lines = Vec::new();
        self.tracker.tick(us * 1000, &mut |event| {
            lines.push(line(&event));
            Fate::Keep
        });
        lines
    }

    /// The answer to what is in doubt.
    fn settle(&mut self, us: u64, found: Whereabouts) -> Vec<String> {
        let doubts: Vec<_> = self.tracker.doubts().collect();
        let mut lines = Vec::new();
        for doubt in doubts {
            self.tracker.settle(&doubt, found, us * 1000, &mut |event| {
                lines.push(line(&event));
                Fate::Keep
            });
        }
        lines
    }

    /// Transitions of one socket, a ms apart from 1 ms on, the same for all: what is said of each.
    fn story(&mut self, sock: &Sock, changes: &[&str]) -> Vec<String> {
        (1..).zip(changes).flat_map(|(ms, change)| self.feed(sock.at(ms * 1000, change))).collect()
    }
}

const CONNECT: [&str; 2] = ["CLOSE>SYN_SENT", "SYN_SENT>ESTABLISHED"];
const ACCEPT: [&str; 2] = ["LISTEN>SYN_RECV", "SYN_RECV>ESTABLISHED"];
