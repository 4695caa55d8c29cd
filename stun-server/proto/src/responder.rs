//! One datagram, one verdict: the Binding method of RFC 8489 and nothing else.
//!
//! Nothing is kept of a client but its share of the fixed table in `limits.rs`, so there is nothing
//! that a flood could fill.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use stun_wire::attribute::{ErrorCode, XorMappedAddress};
use stun_wire::{
    AttributeType, Class, Message, MessageWriter, Method, ParseError, TransactionId,
    UnknownAttributes, error_code,
};

use crate::limits::{Admission, Limit, SourceLimits};

/// The comprehension-required attributes of RFC 8489 itself. Those that mean nothing in a Binding
/// request are ignored (section 6.3); all others of that half are unknown and answered with 420.
const KNOWN: [AttributeType; 11] = [
    AttributeType::MAPPED_ADDRESS,
    AttributeType::USERNAME,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::ERROR_CODE,
    AttributeType::UNKNOWN_ATTRIBUTES,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::MESSAGE_INTEGRITY_SHA256,
    AttributeType::PASSWORD_ALGORITHM,
    AttributeType::USERHASH,
    AttributeType::XOR_MAPPED_ADDRESS,
];

/// What becomes of a datagram; each has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The bytes in the reply buffer go back to the source.
    Reply {
        /// What they say.
        answer: Answer,
        /// The address of ours they leave from.
        from: SocketAddr,
    },
    /// An indication: a keep-alive, understood and never answered.
    Absorbed,
    /// Silently discarded.
    Dropped(DropReason),
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The address the request came from.
    Success,
    /// 420: a required attribute is unknown here.
    UnknownAttribute,
}

/// Why a datagram is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Shorter than a header.
    TooShort,
    /// The first bits or the cookie are not STUN's (RFC 3489's messages among them).
    NotStun,
    /// The length field is not the datagram's.
    BadLength,
    /// The attributes do not tile the message.
    Malformed,
    /// FINGERPRINT is wrong or not last.
    BadFingerprint,
    /// A signature has a length that no signature has.
    BadIntegrity,
    /// A response; nothing was asked.
    NotRequest,
    /// A method that is not spoken here.
    Unsupported,
    /// An address that cannot be answered.
    BadSource,
    /// Over a limit.
    RateLimited(Limit),
}

impl From<ParseError> for DropReason {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TooShort => Self::TooShort,
            ParseError::NotStun | ParseError::Cookie => Self::NotStun,
            ParseError::Length => Self::BadLength,
            ParseError::Attribute => Self::Malformed,
            ParseError::IntegrityLength => Self::BadIntegrity,
            ParseError::FingerprintNotLast | ParseError::FingerprintMismatch => {
                Self::BadFingerprint
            }
        }
    }
}

/// Answers Binding requests. One per shard; all share their [`SourceLimits`].
#[derive(Debug)]
pub struct Responder {
    limits: Arc<SourceLimits>,
}

impl Responder {
    /// A responder that answers within `limits`.
    #[must_use]
    pub fn new(limits: Arc<SourceLimits>) -> Self {
        Self { limits }
    }

    /// Judges a datagram, or one message of a stream, that came from `source` to our address `local`.
    ///
    /// `reply` is emptied, and filled if the verdict is a reply. It needs no room beyond 128 bytes.
    pub fn handle(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        // RFC 8489 section 6.3: what is malformed is silently discarded, without an error response.
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(error) => return Verdict::Dropped(error.into()),
        };
        match (message.class(), message.method()) {
            (Class::Request, Method::BINDING) => self.answer(now, source, local, &message, reply),
            // RFC 8489 section 6.3.2: no response is generated for an indication.
            (Class::Indication, Method::BINDING) => Verdict::Absorbed,
            // RFC 8489 section 6.3: a response without its transaction and an unknown method are
            // silently discarded. Answering either could be made into a loop between two servers.
            (Class::Success | Class::Error, _) => Verdict::Dropped(DropReason::NotRequest),
            (Class::Request | Class::Indication, _) => Verdict::Dropped(DropReason::Unsupported),
        }
    }

    fn answer(
        &self,
        now: Instant,
        source: SocketAddr,
        local: SocketAddr,
        request: &Message<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        if !can_be_answered(source) {
            return Verdict::Dropped(DropReason::BadSource);
        }
        if let Admission::Refused(limit) = self.limits.admit(now, source.ip()) {
            return Verdict::Dropped(DropReason::RateLimited(limit));
        }
        let tx = request.transaction_id();
        // RFC 8489 section 6.3.1: unknown comprehension-required attributes are listed in a 420.
        let unknown = request.unknown_required(&KNOWN);
        let (writer, answer) = if unknown.is_empty() {
            (success(tx, source, reply), Answer::Success)
        } else {
            (refusal(tx, &unknown, reply), Answer::UnknownAttribute)
        };
        finish(writer, request.has_fingerprint());
        Verdict::Reply {
            answer,
            from: local,
        }
    }
}

/// XOR-MAPPED-ADDRESS and nothing else: SOFTWARE and the like would make the answer larger than a
/// forged request is worth. 32 bytes for IPv4, 44 for IPv6 (RFC 8489 section 6.3.1.1).
fn success(tx: TransactionId, source: SocketAddr, reply: &mut Vec<u8>) -> MessageWriter<'_> {
    let mut writer = MessageWriter::new(reply, Class::Success, Method::BINDING, tx);
    writer.attribute(&XorMappedAddress(source));
    writer
}

fn refusal<'r>(
    tx: TransactionId,
    unknown: &UnknownAttributes,
    reply: &'r mut Vec<u8>,
) -> MessageWriter<'r> {
    let mut writer = MessageWriter::new(reply, Class::Error, Method::BINDING, tx);
    writer
        .attribute(&ErrorCode::bare(error_code::UNKNOWN_ATTRIBUTE))
        .attribute(unknown);
    writer
}

/// RFC 8489 section 7: FINGERPRINT goes into a response where the request had one.
fn finish(mut writer: MessageWriter<'_>, fingerprint: bool) {
    if fingerprint {
        writer.fingerprint();
    }
    let length = writer.finish();
    debug_assert_ne!(length, 0, "an answer has a bounded size");
}

/// A datagram cannot be sent to port 0, to nowhere or to everybody.
fn can_be_answered(source: SocketAddr) -> bool {
    let ip = source.ip();
    let to_all = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !to_all
}
