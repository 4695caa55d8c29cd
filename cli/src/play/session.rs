//! One side of the conversation, from hello to goodbye, without SDK, clock or output.
//!
//! Both players end together: each says `complete` when all of its own is done, and `goodbye` when it has heard that from
//! the other while complete itself. Who has heard goodbye may leave, for the other lacks nothing. Nothing is lost on the
//! reliable channel: what it cannot take now stays in [`Session::next_reliable`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::play::files::{Carried, Incoming, Outgoing};
use crate::play::talk::{self, Numbered, Reliable, Word};

/// How long echoes are awaited after the last message.
const ECHO_WAIT: Duration = Duration::from_secs(1);
/// Bytes of the file in one message.
const PIECE: usize = 16 * 1024;

/// What a player is there for.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) count: u32,
    pub(crate) size: usize,
    pub(crate) interval: Duration,
    pub(crate) hold: Duration,
    pub(crate) input: Option<Outgoing>,
    pub(crate) output: Option<Incoming>,
}

/// Why a session cannot be complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the other player takes no file (it has no --output)")]
    NotTaken,
    #[error("the other player sends no file (it has no --input)")]
    NotSent,
    #[error("the file cannot be read: {0}")]
    Read(std::io::Error),
    #[error("the file that came is not kept: {0}")]
    Spoilt(String),
    #[error("the other player could not keep the file: {0}")]
    Refused(String),
    #[error("the other player speaks another language than `rallypoint play`")]
    Language,
    #[error("of {0} messages on the unreliable channel none came back")]
    Deaf(u32),
}

/// The figures of the last line.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub(crate) struct Figures {
    /// Messages sent on the unreliable channel.
    pub(crate) sent: u32,
    /// Different messages of the other player that arrived.
    pub(crate) received: u32,
    /// Messages the other player sent, as it announced.
    pub(crate) expected: u32,
    /// Of ours, those that came back.
    pub(crate) echoed: u32,
    /// Median of their round trips.
    pub(crate) rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_sent: Option<Carried>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_received: Option<Carried>,
}

#[derive(Debug)]
pub(crate) struct Session {
    plan: Plan,
    started: Instant,
    /// When each of our messages left.
    left: Vec<Instant>,
    round_trips: Vec<Option<Duration>>,
    heard: Vec<bool>,
    /// How many messages the other announced, once it said hello.
    expected: Option<u32>,
    words: VecDeque<Vec<u8>>,
    piece: usize,
    outgoing: Stage,
    incoming: Stage,
    figures: Figures,
    complete: bool,
    other_complete: bool,
    said_goodbye: bool,
    heard_goodbye: bool,
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is none, or it is through.
    Done,
    Moving,
    /// Sent; the other's verdict is awaited.
    Judged,
}

impl Session {
    pub(crate) fn new(plan: Plan, now: Instant) -> Self {
        let stage = |has_file| if has_file { Stage::Moving } else { Stage::Done };
        let hello = Word::Hello {
            count: plan.count,
            file_bytes: plan.input.as_ref().map(Outgoing::length),
            takes_file: plan.output.is_some(),
        };
        Self {
            outgoing: stage(plan.input.is_some()),
            incoming: stage(plan.output.is_some()),
            started: now,
            left: Vec::new(),
            round_trips: Vec::new(),
            heard: Vec::new(),
            expected: None,
            words: VecDeque::from([talk::word(&hello)]),
            piece: PIECE,
            figures: Figures::default(),
            complete: false,
            other_complete: false,
            said_goodbye: false,
            heard_goodbye: false,
            plan,
        }
    }

    /// Takes a message of the unreliable channel; answers the echo to send, when it is the other's.
    pub(crate) fn handle_unreliable(&mut self, now: Instant, bytes: &[u8]) -> Option<Vec<u8>> {
        match talk::numbered(bytes)? {
            Numbered::Ping(number) => {
                self.hear(number);
                Some(talk::echo_of(bytes))
            }
            Numbered::Echo(number) => {
                let index = usize::try_from(number).ok()?;
                let left = *self.left.get(index)?;
                let round_trip = self.round_trips.get_mut(index)?;
                if round_trip.is_none() {
                    *round_trip = Some(now.saturating_duration_since(left));
                    self.figures.echoed += 1;
                }
                None
            }
        }
    }

