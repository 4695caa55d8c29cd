//! Time inside the machine: nanoseconds since its first call, 8 bytes where an `Instant` has 16.

use std::time::{Duration, Instant};

/// A moment. Zero is the first call; it never runs backwards past that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    /// That much later, at the end of time at most (584 years).
    pub(crate) fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

/// The relation between `Instant`s and ticks.
#[derive(Default)]
pub(crate) struct Clock {
    origin: Option<Instant>,
    latest: Tick,
}

impl Clock {
    pub(crate) fn tick(&mut self, now: Instant) -> Tick {
        let origin = *self.origin.get_or_insert(now);
        self.latest = Tick::default().after(now.saturating_duration_since(origin));
        self.latest
    }

    /// When the machine was last told the time.
    pub(crate) fn latest(&self) -> Tick {
        self.latest
    }

    /// `None` for moments that no `Instant` of this platform can name.
    pub(crate) fn instant(&self, tick: Tick) -> Option<Instant> {
        self.origin?.checked_add(Duration::from_nanos(tick.0))
    }
}

/// A token bucket in one word: the moment at which it will be full again (GCRA, the virtual
/// scheduling form of ITU-T I.371). The default is full.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket(u64);

impl Bucket {
    /// True if what is owed at `now` leaves room in a bucket `depth` nanoseconds deep.
    #[inline]
    pub(crate) fn has_room(self, now: Tick, depth: u64) -> bool {
        self.0.saturating_sub(now.0) < depth
    }

    /// The moment from which on there is room again.
    pub(crate) fn room_at(self, depth: u64) -> Tick {
        Tick(self.0.saturating_sub(depth).saturating_add(1))
    }

    /// Takes what refills in `cost` nanoseconds.
    #[inline]
    pub(crate) fn take(&mut self, now: Tick, cost: u64) {
        self.0 = self.0.max(now.0).saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_its_depth_at_once_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let (cost, depth) = (100, 500); // five at once, one each 100 ns
        let mut given = 0;
        for now in 0..1_000 {
            let now = Tick(1_000_000 + now);
            if bucket.has_room(now, depth) {
                bucket.take(now, cost);
                given += 1;
            }
        }
        assert_eq!(given, 5 + 10);
    }

    #[test]
    fn ticks_stop_at_the_first_call_and_at_the_end_of_time() {
        assert_eq!(Tick::default().after(Duration::MAX), Tick(u64::MAX));
        assert_eq!(Tick(5).since(Tick(9)), Duration::ZERO);
    }
}
