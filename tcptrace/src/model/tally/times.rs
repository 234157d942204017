//! How long connections stay in their states.

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;

use super::Key;
use crate::model::state::State;

/// Distributions kept at most (some 40 KB each when its times are spread); what has none is counted in [`Key::Other`].
const DISTRIBUTIONS: usize = 512;
/// Two decimal digits are kept of a time: it is right to 1 %.
const DIGITS: u8 = 2;
/// A bucket for each power of two that fits a time in µs.
const BUCKETS: usize = 64;

/// Distributions by row and state.
#[derive(Debug, Default)]
pub struct Times {
    known: FxHashMap<(Key, State), Distribution>,
}

/// How long connections stayed in a state.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Times in µs.
    histogram: Histogram<u64>,
    /// How many lasted 0 to 1 µs, 2 to 3, 4 to 7, and so on.
    powers: [u64; BUCKETS],
    sum_ns: u128,
    /// The longest, in ns.
    max_ns: u64,
}

impl Times {
    /// Adds a time in ns.
    pub(super) fn add(&mut self, key: Key, state: State, ns: u64) {
        let full = self.known.len() >= DISTRIBUTIONS;
        let key = if full && !self.known.contains_key(&(key, state)) { Key::Other } else { key };
        if let Some(distribution) = self.known.get_mut(&(key, state)) {
            distribution.add(ns);
        } else if let Some(mut distribution) = Distribution::empty() {
            distribution.add(ns);
            self.known.insert((key, state), distribution);
        }
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, State, &Distribution)> {
        self.known.iter().map(|((key, state), distribution)| (key, *state, distribution))
    }
}

impl Distribution {
    /// `None` never: hdrhistogram takes 0 to 5 digits.
    fn empty() -> Option<Self> {
        let histogram = Histogram::new(DIGITS).ok()?;
        Some(Self { histogram, powers: [0; BUCKETS], sum_ns: 0, max_ns: 0 })
    }

    fn add(&mut self, ns: u64) {
        let us = ns / 1000;
        // It grows as it must; what is beyond its range cannot be.
        let _ = self.histogram.record(us);
        let power = us.checked_ilog2().unwrap_or(0);
        if let Some(count) = usize::try_from(power).ok().and_then(|power| self.powers.get_mut(power)) {
            *count += 1;
        }
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their mean in µs.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown to three digits")]
    pub fn mean_us(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum_ns as f64 / self.count() as f64 / 1000.0 }
    }

    /// The time in µs that so many of a hundred do not exceed, to 1 %.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent).min(self.max_ns / 1000)
    }

    /// The longest in µs.
    #[must_use]
    pub fn max_us(&self) -> u64 {
        self.max_ns / 1000
    }

    /// Counts by powers of two: from and to in µs, both included, and the count; from the first that has one to the last.
    pub fn powers(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let first = self.powers.iter().position(|count| *count > 0).unwrap_or(0);
        let last = self.powers.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let counts = self.powers.iter().enumerate().take(last).skip(first);
        counts.map(|(power, count)| {
            let from = if power == 0 { 0 } else { 1 << power };
            (from, (1_u64 << power) * 2 - 1, *count)
        })
    }
}
