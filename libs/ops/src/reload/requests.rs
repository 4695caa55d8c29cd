//! When the daemon is asked to read its configuration again: SIGHUP, or the file has changed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::hangup::Hangup;

/// How often the file is looked at. A change is in force after two looks.
const LOOK: Duration = Duration::from_millis(250);

/// The configuration file of this process, and whether it has changed.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// As it was when it was read.
    read: Stamp,
    /// As it was at the last look.
    seen: Stamp,
}

impl ConfigFile {
    /// The file that a checked command line names; to be asked for before the file is read.
    pub fn of(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let path = path_in(arguments)?;
        let stamp = stamp(&path);
        Some(Self {
            path,
            read: stamp,
            seen: stamp,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True once for each change, when the file stands still: a half-written one is nobody's wish.
    fn has_changed(&mut self) -> bool {
        let stamp = stamp(&self.path);
        let is_still = stamp == self.seen;
        self.seen = stamp;
        if !is_still || stamp == self.read {
            return false;
        }
        self.read = stamp;
        true
    }

    /// It is read now, whatever the looks have seen.
    fn note_read(&mut self) {
        self.seen = stamp(&self.path);
        self.read = self.seen;
    }
}

/// `FILE` of `--config FILE` or `--config=FILE`.
fn path_in(arguments: impl IntoIterator<Item = OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        let joined = argument
            .to_str()
            .and_then(|it| it.strip_prefix("--config="));
        if let Some(path) = joined {
            return Some(PathBuf::from(path));
        }
    }
    None
}

/// What changes when a file is written or replaced; `None`: it cannot be looked at.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), inode(&metadata)))
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

/// Both ways of asking. SIGHUP ends the process no more from its creation on. Needs a runtime.
#[derive(Debug)]
pub struct ReloadRequests {
    hangup: Hangup,
    looks: tokio::time::Interval,
    file: Option<ConfigFile>,
}

impl ReloadRequests {
    /// Begins to look at the file, if there is one.
    ///
    /// # Errors
    /// The system refuses to tell of SIGHUP.
    pub fn new(file: Option<ConfigFile>) -> io::Result<Self> {
        Ok(Self {
            hangup: Hangup::new()?,
            looks: tokio::time::interval(LOOK),
            file,
        })
    }

    /// Waits until the file is to be read again. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> &Path {
        loop {
            let Some(file) = &mut self.file else {
                self.hangup.next().await;
                tracing::warn!("started without --config: there is nothing to reload");
                continue;
            };
            let is_asked = tokio::select! {
                () = self.hangup.next() => {
                    file.note_read();
                    true
                }
                _ = self.looks.tick() => file.has_changed(),
            };
            if is_asked {
                break;
            }
        }
        let file = self.file.as_ref();
        file.map(ConfigFile::path)
            .expect("only a file ends the loop")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

    use super::*;

    fn in_line(line: &str) -> Option<PathBuf> {
        path_in(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_file_is_found_in_every_form_of_the_command_line() {
        let expected = Some(PathBuf::from("/etc/turn.toml"));
        assert_eq!(in_line("turn --config /etc/turn.toml"), expected);
        assert_eq!(in_line("turn --config=/etc/turn.toml run"), expected);
        assert_eq!(in_line("turn run"), None);
    }

    #[test]
    fn a_change_is_told_once_and_only_when_the_file_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turn.toml");
        fs::write(&path, "first").unwrap();
        let line = [OsString::from("--config"), path.clone().into_os_string()];
        let mut file = ConfigFile::of(line).unwrap();
        assert!(!file.has_changed());
        fs::write(&path, "half").unwrap();
        assert!(!file.has_changed(), "it may be half-written");
        fs::write(&path, "half and half").unwrap();
        assert!(!file.has_changed(), "it has changed again");
        assert!(file.has_changed());
        assert!(!file.has_changed(), "told already");
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed());
        assert!(file.has_changed(), "gone is changed");
    }
}
