//! Sockets and clocks for the servers: batched UDP, TCP listeners, and the one place that reads time.
//!
//! Knows no protocol but what stands before one: `opening.rs` finds out who a connection is of (`proxy.rs`)
//! and whether TLS is spoken on it. A datagram comes in with the address it was sent to and leaves from the
//! address it is told, so that a socket bound to a wildcard answers as the address that was asked.
//! On Linux one system call moves a batch (`recvmmsg`, `sendmmsg`); elsewhere the portable back end
//! does the same one by one. All `unsafe` of the crate is in `udp/linux.rs`
//! and below it, in `send_ring/linux.rs`, `wire/linux.rs`, `clock/cpu.rs` and `memory.rs`.
//!
//! Read `udp.rs` (the socket), `batch.rs` (what goes in and out), then a back end.

pub mod alarm;
pub mod batch;
#[cfg(target_os = "linux")]
mod bpf;
pub mod clock;
mod filter;
pub mod memory;
pub mod opening;
pub mod proxy;
pub mod send_ring;
mod steering;
pub mod tcp;
pub mod udp;
pub mod wire;

pub use alarm::Alarm;
pub use batch::{Datagram, MAX_BATCH, MAX_DATAGRAM, MAX_SEND, RecvBatch, SendBatch, SendReport};
pub use filter::Form;
pub use send_ring::{Departed, MAX_RING, SendRing};
pub use udp::{Backend, BindOptions, IcmpError, UdpSocket};
