//! Network address translators as a machine without sockets or clock, in the terms of RFC 4787.
//!
//! A [`Nat`] is told every datagram that arrives on one of its two sides and answers where it leaves on the other, or why
//! it does not. What it does in between is its [`Behaviour`]: mapping, filtering, port assignment, lifetimes, hairpinning.
//! The common devices have names ([`Kind`]).
//!
//! ```text
//!   home                     NAT                          internet
//!   192.168.1.10:5000 --> outbound() --> 203.0.113.7:41641 --> 198.51.100.9:3478
//!   192.168.1.10:5000 <-- inbound()  <-- 203.0.113.7:41641 <-- 198.51.100.9:3478
//! ```
//!
//! Whoever owns the sockets gives each external address one, and closes those that [`Nat::poll_closed`] names. A NAT
//! behind a NAT is two machines: the outer one's internal address is the inner one's external address.
//!
//! Time is an argument, randomness comes from a seed, and every table is bounded by [`Behaviour::sessions`] with a counted
//! outcome ([`DropReason`], [`Counters`]).

mod behaviour;
mod nat;
mod ports;
mod table;

pub use behaviour::{Behaviour, Dependence, Hairpinning, Kind, Ports, Refresh, UnknownKind};
pub use nat::{Counters, DropReason, MAX_CUTS, Nat, Outbound, Remote};
