//! Every bound and time of the machine; `Default` is the documentation of the defaults.

use crate::address::Prefix;
use crate::passphrase::PassphraseFormat;
use crate::rate::Rate;
use std::time::Duration;

/// What the machine allows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Form a passphrase must have.
    pub passphrase: PassphraseFormat,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (IPv6: one /64).
    pub connections_per_address: u32,
    /// New connections from one address.
    pub connect_rate: Rate,
    /// Addresses whose rates are remembered; a connection from one more is refused.
    pub addresses: usize,
    /// Addresses without limits of their own: load generators, monitoring.
    pub exempt: Vec<Prefix>,
    /// Sessions at once, cut ones within their grace time included.
    pub sessions: usize,
    /// Lobbies at once.
    pub lobbies: usize,
    /// Largest `lobby.join.max`.
    pub lobby_members: u16,
    /// Messages of one native connection.
    pub message_rate: Rate,
    /// Messages of one connection of the passphrase door.
    pub relay_rate: Rate,
    /// Bytes of one connection.
    pub byte_rate: Rate,
    /// Joins of one connection.
    pub join_rate: Rate,
    /// Passphrases from one address for which there was no lobby.
    pub guess_rate: Rate,
    /// The same from everywhere; past it, addresses that guessed before must wait.
    pub total_guess_rate: Rate,
    /// Lobbies opened from one address.
    pub open_rate: Rate,
    /// Unreadable frames after which a connection is closed.
    pub bad_frames: u8,
    /// How long a connection may stay without `hello`.
    pub hello_timeout: Duration,
    /// How long a session outlives its connection.
    pub grace: Duration,
    /// Events kept for a session until acknowledged.
    pub replay_events: usize,
    /// Bytes of events kept for a session.
    pub replay_bytes: usize,
    /// How long an event is kept.
    pub replay_age: Duration,
    /// A lobby in which nothing happened for this long is closed.
    pub lobby_idle: Duration,
    /// Clients are told to come back at times spread over this long after a drain.
    pub drain_spread: Duration,
    /// What `welcome` says about pings; the shell sends them.
    pub ping_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            passphrase: PassphraseFormat::default(),
            connections: 20_000,
            connections_per_address: 64,
            connect_rate: Rate::per_second(10, 40),
            addresses: 65_536,
            exempt: Vec::new(),
            sessions: 30_000,
            lobbies: 20_000,
            lobby_members: 16,
            message_rate: Rate::per_second(50, 100),
            relay_rate: Rate::per_second(60, 120),
            byte_rate: Rate::per_second(64 * 1024, 256 * 1024),
            join_rate: Rate::per_second(2, 5),
            guess_rate: Rate::per_minute(10, 10),
            total_guess_rate: Rate::per_minute(1_000, 1_000),
            open_rate: Rate::per_minute(20, 10),
            bad_frames: 8,
            hello_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(60),
            replay_events: 256,
            replay_bytes: 64 * 1024,
            replay_age: Duration::from_secs(60),
            lobby_idle: Duration::from_secs(12 * 3600),
            drain_spread: Duration::from_secs(20),
            ping_interval: Duration::from_secs(20),
        }
    }
}
