//! The client SDK: join a room, get encrypted paths to the other players.
//!
//! ```no_run
//! use rallypoint_client::{Endpoint, Event, Join, Mode};
//!
//! let endpoint = Endpoint::builder("ws://127.0.0.1:8765/v1/ws").game("tank").name("anna").start()?;
//! let state = endpoint.channel(0, Mode::Unreliable);
//! endpoint.join(Join::passphrase("jump-rocket").create(2));
//! loop {
//!     // Once a frame; never blocks.
//!     for event in endpoint.poll() {
//!         match event {
//!             Event::PlayerConnected { player, path, .. } => {
//!                 println!("{player} over {path}");
//!                 state.send(player, b"hello")?;
//!             }
//!             Event::Message { player, data, .. } => println!("{player}: {data:?}"),
//!             Event::PlayerLost { reason, .. } => {
//!                 println!("{reason}");
//!                 return Ok(());
//!             }
//!             Event::Failed(error) => return Err(error.into()),
//!             _ => {}
//!         }
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The endpoint finds out how it can be reached (its own addresses, its NAT's as STUN servers see them, an address on a TURN
//! relay), exchanges that with the other players through the signaling server, uses the first path that works and moves to
//! better ones, leaves a path that has died within half a second, and encrypts everything end to end (QUIC with both
//! players' keys) whatever the path. Nothing needs to be done for any of it.
//!
//! # In the order of reading
//!
//! `endpoint.rs` (the face), `driver.rs` (the one thread), `signaling.rs` (the WebSocket), `core.rs` (what both threads
//! share), `network.rs` (the seam below); the brain is the crate `client-sdk-proto`.

#![forbid(unsafe_code)]

mod core;
mod driver;
mod endpoint;
mod error;
mod event;
mod ice_servers;
pub mod network;
mod signaling;
mod tls;
mod url;

pub use client_sdk_proto::{
    CandidateInfo, CandidateKind, ChannelId, DescriptionError, DiaryEntry, DiaryEvent, Identity,
    LostReason, MAX_QUEUED, MAX_RELIABLE_CHANNELS, MAX_RELIABLE_MESSAGE, Mode, PathDiary, PathInfo,
    PathKind, PlayerId, PublicKey, RelayTransport, Stats, Trust,
};
pub use endpoint::{Channel, Endpoint, EndpointBuilder, Join, Privacy};
pub use error::{ConfigError, ConnectError, SendError};
pub use event::{Event, SignalState};
