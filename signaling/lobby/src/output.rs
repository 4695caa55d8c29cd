//! What comes out of the machine: messages to send, and events for whoever counts.

use crate::ServerMessage;
use crate::connection::{ConnId, Door};
use signal_wire::{CloseCode, ErrorCode, MemberId, SessionId};
use std::sync::Arc;
use std::time::Duration;

/// What the shell must do for one connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a message of the native protocol.
    Message {
        /// To whom.
        to: ConnId,
        /// What; shared with the replay of the session.
        message: Arc<ServerMessage>,
        /// Set when `ice_servers` is to be filled in: credentials for this subject.
        ice: Option<IceSubject>,
    },
    /// Send text at the passphrase door.
    Text {
        /// To whom.
        to: ConnId,
        /// What, verbatim.
        text: String,
    },
    /// Close the connection after what was sent before.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        code: CloseCode,
    },
}

/// For whom TURN credentials are made: a member of a lobby, by its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IceSubject {
    /// The session.
    pub session: SessionId,
    /// Its number in the lobby.
    pub member: MemberId,
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The server goes down.
    Draining,
    /// As many connections as the server takes.
    Full,
    /// As many from this address as the server takes.
    AddressFull,
    /// Too many from this address in a short time.
    ConnectRate(Duration),
    /// As many addresses as the server keeps count of.
    AddressTableFull,
}

/// Something that happened, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was not let in.
    NotAdmitted(Admission),
    /// A request was refused.
    Refused(ErrorCode),
    /// A limit was hit.
    RateLimited(Limiter),
    /// A lobby was opened.
    LobbyOpened(Door),
    /// A lobby filled up.
    LobbyReady(Door),
    /// A lobby ended.
    LobbyClosed(LobbyEnd),
    /// A client asked to take a session up again.
    Resume(ResumeOutcome),
    /// Something was thrown away.
    Dropped(Dropped),
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limiter {
    /// Connections from one address.
    Connect,
    /// Messages of one connection.
    Messages,
    /// Bytes of one connection.
    Bytes,
    /// Joins of one connection.
    Joins,
    /// Wrong passphrases of one address, or of all.
    Guesses,
    /// Lobbies opened from one address.
    Opens,
}

/// Why a lobby ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LobbyEnd {
    /// Everybody left.
    Empty,
    /// Nothing happened in it for too long.
    Idle,
}

/// How a resume went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResumeOutcome {
    /// Everything missed was sent again.
    Replayed,
    /// Some of it was gone; the state was sent in its place.
    Snapshot,
    /// No such session, or not with that token.
    Unknown,
}

/// What was thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// An event not yet acknowledged, to keep within the bounds of the replay.
    Replay,
    /// A message of the passphrase door while the other player is absent.
    NoReceiver,
}
