//! What is to be told of an end of a connection when it is over, and whether it was.
//!
//! `trace` tells the transitions and, with the last, the cause. `conns` tells one line, and most of what that
//! must say follows from the transitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    thread,
};

use crate::support::{
    conns::{Connections, Conns},
    event::Event,
    host::KERNEL,
    netns::COMM,
    story::End,
    trace::{Log, Trace, command},
    wire::Wire,
};

/// How far two observers, or two ways to the same number, may be apart.
const TOLERANCE_US: f64 = 5_000.0;
/// The same for what a minisock's timer says, in ticks of 1 to 10 ms, of the time when the FIN came.
const MINISOCK_TOLERANCE_US: f64 = 50_000.0;

/// An end of a connection.
#[derive(Clone)]
pub(crate) struct Fate<'a> {
    end: End,
    story: &'a [&'a str],
    cause: &'a str,
    source: &'a str,
    /// Payload sent and acknowledged, and received.
    bytes: (u64, u64),
    /// States that took at least so many µs.
    waited: Vec<(&'a str, u32)>,
    retransmits: Retransmits,
    /// Where no process is to have had the socket but by its listener.
    never_accepted: bool,
}

#[derive(Clone, Copy)]
enum Retransmits {
    None,
    Some,
    Any,
}

impl<'a> Fate<'a> {
    /// What the kernel told; no payload, nothing sent again.
    pub(crate) fn new(end: End, story: &'a [&'a str], cause: &'a str) -> Self {
        Self {
            end,
            story,
            cause,
            source: "kernel",
            bytes: (0, 0),
            waited: vec![],
            retransmits: Retransmits::None,
            never_accepted: false,
        }
    }

    /// The cause is inferred.
    pub(crate) fn inferred(self) -> Self {
        Self { source: "inferred", ..self }
    }

    pub(crate) fn bytes(self, sent: u64, received: u64) -> Self {
        Self { bytes: (sent, received), ..self }
    }

    /// It was so many ms in a state, or longer.
    pub(crate) fn waited(mut self, state: &'a str, millis: u32) -> Self {
        self.waited.push((state, millis * 1000));
        self
    }

    /// Something may have been sent again.
    pub(crate) fn perhaps_repeated(self) -> Self {
        Self { retransmits: Retransmits::Any, ..self }
    }

    /// Something was sent again.
    pub(crate) fn repeated(self) -> Self {
        Self { retransmits: Retransmits::Some, ..self }
    }

    pub(crate) fn never_accepted(self) -> Self {
        Self { never_accepted: true, ..self }
    }

    /// Compares what the two commands told.
    pub(crate) fn check(&self, log: &Log, lines: &Connections) {
        self.check_trace(log);
        self.check_line(lines.of(self.end), log);
    }

    /// The transitions: the old and the new state of each, and the kernel's words for the rest.
    fn transitions(&self) -> impl DoubleEndedIterator<Item = (&'a str, &'a str, &'a str)> {
        self.story.iter().filter_map(|words| {
            let (old, rest) = words.split_once('>').filter(|(old, _)| !old.starts_with("RST"))?;
            let (new, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            Some((old, new, rest))
        })
    }

    fn role(&self) -> &'static str {
        match self.transitions().next().unwrap() {
            ("CLOSE", "SYN_SENT", _) => "client",
            ("LISTEN", "SYN_RECV", _) => "server",
            birth => panic!("{}: no connection begins with {birth:?}", self.end),
        }
    }

    /// The reason of the RST that we sent in the last state.
    fn reason(&self) -> Option<&'a str> {
        let (last, ..) = self.transitions().next_back()?;
        let sent = self.story.iter().rev().filter_map(|words| words.strip_prefix("RST> "));
        sent.filter_map(|rest| rest.split_once(" in ")).find(|(_, state)| *state == last).map(|(why, _)| why)
    }

    /// Compares the line of `conns`.
    fn check_line(&self, line: &Event, log: &Log) {
        let end = self.end;
        let (old, new, rest) = self.transitions().next_back().unwrap();
        let error = Some(rest).filter(|rest| rest.starts_with('E'));
        let expected = [
            ("role", Some(self.role())),
            ("new", Some(new)),
            ("prev_state", Some(old)),
            ("cause", Some(self.cause)),
            ("cause_src", Some(self.source)),
            ("sk_err", error),
            ("family", Some("ipv4")),
            ("comm", Some(COMM)),
            ("reason", self.reason().filter(|_| KERNEL.reasons)),
        ];
        for (name, value) in expected {
            assert_eq!(line.text(name), value, "{end}: {name} in {line:?}");
        }
        let numbers = (line.number("pid"), line.number("uid"));
        assert_eq!(numbers, (Some(std::process::id().into()), Some(0)), "{end}: {line:?}");
        self.check_totals(line);
        let story = log.of(end);
        self.check_owner(line, &story);
        self.check_times(line, &story);
        let last = story.last().unwrap();
        for name in ["netns", "laddr", "raddr", "cgroup", "cgroup_path"] {
            assert_eq!(line.field(name), last.field(name), "{end}: {name} in {line:?}");
        }
        if KERNEL.cookies {
            assert_eq!(line.text("id"), last.text("id"), "{end}: {line:?}");
        }
    }

    /// What the socket counted.
    fn check_totals(&self, event: &Event) {
        let bytes = (event.number("tx_bytes"), event.number("rx_bytes"));
        assert_eq!(bytes, (Some(self.bytes.0), Some(self.bytes.1)), "{}: {event:?}", self.end);
        let count = event.number("retransmits").unwrap();
        let right = match self.retransmits {
            Retransmits::None => count == 0,
            Retransmits::Some => count > 0,
            Retransmits::Any => true,
        };
        assert!(right, "{}: {count} retransmits in {event:?}", self.end);
    }

    fn check_owner(&self, line: &Event, story: &[&Event]) {
        let source = line.text("owner_src").unwrap();
        let possible: &[&str] = match self.role() {
            "client" => &["connect"],
            _ if self.never_accepted => &["listener"],
            // Who accepted it is known once it has acted on the socket, or was found to have it open.
            _ => &["accept", "close", "fd", "listener"],
        };
        assert!(possible.contains(&source), "{}: {line:?}", self.end);
        // Both learn it in the same way.
        let told = story.iter().rev().find_map(|event| event.text("owner_src"));
        assert_eq!(told, Some(source), "{}: {line:?}", self.end);
    }

    /// The states are those that were visited, for as long as the transitions tell, and together they are the
    /// whole time.
    fn check_times(&self, line: &Event, story: &[&Event]) {
        let end = self.end;
        let mut visited: BTreeMap<&str, f64> = BTreeMap::new();
        for event in story.iter().filter(|event| event.kind() == "transition" && !event.is_birth()) {
            *visited.entry(event.text("old").unwrap()).or_default() += event.micros("in_state_us").unwrap();
        }
        let told = line.field("state_us").unwrap_or_else(|| panic!("{end}: no state_us in {line:?}"));
        let told: BTreeMap<&str, f64> = told
            .as_object()
            .unwrap()
            .iter()
            .map(|(state, us)| (state.as_str(), us.as_f64().unwrap()))
            .collect();
        let states = |times: &BTreeMap<&str, f64>| times.keys().map(|&state| state.to_owned()).collect();
        let (a, b): (BTreeSet<String>, BTreeSet<String>) = (states(&visited), states(&told));
        assert_eq!(a, b, "{end}: {line:?}");
        let minisock = self.story.contains(&"FIN_WAIT2>FIN_WAIT2 (CLOSE)");
        let tolerance = if minisock { MINISOCK_TOLERANCE_US } else { TOLERANCE_US };
        for (state, us) in &visited {
            let other = told[state];
            assert!((us - other).abs() < tolerance, "{end}: {us} µs in {state} by trace: {line:?}");
        }
        for (state, least) in &self.waited {
            assert!(told[state] >= f64::from(*least), "{end}: at least {least} µs in {state}: {line:?}");
        }
        let duration = line.micros("duration_us").unwrap();
        let sum: f64 = told.values().sum();
        assert!((sum - duration).abs() < 1_000.0, "{end}: {sum} µs in all states: {line:?}");
        let stamp =
            |name: &str| line.text(name).unwrap_or_else(|| panic!("{end}: no {name} in {line:?}")).to_owned();
        let (opened, ended) = (micros_of_day(&stamp("opened_ts")), micros_of_day(&stamp("ts")));
        // A day later than it began, at most.
        let passed = (ended - opened).rem_euclid(86_400e6);
        assert!((passed - duration).abs() < 1_000.0, "{end}: {passed} µs by the clock: {line:?}");
    }

    /// The totals are with the last transition that the kernel reports, the cause is with the very last, and
    /// neither is with any other.
    fn check_trace(&self, log: &Log) {
        let end = self.end;
        let story = log.of(end);
        for event in &story {
            let owner = (event.number("pid"), event.text("comm"));
            assert_eq!(owner, (Some(std::process::id().into()), Some(COMM)), "{end}: {event:?}");
        }
        let transitions: Vec<_> = story.into_iter().filter(|event| event.kind() == "transition").collect();
        let with_totals: Vec<_> =
            transitions.iter().filter(|event| event.number("tx_bytes").is_some()).collect();
        assert_eq!(with_totals.len(), 1, "{end}: {with_totals:?}");
        self.check_totals(with_totals[0]);
        for (state, least) in &self.waited {
            let of_state = transitions.iter().filter(|event| event.text("old") == Some(state));
            let told: f64 = of_state.filter_map(|event| event.micros("in_state_us")).sum();
            assert!(told >= f64::from(*least), "{end}: {told} µs in {state}, not {least}");
        }
        let (last, earlier) = transitions.split_last().unwrap();
        let cause = (last.text("cause"), last.text("cause_src"));
        assert_eq!(cause, (Some(self.cause), Some(self.source)), "{}: {last:?}", self.end);
        for event in earlier {
            assert_eq!(event.text("cause"), None, "{}: {event:?}", self.end);
        }
    }
}

