//! What the commands that judge a host have in common: facts are gathered while it is watched, and judged when it is time.

use super::sink::Scene;
use crate::{
    kernel::processes,
    model::{
        doctor::{Facts, Finding, Limits, Watch, judge},
        event::Event,
        found::Survey,
        tally::Tally,
    },
};

/// Processes whose descriptors are looked at, at most.
const PROCESSES: usize = 64;

/// Gathers what is to be judged, beside a [`Tally`], and judges it.
#[derive(Default)]
pub(super) struct Examiner {
    watch: Watch,
    limits: Limits,
}

impl Examiner {
    /// Nothing has been looked at.
    pub(super) fn new(limits: Limits) -> Self {
        Self { watch: Watch::default(), limits }
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
        let descriptors = |pid| Some((pid, processes::descriptors(pid)?));
        facts.processes = facts.suspects(PROCESSES).into_iter().filter_map(descriptors).collect();
        facts
    }

    /// What is wrong, worst first.
    pub(super) fn judge(&self, facts: &Facts) -> Vec<Finding> {
        judge(facts, &self.limits)
    }
}
