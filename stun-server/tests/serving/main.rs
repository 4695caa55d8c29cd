//! The server over real sockets on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "helpers of tests"
)]

mod behavior;
mod client;
mod datagrams;
mod metrics;
mod reload;
mod streams;
mod tls;
