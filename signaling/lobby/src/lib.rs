//! Rooms as a state machine: who is in which lobby, and what each connection is told.
//!
//! The machine has no clock, socket, thread or runtime. Calls go in (`handle_*`, with the time),
//! results come out (`poll_output`, `poll_event`, `poll_timeout`); after a batch of calls in, drain
//! the polls. Nothing here grows without a bound of [`Config`], and every refusal is an [`Event`].
//!
//! Reading order: `lobbies.rs` (dispatch) → `hello.rs` → `join.rs` → `room.rs` → `relay.rs` →
//! `session.rs` and `replay.rs` (what survives a cut) → `tank.rs` (the passphrase door).

mod address;
mod config;
mod connection;
mod deadlines;
mod hello;
mod join;
mod lobbies;
mod output;
mod passphrase;
mod rate;
mod relay;
mod replay;
mod room;
mod session;
mod tank;

pub use address::Prefix;
pub use config::Config;
pub use connection::{Arrival, ConnId, Door};
pub use lobbies::{Census, Lobbies, Now};
pub use output::{Admission, Dropped, Event, IceSubject, Limiter, LobbyEnd, Output, ResumeOutcome};
pub use passphrase::{PassphraseFormat, PassphraseKey};
pub use rate::Rate;

/// A message from a native client, its signal data unread.
pub type ClientMessage = signal_wire::ClientMessageWith<signal_wire::RawData>;
/// A message to a native client, its signal data unread.
pub type ServerMessage = signal_wire::ServerMessageWith<signal_wire::RawData>;

pub(crate) type ServerBody = signal_wire::ServerBodyWith<signal_wire::RawData>;
