//! The signaling server: sockets, time and files around the rooms of `signaling/lobby`.
//!
//! One task, the hub, owns the machine; one task a connection owns its socket. A connection sends
//! what it reads to the hub over a bounded channel, and the hub leaves what is to be sent in the
//! connection's outbox, which is bounded in bytes: who does not read is cut off.
//!
//! Reading order: `config.rs` → `server.rs` → `http.rs` → `connection.rs` → `hub.rs` → `outbox.rs`.

#![forbid(unsafe_code)]

mod config;
mod connection;
mod counters;
mod http;
mod hub;
mod origin;
mod outbox;
mod page;
mod server;
mod status;
mod turn_credentials;

pub use config::{Config, DEFAULT_CONFIG, Doors, Limits, PassphraseConfig, Relay, Stun};
pub use ops::tls::{TlsError, TlsFiles};
pub use server::{BindError, Server};
