//! The full sockets that exist, as far as events tell: what a recording has in place of the tracker.

use rustc_hash::FxHashMap;

use super::{
    event::{Event, Id, Kind},
    socket::Socket,
    state::State,
};

/// Them, by their connections.
#[derive(Debug, Default)]
pub struct Standing {
    sockets: FxHashMap<Id, Socket>,
    /// How many are kept at most, if that is limited.
    limit: Option<usize>,
    /// Those that there was no room for since this was last asked.
    turned_away: u64,
}

impl Standing {
    /// None yet; it keeps so many at most.
    #[must_use]
    pub fn limited_to(sockets: usize) -> Self {
        Self { limit: Some(sockets), ..Self::default() }
    }

    /// How many there was no room for since this was last asked.
    pub fn take_turned_away(&mut self) -> u64 {
        std::mem::take(&mut self.turned_away)
    }

    /// Takes what happened.
    pub fn event(&mut self, event: &Event) {
        let Some(id) = event.id else { return };
        match (event.kind, event.new) {
            (Kind::Transition, Some(state)) => {
                // Of what goes on as a minisock the full socket is closed.
                let minisock = state == State::TIME_WAIT || event.kernel_new == Some(State::CLOSE);
                if minisock || state == State::CLOSE {
                    self.sockets.remove(&id);
                } else if self.has_room() || self.sockets.contains_key(&id) {
                    self.sockets.insert(id, Socket::entered(event, state));
                } else {
                    // Once for each.
                    let birth = matches!(event.old, Some(State::CLOSE | State::LISTEN));
                    self.turned_away += u64::from(birth);
                }
            }
            // Its end was lost.
            (Kind::Connection, _) => _ = self.sockets.remove(&id),
            _ => {}
        }
    }

    /// Takes those that exist, in place of all that is known.
    pub fn replace(&mut self, sockets: impl Iterator<Item = Socket>) {
        self.sockets.clear();
        for (id, socket) in sockets.filter_map(|socket| Some((socket.id?, socket))) {
            if self.has_room() {
                self.sockets.insert(id, socket);
            } else {
                self.turned_away += 1;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.sockets.len() < limit)
    }

    /// Them.
    pub fn sockets(&self) -> impl Iterator<Item = Socket> + Clone {
        self.sockets.values().copied()
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_common::record::Tuple;

    use super::*;

    fn event(id: u64, old: State, new: State) -> Event {
        let event = Event::new(1, Kind::Transition, Tuple::default());
        Event { id: Some(Id(id)), old: Some(old), new: Some(new), ..event }
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut standing = Standing::limited_to(1);
        standing.event(&event(1, State::CLOSE, State::SYN_SENT));
        standing.event(&event(2, State::CLOSE, State::SYN_SENT));
        standing.event(&event(2, State::SYN_SENT, State::ESTABLISHED));
        standing.event(&event(1, State::SYN_SENT, State::ESTABLISHED));
        let known: Vec<_> = standing.sockets().map(|socket| (socket.id, socket.state)).collect();
        assert_eq!(known, [(Some(Id(1)), State::ESTABLISHED)]);
        assert_eq!((standing.take_turned_away(), standing.take_turned_away()), (1, 0));
        let sockets =
            [1, 2, 3].map(|id| Socket::entered(&event(id, State::CLOSE, State::LISTEN), State::LISTEN));
        standing.replace(sockets.into_iter());
        assert_eq!((standing.sockets().count(), standing.take_turned_away()), (1, 2));
    }
}
