//! A socket as it stands: what the views that count have of those that exist.

use tcptrace_common::record::Tuple;

use super::{
    event::{Event, Id, Kind, Owner, Role},
    found::{Form, Found},
    state::State,
};

/// One socket, minisock or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its connection, if it is known by a name; requests are not.
    pub id: Option<Id>,
    /// Its ends.
    pub tuple: Tuple,
    /// Its state; of a request SYN_RECV.
    pub state: State,
    /// Since when it is in that state, `CLOCK_MONOTONIC` in ns; `None` if that was not seen.
    pub since_ns: Option<u64>,
    /// If that was not seen: it has been there since then at least.
    pub at_latest_ns: Option<u64>,
    /// Which part it plays, when known.
    pub role: Option<Role>,
    /// Whose it is, or was, when known.
    pub owner: Option<Owner>,
    /// Its user.
    pub uid: Option<u32>,
    /// Id of its cgroup; 0 when unknown.
    pub cgroup: u64,
}

impl Socket {
    /// As a survey found it at `now_ns`.
    #[must_use]
    pub fn found(found: &Found, now_ns: u64) -> Self {
        let named = found.cookie != 0 && found.form != Form::Request;
        Self {
            id: named.then_some(Id(found.cookie)),
            tuple: found.tuple,
            state: found.state,
            since_ns: None,
            at_latest_ns: found.quiet_ms().map(|ms| now_ns.saturating_sub(u64::from(ms) * 1_000_000)),
            role: None,
            owner: found.owner,
            uid: found.uid,
            cgroup: found.cgroup,
        }
    }

    /// As an event tells of it that says which state it has entered.
    #[must_use]
    pub fn entered(event: &Event, state: State) -> Self {
        Self {
            id: event.id,
            tuple: event.tuple,
            state,
            since_ns: Some(event.ts_ns),
            at_latest_ns: None,
            role: event.role,
            owner: event.owner,
            uid: event.uid,
            cgroup: event.cgroup.unwrap_or(0),
        }
    }

    /// How long it has been in its state at `now_ns`, in ns: exactly, or at least.
    #[must_use]
    pub fn age_ns(&self, now_ns: u64) -> Option<u64> {
        self.since_ns.or(self.at_latest_ns).map(|since_ns| now_ns.saturating_sub(since_ns))
    }

    /// As an event, for what judges events.
    #[must_use]
    pub fn event(&self, now_ns: u64) -> Event {
        Event {
            id: self.id,
            new: Some(self.state),
            role: self.role,
            owner: self.owner,
            uid: self.uid,
            cgroup: (self.cgroup != 0).then_some(self.cgroup),
            closed: matches!(self.state, State::TIME_WAIT),
            ..Event::new(now_ns, Kind::Connection, self.tuple)
        }
    }
}
