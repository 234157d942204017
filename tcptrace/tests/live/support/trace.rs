//! tcptrace itself, as a child.

use std::{
    fs,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    PATIENCE,
    event::Event,
    netns::{COMM, Netns},
    process::{Lines, Process, Watched, lines_of},
    story::{End, Expected, adapt, difference, story_of, told},
};

/// A tcptrace that watches.
pub(crate) struct Trace {
    process: Process,
    stdout: Arc<Watched<Lines>>,
    stderr: Arc<Watched<Lines>>,
}

/// What a run of tcptrace came to.
pub(crate) struct Log {
    /// Transitions, RSTs and retransmits.
    pub(crate) events: Vec<Event>,
    /// The last object.
    pub(crate) summary: Event,
    /// By the `lost` objects.
    pub(crate) lost: u64,
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

/// A command that runs tcptrace, with the flags that every test wants and some more.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    command.args(["-v", "-o", "json"]).args(args);
    command
}

impl Trace {
    /// Watches a network namespace.
    pub(crate) fn of(net: &Netns, args: &[&str]) -> Self {
        let inode = net.inode().to_string();
        Self::start(command(args).args(["-N", &inode]))
    }

    /// Runs a command that becomes tcptrace, and waits until it is attached.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (process, pipes) = Process::start(command);
        let (stdout, stderr) = (lines_of(pipes.stdout.unwrap()), lines_of(pipes.stderr.unwrap()));
        await_attached(&stderr);
        Self { process, stdout, stderr }
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the events satisfy a predicate.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&[Event]) -> bool) {
        let mut events = Vec::new();
        let mut holds = |lines: &Lines| {
            let new = &lines.lines[events.len()..];
            events.extend(new.iter().map(|line| Event::parse(line)));
            holds(&events)
        };
        // A test looks at every line once more when it is over, and so at what made this fail.
        let ended = |lines: &Lines| lines.closed;
        let met = self.stdout.wait(|lines| holds(lines) || ended(lines)) && holds(&self.stdout.lock());
        assert!(met, "not after {PATIENCE:?}: {what}\n{}", self.heard());
    }

    /// Waits until as many events have been told of each end as are to be, ends the run, and compares it all:
    /// every end, every event, in order. Also that the rest of what is told of each end makes sense.
    pub(crate) fn tells(self, expected: &[Expected<'_>]) -> Log {
        let log = self.tells_of_others(expected);
        log.is_of(std::process::id(), COMM);
        log
    }

    /// As [`tells`](Self::tells), for sockets of other processes.
    pub(crate) fn tells_of_others(self, expected: &[Expected<'_>]) -> Log {
        let log = self.compared_with(expected);
        log.has_an_id_for_each_connection();
        log
    }

    /// The comparison and the sense alone, for sockets that have several connections.
    pub(crate) fn compared_with(self, expected: &[Expected<'_>]) -> Log {
        let log = self.lists(expected);
        log.makes_sense();
        log
    }

    /// The comparison alone, for a stream that leaves things out.
    pub(crate) fn lists(self, expected: &[Expected<'_>]) -> Log {
        let expected = adapt(expected);
        let total: usize = expected.values().map(Vec::len).sum();
        // What is missing is seen better in the comparison than here.
        self.stdout.wait(|lines| lines.lines.len() >= total || lines.closed);
        let log = self.stop();
        if let Some(difference) = difference(&expected, &told(&story_of(&log.events))) {
            // What a host that stalls sends again makes a story of its own.
            panic!("another story was told; segments sent again: {}\n{difference}", sent_again());
        }
        log
    }

    /// Ends the run as Ctrl-C does; it must end well. What happened before is in the log.
    pub(crate) fn stop(self) -> Log {
        self.process.signal(Signal::INT);
        let log = self.ended();
        assert!(log.status.success(), "{}\n{}", log.status, log.stderr);
        assert_eq!(log.summary.number("events"), Some(log.events.len() as u64), "{:?}", log.summary);
        assert_eq!((log.summary.number("lost"), log.lost), (Some(0), 0), "{:?}", log.summary);
        log
    }

    /// Waits until the run has ended.
    pub(crate) fn ended(mut self) -> Log {
        let closed = self.stdout.wait(|lines| lines.closed) && self.stderr.wait(|lines| lines.closed);
        assert!(closed, "tcptrace has not ended after {PATIENCE:?}\n{}", self.heard());
        let status = self.process.wait();
        let mut events: Vec<Event> = self.stdout.lock().lines.iter().map(|line| Event::parse(line)).collect();
        let stderr = self.stderr.lock().lines.join("\n");
        let summary = events.pop().filter(|event| event.kind() == "summary");
        let summary = summary.unwrap_or_else(|| panic!("the last line is no summary\n{}", self.heard()));
        let (lost, events): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.kind() == "lost");
        let lost = lost.iter().map(|event| event.number("lost").unwrap()).sum();
        Log { events, summary, lost, status, stderr }
    }

    fn heard(&self) -> String {
        format!("{}\n{}", self.stderr.lock().lines.join("\n"), self.stdout.lock().lines.join("\n"))
    }
}

/// How many segments were sent again in this network namespace.
pub(crate) fn sent_again() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let (_, count) = names.zip(values).find(|(name, _)| *name == "RetransSegs").unwrap();
    count.parse().unwrap()
}

/// Waits until tcptrace says that it is attached.
pub(crate) fn await_attached(stderr: &Watched<Lines>) {
    let watching = |lines: &Lines| lines.lines.iter().any(|line| line.contains("watching"));
    stderr.wait(|lines| watching(lines) || lines.closed);
    let lines = stderr.lock();
    assert!(
        watching(&lines),
        "tcptrace does not watch (the live tests need root and BPF):\n{}",
        lines.lines.join("\n")
    );
}

impl Log {
    /// The events of an end.
    pub(crate) fn of(&self, end: End) -> Vec<&Event> {
        story_of(&self.events).remove(&end).unwrap_or_else(|| panic!("nothing was told of {end}"))
    }

    /// The transition of an end.
    pub(crate) fn transition(&self, end: End, old: &str, new: &str) -> &Event {
        let found = self.of(end).into_iter().find(|event| event.is(old, new));
        found.unwrap_or_else(|| panic!("{end}: no {old}>{new}"))
    }

    /// What must hold for every connection whatever happens to it.
    fn makes_sense(&self) {
        let story = story_of(&self.events);
        for (end, events) in story.iter().filter(|(end, _)| !end.stray) {
            let ids: Vec<&str> = events.iter().map(|event| event.text("id").unwrap()).collect();
            assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{end}: one connection, ids {ids:?}");
            for name in ["netns", "family"] {
                let first = events[0].field(name);
                assert!(first.is_some(), "{end}: no {name}");
                assert!(events.iter().all(|event| event.field(name) == first), "{end}: {name} changes");
            }
            let role = match () {
                () if events[0].is("CLOSE", "SYN_SENT") => Some("client"),
                () if events[0].is("LISTEN", "SYN_RECV") => Some("server"),
                () if events[0].is("CLOSE", "LISTEN") => Some("listener"),
                () => events[0].text("role"),
            };
            let mut known = false;
            for event in events {
                assert_eq!(event.text("role"), role, "{end}: {event:?}");
                let stamp = event.text("ts").unwrap();
                assert!(stamp.len() == 30 && stamp.ends_with('Z'), "{end}: ts is {stamp}");
                let repeated = event.text("old") == event.text("new") && event.text("kernel_new").is_none();
                if event.kind() == "transition" && !repeated {
                    // The first state began before anybody looked.
                    assert_eq!(event.micros("in_state_us").is_some(), known, "{end}: {event:?}");
                    known = true;
                } else {
                    assert_eq!(event.micros("in_state_us"), None, "{end}: {event:?}");
                }
            }
        }
    }

    fn has_an_id_for_each_connection(&self) {
        let story = story_of(&self.events);
        let mut ids: Vec<_> =
            story.iter().filter(|(end, _)| !end.stray).map(|(_, events)| events[0].text("id")).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "two connections have the same id");
    }

    /// That a process owns every socket and every request to its listeners, and that what happens without is
    /// nobody's.
    pub(crate) fn is_of(&self, pid: u32, comm: &str) {
        for event in &self.events {
            let owner = (event.number("pid"), event.text("comm"), event.text("owner_src").is_some());
            let request = event.kind() == "retransmit" && event.text("role") == Some("server");
            if event.text("id").is_some() || request {
                assert_eq!(owner, (Some(u64::from(pid)), Some(comm), true), "{event:?}");
            } else {
                assert_eq!(owner, (None, None, false), "{event:?}");
                assert_eq!(event.text("role"), None, "{event:?}");
            }
        }
    }
}
