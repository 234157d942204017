//! Events that did not become records.

use std::ops::{AddAssign, Sub};

use tcptrace_common::record::Kind;

/// Counts of events that were lost, since the start or since an earlier reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// No room in the ring, by [`Kind`].
    pub full: [u64; Kind::COUNT],
    /// The kernel skipped the probe, because it was already running on that CPU.
    pub skipped: u64,
    /// Records that made no sense.
    pub unreadable: u64,
    /// Connections whose end nobody told, found by comparing with the sockets that exist. What they lack is most often
    /// counted above already.
    pub gaps: u64,
    /// Sockets that could not be remembered, because there are too many.
    pub beyond: u64,
}

impl Loss {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Events lost, without [`gaps`](Self::gaps) and [`beyond`](Self::beyond), which count connections.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.full.iter().sum::<u64>() + self.skipped + self.unreadable
    }

    /// What is told of it, by the names that formats give it.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        [("lost", self.total()), ("gaps", self.gaps), ("beyond", self.beyond)]
    }
}

impl AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.full.iter_mut().zip(other.full) {
            *count = count.saturating_add(more);
        }
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.unreadable = self.unreadable.saturating_add(other.unreadable);
        self.gaps = self.gaps.saturating_add(other.gaps);
        self.beyond = self.beyond.saturating_add(other.beyond);
    }
}

impl Sub for Loss {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let mut full = self.full;
        for (count, before) in full.iter_mut().zip(earlier.full) {
            *count = count.saturating_sub(before);
        }
        Self {
            full,
            skipped: self.skipped.saturating_sub(earlier.skipped),
            unreadable: self.unreadable.saturating_sub(earlier.unreadable),
            gaps: self.gaps.saturating_sub(earlier.gaps),
            beyond: self.beyond.saturating_sub(earlier.beyond),
        }
    }
}
