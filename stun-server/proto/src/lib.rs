//! A STUN server without sockets, clock or memory of its clients: a datagram goes in, a verdict comes
//! out (RFC 8489).
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//! use stun_server_proto::{Answer, LimitConfig, Responder, SourceLimits, Verdict};
//! use stun_wire::{Class, MessageWriter, Method, TransactionId};
//!
//! # #[allow(clippy::disallowed_methods)]
//! # let now = Instant::now();
//! let limits = Arc::new(SourceLimits::new(&LimitConfig::default(), [7; 16], now));
//! let mut responder = Responder::new(limits);
//!
//! let mut request = Vec::new();
//! MessageWriter::new(&mut request, Class::Request, Method::BINDING, TransactionId([1; 12])).finish();
//! let mut reply = Vec::new();
//! let (source, local) = ("192.0.2.1:5000".parse()?, "203.0.113.10:3478".parse()?);
//! let verdict = responder.handle(now, source, local, &request, &mut reply);
//! assert_eq!(verdict, Verdict::Reply { answer: Answer::Success, from: local, to: source });
//! assert_eq!(reply.len(), 32);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! Read `responder.rs` (one datagram), then `limits.rs` (how many of them a source may have answered).
//! `behavior.rs` has RFC 5780, which [`Responder::with_endpoints`] turns on, and `classic.rs` RFC 3489,
//! which [`Responder::with_rfc3489`] does.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod behavior;
mod classic;
mod limits;
mod responder;
mod siphash;

pub use behavior::Endpoints;
pub use limits::{Admission, Limit, LimitConfig, Prefix, SourceLimits};
pub use responder::{Answer, DropReason, Responder, Verdict};
