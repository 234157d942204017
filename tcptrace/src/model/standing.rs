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
}

impl Standing {
    /// Takes what happened.
    pub fn event(&mut self, event: &Event) {
        let Some(id) = event.id else { return };
        match (event.kind, event.new) {
            (Kind::Transition, Some(state)) => {
                // Of what goes on as a minisock the full socket is closed.
                let minisock = state == State::TIME_WAIT || event.kernel_new == Some(State::CLOSE);
                if minisock || state == State::CLOSE {
                    self.sockets.remove(&id);
                } else {
                    self.sockets.insert(id, Socket::entered(event, state));
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
        self.sockets.extend(sockets.filter_map(|socket| Some((socket.id?, socket))));
    }

    /// Them.
    pub fn sockets(&self) -> impl Iterator<Item = Socket> + Clone {
        self.sockets.values().copied()
    }
}
