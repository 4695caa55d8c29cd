//! When a shard gives memory back: each time most of its allocations are gone.
//!
//! The machine's tables get smaller by themselves. What they and the allocations free stays with the C library while anything
//! above it is in use, and something always is.

/// Fewer allocations than this are not worth it.
const FEW: usize = 256;

/// One shard's.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    /// The most allocations since memory was last given back.
    most: usize,
    /// The most since there was none.
    peak: usize,
}

impl Reclaim {
    /// To be told how many allocations there are whenever that may have changed. True: three quarters have gone, or the last
    /// one of many has.
    pub(crate) fn is_due(&mut self, allocations: usize) -> bool {
        self.most = self.most.max(allocations);
        self.peak = self.peak.max(allocations);
        let fell = self.most >= FEW && allocations <= self.most / 4;
        let emptied = self.peak >= FEW && allocations == 0;
        if fell {
            self.most = allocations;
        }
        if emptied {
            *self = Self::default();
        }
        fell || emptied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_for_each_quartering_and_at_the_end() {
        let mut reclaim = Reclaim::default();
        let levels = (0..=10_000).chain((0..10_000).rev());
        let due: Vec<usize> = levels.filter(|level| reclaim.is_due(*level)).collect();
        assert_eq!(due, [2500, 625, 156, 0]);
    }

    #[test]
    fn few_allocations_and_steady_ones_cost_nothing() {
        let mut reclaim = Reclaim::default();
        let few = (0..1000).flat_map(|_| (0..FEW).chain((0..FEW).rev()));
        assert!(few.into_iter().all(|level| !reclaim.is_due(level)));
        let steady = (0..1000).flat_map(|_| 600..2000);
        assert!(steady.into_iter().all(|level| !reclaim.is_due(level)));
    }
}
