//! `tcptrace conns`, as a child, and the connections that it tells of.

use std::process::Command;

use super::{event::Event, netns::Netns, story::End, trace::Trace};

/// Every cause there is.
const CAUSES: [&str; 17] = [
    "local_fin",
    "peer_fin",
    "simultaneous_close",
    "peer_rst",
    "local_abort_unread",
    "local_abort_linger",
    "local_abort_other",
    "refused",
    "connect_timeout",
    "timeout",
    "keepalive_timeout",
    "unreachable",
    "fin_wait2_timeout",
    "handshake_failed",
    "listener_closed",
    "no_local_port",
    "unknown",
];

/// A `tcptrace conns` that watches.
pub(crate) struct Conns(Trace);

/// What it told: a connection a line.
pub(crate) struct Connections(pub(crate) Vec<Event>);

impl Conns {
    /// Watches a network namespace. What was there before is known when this returns.
    pub(crate) fn of(net: &Netns, args: &[&str]) -> Self {
        Self::start(&net.inode().to_string(), args)
    }

    /// Watches network namespaces, as `-N` takes them.
    pub(crate) fn start(nets: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
        command.args(["conns", "-v", "-o", "json", "-N", nets]).args(args);
        Self(Trace::start(&mut command))
    }

    /// Waits until so many connections have been told of, with those that were open at the start where they are
    /// shown.
    pub(crate) fn until(&self, count: usize) {
        self.0.until(&format!("{count} connections"), |events| events.len() >= count);
    }

    /// Waits for so many connections and ends the run as Ctrl-C does: it was those, and nothing was lost.
    pub(crate) fn tells(self, count: usize) -> Connections {
        self.until(count);
        let told = self.stop();
        assert_eq!(told.0.len(), count, "{:#?}", told.0);
        told
    }

    /// Ends the run. What happened before is told.
    pub(crate) fn stop(self) -> Connections {
        let told = self.0.stop().events;
        for connection in &told {
            makes_sense(connection);
        }
        Connections(told)
    }
}

impl Connections {
    /// The only one with this end.
    pub(crate) fn of(&self, end: End) -> &Event {
        let mut found = self.0.iter().filter(|connection| end_of(connection) == end);
        let connection = found.next().unwrap_or_else(|| panic!("{end} was not told of: {:#?}", self.0));
        assert!(found.next().is_none(), "{end} was told of twice: {:#?}", self.0);
        connection
    }

    /// Its owner, and how that was learned; for an end that has one.
    pub(crate) fn owner(&self, end: End) -> (u32, &str, &str) {
        owner_of(self.of(end)).unwrap_or_else(|| panic!("nobody owns {:?}", self.of(end)))
    }
}

/// The end that a line is about.
pub(crate) fn end_of(connection: &Event) -> End {
    End::new(connection.port("lport"), connection.port("rport"))
}

/// A connection's owner, and how it was learned. All of it is known, or nothing.
pub(crate) fn owner_of(connection: &Event) -> Option<(u32, &str, &str)> {
    match (connection.number("pid"), connection.text("comm"), connection.text("owner_src")) {
        (Some(pid), Some(comm), Some(source)) => Some((u32::try_from(pid).unwrap(), comm, source)),
        (None, None, None) => None,
        _ => panic!("half an owner: {connection:?}"),
    }
}

/// What must hold for every connection, ended or not, whatever happened to it.
fn makes_sense(connection: &Event) {
    assert_eq!(connection.kind(), "connection", "{connection:?}");
    for name in ["ts", "id", "netns", "family", "laddr", "raddr", "rport", "new"] {
        assert!(connection.field(name).is_some(), "no {name}: {connection:?}");
    }
    // connect() may have found no port.
    let portless = connection.text("cause") == Some("no_local_port");
    assert!(portless || connection.field("lport").is_some(), "no lport: {connection:?}");
    assert!(matches!(connection.text("role"), None | Some("client" | "server")), "{connection:?}");
    let cause = connection.text("cause");
    assert_eq!(cause.is_some(), is_over(connection), "{connection:?}");
    assert!(cause.is_none_or(|cause| CAUSES.contains(&cause)), "{connection:?}");
    if is_over(connection) {
        assert!(matches!(connection.text("cause_src"), Some("kernel" | "inferred")), "{connection:?}");
    }
    // Of a connection that was seen from its beginning on all time is accounted for.
    if connection.field("opened_ts").is_some() {
        let total = connection.micros("duration_us").unwrap();
        let states = connection.field("state_us").unwrap().as_object().unwrap();
        let sum: f64 = states.values().map(|time| time.as_f64().unwrap()).sum();
        assert!((sum - total).abs() <= 1.0 + total / 1_000.0, "{sum} of {total} µs: {connection:?}");
    }
}

/// Whether the connection has ended. A line about one that is open has no cause.
fn is_over(connection: &Event) -> bool {
    matches!(connection.text("new"), Some("TIME_WAIT" | "CLOSE"))
}

/// Whether two causes are what the two ends of one connection are to say of it.
pub(crate) fn agree(one: &str, other: &str) -> bool {
    let matches = |one: &str, other: &str| match one {
        "local_fin" => other == "peer_fin",
        "simultaneous_close" => other == one,
        "peer_rst" => other.starts_with("local_abort_"),
        _ => false,
    };
    matches(one, other) || matches(other, one)
}
