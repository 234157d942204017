//! Questions to the host that take time: each is answered by a thread of its own, one at a time.

use std::{thread, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::watch::Answer;
use crate::{
    kernel::{
        clock,
        survey::{self, Namespaces, Scope},
    },
    model::{
        event::OwnerSource,
        found::{Survey, Whereabouts},
        tracker::{Doubt, Tracker},
    },
};

/// How long after it came up a doubt that holds a transition back is asked for.
const URGENT: Duration = Duration::from_millis(20);
/// The same for other doubts: most peers close by themselves within that.
const PATIENT: Duration = Duration::from_millis(500);
/// Checks take at most one part in so many of the time.
const SHARE: u32 = 50;
/// The same of looks.
const LOOK_SHARE: u32 = 100;

/// What has become of minisocks.
pub(super) struct Checked {
    pub(super) answers: Vec<(Doubt, Whereabouts)>,
    /// When that was, `CLOCK_MONOTONIC` in ns.
    pub(super) at_ns: u64,
}

/// The answer to come, and what was learned of the namespaces meanwhile.
type Coming = oneshot::Receiver<(Answer, Namespaces)>;

/// Asks.
pub(super) struct Surveyor {
    namespaces: Namespaces,
    /// Only these network namespaces; all if there is none.
    only: Vec<u32>,
    coming: Option<Coming>,
    /// What is coming is a survey, or a look: records wait for it.
    surveys: bool,
    /// No look before.
    look_from: Instant,
    /// When to check doubts, if there are any.
    check_at: Option<Instant>,
    /// Not before.
    rest_until: Instant,
    asked_at: Instant,
}

impl Surveyor {
    /// Begins with a survey; `waiting`: with sockets in TIME_WAIT.
    pub(super) fn begin(only: Vec<u32>, waiting: bool) -> Self {
        let now = Instant::now();
        let mut surveyor = Self {
            namespaces: Namespaces::default(),
            only,
            coming: None,
            surveys: false,
            look_from: now,
            check_at: None,
            rest_until: now,
            asked_at: now,
        };
        surveyor.survey(OwnerSource::Snapshot, waiting);
        surveyor
    }

    /// Whether a survey is being taken.
    pub(super) fn surveys(&self) -> bool {
        self.surveys
    }

    /// Whether there is an answer to wait for.
    pub(super) fn is_asked(&self) -> bool {
        self.coming.is_some()
    }

    /// When to call [`check`](Self::check).
    pub(super) fn check_at(&self) -> Option<Instant> {
        self.check_at.filter(|_| self.coming.is_none())
    }

    /// Has a survey taken, unless there is a question already; `waiting`: with sockets in TIME_WAIT.
    pub(super) fn survey(&mut self, source: OwnerSource, waiting: bool) {
        let only = self.only.clone();
        self.surveys =
            self.ask(move |namespaces| Answer::Survey(survey::take(namespaces, &only, source, waiting)));
    }

    /// Has what is in the scope looked for, unless there is a question already, or looks take too much of the time.
    /// `now`: whatever it takes. Returns whether there is an answer to come.
    pub(super) fn look(&mut self, scope: Scope, now: bool) -> bool {
        if self.coming.is_some() || !now && Instant::now() < self.look_from {
            return false;
        }
        let only = self.only.clone();
        self.surveys = self.ask(move |namespaces| Answer::Look(survey::look(namespaces, &only, scope)));
        self.surveys
    }

    /// Has doubts checked, when it is time.
    pub(super) fn check(&mut self, tracker: &Tracker) {
        if !tracker.is_in_doubt() {
            self.check_at = None;
            return;
        }
        let now = Instant::now();
        let at = *self.check_at.get_or_insert_with(|| now + PATIENT);
        if self.coming.is_some() {
            return;
        }
        let at = if tracker.is_urgent() { at.min(now + URGENT) } else { at }.max(self.rest_until);
        self.check_at = Some(at);
        if now >= at {
            self.check_now(tracker);
        }
    }

    /// Has doubts checked, if there are any.
    pub(super) fn check_now(&mut self, tracker: &Tracker) {
        let doubts: Vec<Doubt> = tracker.doubts().collect();
        if doubts.is_empty() {
            return;
        }
        self.check_at = None;
        self.ask(move |namespaces| {
            let minisocks: Vec<_> = doubts.iter().map(|doubt| (doubt.cookie, doubt.tuple)).collect();
            let found = survey::check(namespaces, &minisocks);
            let answers = doubts.into_iter().zip(found).collect();
            Answer::Checked(Checked { answers, at_ns: clock::monotonic_ns() })
        });
    }

    fn ask(&mut self, work: impl FnOnce(&mut Namespaces) -> Answer + Send + 'static) -> bool {
        if self.coming.is_some() {
            return false;
        }
        let (sender, receiver) = oneshot::channel();
        let mut namespaces = std::mem::take(&mut self.namespaces);
        let thread = thread::Builder::new().name("tcptrace-survey".to_owned()).spawn(move || {
            let answer = work(&mut namespaces);
            // Nobody waits for it any more when the program ends.
            let _ = sender.send((answer, namespaces));
        });
        if let Err(error) = thread {
            log::warn!("the sockets that exist cannot be read: {error}");
            return false;
        }
        self.coming = Some(receiver);
        self.asked_at = Instant::now();
        true
    }

    /// Waits for the answer, for ever if nothing was asked. Cancel-safe.
    pub(super) async fn answer(&mut self) -> Answer {
        let Some(coming) = &mut self.coming else { return std::future::pending().await };
        let answer = coming.await;
        self.coming = None;
        let now = Instant::now();
        let took = now - self.asked_at;
        if std::mem::take(&mut self.surveys) {
            self.look_from = now + took * LOOK_SHARE;
        } else {
            self.rest_until = now + took * SHARE;
        }
        match answer {
            Ok((answer, namespaces)) => {
                self.namespaces = namespaces;
                answer
            }
            // The thread is gone without an answer.
            Err(_) => Answer::Survey(Survey::default()),
        }
    }
}
