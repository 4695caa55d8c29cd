//! Messages from the server to a client.

use crate::envelope::{Empty, Envelope, Fault, ParseError, finish};
use crate::error::ErrorCode;
use crate::ids::{LobbyId, MemberId, ResumeToken, SessionId};
use crate::signal::SignalFromWith;
use crate::timestamp::Timestamp;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// A message to a client, the data of a signal held as `D`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerMessageWith<D> {
    /// The `id` of the request this answers.
    pub re: Option<u64>,
    /// The number of an event: gapless within a session, replayed after a resume.
    pub seq: Option<u64>,
    /// Type and data.
    pub body: ServerBodyWith<D>,
}

/// [`ServerMessageWith`] with parsed signal data: the form a client uses.
pub type ServerMessage = ServerMessageWith<Value>;
/// [`ServerBodyWith`] with parsed signal data: the form a client uses.
pub type ServerBody = ServerBodyWith<Value>;

/// Type and data of a message to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerBodyWith<D> {
    /// `welcome`: answers `hello`.
    Welcome(Welcome),
    /// `lobby.joined`: answers `lobby.join`; as an event, the state of the lobby after a resume
    /// that could not replay what was missed.
    LobbyJoined(LobbyJoined),
    /// `lobby.member_joined`: somebody else came.
    MemberJoined(MemberJoined),
    /// `lobby.member_left`: somebody else went.
    MemberLeft(MemberLeft),
    /// `lobby.ready`: the lobby holds `max` members.
    LobbyReady(LobbyReady),
    /// `lobby.left`: answers `lobby.leave`; as an event, the lobby was closed for lack of use.
    LobbyLeft,
    /// `signal`: from another member.
    Signal(SignalFromWith<D>),
    /// `ice.servers`: answers `ice.request`.
    IceServers(IceServers),
    /// `pong`: answers `ping`.
    Pong(Pong),
    /// `server.drain`: this server goes down; resume elsewhere.
    ServerDrain(ServerDrain),
    /// `error`: a request was refused.
    Error(ErrorReply),
}

/// The session that a `hello` opened or took up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names the session.
    pub session_id: SessionId,
    /// Proves the right to take it up again; the same for the life of the session.
    pub resume_token: ResumeToken,
    /// Whether every event since `last_seq` follows. `false` with a `lobby` means that a
    /// `lobby.joined` event with its present state follows; without one, a new session.
    #[serde(default)]
    pub resumed: bool,
    /// Events that follow because they were missed.
    #[serde(default)]
    pub replayed: u32,
    /// The lobby this session is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lobby: Option<LobbyId>,
    /// How long the session outlives a cut of its connection.
    pub grace_ms: u64,
    /// The protocol as `major.minor`.
    pub protocol: String,
    /// What this server takes.
    pub limits: Limits,
    /// The server's clock.
    pub server_time: Timestamp,
}

/// What a server takes from one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest frame in bytes.
    pub message_bytes: u32,
    /// Messages a second, sustained.
    pub messages_per_second: u32,
    /// Messages at once.
    pub messages_burst: u32,
    /// Largest `lobby.join.max`.
    pub lobby_members: u16,
    /// The server pings this often.
    pub ping_interval_ms: u64,
}

/// You are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LobbyJoined {
    /// The lobby, yourself included.
    pub lobby: Lobby,
    /// Your number in it.
    pub you: MemberId,
    /// STUN and TURN servers, with credentials made for you.
    pub ice_servers: Vec<IceServer>,
}

/// A lobby as its members see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lobby {
    /// Names the lobby.
    pub id: LobbyId,
    /// Grows by one with every change.
    pub version: u64,
    /// Members it takes.
    pub max: u16,
    /// Its members, in the order they came.
    pub members: Vec<Member>,
}

/// A member of a lobby.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number, never given to another.
    pub id: MemberId,
    /// Its name, unique in the lobby.
    pub name: String,
}

/// A STUN or TURN server in the shape of the W3C's `RTCIceServer`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URLs (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// For TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN; never printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            urls,
            username,
            credential,
        } = self;
        let credential = credential.as_ref().map(|_| "…");
        out.debug_struct("IceServer")
            .field("urls", urls)
            .field("username", username)
            .field("credential", &credential)
            .finish()
    }
}

/// Somebody else came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberJoined {
    /// The lobby.
    pub lobby_id: LobbyId,
    /// Its version after this.
    pub version: u64,
    /// Who came.
    pub member: Member,
}

/// Somebody else went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLeft {
    /// The lobby.
    pub lobby_id: LobbyId,
    /// Its version after this.
    pub version: u64,
    /// Who went.
    pub member: MemberId,
    /// Why.
    pub reason: LeaveReason,
}

