//! The events of a session that its client has not acknowledged: numbered without gaps, kept within
//! bounds of count, bytes and age, sent again after a cut.

use crate::config::Config;
use crate::{ServerBody, ServerMessage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Replay {
    kept: VecDeque<Kept>,
    weight: usize,
    /// The number of the newest event; 0 before the first.
    last: u64,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    message: Arc<ServerMessage>,
}

impl Replay {
    pub(crate) const fn new() -> Self {
        Self {
            kept: VecDeque::new(),
            weight: 0,
            last: 0,
        }
    }

    /// Numbers an event and keeps it; the second value counts events thrown away to make room.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        body: ServerBody,
        config: &Config,
    ) -> (Arc<ServerMessage>, usize) {
        self.last += 1;
        let message = Arc::new(ServerMessage {
            re: None,
            seq: Some(self.last),
            body,
        });
        self.weight += weight(&message.body);
        self.kept.push_back(Kept {
            since: now,
            message: Arc::clone(&message),
        });
        let mut dropped = 0;
        while self.kept.len() > config.replay_events || self.weight > config.replay_bytes {
            self.drop_oldest();
            dropped += 1;
        }
        (message, dropped)
    }

    /// Lets go of everything up to `seq`.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        while self.first().is_some_and(|first| first <= seq) {
            self.drop_oldest();
        }
    }

    /// Lets go of what is too old; says when the next one will be.
    pub(crate) fn age(&mut self, now: Instant, config: &Config) -> (Option<Instant>, usize) {
        let mut dropped = 0;
        loop {
            let ends = self
                .kept
                .front()
                .map(|oldest| oldest.since + config.replay_age);
            match ends {
                Some(at) if at <= now => self.drop_oldest(),
                later => return (later, dropped),
            }
            dropped += 1;
        }
    }

    /// Everything after `seq`, if it is all still here.
    pub(crate) fn since(&self, seq: u64) -> Option<Vec<Arc<ServerMessage>>> {
        let missed = usize::try_from(self.last.checked_sub(seq)?).ok()?;
        let skip = self.kept.len().checked_sub(missed)?;
        Some(
            self.kept
                .iter()
                .skip(skip)
                .map(|kept| Arc::clone(&kept.message))
                .collect(),
        )
    }

    /// Lets go of everything, keeping the numbers.
    pub(crate) fn clear(&mut self) {
        self.kept = VecDeque::new();
        self.weight = 0;
    }

    fn first(&self) -> Option<u64> {
        self.kept.front().and_then(|kept| kept.message.seq)
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.weight = self.weight.saturating_sub(weight(&oldest.message.body));
        }
        // An idle session holds no buffer.
        if self.kept.is_empty() {
            self.clear();
        }
    }
}

/// About what an event takes in memory.
fn weight(body: &ServerBody) -> usize {
    const FIXED: usize = 192;
    FIXED
        + match body {
            ServerBody::Signal(signal) => signal.conn.len() + signal.data.as_str().len(),
            ServerBody::MemberJoined(joined) => joined.member.name.len(),
            ServerBody::LobbyJoined(joined) => joined
                .lobby
                .members
                .iter()
                .map(|member| 32 + member.name.len())
                .sum(),
            ServerBody::Welcome(_)
            | ServerBody::MemberLeft(_)
            | ServerBody::LobbyReady(_)
            | ServerBody::LobbyLeft
            | ServerBody::IceServers(_)
            | ServerBody::Pong(_)
            | ServerBody::ServerDrain(_)
            | ServerBody::Error(_) => 0,
        }
}
