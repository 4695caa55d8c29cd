//! CPU time of a process, from `/proc` (Linux).

use std::io;
use std::time::Duration;

/// `USER_HZ`, in which Linux tells times on every architecture we build for.
const TICKS_PER_SECOND: u32 = 100;

/// User and system time of all threads of a process so far, in steps of 10 ms.
///
/// # Errors
/// There is no such process, or no such file on this system.
pub(crate) fn time_of(pid: u32) -> io::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let text = std::fs::read_to_string(&path).map_err(named)?;
    parse(&text).ok_or_else(|| named(io::ErrorKind::InvalidData.into()))
}

/// Fields 14 and 15, counted from 1. The second is the program's name in parentheses, with anything in it.
fn parse(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    Some(Duration::from_millis(
        ticks.checked_mul(u64::from(1000 / TICKS_PER_SECOND))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        let stat =
            "4242 (a) b (c)) S 1 4242 4242 0 -1 4194560 900 0 1 0 150 75 3 4 20 0 5 0 100 1 2";
        assert_eq!(parse(stat), Some(Duration::from_millis(2250)));
        assert_eq!(parse("4242 (x) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn own_time_is_readable_and_a_missing_process_is_named() {
        assert!(time_of(std::process::id()).is_ok());
        let error = time_of(u32::MAX).expect_err("no such process").to_string();
        assert!(error.starts_with("/proc/4294967295/stat: "), "{error}");
    }
}
