//! How connections end.
//!
//! A RST often comes just after the CLOSE that it explains, and a minisock's fate is told by nobody. What depends on
//! either is held: for [`AFTERLIFE_NS`] at most, or until sock_diag has answered.

use std::sync::Arc;

use tcptrace_common::record::{CloseDetail, Record, Tuple, flags};

use super::{AFTERLIFE_NS, Conn, Fate, Key, Tracker, event_of, reversed};
use crate::model::{
    cause::{self, Cause, Verdict},
    close,
    event::{Event, Kind},
    found::Whereabouts,
    state::{State, TIME_WAIT_NS},
};

/// How exact the end of a minisock's time is known: its timer has the kernel's ticks, and runs late on a busy host.
const TIMER_SLACK_NS: u64 = 50_000_000;

/// A record to CLOSE with what the table says to it.
#[derive(Clone, Copy)]
pub(super) struct Closing<'a> {
    pub(super) old: State,
    pub(super) record: &'a Record,
    pub(super) detail: &'a CloseDetail,
    pub(super) in_state_ns: Option<u64>,
}

/// What is still to be told of a connection's end.
#[derive(Debug)]
pub(super) struct Ending {
    /// What it waits for.
    awaits: Awaits,
    /// Why it ended, if nothing comes that says otherwise.
    verdict: Verdict,
    /// Its last transition, if that has not been told.
    transition: Option<Event>,
    /// Its line, if whole connections are told.
    line: Option<Event>,
}

/// What the end of a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// The RST that this end sends.
    Reset,
    /// The RST that tells data after close from a peer's RST.
    DataOrReset,
    /// The peer's FIN, for the orphan's minisock; with the end of its time, once that is known.
    Fin { until_ns: Option<u64> },
    /// Whether there was room for a minisock that would be in this state.
    Room { state: State },
}

/// What a look at a minisock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Names the connection in [`Tracker::settle`].
    pub key: u64,
    /// Its cookie; 0 where the kernel gives none.
    pub cookie: u64,
    /// Its ends.
    pub tuple: Tuple,
}

impl Tracker {
    /// A connection's socket goes to CLOSE.
    pub(super) fn close(&mut self, key: Key, closing: &Closing<'_>, emit: &mut impl FnMut(Event) -> Fate) {
        let Closing { old, record, detail, in_state_ns } = *closing;
        let (raw, whole) = (self.raw, self.whole);
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let resets = conn.resets;
        // The RST that came before: tcp_abort() and the keepalive timer send it first.
        let reason = conn.reason.take();
        let after = close::state_after(old, record, detail, resets.any());
        let verdict = cause::of_close(old, after, record, detail, conn.role, resets);
        let totals = Some(close::totals(old, record, detail, conn.role));
        conn.enter(old, State::CLOSE, record.ts_ns);
        let shown = if raw { State::CLOSE } else { after };
        let transition = Event {
            kind: Kind::Transition,
            old: Some(old),
            new: Some(shown),
            kernel_new: (shown != State::CLOSE).then_some(State::CLOSE),
            in_state_ns,
            totals,
            ..event_of(record, Some(conn))
        };
        let line = whole.then(|| Event {
            kind: Kind::Connection,
            old: None,
            new: Some(after),
            kernel_new: None,
            in_state_ns: None,
            reason,
            prev_state: Some(old),
            history: conn.history.take(),
            ..transition.clone()
        });
        let peers_orphan = (!self.orphans.is_empty() && old == State::LAST_ACK && detail.sk_err == 0)
            .then(|| self.orphans.get(&conn.tuple).copied())
            .flatten();

        let awaits = if after != State::CLOSE && !raw && close::room_in_doubt(detail) {
            Some(Awaits::Room { state: after })
        } else if after == State::FIN_WAIT2 {
            Some(Awaits::Fin { until_ns: None })
        } else if cause::may_be_data_after_close(old, record, resets) {
            Some(Awaits::DataOrReset)
        } else if whole && verdict.cause.sends_reset() && !resets.sent {
            Some(Awaits::Reset)
        } else {
            None
        };
        let mut ending =
            Ending { awaits: awaits.unwrap_or(Awaits::Reset), verdict, transition: Some(transition), line };
        match awaits {
            None => {
                tell(conn, ending, record.ts_ns, emit);
                self.ended.push_back((record.ts_ns, key));
            }
            Some(Awaits::Reset | Awaits::DataOrReset) => {
                if awaits == Some(Awaits::Reset)
                    && let Some(transition) = ending.transition.take()
                {
                    emit(Event { verdict: Some(verdict), ..transition });
                }
                conn.ending = Some(self.endings.insert(ending));
                self.untold += 1;
                self.ended.push_back((record.ts_ns, key));
            }
            Some(Awaits::Room { .. }) => {
                conn.ending = Some(self.endings.insert(ending));
                self.rooms.insert(key);
            }
            Some(Awaits::Fin { .. }) => {
                if self.wait_for_fin(key, ending, emit) == Fate::Forget {
                    self.bury(key, emit);
                }
            }
        }
        if let Some(orphan) = peers_orphan {
            // Only that orphan's minisock can have acknowledged this end's FIN.
            let verdict = Some(Verdict::read(Cause::LocalFin));
            self.settle_at(orphan, Some(State::TIME_WAIT), record.ts_ns, verdict, emit);
        }
    }

