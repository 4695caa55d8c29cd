//! The only place that reads clocks. Machines get time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Both clocks at once: monotonic for intervals, seconds since 1970 for what people agree on.
#[must_use]
pub fn now() -> (Instant, u64) {
    (mono(), unix())
}

/// The monotonic clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the monotonic clock"
)]
pub fn mono() -> Instant {
    Instant::now()
}

/// Seconds since 1970; 0 while the wall clock stands before that.
#[must_use]
pub fn unix() -> u64 {
    since_epoch().as_secs()
}

/// Milliseconds since 1970; 0 while the wall clock stands before that.
#[must_use]
pub fn unix_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_advance_and_agree_on_the_unit() {
        let (mono_before, unix_before) = now();
        std::thread::sleep(Duration::from_millis(5));
        assert!(mono() > mono_before);
        assert!(unix() >= unix_before);
        let millis = unix_millis();
        assert!(millis / 1000 >= unix_before && millis / 1000 <= unix());
    }
}