    /// Counts a message of the other player once; numbers it did not announce are not its own.
    fn hear(&mut self, number: u32) {
        // Messages may overtake the hello; the bound is then what one process can ask for at once.
        const BEFORE_HELLO: u32 = 1_000;
        let bound = self.expected.unwrap_or(BEFORE_HELLO);
        let Some(index) = usize::try_from(number).ok().filter(|_| number < bound) else {
            return;
        };
        if self.heard.len() <= index {
            self.heard.resize(index + 1, false);
        }
        if let Some(heard) = self.heard.get_mut(index).filter(|heard| !**heard) {
            *heard = true;
            self.figures.received += 1;
        }
    }

    /// Takes a message of the reliable channel.
    pub(crate) fn handle_reliable(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        match talk::reliable(bytes).ok_or(Broken::Language)? {
            Reliable::Data(piece) => self.take_piece(piece),
            Reliable::Word(word) => self.hear_word(word),
        }
    }

    fn take_piece(&mut self, piece: &[u8]) -> Result<(), Broken> {
        let Some(output) = &mut self.plan.output else {
            return Err(Broken::Language);
        };
        output
            .write(piece)
            .map_err(|error| Broken::Spoilt(error.to_string()))
    }

    fn hear_word(&mut self, word: Word) -> Result<(), Broken> {
        match word {
            Word::Hello {
                count,
                file_bytes,
                takes_file,
            } => {
                if self.plan.input.is_some() && !takes_file {
                    return Err(Broken::NotTaken);
                }
                if self.plan.output.is_some() && file_bytes.is_none() {
                    return Err(Broken::NotSent);
                }
                self.expected = Some(count);
                self.figures.expected = count;
            }
            Word::FileEnd { bytes, sha256 } => self.judge(Carried { bytes, sha256 })?,
            Word::FileGood => self.outgoing = Stage::Done,
            Word::FileBad { reason } => return Err(Broken::Refused(reason)),
            Word::Complete => self.other_complete = true,
            Word::Goodbye => self.heard_goodbye = true,
        }
        Ok(())
    }

    fn judge(&mut self, announced: Carried) -> Result<(), Broken> {
        let Some(output) = &mut self.plan.output else {
            return Err(Broken::Language);
        };
        match output.finish(&announced) {
            Ok(()) => {
                self.words.push_back(talk::word(&Word::FileGood));
                self.figures.file_received = Some(announced);
                self.incoming = Stage::Done;
                Ok(())
            }
            Err(spoilt) => {
                let reason = spoilt.to_string();
                self.words.push_back(talk::word(&Word::FileBad {
                    reason: reason.clone(),
                }));
                Err(Broken::Spoilt(reason))
            }
        }
    }

    /// The next message for the reliable channel; the same one until [`Self::reliable_sent`] is called.
    pub(crate) fn next_reliable(&mut self, now: Instant) -> Result<Option<&[u8]>, Broken> {
        self.advance(now)?;
        // Before the other's hello it is not known whether it takes a file.
        if self.words.is_empty() && self.outgoing == Stage::Moving && self.expected.is_some() {
            self.read_on()?;
        }
        Ok(self.words.front().map(Vec::as_slice))
    }

    pub(crate) fn reliable_sent(&mut self) {
        self.words.pop_front();
    }

    /// The channel takes no messages longer than `most`: the file goes in smaller pieces from here on. `false` when the
    /// message at hand is none of the file's.
    pub(crate) fn shorten_pieces(&mut self, most: usize) -> bool {
        let piece = most.saturating_sub(1).min(self.piece);
        let Some(Reliable::Data(body)) = self
            .words
            .front()
            .and_then(|message| talk::reliable(message))
        else {
            return false;
        };
        if piece == 0 || body.len() <= piece {
            return false;
        }
        self.piece = piece;
        let parts: Vec<_> = body.chunks(piece).map(talk::data).collect();
        self.words.pop_front();
        for part in parts.into_iter().rev() {
            self.words.push_front(part);
        }
        true
    }

