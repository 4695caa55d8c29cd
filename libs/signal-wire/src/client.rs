//! Messages from a client to the server.

use crate::envelope::{Empty, Envelope, Fault, ParseError, finish};
use crate::ids::{ResumeToken, SessionId};
use crate::signal::SignalToWith;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// A message to the server, the data of a signal held as `D`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientMessageWith<D> {
    /// Names the request; the reply carries it as `re`. Left out, no reply is wanted but errors.
    pub id: Option<u64>,
    /// The highest event number seen, so that the server need not keep it for a replay.
    pub ack: Option<u64>,
    /// Type and data.
    pub body: ClientBodyWith<D>,
}

/// [`ClientMessageWith`] with parsed signal data: the form a client uses.
pub type ClientMessage = ClientMessageWith<Value>;
/// [`ClientBodyWith`] with parsed signal data: the form a client uses.
pub type ClientBody = ClientBodyWith<Value>;

/// Type and data of a message to the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientBodyWith<D> {
    /// `hello`: the first message; answered by `welcome`.
    Hello(Hello),
    /// `lobby.join`: answered by `lobby.joined`.
    LobbyJoin(LobbyJoin),
    /// `lobby.leave`: answered by `lobby.left`.
    LobbyLeave,
    /// `signal`: relayed to another member; answered only by errors.
    Signal(SignalToWith<D>),
    /// `ping`: answered by `pong`.
    Ping(Ping),
    /// `ice.request`: answered by `ice.servers`.
    IceRequest,
}

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The game; players meet only within one ([`crate::is_game`]).
    pub game: String,
    /// The build of the game.
    #[serde(default)]
    pub build: String,
    /// The client library and its version.
    #[serde(default)]
    pub sdk: String,
    /// What the others see ([`crate::is_name`]); empty: the server makes one of the member number.
    #[serde(default)]
    pub name: String,
    /// The session to take up again after a cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// The session to take up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// From `welcome`.
    pub session_id: SessionId,
    /// From `welcome`.
    pub resume_token: ResumeToken,
    /// The highest event number seen; 0 before the first.
    #[serde(default)]
    pub last_seq: u64,
}

/// Join the lobby of a passphrase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LobbyJoin {
    /// What the players told each other. The server keeps a keyed hash only.
    pub passphrase: String,
    /// Whether to open the lobby when there is none.
    #[serde(default)]
    pub create: bool,
    /// Members the lobby takes, when this opens it.
    #[serde(default = "default_max")]
    pub max: u16,
}

const fn default_max() -> u16 {
    crate::limits::LOBBY_MEMBERS_MIN
}

impl std::fmt::Debug for LobbyJoin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passphrase: _,
            create,
            max,
        } = self;
        out.debug_struct("LobbyJoin")
            .field("create", create)
            .field("max", max)
            .finish_non_exhaustive()
    }
}

/// Ask for a [`crate::Pong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back as it is; the sender's clock.
    pub t: u64,
}

impl<D> ClientBodyWith<D> {
    /// Every type a client may send.
    pub const TYPES: &'static [&'static str] = &[
        "hello",
        "lobby.join",
        "lobby.leave",
        "signal",
        "ping",
        "ice.request",
    ];

    /// The `type` on the wire.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::LobbyJoin(_) => "lobby.join",
            Self::LobbyLeave => "lobby.leave",
            Self::Signal(_) => "signal",
            Self::Ping(_) => "ping",
            Self::IceRequest => "ice.request",
        }
    }
}

impl<D: DeserializeOwned> ClientMessageWith<D> {
    /// Reads one message (see [`crate::split_frame`] for batches).
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong and keeps the `id` for the answer.
    pub fn from_json(text: &str) -> Result<Self, ParseError> {
        let envelope = Envelope::parse(text)?;
        let body = match &*envelope.kind {
            "hello" => ClientBodyWith::Hello(envelope.data()?),
            "lobby.join" => ClientBodyWith::LobbyJoin(envelope.data()?),
            "lobby.leave" => ClientBodyWith::LobbyLeave,
            "signal" => ClientBodyWith::Signal(envelope.data()?),
            "ping" => ClientBodyWith::Ping(envelope.data()?),
            "ice.request" => ClientBodyWith::IceRequest,
            _ => return Err(envelope.fault(Fault::UnknownType)),
        };
        Ok(Self {
            id: envelope.id,
            ack: envelope.ack,
            body,
        })
    }
}

impl<D: Serialize> ClientMessageWith<D> {
    /// The message as a frame.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages have string keys and finite numbers")
    }
}

impl<D: Serialize> Serialize for ClientMessageWith<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = self.id {
            map.serialize_entry("id", &id)?;
        }
        if let Some(ack) = self.ack {
            map.serialize_entry("ack", &ack)?;
        }
        let kind = self.body.type_name();
        match &self.body {
            ClientBodyWith::Hello(data) => finish(map, kind, data),
            ClientBodyWith::LobbyJoin(data) => finish(map, kind, data),
            ClientBodyWith::Signal(data) => finish(map, kind, data),
            ClientBodyWith::Ping(data) => finish(map, kind, data),
            ClientBodyWith::LobbyLeave | ClientBodyWith::IceRequest => finish(map, kind, &Empty {}),
        }
    }
}
