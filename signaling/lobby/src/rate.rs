//! Rates as the generic cell rate algorithm: one instant of memory per limited thing.

use std::time::{Duration, Instant};

/// So many at once, and one more each `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// `count` a second, `burst` at once; neither below one.
    #[must_use]
    pub fn per_second(count: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / count.max(1),
            burst: burst.max(1),
        }
    }

    /// `count` a minute, `burst` at once; neither below one.
    #[must_use]
    pub fn per_minute(count: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs(60) / count.max(1),
            burst: burst.max(1),
        }
    }

    /// How many a second, rounded down.
    #[must_use]
    pub fn sustained(&self) -> u32 {
        let nanos = self.interval.as_nanos().max(1);
        u32::try_from(1_000_000_000 / nanos).unwrap_or(u32::MAX)
    }

    /// How many at once.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }
}

/// What one limited thing has used of its [`Rate`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// When everything used so far will have been earned again; the "theoretical arrival time".
    full_at: Option<Instant>,
}

impl Usage {
    /// Uses `count`, or says how long to wait until that is possible.
    pub(crate) fn take(&mut self, now: Instant, rate: Rate, count: u32) -> Result<(), Duration> {
        self.check(now, rate, count)?;
        self.full_at = Some(self.start(now) + rate.interval * count);
        Ok(())
    }

    /// Whether `count` could be used, without using it.
    pub(crate) fn check(self, now: Instant, rate: Rate, count: u32) -> Result<(), Duration> {
        // More than the whole burst at once is judged as the whole burst: it would wait for ever.
        let count = count.min(rate.burst);
        let used = self.start(now) + rate.interval * count - now;
        let wait = used.saturating_sub(rate.interval * rate.burst);
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Whether nothing used is still to be earned again.
    pub(crate) fn is_rested(self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }

    pub(crate) const fn rested_at(self) -> Option<Instant> {
        self.full_at
    }

    fn start(self, now: Instant) -> Instant {
        self.full_at.map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn a_burst_passes_then_one_each_interval() {
        let start = Instant::now();
        let rate = Rate::per_second(10, 3);
        let mut usage = Usage::default();
        for _ in 0..3 {
            assert_eq!(usage.take(start, rate, 1), Ok(()));
        }
        assert_eq!(usage.take(start, rate, 1), Err(Duration::from_millis(100)));
        let later = start + Duration::from_millis(100);
        assert_eq!(usage.take(later, rate, 1), Ok(()));
        assert_eq!(usage.take(later, rate, 1), Err(Duration::from_millis(100)));
        assert!(!usage.is_rested(later));
        assert!(usage.is_rested(later + Duration::from_millis(300)));
    }

    #[test]
    fn rates_say_what_they_are() {
        assert_eq!(Rate::per_second(50, 100).sustained(), 50);
        assert_eq!(Rate::per_second(0, 0), Rate::per_second(1, 1));
    }
}
