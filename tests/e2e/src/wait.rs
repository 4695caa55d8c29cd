//! Waiting for something to become true, with a deadline instead of a guess.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use net_io::clock;

/// How long anything in these tests may take before it counts as broken. Machines that run tests are loaded: this is an
/// upper bound for a failure, never a pace.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A moment after which waiting is over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// `patience` from here on.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        Self(clock::mono() + patience)
    }

    /// What is left; zero once it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(clock::mono())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Asks `question` until it answers, at most for `patience`.
///
/// # Errors
/// When there was no answer in time, naming `what`; or the question's own error.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Deadline::after(patience);
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if deadline.passed() {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
