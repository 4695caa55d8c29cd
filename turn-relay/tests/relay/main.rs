//! The relay with real sockets on loopback: every claim is made through the wire or the metrics.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on ends there"
)]

mod admin;
mod bounds;
mod client;
mod connected_sockets;
mod daemon;
mod documentation;
mod doors;
mod drain;
mod external;
mod haproxy;
mod harness;
mod metrics;
mod reload;
mod start;
mod streams;
mod tcp_relaying;
mod tls;
mod udp;
