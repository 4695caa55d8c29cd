//! Latencies in bounded memory: all of them until there are too many, then every second, every fourth and so on.

use std::time::Duration;

use serde::Serialize;

/// Values kept; 1 MiB.
const MOST: usize = 1 << 18;

/// A sample of latencies.
#[derive(Debug)]
pub(crate) struct Sample {
    micros: Vec<u32>,
    most: usize,
    /// One of so many is kept.
    stride: u64,
    seen: u64,
}

/// What is told of a sample, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u32,
    pub(crate) p99: u32,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self::of_at_most(MOST)
    }

    fn of_at_most(most: usize) -> Self {
        Self {
            micros: Vec::new(),
            most,
            stride: 1,
            seen: 0,
        }
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        let kept = self.seen.is_multiple_of(self.stride);
        self.seen += 1;
        if !kept {
            return;
        }
        if self.micros.len() == self.most {
            let mut odd = false;
            self.micros.retain(|_| {
                odd = !odd;
                odd
            });
            self.stride *= 2;
        }
        self.micros
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// By nearest rank; none of none.
    pub(crate) fn percentiles(mut self) -> Option<Percentiles> {
        self.micros.sort_unstable();
        let rank = |percent: usize| {
            let rank = (self.micros.len() * percent).div_ceil(100).max(1);
            self.micros.get(rank - 1).copied()
        };
        Some(Percentiles {
            p50: rank(50)?,
            p99: rank(99)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(most: usize, values: impl IntoIterator<Item = u64>) -> Sample {
        let mut sample = Sample::of_at_most(most);
        for value in values {
            sample.add(Duration::from_micros(value));
        }
        sample
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let all = sample(1000, (1..=200).rev()).percentiles();
        assert_eq!(all, Some(Percentiles { p50: 100, p99: 198 }));
        let one = sample(1000, [7]).percentiles();
        assert_eq!(one, Some(Percentiles { p50: 7, p99: 7 }));
        assert_eq!(sample(1000, []).percentiles(), None);
    }

    #[test]
    fn too_many_are_thinned_evenly() {
        let thinned = sample(64, 0..10_000);
        assert!(thinned.micros.len() <= 64 && thinned.micros.len() > 16);
        let Some(told) = thinned.percentiles() else {
            panic!("there are values");
        };
        assert!((4_000..=6_000).contains(&told.p50), "{told:?}");
        assert!((9_000..10_000).contains(&told.p99), "{told:?}");
    }
}