    /// The connection goes on as an orphan's minisock in FIN_WAIT2.
    fn wait_for_fin(&mut self, key: Key, mut ending: Ending, emit: &mut impl FnMut(Event) -> Fate) -> Fate {
        let Some(conn) = self.conns.get_mut(&key) else { return Fate::Keep };
        let Some(transition) = ending.transition.take() else { return Fate::Keep };
        let next = Event {
            old: Some(State::FIN_WAIT2),
            new: None,
            kernel_new: None,
            in_state_ns: None,
            task_pid: None,
            totals: None,
            ..transition.clone()
        };
        if emit(transition) == Fate::Forget {
            return Fate::Forget;
        }
        if self.raw && ending.line.is_none() {
            // The kernel says no more.
            self.ended.push_back((next.ts_ns, key));
            return Fate::Keep;
        }
        conn.state = State::FIN_WAIT2;
        ending.transition = (!self.raw).then_some(next);
        ending.awaits = Awaits::Fin { until_ns: None };
        let peer = reversed(&conn.tuple);
        conn.ending = Some(self.endings.insert(ending));
        self.doubts.insert(key);
        self.orphans.insert(peer, key);
        Fate::Keep
    }

    /// A RST that this end sent on a known socket: what waited for it is told around it.
    pub(super) fn tell_with_reset(
        &mut self,
        key: Key,
        record: &Record,
        event: Event,
        reason: Option<&Arc<str>>,
        emit: &mut impl FnMut(Event) -> Fate,
    ) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let Some(ending) = conn.ending.and_then(|at| self.endings.get_mut(at)) else {
            emit(event);
            return;
        };
        if let Some(line) = &mut ending.line {
            line.reason = reason.cloned();
        }
        match ending.awaits {
            Awaits::Reset | Awaits::DataOrReset => {
                if ending.awaits == Awaits::DataOrReset && record.flags & flags::PACKET != 0 {
                    ending.verdict = Verdict { cause: Cause::LocalAbortOther, inferred: reason.is_none() };
                }
                if let Some(transition) = ending.transition.take() {
                    emit(Event { verdict: Some(ending.verdict), ..transition });
                }
                emit(event);
                self.finish(key, emit);
            }
            // Data came for the minisock, which is gone now (TCP_TW_RST); or it was out of memory that the
            // socket went to CLOSE.
            Awaits::Fin { .. } | Awaits::Room { .. } => {
                emit(event);
                self.settle_at(key, None, record.ts_ns, Some(Verdict::read(Cause::LocalAbortOther)), emit);
            }
        }
    }

    /// What of the ended connections can be forgotten is told and forgotten.
    pub(super) fn forget(&mut self, now_ns: u64, emit: &mut impl FnMut(Event) -> Fate) {
        while let Some(&(at_ns, key)) = self.ended.front()
            && now_ns.saturating_sub(at_ns) > AFTERLIFE_NS
        {
            self.ended.pop_front();
            // The socket may have begun another connection since.
            let over = |conn: &Conn| conn.state == State::CLOSE && conn.since_ns == Some(at_ns);
            if self.conns.get(&key).is_some_and(over)
                && !self.doubts.contains(&key)
                && !self.rooms.contains(&key)
            {
                self.finish(key, emit);
                self.conns.remove(&key);
            }
        }
    }

    /// Tells what is still to be told of a connection.
    pub(super) fn finish(&mut self, key: Key, emit: &mut impl FnMut(Event) -> Fate) {
        if let Some(conn) = self.conns.get_mut(&key)
            && let Some(ending) = conn.ending.take().and_then(|at| self.endings.try_remove(at))
        {
            if matches!(ending.awaits, Awaits::Reset | Awaits::DataOrReset) {
                self.untold = self.untold.saturating_sub(1);
            }
            let ts_ns = conn.since_ns.unwrap_or_default();
            tell(conn, ending, ts_ns, emit);
        }
    }

    /// When [`tick`](Tracker::tick) will have something to tell, `CLOCK_MONOTONIC` in ns; `None`: not before the next
    /// record.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        let (at_ns, _) = self.ended.front().filter(|_| self.untold > 0)?;
        Some(at_ns.saturating_add(AFTERLIFE_NS))
    }

    /// Whether there are connections of which only sock_diag can tell what became of them.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.is_urgent() || !self.doubts.is_empty()
    }

    /// Whether a transition waits for sock_diag.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// Those connections.
    pub fn doubts(&self) -> impl Iterator<Item = Doubt> {
        self.rooms.iter().chain(&self.doubts).filter_map(|key| {
            let cookie = if key >> 63 == 0 { *key } else { 0 };
            Some(Doubt { key: *key, cookie, tuple: self.conns.get(key)?.tuple })
        })
    }

    /// Takes the answer to a doubt.
    pub fn settle(
        &mut self,
        doubt: &Doubt,
        found: Whereabouts,
        now_ns: u64,
        emit: &mut impl FnMut(Event) -> Fate,
    ) {
        let Some(conn) = self.conns.get_mut(&doubt.key) else { return };
        let Some(ending) = conn.ending.and_then(|at| self.endings.get_mut(at)) else { return };
        let since_ns = conn.since_ns.unwrap_or(now_ns);
        let left_ns = |expires_ms: u32| u64::from(expires_ms) * 1_000_000;
        match (ending.awaits, found) {
            (Awaits::Room { .. }, Whereabouts::There { state: State::FIN_WAIT2, .. })
            | (Awaits::Room { state: State::FIN_WAIT2 }, Whereabouts::Unknown) => {
                if let Some(ending) = conn.ending.take().and_then(|at| self.endings.try_remove(at)) {
                    self.rooms.remove(&doubt.key);
                    self.wait_for_fin(doubt.key, ending, emit);
                }
            }
            (Awaits::Room { state }, Whereabouts::There { .. } | Whereabouts::Unknown) => {
                self.settle_at(doubt.key, Some(state), since_ns, None, emit);
            }
            (Awaits::Room { .. }, Whereabouts::Gone) => {
                self.settle_at(doubt.key, None, since_ns, None, emit);
            }
            (Awaits::Fin { .. }, Whereabouts::There { state: State::TIME_WAIT, expires_ms }) => {
                // Its timer was set when the FIN came.
                let entered_ns = now_ns.saturating_add(left_ns(expires_ms)).saturating_sub(TIME_WAIT_NS);
                let verdict = Some(Verdict::read(Cause::LocalFin));
                self.settle_at(doubt.key, Some(State::TIME_WAIT), entered_ns.max(since_ns), verdict, emit);
            }
            (Awaits::Fin { .. }, Whereabouts::There { expires_ms, .. }) => {
                ending.awaits = Awaits::Fin { until_ns: Some(now_ns.saturating_add(left_ns(expires_ms))) };
            }
            (Awaits::Fin { until_ns }, Whereabouts::Gone) => {
                let late = until_ns.filter(|until_ns| now_ns.saturating_add(TIMER_SLACK_NS) >= *until_ns);
                let cause = if late.is_some() { Cause::FinWait2Timeout } else { Cause::PeerRst };
                let verdict = Some(Verdict::inferred(cause));
                self.settle_at(doubt.key, None, late.unwrap_or(now_ns), verdict, emit);
            }
            // Nobody can see it; in two minutes it is gone whatever happens.
            (Awaits::Fin { .. }, Whereabouts::Unknown) => {
                if now_ns.saturating_sub(since_ns) > 2 * TIME_WAIT_NS {
                    self.settle_at(doubt.key, None, now_ns, Some(Verdict::inferred(Cause::Unknown)), emit);
                }
            }
            (Awaits::Reset | Awaits::DataOrReset, _) => {}
        }
    }

    /// A doubt is over: the connection is in TIME_WAIT, or gone, since `ts_ns`. `verdict`: where it is another than was
    /// thought when the socket went to CLOSE.
    fn settle_at(
        &mut self,
        key: Key,
        state: Option<State>,
        ts_ns: u64,
        verdict: Option<Verdict>,
        emit: &mut impl FnMut(Event) -> Fate,
    ) {
        self.doubts.remove(&key);
        self.rooms.remove(&key);
        let Some(mut conn) = self.conns.remove(&key) else { return };
        self.orphans.remove(&reversed(&conn.tuple));
        let ending = conn.ending.take().and_then(|at| self.endings.try_remove(at));
        let Some(mut ending) = ending else { return };
        let new = state.unwrap_or(State::CLOSE);
        let orphan = matches!(ending.awaits, Awaits::Fin { .. });
        let in_state_ns = conn.since_ns.map(|since_ns| ts_ns.saturating_sub(since_ns)).filter(|_| orphan);
        ending.verdict = verdict.unwrap_or(ending.verdict);
        if let Some(transition) = &mut ending.transition {
            transition.new = Some(new);
            if orphan {
                transition.ts_ns = ts_ns;
                transition.in_state_ns = in_state_ns;
            } else {
                transition.kernel_new = (new != State::CLOSE).then_some(State::CLOSE);
            }
        }
        if let Some(line) = &mut ending.line {
            line.new = Some(new);
            line.ts_ns = ts_ns;
            if orphan && let Some(history) = &mut line.history {
                history.spend(State::FIN_WAIT2, in_state_ns);
            }
        }
        tell(&conn, ending, ts_ns, emit);
    }
}

/// Tells what an ending holds back.
fn tell(conn: &Conn, ending: Ending, ts_ns: u64, emit: &mut impl FnMut(Event) -> Fate) {
    let Ending { verdict, transition, line, .. } = ending;
    let verdict = Some(verdict);
    if let Some(transition) = transition {
        emit(Event { verdict, ..transition });
    }
    if let Some(mut line) = line {
        if let Some(history) = &mut line.history {
            history.duration_ns = history.opened_ns.map(|opened_ns| ts_ns.saturating_sub(opened_ns));
        }
        // Who has it open may have been learned since.
        emit(Event { verdict, owner: conn.owner, ..line });
    }
}
