//! What the commands that judge a host have in common: facts are gathered while it is watched, and judged when it is time.

use super::sink::{Known, Moment, Scene};
use crate::{
    kernel::processes,
    model::{
        doctor::{Facts, Finding, Limits, Severity, Watch, count, judge},
        event::Event,
        found::Survey,
        tally::Tally,
    },
};

/// Processes whose descriptors are looked at, at most.
const PROCESSES: usize = 64;
/// Time that is judged as one, in ns, where judging goes on.
const PERIOD_NS: u64 = 10_000_000_000;

/// Gathers what is to be judged, beside a [`Tally`], and judges it.
#[derive(Default)]
pub(super) struct Examiner {
    watch: Watch,
    limits: Limits,
    /// When a period ends, `CLOCK_MONOTONIC` in ns; none has begun before [`period`](Self::period) is asked for.
    ends_ns: Option<u64>,
}

impl Examiner {
    /// Nothing has been looked at.
    pub(super) fn new(limits: Limits) -> Self {
        Self { watch: Watch::default(), limits, ends_ns: None }
    }

    /// Takes what happened. `tally` has taken it before.
    pub(super) fn event(&mut self, event: &Event, tally: &Tally) {
        self.watch.event(event, tally);
    }

    /// Takes what a look at the host found.
    pub(super) fn surveyed(&mut self, survey: &Survey, now_ns: u64) {
        self.watch.surveyed(survey, now_ns);
    }

    /// The time to be judged begins.
    pub(super) fn begin(&mut self, scene: &Scene<'_>, tally: &Tally) {
        self.watch.begin(scene.sockets(), tally, scene.now_ns);
    }

    /// What is known of the time since then.
    pub(super) fn facts(&self, scene: &Scene<'_>, tally: &Tally) -> Facts {
        let mut facts = self.watch.facts(scene.sockets(), tally, scene.now_ns);
        facts.filtered = !scene.counts_all();
        // A recording's processes are not those of this host.
        let most = if matches!(scene.known, Known::Tracker(_)) { PROCESSES } else { 0 };
        let descriptors = |pid| Some((pid, processes::descriptors(pid)?));
        facts.processes = facts.suspects(most).into_iter().filter_map(descriptors).collect();
        facts
    }

    /// What is known of the period that ends now, if one does; another begins. For who judges all the time.
    pub(super) fn period(&mut self, scene: &Scene<'_>, tally: &mut Tally) -> Option<Facts> {
        let begins = scene.moment == Moment::Begin;
        if !begins && self.ends_ns.is_none_or(|ends_ns| scene.now_ns < ends_ns) {
            return None;
        }
        tally.listeners(scene.sockets());
        let facts = (!begins).then(|| self.facts(scene, tally));
        self.begin(scene, tally);
        self.ends_ns = Some(scene.now_ns + PERIOD_NS);
        facts
    }

    /// When the period ends, `CLOCK_MONOTONIC` in ns.
    pub(super) fn ends_ns(&self) -> Option<u64> {
        self.ends_ns
    }

    /// How much is wrong, by rule.
    pub(super) fn count(&self, facts: &Facts) -> Vec<(&'static str, Severity, u64)> {
        count(facts, &self.limits)
    }

    /// What is wrong, worst first.
    pub(super) fn judge(&self, facts: &Facts) -> Vec<Finding> {
        judge(facts, &self.limits)
    }
}
