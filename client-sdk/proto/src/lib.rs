//! The player's connection brain: candidates, relays, ICE, encrypted sessions, channels. A machine without sockets, clock or
//! threads; `client-sdk` gives it all three.
//!
//! # The contract
//!
//! Calls go in with the time ([`Node::handle_datagram`], [`Node::handle_signal`], [`Node::handle_timeout`], ...), results come
//! out by polling. After each batch of calls, drain in this order: [`Node::poll_event`] (messages are read here),
//! [`Node::poll_stream`], [`Node::poll_transmit`], [`Node::poll_signal`]; then sleep until [`Node::poll_timeout`].
//!
//! # The way of a datagram
//!
//! `node.rs` takes it, asks `candidates.rs` (an answer of a STUN server?) and `relays.rs` (from a TURN server? then its payload
//! comes back with the peer's address), then gives STUN to the session whose password it carries (`session.rs`, `ice.rs`) and
//! everything else to the session that has validated its address (`link.rs`, `channels.rs`).
//!
//! # What is outside
//!
//! Name resolution, interface lists, the connection to signaling. The ICE agent, the TURN client and QUIC are libraries, each
//! named in one file: `ice.rs`, `relays.rs`, `link.rs` (with `link/tls.rs`).

#![forbid(unsafe_code)]

mod candidates;
mod channels;
pub mod ice;
mod identity;
mod link;
mod node;
mod paths;
mod relays;
mod session;
mod trust;
mod types;

pub use candidates::{MAX_SOCKETS, MAX_STUN_SERVERS};
pub use channels::{
    MAX_QUEUED, MAX_RELIABLE_CHANNELS, MAX_RELIABLE_MESSAGE, RESERVED_CHANNEL, SendError,
};
pub use identity::{Identity, PublicKey};
pub use node::{MAX_LOCAL_CANDIDATES, MAX_PLAYERS, Node, NodeConfig, NodeEvent, Signal};
pub use paths::{DiaryEntry, DiaryEvent, MAX_DIARY, PathDiary};
pub use relays::{MAX_RELAY_SERVERS, MAX_RELAYS, RelayServer, STREAM_FALLBACK};
pub use session::LostReason;
pub use trust::{DescriptionError, FRESHNESS};
pub use types::{
    CandidateInfo, CandidateKind, ChannelId, Mode, Now, PathInfo, PathKind, PlayerId,
    RelayTransport, SocketId, Stats, StreamId, StreamRequest, Transmit, Trust,
};
