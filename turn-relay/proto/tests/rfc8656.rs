//! The relay's protocol stories in virtual time, one module per topic of RFC 8656, RFC 8489
//! and RFC 6062.
//!
//! `cargo test -p turn-relay-proto --test rfc8656 allocate::` runs one of them.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the case it is about"
)]

mod harness;

mod allocate;
mod auth;
mod channel;
mod even_port;
mod expiry;
mod families;
mod hostile;
mod indications;
mod nonce;
mod operator;
mod peer_policy;
mod permission;
mod quota;
mod refresh;
mod regressions;
mod security_goals;
mod shards;
mod spare_sockets;
mod tcp_relaying;
