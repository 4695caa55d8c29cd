//! What waits to be sent on one connection: left by the hub, taken by the connection's task.
//!
//! Bounded in bytes. A connection that does not read fills it and is cut off; the hub never waits.

use signal_wire::CloseCode;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    texts: VecDeque<String>,
    bytes: usize,
    /// Set once; nothing is taken in after it.
    end: Option<CloseCode>,
}

/// What a connection's task found.
#[derive(Debug)]
pub(crate) struct Taken {
    /// To be sent, in this order.
    pub(crate) texts: VecDeque<String>,
    /// To be closed with after that.
    pub(crate) end: Option<CloseCode>,
}

/// What became of a text left in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It waits.
    Waits,
    /// It did not fit: the connection is cut off and everything that waited is gone, so many.
    CutOff(usize),
    /// The connection is closing already.
    Closing,
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            changed: Notify::new(),
            limit,
        }
    }

    /// Leaves a text.
    pub(crate) fn leave(&self, text: String) -> Left {
        let mut waiting = self.lock();
        if waiting.end.is_some() {
            return Left::Closing;
        }
        let bytes = waiting.bytes + text.len();
        if bytes > self.limit {
            let dropped = waiting.texts.len() + 1;
            *waiting = Waiting {
                end: Some(CloseCode::SlowConsumer),
                ..Waiting::default()
            };
            drop(waiting);
            self.changed.notify_one();
            return Left::CutOff(dropped);
        }
        waiting.bytes = bytes;
        waiting.texts.push_back(text);
        drop(waiting);
        self.changed.notify_one();
        Left::Waits
    }

    /// Closes the connection after what waits; the first reason holds.
    pub(crate) fn close(&self, code: CloseCode) {
        let mut waiting = self.lock();
        waiting.end.get_or_insert(code);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits until there is something to send or a reason to close.
    pub(crate) async fn take(&self) -> Taken {
        loop {
            let taken = self.take_now();
            if !taken.texts.is_empty() || taken.end.is_some() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    fn take_now(&self) -> Taken {
        let mut waiting = self.lock();
        // Taken whole, so that an idle connection keeps no buffer.
        Taken {
            texts: std::mem::take(&mut waiting.texts),
            end: waiting.end,
        }
    }

    /// Gives back the room of what was sent.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut waiting = self.lock();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
    }

    /// Waits until the connection has been cut off for not reading.
    pub(crate) async fn cut_off(&self) {
        while self.lock().end != Some(CloseCode::SlowConsumer) {
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic elsewhere ends the process; texts and their count are changed together anyway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn texts_keep_their_order_and_room_comes_back_when_they_are_sent() {
        let outbox = Outbox::new(10);
        assert_eq!(outbox.leave("12345".into()), Left::Waits);
        assert_eq!(outbox.leave("67890".into()), Left::Waits);
        let taken = outbox.take().await;
        assert_eq!(taken.texts, ["12345", "67890"]);
        outbox.sent(5);
        assert_eq!(outbox.leave("abcde".into()), Left::Waits);
        assert_eq!(outbox.leave("f".into()), Left::CutOff(2));
        assert_eq!(outbox.leave("g".into()), Left::Closing);
        outbox.cut_off().await;
        let taken = outbox.take().await;
        assert_eq!(
            (taken.texts.len(), taken.end),
            (0, Some(CloseCode::SlowConsumer))
        );
    }

    #[tokio::test]
    async fn what_was_left_before_a_close_is_sent_first() {
        let outbox = Outbox::new(10);
        outbox.leave("last".into());
        outbox.close(CloseCode::GoingAway);
        outbox.close(CloseCode::Idle);
        let taken = outbox.take().await;
        assert_eq!(
            (taken.texts.len(), taken.end),
            (1, Some(CloseCode::GoingAway))
        );
    }
}
