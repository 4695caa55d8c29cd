//! What a process holds, from `/proc` (Linux).

use std::io;
use std::time::Duration;

use net_io::clock;
use serde::Serialize;

/// How often a process that is settling is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// It has settled when nothing has changed for so long: longer than a relay keeps sockets for allocations to come.
const QUIET: Duration = Duration::from_secs(3);
/// It is waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(8);

/// Memory in bytes, and descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident, files that are mapped included.
    pub(crate) rss: u64,
    /// Of that, what is in no file: heap and stacks.
    pub(crate) anonymous: u64,
    pub(crate) descriptors: usize,
    /// The whole system's small objects: sockets are of these, everybody's.
    pub(crate) kernel_slab: u64,
}

impl Memory {
    /// What it holds now.
    ///
    /// # Errors
    /// There is no such process, or it is not ours to look at.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        // The sums in /proc/PID/status are kept for each core and may be some hundred KiB behind; these are counted.
        let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let meminfo = read("/proc/meminfo")?;
        let directory = format!("/proc/{pid}/fd");
        let descriptors = std::fs::read_dir(&directory).map_err(|error| named(&directory, &error));
        Ok(Self {
            rss: kilobytes(&rollup, "Rss")?,
            anonymous: kilobytes(&rollup, "Anonymous")?,
            descriptors: descriptors?.count(),
            kernel_slab: kilobytes(&meminfo, "Slab")?,
        })
    }

    /// What it holds once that has not changed for a while, or when patience ends.
    pub(crate) fn settled(pid: u32) -> io::Result<Self> {
        let began = clock::mono();
        let mut since = began;
        let mut last = Self::of(pid)?;
        while since.elapsed() < QUIET && began.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
            let now = Self::of(pid)?;
            if (now.rss, now.descriptors) != (last.rss, last.descriptors) {
                since = clock::mono();
            }
            last = now;
        }
        Ok(last)
    }
}

/// The most that was ever resident.
pub(crate) fn peak_rss(pid: u32) -> io::Result<u64> {
    kilobytes(&read(&format!("/proc/{pid}/status"))?, "VmHWM")
}

fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| named(path, &error))
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// The bytes of a line such as `Rss:    1234 kB`.
fn kilobytes(text: &str, key: &str) -> io::Result<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number =
        value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    number
        .and_then(|number| number.checked_mul(1024))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {key} in kB")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_whole_name() {
        let text = "5581 [rollup]\nRssAnon:  9 kB\nRss:    1848 kB\nPss:  7 pages\n";
        assert_eq!(kilobytes(text, "Rss").ok(), Some(1848 * 1024));
        assert!(kilobytes(text, "Pss").is_err(), "another unit");
        assert!(kilobytes(text, "Anonymous").is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn own_memory_is_readable_and_a_missing_process_is_named() {
        let own = std::process::id();
        let before = Memory::of(own).expect("our own");
        let ballast = std::hint::black_box(vec![1_u8; 32 << 20]);
        let after = Memory::settled(own).expect("our own");
        assert!(
            after.anonymous >= before.anonymous + (16 << 20),
            "{after:?}"
        );
        assert!(before.rss >= before.anonymous && after.descriptors > 0);
        assert!(peak_rss(own).expect("our own") >= 32 << 20);
        drop(ballast);
        let error = Memory::of(u32::MAX)
            .expect_err("no such process")
            .to_string();
        assert!(
            error.starts_with("/proc/4294967295/smaps_rollup: "),
            "{error}"
        );
    }
}
