//! Between the tracker and the view: lets the events of wanted connections through, and holds those of
//! which it cannot tell yet.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    event::{Event, Id},
    filter::{Filter, Verdict},
    state::State,
    tracker::Fate,
};

/// Events held at most. When more would be, the oldest are left out, and counted.
const HELD: usize = 65_536;

/// Applies a [`Filter`] to whole connections.
#[derive(Debug, Default)]
pub struct Gate {
    filter: Filter,
    /// Connections that were admitted, where the verdict could change while they live.
    admitted: FxHashSet<Id>,
    /// Events of connections that no verdict is possible on yet.
    held: FxHashMap<Id, Vec<Event>>,
    /// The order in which connections came to be held.
    order: VecDeque<Id>,
    count: usize,
    /// Events left out without a verdict.
    left_out: u64,
}

impl Gate {
    /// A gate for a filter.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// How many events were left out because too many waited for a verdict.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Passes on the event, and those held for its sake, if the connection is wanted. Returns whether more of it is
    /// to come.
    pub fn pass(&mut self, event: Event, show: &mut impl FnMut(Event)) -> Fate {
        let verdict = match event.id {
            Some(id) if self.admitted.contains(&id) => Verdict::Admit,
            _ => self.filter.judge(&event),
        };
        match (verdict, event.id) {
            (Verdict::Undecided, Some(id)) => self.hold(id, event),
            (Verdict::Undecided | Verdict::Refuse, None) => {}
            (Verdict::Refuse, Some(id)) => {
                self.take(id);
                if self.filter.judge_socket(&event) == Verdict::Refuse {
                    return Fate::Forget;
                }
            }
            (Verdict::Admit, None) => self.show(event, show),
            (Verdict::Admit, Some(id)) => {
                for mut earlier in self.take(id) {
                    if earlier.tuple.lport == 0 {
                        earlier.tuple.lport = event.tuple.lport;
                    }
                    self.show(earlier, show);
                }
                // An orphan's last transition is to come.
                if event.closed && event.new != Some(State::FIN_WAIT2) {
                    self.admitted.remove(&id);
                } else if self.filter.follows_owners() {
                    self.admitted.insert(id);
                }
                self.show(event, show);
            }
        }
        Fate::Keep
    }

    fn show(&self, event: Event, show: &mut impl FnMut(Event)) {
        if self.filter.shows(&event) {
            show(event);
        }
    }

    fn hold(&mut self, id: Id, event: Event) {
        while self.count >= HELD
            && let Some(oldest) = self.order.pop_front()
        {
            self.left_out += u64::try_from(self.take(oldest).len()).unwrap_or(0);
        }
        let events = self.held.entry(id).or_default();
        if events.is_empty() {
            self.order.push_back(id);
        }
        events.push(event);
        self.count += 1;
        // Most of those that were taken left their place in the order behind.
        if self.order.len() > 2 * self.held.len() + 64 {
            let held = &self.held;
            let mut seen = FxHashSet::default();
            self.order.retain(|id| held.contains_key(id) && seen.insert(*id));
        }
    }

    fn take(&mut self, id: Id) -> Vec<Event> {
        // The common case: nothing is ever held.
        if self.count == 0 {
            return Vec::new();
        }
        let events = self.held.remove(&id).unwrap_or_default();
        self.count -= events.len();
        if self.count == 0 {
            self.order.clear();
        }
        events
    }
}

#[cfg(test)]
mod tests;
