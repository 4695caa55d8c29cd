//! The only place that reads clocks. Machines get time as an argument.

#[cfg(target_os = "linux")]
mod cpu;

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

/// User and system time of all threads of a process so far, by the process's own clock: exact, where `/proc` counts in
/// steps of 10 ms. Linux only.
///
/// # Errors
/// There is no such process, it may not be asked, or this system cannot tell.
pub fn cpu_time_of(pid: u32) -> std::io::Result<Duration> {
    #[cfg(target_os = "linux")]
    return cpu::time_of(pid);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        Err(std::io::ErrorKind::Unsupported.into())
    }
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

    #[test]
    #[cfg(target_os = "linux")]
    fn work_is_in_the_cpu_time_of_a_process_and_a_sleep_is_not() {
        let own = || cpu_time_of(std::process::id()).expect("our own");
        let (before, began) = (own(), mono());
        while mono().duration_since(began) < Duration::from_millis(20) {}
        assert!(own() > before);

        let sleeper = std::process::Command::new("sleep").arg("30").spawn();
        let mut sleeper = sleeper.expect("sleep starts");
        std::thread::sleep(Duration::from_millis(200));
        let used = cpu_time_of(sleeper.id());
        sleeper.kill().expect("it is ours");
        sleeper.wait().expect("it has ended");
        let used = used.expect("it lived");
        assert!(used < Duration::from_millis(100), "{used:?}");
        cpu_time_of(sleeper.id()).expect_err("there is no such process any more");
    }
}
