//! A histogram with fixed bounds, as Prometheus has them.

/// Times by how long they were.
#[derive(Clone, Debug)]
pub struct Buckets {
    bounds_ns: &'static [u64],
    /// One for each bound, and one for what is longer than the last.
    counts: Vec<u64>,
    sum_ns: u128,
}

impl Buckets {
    /// Nothing is in them. `bounds_ns`: the upper bounds, included, in ns, ascending.
    #[must_use]
    pub fn new(bounds_ns: &'static [u64]) -> Self {
        Self { bounds_ns, counts: vec![0; bounds_ns.len() + 1], sum_ns: 0 }
    }

    pub(super) fn add(&mut self, ns: u64) {
        let place = self.bounds_ns.partition_point(|bound_ns| *bound_ns < ns);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum_ns += u128::from(ns);
    }

    /// Upper bounds in seconds, the last one infinite, and how many times lie between each and the one before.
    #[expect(clippy::cast_precision_loss, reason = "no bound has so many digits")]
    pub fn seconds(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds_ns.iter().map(|bound_ns| *bound_ns as f64 / 1e9).chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "Prometheus computes with these, too")]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut buckets = Buckets::new(&[1_000, 1_000_000_000]);
        for ns in [0, 1_000, 1_001, 1_000_000_000, 1_000_000_001, u64::MAX] {
            buckets.add(ns);
        }
        let seconds: Vec<_> = buckets.seconds().collect();
        assert_eq!(seconds, [(1e-6, 2), (1.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(buckets.count(), 6);
        assert!(buckets.sum_seconds() > 1.8e10);
    }
}
