//! SIGHUP: an operator asks for what is on disk to be read again (`systemctl reload`).

use std::io;

/// Hears SIGHUP, which ends the process no more from its creation on. Needs a runtime.
#[cfg(unix)]
#[derive(Debug)]
pub struct Hangup(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangup {
    /// Starts to listen.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Elsewhere there is no such signal.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Hangup;

#[cfg(not(unix))]
impl Hangup {
    /// Never fails here.
    ///
    /// # Errors
    /// None.
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for ever.
    pub async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}