/// Why a member went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// It said so.
    Left,
    /// Its connection was cut and not taken up again in time.
    Disconnected,
    /// A reason this version does not know.
    #[serde(other)]
    Other,
}

/// The lobby holds `max` members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LobbyReady {
    /// The lobby.
    pub lobby_id: LobbyId,
    /// Its version after this.
    pub version: u64,
}

/// Fresh STUN and TURN servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServers {
    /// As in `lobby.joined`.
    pub ice_servers: Vec<IceServer>,
    /// How long their credentials hold.
    pub ttl_s: u64,
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// What the ping said.
    pub t: u64,
}

/// This server goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerDrain {
    /// When to come back, different for every client.
    pub reconnect_after_ms: u64,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// When the same may be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl<D> ServerBodyWith<D> {
    /// Every type a server may send.
    pub const TYPES: &'static [&'static str] = &[
        "welcome",
        "lobby.joined",
        "lobby.member_joined",
        "lobby.member_left",
        "lobby.ready",
        "lobby.left",
        "signal",
        "ice.servers",
        "pong",
        "server.drain",
        "error",
    ];

    /// The `type` on the wire.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::LobbyJoined(_) => "lobby.joined",
            Self::MemberJoined(_) => "lobby.member_joined",
            Self::MemberLeft(_) => "lobby.member_left",
            Self::LobbyReady(_) => "lobby.ready",
            Self::LobbyLeft => "lobby.left",
            Self::Signal(_) => "signal",
            Self::IceServers(_) => "ice.servers",
            Self::Pong(_) => "pong",
            Self::ServerDrain(_) => "server.drain",
            Self::Error(_) => "error",
        }
    }
}

impl<D: DeserializeOwned> ServerMessageWith<D> {
    /// Reads one message (see [`crate::split_frame`] for batches).
    ///
    /// # Errors
    /// [`ParseError`] says what is wrong and keeps `re` (as `id`) and `seq`: a client passes over
    /// types it does not know, and acknowledges them if they are events.
    pub fn from_json(text: &str) -> Result<Self, ParseError> {
        let envelope = Envelope::parse(text)?;
        let body = match &*envelope.kind {
            "welcome" => ServerBodyWith::Welcome(envelope.data()?),
            "lobby.joined" => ServerBodyWith::LobbyJoined(envelope.data()?),
            "lobby.member_joined" => ServerBodyWith::MemberJoined(envelope.data()?),
            "lobby.member_left" => ServerBodyWith::MemberLeft(envelope.data()?),
            "lobby.ready" => ServerBodyWith::LobbyReady(envelope.data()?),
            "lobby.left" => ServerBodyWith::LobbyLeft,
            "signal" => ServerBodyWith::Signal(envelope.data()?),
            "ice.servers" => ServerBodyWith::IceServers(envelope.data()?),
            "pong" => ServerBodyWith::Pong(envelope.data()?),
            "server.drain" => ServerBodyWith::ServerDrain(envelope.data()?),
            "error" => ServerBodyWith::Error(envelope.data()?),
            _ => return Err(envelope.fault(Fault::UnknownType)),
        };
        Ok(Self {
            re: envelope.re,
            seq: envelope.seq,
            body,
        })
    }
}

impl<D: Serialize> ServerMessageWith<D> {
    /// The message as a frame.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages have string keys and finite numbers")
    }
}

impl<D: Serialize> Serialize for ServerMessageWith<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(re) = self.re {
            map.serialize_entry("re", &re)?;
        }
        if let Some(seq) = self.seq {
            map.serialize_entry("seq", &seq)?;
        }
        let kind = self.body.type_name();
        match &self.body {
            ServerBodyWith::Welcome(data) => finish(map, kind, data),
            ServerBodyWith::LobbyJoined(data) => finish(map, kind, data),
            ServerBodyWith::MemberJoined(data) => finish(map, kind, data),
            ServerBodyWith::MemberLeft(data) => finish(map, kind, data),
            ServerBodyWith::LobbyReady(data) => finish(map, kind, data),
            ServerBodyWith::LobbyLeft => finish(map, kind, &Empty {}),
            ServerBodyWith::Signal(data) => finish(map, kind, data),
            ServerBodyWith::IceServers(data) => finish(map, kind, data),
            ServerBodyWith::Pong(data) => finish(map, kind, data),
            ServerBodyWith::ServerDrain(data) => finish(map, kind, data),
            ServerBodyWith::Error(data) => finish(map, kind, data),
        }
    }
}