    fn read_on(&mut self) -> Result<(), Broken> {
        let Some(input) = &mut self.plan.input else {
            return Ok(());
        };
        if let Some(piece) = input.piece(self.piece).map_err(Broken::Read)? {
            self.words.push_back(talk::data(&piece));
            return Ok(());
        }
        let carried = input.carried();
        self.words.push_back(talk::word(&Word::FileEnd {
            bytes: carried.bytes,
            sha256: carried.sha256.clone(),
        }));
        self.figures.file_sent = Some(carried);
        self.outgoing = Stage::Judged;
        Ok(())
    }

    /// The next numbered message, when it is due.
    pub(crate) fn next_unreliable(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_ping()? {
            return None;
        }
        let message = talk::ping(self.figures.sent, self.plan.size);
        self.left.push(now);
        self.round_trips.push(None);
        self.figures.sent += 1;
        Some(message)
    }

    fn next_ping(&self) -> Option<Instant> {
        (self.figures.sent < self.plan.count)
            .then(|| self.started + self.plan.interval * self.figures.sent)
    }

    /// When something is due without a message from the other.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next_ping()
            .or_else(|| self.quiet_at().filter(|_| !self.complete))
    }

    /// When nothing more is awaited on the unreliable channel and the hold is over; `None` while messages are to be sent.
    fn quiet_at(&self) -> Option<Instant> {
        if self.next_ping().is_some() {
            return None;
        }
        let held = self.started + self.plan.hold;
        let echoes = match self.left.last() {
            Some(last) if self.figures.echoed < self.plan.count => *last + ECHO_WAIT,
            _ => self.started,
        };
        Some(held.max(echoes))
    }

    /// Says complete and goodbye when it is time.
    fn advance(&mut self, now: Instant) -> Result<(), Broken> {
        let quiet = self.quiet_at().is_some_and(|at| at <= now);
        let files = self.outgoing == Stage::Done && self.incoming == Stage::Done;
        if !self.complete && quiet && files {
            if self.plan.count > 0 && self.figures.echoed == 0 {
                return Err(Broken::Deaf(self.plan.count));
            }
            self.complete = true;
            self.words.push_back(talk::word(&Word::Complete));
        }
        if self.complete && self.other_complete && !self.said_goodbye {
            self.said_goodbye = true;
            self.words.push_back(talk::word(&Word::Goodbye));
        }
        Ok(())
    }

    /// Both are complete and both know it.
    pub(crate) fn is_over(&self) -> bool {
        self.said_goodbye && self.heard_goodbye && self.words.is_empty()
    }

    /// Whether the other player may vanish without anything being lacking: its goodbye can be lost, its work not.
    pub(crate) fn may_end_here(&self) -> bool {
        self.complete && self.other_complete
    }

    /// Changes whenever something that is due has come about.
    pub(crate) fn progress(&self) -> u64 {
        let moved = |file: Option<u64>| file.unwrap_or(0);
        u64::from(self.figures.sent)
            + u64::from(self.figures.received)
            + u64::from(self.figures.echoed)
            + moved(self.plan.input.as_ref().map(Outgoing::sent))
            + moved(self.plan.output.as_ref().map(Incoming::received))
            + u64::from(self.other_complete)
    }

    pub(crate) fn figures(&self) -> Figures {
        let milliseconds = self
            .round_trips
            .iter()
            .flatten()
            .map(|round_trip| round_trip.as_secs_f64() * 1000.0);
        Figures {
            rtt_ms: crate::output::median(milliseconds),
            ..self.figures.clone()
        }
    }

    /// What is still awaited, in words.
    pub(crate) fn lacking(&self) -> &'static str {
        if self.outgoing != Stage::Done {
            "the file is not through"
        } else if self.incoming != Stage::Done {
            "the other's file has not come"
        } else if !self.complete {
            "messages are under way"
        } else {
            "the other player is not complete"
        }
    }
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