/// The time of the day of "2026-01-02T03:04:05.678901234Z".
fn micros_of_day(stamp: &str) -> f64 {
    let number = |range: std::ops::Range<usize>| stamp[range].parse::<f64>().unwrap();
    (number(11..13) * 3600.0 + number(14..16) * 60.0 + number(17..29)) * 1e6
}

/// Both commands, watching both ends of a wire.
pub(crate) struct Watch {
    pub(crate) trace: Trace,
    conns: Conns,
}

impl Watch {
    /// Watches both namespaces.
    pub(crate) fn both(wire: &Wire<'_>) -> Self {
        let nets = format!("{},{}", wire.client.inode(), wire.server.inode());
        // Each takes a while to attach, and they can do it at the same time.
        thread::scope(|scope| {
            let conns = scope.spawn(|| Conns::start(&nets, &[]));
            let trace = Trace::start(command(&[]).args(["-N", &nets]));
            Self { trace, conns: conns.join().unwrap_or_else(|panic| resume_unwind(panic)) }
        })
    }

    /// Waits until the transition has been told.
    pub(crate) fn until(&self, old: &str, new: &str) {
        self.until_several(1, old, new);
    }

    /// Waits until it has been told of so many ends.
    pub(crate) fn until_several(&self, count: usize, old: &str, new: &str) {
        self.trace.until(&format!("{count} times {old}>{new}"), |events| {
            events.iter().filter(|event| event.is(old, new)).count() >= count
        });
    }

    /// Ends both runs and compares: every connection's fate, and the stories of what is no connection. Every
    /// connection has one line and nothing else has.
    pub(crate) fn tells(self, fates: &[Fate<'_>], others: &[(End, &[&str])]) {
        let of_fates = fates.iter().map(|fate| (fate.end, fate.story));
        let expected: Vec<(End, &[&str])> = of_fates.chain(others.iter().copied()).collect();
        let log = self.trace.tells_of_others(&expected);
        let lines = self.conns.tells(fates.len());
        for fate in fates {
            fate.check(&log, &lines);
        }
    }

    /// Ends both runs and returns what both told, for a test that compares by itself.
    pub(crate) fn stop(self, connections: usize) -> (Log, Connections) {
        let lines = self.conns.tells(connections);
        (self.trace.stop(), lines)
    }
}
