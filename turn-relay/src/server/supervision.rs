//! A shard that ends by itself is noticed and named; nothing goes on with half the clients lost.
//!
//! (A panic is not for here: a daemon's hook ends the process, see `ops::daemon::abort_on_panic`.)

use std::io;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// A shard ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[error("shard turn-{shard} cannot go on: {cause}")]
pub struct ShardFailure {
    /// Its number; its thread is called `turn-N`.
    pub shard: usize,
    /// What it ended with.
    pub cause: io::Error,
}

/// Held by each shard's thread.
#[derive(Debug, Clone)]
pub(super) struct Supervision(UnboundedSender<ShardFailure>);

/// Where failures arrive: one for each shard at most.
#[derive(Debug)]
pub(super) struct Failures(UnboundedReceiver<ShardFailure>);

pub(super) fn watch() -> (Supervision, Failures) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Supervision(sender), Failures(receiver))
}

impl Supervision {
    /// The whole life of a shard's thread.
    pub(super) fn run(self, shard: usize, serve: impl FnOnce() -> io::Result<()>) {
        if let Err(cause) = serve() {
            let failure = ShardFailure { shard, cause };
            tracing::error!("{failure}");
            // Whoever does not listen has the line above.
            let _ = self.0.send(failure);
        }
    }
}

impl Failures {
    /// The next one; never returns while all shards do as they are told.
    pub(super) async fn next(&mut self) -> ShardFailure {
        match self.0.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now_or_never(failures: &mut Failures) -> Option<String> {
        failures
            .0
            .try_recv()
            .ok()
            .map(|failure| failure.to_string())
    }

    #[test]
    fn a_shard_that_fails_is_named_with_its_cause() {
        let (supervision, mut failures) = watch();
        supervision.clone().run(0, || Ok(()));
        supervision.run(1, || Err(io::ErrorKind::OutOfMemory.into()));
        let told = now_or_never(&mut failures);
        assert_eq!(
            told.as_deref(),
            Some("shard turn-1 cannot go on: out of memory")
        );
        assert_eq!(now_or_never(&mut failures), None);
    }
}
