//! When something is due next, and what.

use crate::address::Source;
use crate::connection::ConnId;
use signal_wire::{LobbyId, SessionId};
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// `hello` should have come.
    Hello(ConnId),
    /// The grace time of a cut session is over.
    Grace(SessionId),
    /// The oldest event kept for a session is too old.
    Replay(SessionId),
    /// A lobby may have been idle for too long.
    Idle(LobbyId),
    /// A source that is gone may have earned its rates back.
    Source(Source),
}

/// One queue of everything due; each thing stands in it at most once.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    queue: BTreeSet<(Instant, Due)>,
    at: HashMap<Due, Instant>,
}

impl Deadlines {
    pub(crate) fn set(&mut self, due: Due, at: Instant) {
        if let Some(before) = self.at.insert(due, at) {
            self.queue.remove(&(before, due));
        }
        self.queue.insert((at, due));
    }

    /// Sets `due` unless it stands already; for what looks at its own clock when its time comes.
    pub(crate) fn set_if_absent(&mut self, due: Due, at: Instant) {
        if !self.at.contains_key(&due) {
            self.set(due, at);
        }
    }

    pub(crate) fn clear(&mut self, due: Due) {
        if let Some(at) = self.at.remove(&due) {
            self.queue.remove(&(at, due));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<Due> {
        let (at, due) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.clear(due);
        Some(due)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}
