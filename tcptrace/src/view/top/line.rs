//! An event in as few bytes as the view needs.

use std::sync::Arc;

use tcptrace_common::record::Tuple;

use crate::{
    model::{
        cause::Cause,
        event::{Comm, Event, Id, Kind, ip},
        state::State,
    },
    view::cell,
};

/// A transition or a RST.
#[derive(Clone, Debug)]
pub struct Line {
    /// `CLOCK_MONOTONIC` in ns.
    pub ts_ns: u64,
    /// What happened.
    pub kind: Kind,
    /// Its connection.
    pub id: Option<Id>,
    /// Its ends.
    pub tuple: Tuple,
    /// The state left; for RSTs the state that was met.
    pub old: Option<State>,
    /// The state entered.
    pub new: Option<State>,
    /// Time spent in `old`, in ns.
    pub in_state_ns: Option<u64>,
    /// Whose it is.
    pub owner: Option<(u32, Comm)>,
    /// The kernel's reason for a RST.
    pub reason: Option<Arc<str>>,
    /// Why the connection ended.
    pub cause: Option<Cause>,
}

impl Line {
    /// What the view needs of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        Self {
            ts_ns: event.ts_ns,
            kind: event.kind,
            id: event.id,
            tuple: event.tuple,
            old: event.old.or(event.prev_state),
            new: event.new,
            in_state_ns: event.in_state_ns,
            owner: event.owner.map(|owner| (owner.pid, owner.comm)),
            reason: event.reason.clone(),
            cause: event.verdict.map(|verdict| verdict.cause),
        }
    }

    /// What happened, as `trace` says it.
    pub(super) fn what(&self) -> String {
        let state = |state: Option<State>| state.map_or("-", State::name);
        let mut text = match self.kind {
            Kind::RstSent => format!("RST > {}", self.reason.as_deref().unwrap_or("")),
            Kind::RstReceived => "RST <".to_owned(),
            _ => format!("{} -> {}", state(self.old), state(self.new)),
        };
        if matches!(self.kind, Kind::RstSent | Kind::RstReceived)
            && let Some(old) = self.old
        {
            text = format!("{} in {old}", text.trim_end());
        }
        text.truncate(text.trim_end().len());
        text
    }

    pub(super) fn owner(&self) -> String {
        self.owner.map_or_else(|| "-".to_owned(), |(pid, comm)| format!("{comm}/{pid}"))
    }

    pub(super) fn local(&self, room: usize) -> String {
        end(ip(self.tuple.laddr), self.tuple.lport, room)
    }

    pub(super) fn peer(&self, room: usize) -> String {
        end(ip(self.tuple.raddr), self.tuple.rport, room)
    }

    pub(super) fn millis(&self) -> String {
        let mut text = String::new();
        match self.in_state_ns {
            Some(ns) => cell::millis(&mut text, ns),
            None => text.push('-'),
        }
        text
    }

    /// What a filter can match.
    pub(super) fn words(&self) -> [String; 5] {
        let cause = self.cause.map_or("", Cause::name);
        [self.what(), self.owner(), self.local(usize::MAX), self.peer(usize::MAX), cause.to_owned()]
    }
}

/// One end of a connection. An address that is longer than there is room for loses its middle.
pub(super) fn end(ip: std::net::IpAddr, port: u16, room: usize) -> String {
    let mut text = String::new();
    cell::address(&mut text, ip, room);
    match (ip, port) {
        (_, 0) => format!("{text}:-"),
        (std::net::IpAddr::V6(_), port) => format!("[{text}]:{port}"),
        (_, port) => format!("{text}:{port}"),
    }
}
