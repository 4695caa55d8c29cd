//! What the SDK tells the game: one enum, polled once a frame.

use std::time::Duration;

use bytes::Bytes;
use client_sdk_proto::{
    CandidateInfo, ChannelId, DiaryEntry, LostReason, PathDiary, PathInfo, PlayerId, Trust,
};

use crate::error::ConnectError;

/// One thing that happened since the last poll, in order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The state of the connection to the signaling server changed. Sessions between players live on without it.
    Signaling(SignalState),
    /// You are in the room.
    RoomJoined {
        /// The server's id of the room.
        room: String,
        /// Your number in it.
        you: PlayerId,
        /// The players already there, with their names.
        players: Vec<(PlayerId, String)>,
    },
    /// As many players as the room holds are in it.
    RoomReady,
    /// Another player entered the room; a connection to them is being made.
    PlayerJoined {
        /// Their number in the room.
        player: PlayerId,
        /// The name they gave.
        name: String,
    },
    /// A local candidate was found and sent to the others.
    CandidateGathered(CandidateInfo),
    /// All candidates are known.
    Gathered {
        /// How many there are.
        candidates: usize,
        /// Since the room was joined.
        took: Duration,
    },
    /// A line was added to a player's path diary: a candidate learnt, a pair checked, chosen or given up.
    Diary {
        /// The player at the other end.
        player: PlayerId,
        /// The line.
        entry: DiaryEntry,
    },
    /// An encrypted session with a player is open: messages can be sent.
    PlayerConnected {
        /// The player at the other end.
        player: PlayerId,
        /// The path in use.
        path: PathInfo,
        /// Who vouches that this key is this player.
        trust: Trust,
        /// Since the player was known.
        took: Duration,
    },
    /// The session moved to another path. Nothing needs to be done; messages go on.
    PathChanged {
        /// The player at the other end.
        player: PlayerId,
        /// The path left.
        from: PathInfo,
        /// The path taken.
        to: PathInfo,
        /// How long nothing had been received from the player when the new path was taken.
        gap: Duration,
    },
    /// A message of a player.
    Message {
        /// Who sent it.
        player: PlayerId,
        /// On which channel.
        channel: ChannelId,
        /// The bytes, as sent.
        data: Bytes,
    },
    /// The session with a player ended, or never came about.
    PlayerLost {
        /// The player at the other end.
        player: PlayerId,
        /// Why.
        reason: LostReason,
        /// What was tried on the way.
        diary: PathDiary,
    },
    /// The room could not be joined or was lost.
    Failed(ConnectError),
}

/// The connection to the signaling server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalState {
    /// Connected and greeted.
    Connected {
        /// Whether the connection itself is encrypted (`wss://`). Over plain `ws://` everybody on the way sees who plays
        /// with whom, and could stand in the middle when trust is [`Trust::Signaling`].
        encrypted: bool,
    },
    /// Lost; being tried again in `retry_in`.
    Lost {
        /// What happened, for a log.
        reason: String,
        /// When the next attempt starts.
        retry_in: Duration,
    },
}
