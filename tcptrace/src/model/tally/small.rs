//! What is left of connections, and what is not one yet: minisocks in TIME_WAIT and FIN_WAIT2, and requests in SYN_RECV.
//!
//! No probe tells when a minisock goes, and none of requests. So what events tell of minisocks is kept until its time is
//! over, and every look at the host replaces it all.

use rustc_hash::FxHashMap;
use tcptrace_common::record::Tuple;

use crate::model::{
    event::{Event, Kind},
    found::{Form, Survey},
    socket::Socket,
    state::{State, TIME_WAIT_NS},
};

/// Them, by their ends.
#[derive(Debug, Default)]
pub struct Small {
    known: FxHashMap<Tuple, Entry>,
    /// When those whose time is over are next swept out.
    sweep_ns: u64,
    /// How many are kept at most, if that is limited.
    limit: Option<usize>,
    /// Those that there was no room for since this was last asked.
    turned_away: u64,
}

#[derive(Debug)]
struct Entry {
    socket: Socket,
    /// When its time is over; `u64::MAX` if nothing but a look tells.
    until_ns: u64,
}

impl Small {
    /// None yet; it keeps so many at most.
    #[must_use]
    pub fn limited_to(sockets: usize) -> Self {
        Self { limit: Some(sockets), ..Self::default() }
    }

    /// How many there was no room for since this was last asked; at each look they count anew.
    pub fn take_turned_away(&mut self) -> u64 {
        std::mem::take(&mut self.turned_away)
    }

    /// Takes a transition.
    pub fn event(&mut self, event: &Event) {
        let (Kind::Transition, Some(new)) = (event.kind, event.new) else { return };
        let minisock = match new {
            State::TIME_WAIT => true,
            State::FIN_WAIT2 => event.kernel_new.is_some(),
            _ => false,
        };
        if minisock {
            let until_ns =
                if new == State::TIME_WAIT { event.ts_ns.saturating_add(TIME_WAIT_NS) } else { u64::MAX };
            let socket = Socket::entered(event, new);
            self.sweep(event.ts_ns);
            self.keep(Entry { socket, until_ns });
        } else if !self.known.is_empty() {
            // The ends belong to a full socket now, or to nothing.
            self.known.remove(&event.tuple);
        }
    }

    /// Takes what was found, in place of all that is known of the same network namespaces. `wanted` tells whether a
    /// socket that nothing is known of is to be counted.
    pub fn surveyed(&mut self, survey: &Survey, now_ns: u64, mut wanted: impl FnMut(&Socket) -> bool) {
        let mut before = std::mem::take(&mut self.known);
        for found in survey.sockets.iter().filter(|found| found.form != Form::Socket) {
            let mut socket = Socket::found(found, now_ns);
            match before.get(&found.tuple) {
                // What is known of it stays known.
                Some(Entry { socket: known, .. }) => {
                    socket.role = known.role;
                    socket.owner = known.owner;
                    socket.uid = known.uid;
                    socket.cgroup = known.cgroup;
                    socket.since_ns = known.since_ns.filter(|_| known.state == socket.state);
                }
                None if !wanted(&socket) => continue,
                None => {}
            }
            let until_ns = match (found.form, found.expires_ms) {
                (Form::Minisock, Some(ms)) => now_ns.saturating_add(u64::from(ms) * 1_000_000),
                _ => u64::MAX,
            };
            if socket.state == State::TIME_WAIT {
                // Its timer tells.
                socket.since_ns = socket.since_ns.or(until_ns.checked_sub(TIME_WAIT_NS));
            }
            self.keep(Entry { socket, until_ns });
        }
        before.retain(|tuple, _| !survey.namespaces.contains(&tuple.netns));
        for entry in before.into_values() {
            self.keep(entry);
        }
    }

    fn keep(&mut self, entry: Entry) {
        if self.limit.is_some_and(|limit| self.known.len() >= limit) {
            self.turned_away += 1;
        } else {
            self.known.insert(entry.socket.tuple, entry);
        }
    }

    /// Those whose time is not over.
    pub fn sockets(&self, now_ns: u64) -> impl Iterator<Item = Socket> {
        self.known.values().filter(move |entry| entry.until_ns > now_ns).map(|entry| entry.socket)
    }

    fn sweep(&mut self, now_ns: u64) {
        if now_ns >= self.sweep_ns {
            self.sweep_ns = now_ns.saturating_add(TIME_WAIT_NS / 10);
            self.known.retain(|_, entry| entry.until_ns > now_ns);
        }
    }
}
