//! The standalone STUN server: players ask it which address the rest of the world sees them at.
//!
//! A shell around [`stun_server_proto`]: it moves bytes, reads the clock and counts verdicts.
//! Follow one datagram through `shard.rs`, one connection through `stream.rs` and
//! `connection.rs`; both ask the machine and
//! count its verdict in `counters.rs`. The four endpoints of RFC 5780 are bound in `alternate.rs`; it and
//! RFC 3489 are answered over UDP only, where there is something to find out.
//!
//! ```
//! use ops::metrics::Registry;
//! use stun_server::{Config, Server};
//!
//! let mut config = Config::default();
//! config.listen = Config::from_toml("listen = ['udp://127.0.0.1:0']")?.listen;
//! let server = Server::bind(config, &Registry::new())?;
//! let (scheme, address) = server.local_addrs()[0];
//! assert_eq!((scheme.as_str(), address.port() != 0), ("udp", true));
//! server.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod alternate;
pub mod config;
mod connection;
mod counters;
mod server;
mod shard;
mod stream;

pub use config::Config;
pub use server::{BindError, ReloadError, Reloaded, Server};
