//! The relay with real sockets on loopback: every claim is made through the wire or the metrics.

mod bounds;
mod client;
mod harness;
mod metrics;
mod start;
mod streams;
mod tls;
mod udp;
