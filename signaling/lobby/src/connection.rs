//! A connection as the machine knows it: which door, how far it got, what it has used.

use crate::address::Source;
use crate::config::Config;
use crate::output::Limiter;
use crate::rate::Usage;
use signal_wire::{LobbyId, MemberId, SessionId};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A connection, numbered by the shell; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// `rallypoint.v1.json`.
    Native,
    /// The passphrase door of the tank game.
    Tank,
}

/// A connection that asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By which door.
    pub door: Door,
    /// From where.
    pub address: IpAddr,
}

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Native, before `hello`.
    Greeting,
    /// Native, after `hello`.
    Session(SessionId),
    /// At the passphrase door, in a lobby or not.
    Tank(Option<(LobbyId, MemberId)>),
    /// Told to close; what still comes is ignored.
    Closing,
}

/// Sustained overruns are punished after this many.
const STRIKES: u8 = 3;
/// Overruns within this time are one strike.
const STRIKE_SPACING: Duration = Duration::from_secs(1);
/// Strikes are forgiven after this long without one.
const STRIKE_MEMORY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stage: Stage,
    /// `None` when exempt from limits by address.
    pub(crate) source: Option<Source>,
    pub(crate) joins: Usage,
    messages: Usage,
    bytes: Usage,
    bad_frames: u8,
    strikes: u8,
    last_strike: Option<Instant>,
}

/// What to do about a message above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overrun {
    /// The first within a second: say so.
    First,
    /// Another within that second.
    Again,
    /// The last straw: close.
    Last,
}

impl Connection {
    pub(crate) fn new(door: Door, source: Option<Source>) -> Self {
        Self {
            stage: match door {
                Door::Native => Stage::Greeting,
                Door::Tank => Stage::Tank(None),
            },
            source,
            joins: Usage::default(),
            messages: Usage::default(),
            bytes: Usage::default(),
            bad_frames: 0,
            strikes: 0,
            last_strike: None,
        }
    }

    /// Counts a message of `length` bytes against the rates.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        length: usize,
        config: &Config,
    ) -> Result<(), (Limiter, Duration)> {
        let rate = match self.stage {
            Stage::Tank(_) => config.relay_rate,
            Stage::Greeting | Stage::Session(_) | Stage::Closing => config.message_rate,
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes
            .check(now, config.byte_rate, length)
            .map_err(|wait| (Limiter::Bytes, wait))?;
        self.messages
            .take(now, rate, 1)
            .map_err(|wait| (Limiter::Messages, wait))?;
        self.bytes
            .take(now, config.byte_rate, length)
            .map_err(|wait| (Limiter::Bytes, wait))
    }

    /// Notes that a message came above the limit.
    pub(crate) fn overrun(&mut self, now: Instant) -> Overrun {
        let since = self
            .last_strike
            .map(|last| now.saturating_duration_since(last));
        if since.is_some_and(|since| since < STRIKE_SPACING) {
            return Overrun::Again;
        }
        if since.is_some_and(|since| since > STRIKE_MEMORY) {
            self.strikes = 0;
        }
        self.strikes += 1;
        self.last_strike = Some(now);
        if self.strikes >= STRIKES {
            Overrun::Last
        } else {
            Overrun::First
        }
    }

    /// Notes an unreadable frame; true when it was one too many.
    pub(crate) const fn bad_frame(&mut self, config: &Config) -> bool {
        self.bad_frames = self.bad_frames.saturating_add(1);
        self.bad_frames >= config.bad_frames
    }
}
