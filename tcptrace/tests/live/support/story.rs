//! What happened to each end of each connection, in order, and how to compare it with what was to happen.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
};

use super::{event::Event, host::KERNEL};

/// One end of a connection, by its ports as that end sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct End {
    pub(crate) lport: u16,
    pub(crate) rport: u16,
    /// No end of a connection: RSTs that belong to none, and SYN-ACKs, which come before there is one.
    pub(crate) stray: bool,
}

impl End {
    pub(crate) const fn new(lport: u16, rport: u16) -> Self {
        Self { lport, rport, stray: false }
    }

    /// A socket that listens.
    pub(crate) const fn listener(port: u16) -> Self {
        Self::new(port, 0)
    }

    /// What happens without a connection.
    pub(crate) const fn stray(lport: u16, rport: u16) -> Self {
        Self { lport, rport, stray: true }
    }

    /// The same connection as the other side sees it.
    pub(crate) const fn peer(self) -> Self {
        Self { lport: self.rport, rport: self.lport, ..self }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lport, rport, stray } = self;
        write!(f, "{lport} - {rport}{}", if *stray { " (no connection)" } else { "" })
    }
}

/// Events by the end that they happened to.
pub(crate) type Story<'a> = BTreeMap<End, Vec<&'a Event>>;

/// Sorts events by their end. The id tells which belong together, because the local port is not there before
/// the socket has one; a socket that connects once more begins a new story.
pub(crate) fn story_of(events: &[Event]) -> Story<'_> {
    let mut lives: Vec<Vec<&Event>> = Vec::new();
    let mut current: HashMap<&str, usize> = HashMap::new();
    let mut story = Story::new();
    for event in events {
        match event.text("id") {
            Some(id) => {
                let life = match current.get(id) {
                    Some(life) if !event.is_birth() => *life,
                    _ => {
                        lives.push(Vec::new());
                        lives.len() - 1
                    }
                };
                current.insert(id, life);
                lives[life].push(event);
            }
            None if matches!(event.kind(), "rst_sent" | "retransmit") => {
                let end = End::stray(event.port("lport"), event.port("rport"));
                story.entry(end).or_default().push(event);
            }
            None => panic!("an event without id: {event:?}"),
        }
    }
    for life in lives {
        let ports = |event: &&Event| End::new(event.port("lport"), event.port("rport"));
        // The last that has both; a listener never has a peer.
        let ends = || life.iter().rev().map(ports);
        let end = ends().find(|end| end.lport != 0).or_else(|| ends().next()).unwrap();
        story.entry(end).or_default().extend(life);
    }
    story
}

/// What is to happen to an end.
pub(crate) type Expected<'a> = (End, &'a [&'a str]);

/// The expectation for the running kernel: without reasons where it has none, and without RSTs that it does
/// not report.
pub(crate) fn adapt(expected: &[Expected<'_>]) -> BTreeMap<End, Vec<String>> {
    let mut adapted = BTreeMap::new();
    for (end, words) in expected {
        let stray =
            |words: &str| words.starts_with("RST>") && end.stray || words.contains("TCP_TIMEWAIT_SOCKET");
        let words: Vec<String> = words
            .iter()
            .filter(|words| KERNEL.stray_resets || !stray(words))
            .map(|words| if KERNEL.reasons { (*words).to_owned() } else { without_reason(words) })
            .collect();
        if !words.is_empty() {
            let before = adapted.insert(*end, words);
            assert!(before.is_none(), "the end {end} is expected twice");
        }
    }
    adapted
}

fn without_reason(words: &str) -> String {
    match words.strip_prefix("RST> ") {
        Some(rest) => match rest.split_once(' ') {
            Some((_reason, state)) => format!("RST> {state}"),
            None => "RST>".to_owned(),
        },
        None => words.to_owned(),
    }
}

/// What did happen, in the same form.
pub(crate) fn told(story: &Story<'_>) -> BTreeMap<End, Vec<String>> {
    story.iter().map(|(end, events)| (*end, events.iter().map(|event| event.words()).collect())).collect()
}

/// Both, beside each other where they differ.
pub(crate) fn difference(
    expected: &BTreeMap<End, Vec<String>>,
    told: &BTreeMap<End, Vec<String>>,
) -> Option<String> {
    if expected == told {
        return None;
    }
    let mut text = String::new();
    let nothing = Vec::new();
    let mut ends: Vec<&End> = expected.keys().chain(told.keys()).collect();
    ends.sort();
    ends.dedup();
    for end in ends {
        let (expected, told) = (expected.get(end).unwrap_or(&nothing), told.get(end).unwrap_or(&nothing));
        if expected == told {
            continue;
        }
        let _ = writeln!(text, "{end}\n  {:<45} told", "expected");
        for line in 0..expected.len().max(told.len()) {
            let (a, b) = (expected.get(line), told.get(line));
            let mark = if a == b { ' ' } else { '!' };
            let (a, b) = (a.map_or("-", String::as_str), b.map_or("-", String::as_str));
            let _ = writeln!(text, "{mark} {a:<45} {b}");
        }
    }
    Some(text)
}
