//! One object of the JSON stream.

use serde_json::{Map, Value};

use super::host::KERNEL;

/// One object of the stream, its fields' types checked.
#[derive(Clone, Debug)]
pub(crate) struct Event(Map<String, Value>);

/// Fields that are numbers where they are there at all.
const NUMBERS: &[&str] = &[
    "netns",
    "lport",
    "rport",
    "in_state_us",
    "pid",
    "uid",
    "task_pid",
    "cgroup",
    "retransmits",
    "tx_bytes",
    "rx_bytes",
    "srtt_us",
    "lost",
    "gaps",
    "beyond",
    "events",
    "elapsed_us",
    "duration_us",
    "count",
    "oldest_close_wait_us",
    "port",
    "owners",
    "opened",
    "closed",
    "rst",
    "close_wait_growth",
    "interval_us",
    "interval_count",
    "mean_us",
    "p50_us",
    "p90_us",
    "p99_us",
    "max_us",
    "out_rsts",
    "rsts_seen",
    "estab_resets",
    "resets_seen",
    "rules",
    "critical",
    "warnings",
    "sockets_seen",
    "listeners",
    "namespaces",
];

/// Fields that are objects.
const OBJECTS: [&str; 2] = ["state_us", "sockets"];

impl Event {
    /// Reads a line. What the lists above do not name is text.
    pub(crate) fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("this line is no JSON: {error}\n{line}"));
        let Value::Object(fields) = value else { panic!("this line is no object: {line}") };
        for (name, value) in &fields {
            let right = match name.as_str() {
                name if NUMBERS.contains(&name) => value.is_number(),
                "buckets" | "evidence" | "remedy" | "more" => value.is_array(),
                "other" => value.is_boolean(),
                name if OBJECTS.contains(&name) => value.is_object(),
                _ => value.is_string(),
            };
            assert!(right, "the field {name} has another type here: {line}");
        }
        Self(fields)
    }

    /// It as it was read.
    pub(crate) fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// A field's value.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A field's text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str().unwrap_or_else(|| panic!("{name} is no text: {value}")))
    }

    /// A field's whole number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|value| value.as_u64().unwrap_or_else(|| panic!("{name} is not whole: {value}")))
    }

    /// A field's time in µs.
    pub(crate) fn micros(&self, name: &str) -> Option<f64> {
        self.0.get(name).map(|value| value.as_f64().unwrap_or_else(|| panic!("{name} is no time: {value}")))
    }

    /// A port; 0 where the stream has none.
    pub(crate) fn port(&self, name: &str) -> u16 {
        self.number(name).map_or(0, |port| u16::try_from(port).unwrap())
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("kind").unwrap_or_else(|| panic!("no kind: {self:?}"))
    }

    /// Whether this is the transition.
    pub(crate) fn is(&self, old: &str, new: &str) -> bool {
        self.text("old") == Some(old) && self.text("new") == Some(new)
    }

    /// Whether a socket begins a connection, or to listen, here.
    pub(crate) fn is_birth(&self) -> bool {
        self.is("CLOSE", "SYN_SENT") || self.is("CLOSE", "LISTEN") || self.is("LISTEN", "SYN_RECV")
    }

    /// What happened, in a few words:
    /// - `ESTABLISHED>CLOSE ECONNRESET`: a transition, with the socket's error if there is one;
    /// - `FIN_WAIT2>TIME_WAIT (CLOSE)`: one that the kernel calls `FIN_WAIT2>CLOSE`;
    /// - `RST> TCP_STATE in ESTABLISHED`: a RST sent, with the kernel's reason where it gives reasons;
    /// - `RST< in SYN_SENT`: a RST received;
    /// - `AGAIN in SYN_SENT`: a segment sent again.
    pub(crate) fn words(&self) -> String {
        let state = self.text("prev_state").map(|state| format!(" in {state}")).unwrap_or_default();
        match self.kind() {
            "transition" => {
                let (old, new) = (self.text("old").unwrap(), self.text("new").unwrap());
                let kernel = self.text("kernel_new").map(|new| format!(" ({new})")).unwrap_or_default();
                let error = self.text("sk_err").map(|error| format!(" {error}")).unwrap_or_default();
                format!("{old}>{new}{kernel}{error}")
            }
            "rst_sent" => {
                let reason = self.text("reason").filter(|_| KERNEL.reasons);
                format!("RST>{}{state}", reason.map(|reason| format!(" {reason}")).unwrap_or_default())
            }
            "rst_received" => format!("RST<{state}"),
            "retransmit" => format!("AGAIN{state}"),
            kind => kind.to_owned(),
        }
    }
}
