//! The messages of the native signaling protocol, subprotocol `rallypoint.v1.json`.
//!
//! A frame is UTF-8 JSON: one message or an array of at most [`limits::BATCH_MESSAGES`]. A message is
//! `{"id":7,"type":"lobby.join","data":{…}}` towards the server and `{"re":7,…}` (a reply),
//! `{"seq":412,…}` (an event, in order, replayed after a cut) or neither towards the client.
//! Unknown members are ignored; an unknown type is a [`Fault::UnknownType`] that keeps its `id`.
//!
//! Reading order: `envelope.rs` → `client.rs` → `server.rs` → `signal.rs` → `description.rs`.

mod client;
mod description;
mod encoding;
mod envelope;
mod error;
mod ids;
mod server;
mod signal;
mod text;
mod timestamp;

pub mod limits;

pub use client::{ClientBody, ClientBodyWith, ClientMessage, ClientMessageWith};
pub use client::{Hello, LobbyJoin, Ping, Resume};
pub use description::{
    CandidateData, DescriptionError, Nonce, PublicKey, SessionDescription, SignedDescription,
};
pub use envelope::{Fault, ParseError, split_frame};
pub use error::{CloseCode, ErrorCode};
pub use ids::{LobbyId, MemberId, ResumeToken, SessionId};
pub use server::{
    ErrorReply, IceServer, IceServers, LeaveReason, Limits, Lobby, LobbyJoined, LobbyReady, Member,
    MemberJoined, MemberLeft, Pong, ServerBody, ServerBodyWith, ServerDrain, ServerMessage,
    ServerMessageWith, Welcome,
};
pub use signal::{RawData, SignalFrom, SignalFromWith, SignalKind, SignalTo, SignalToWith};
pub use text::{is_game, is_name};
pub use timestamp::Timestamp;

/// The WebSocket subprotocol a native client asks for (`Sec-WebSocket-Protocol`).
pub const SUBPROTOCOL: &str = "rallypoint.v1.json";

/// What `welcome.protocol` says: major as in the subprotocol, minor for additions.
pub const PROTOCOL_VERSION: &str = "1.0";
