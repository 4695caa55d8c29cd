//! STUN and TURN messages: borrows to parse, writes in place.
//!
//! Everything here is a pure function of bytes. [`Message::parse`] checks a datagram once, borrows
//! it, and allocates nothing; [`MessageWriter`] appends a message to a buffer the caller keeps. The
//! invariants:
//!
//! - No received byte panics or allocates.
//! - Parsing stops at the signature: an attribute behind MESSAGE-INTEGRITY is invisible (RFC 8489
//!   section 14.5).
//! - Every comparison with a secret takes constant time.
//!
//! ```
//! use stun_wire::attribute::{Software, XorMappedAddress};
//! use stun_wire::{Class, Message, MessageWriter, Method, TransactionId};
//!
//! let tx = TransactionId([7; 12]);
//! let mut out = Vec::new();
//! let mut writer = MessageWriter::new(&mut out, Class::Success, Method::BINDING, tx);
//! writer.attribute(&XorMappedAddress("192.0.2.1:32853".parse()?)).fingerprint();
//! writer.finish();
//!
//! let message = Message::parse(&out)?;
//! let mapped = message.attribute::<XorMappedAddress>()?.expect("written above");
//! assert_eq!(mapped.0.port(), 32853);
//! assert_eq!(message.attribute::<Software<'_>>()?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

extern crate alloc;

pub mod attribute;
pub mod channel_data;
pub mod error_code;
pub mod stream;

mod attribute_type;
mod fingerprint;
mod header;
mod integrity;
mod message;
mod writer;

pub use attribute::{Attribute, AttributeError, UnknownAttributes};
pub use attribute_type::AttributeType;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, is_stun};
pub use integrity::{IntegrityError, IntegrityKey, IntegrityKind};
pub use message::{Attributes, Message, ParseError, RawAttribute};
pub use writer::MessageWriter;
