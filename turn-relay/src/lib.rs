//! The standalone TURN relay: sockets, threads, files and metrics around `turn-relay-proto`.
//!
//! [`Server::bind`] opens every listener and starts one shard for each core; a shard owns its
//! sockets, its slice of the relay ports and its machine, and shares nothing that a packet touches.
//!
//! What an operator does to a relay that runs reaches its shards as messages: [`Server::drain`],
//! [`Server::reload`], and the routes of [`admin`].
//!
//! Follow a packet: `shard.rs` (the only loop) → the machine → `outward.rs` → `sockets.rs` or
//! `streams.rs`. The bytes of TCP allocations (RFC 6062) go through `peer_connections.rs`.
#![forbid(unsafe_code)]

mod accepts;
pub mod admin;
mod config;
mod connections;
mod counters;
mod external;
mod frame;
mod memory;
mod outward;
mod peer_connections;
mod peer_errors;
mod peer_socket;
mod server;
mod shard;
mod shards;
mod sockets;
mod source;
mod stream;
mod streams;

pub use config::{
    Config, Discovery, Drain, EXAMPLE, ExternalAddresses, NamedSecret, Peers, StreamLimits,
    StunServer,
};
pub use external::DiscoveryError;
pub use server::{BindError, ReloadError, Reloaded, Server, ShardFailure};

pub use ops::config::{IpPrefix, ListenUrl, PortRange, ProxyListeners, Scheme, Secret};
pub use ops::tls::{TlsError, TlsFiles};
pub use turn_relay_proto::{Lifetimes, Limits, Protocol, Quota, Realm, StaticUser};
