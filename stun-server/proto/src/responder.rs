//! One datagram, one verdict: the Binding method of RFC 8489 and nothing else.
//!
//! Nothing is kept of a client but its share of the fixed table in `limits.rs`, so there is nothing
//! that a flood could fill.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use stun_wire::attribute::{ErrorCode, XorMappedAddress};
use stun_wire::{
    AttributeType, Class, Message, MessageWriter, Method, ParseError, UnknownAttributes, error_code,
};

use crate::behavior::{self, Endpoint, Endpoints, Refusal, Room, Wishes};
use crate::classic;
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
    /// The bytes in the reply buffer are sent.
    Reply {
        /// What they say.
        answer: Answer,
        /// The address of ours they leave from: the one asked, unless CHANGE-REQUEST wants another.
        from: SocketAddr,
        /// Where they go: the source, unless RESPONSE-PORT wants another port of it.
        to: SocketAddr,
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
    /// 400: an attribute of RFC 5780 makes no sense.
    BadRequest,
}

/// Why a datagram is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Shorter than a header.
    TooShort,
    /// The first bits or the cookie are not STUN's (RFC 3489's messages among them, unless they are
    /// spoken).
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
    endpoints: Option<Endpoints>,
    speaks_rfc3489: bool,
    /// The message of RFC 3489 at hand, with a cookie.
    modernized: Vec<u8>,
}

/// Which STUN a request is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Rfc8489,
    Rfc3489,
}

/// When and between whom a datagram came.
#[derive(Clone, Copy)]
struct Arrival {
    now: Instant,
    source: SocketAddr,
    local: SocketAddr,
}

impl Responder {
    /// A responder that answers within `limits`.
    #[must_use]
    pub fn new(limits: Arc<SourceLimits>) -> Self {
        Self {
            limits,
            endpoints: None,
            speaks_rfc3489: false,
            modernized: Vec::new(),
        }
    }

    /// The same, with RFC 5780 at these four addresses of ours. For datagrams only.
    #[must_use]
    pub fn with_endpoints(mut self, endpoints: Endpoints) -> Self {
        self.endpoints = Some(endpoints);
        self
    }

    /// The same, answering clients of RFC 3489 too. For datagrams only.
    #[must_use]
    pub fn with_rfc3489(mut self) -> Self {
        self.speaks_rfc3489 = true;
        self
    }

    /// Judges a datagram, or one message of a stream, that came from `source` to our address `local`.
    ///
    /// `reply` is emptied, and filled if the verdict is a reply. It needs no room beyond 128 bytes, or
    /// the length of a request with PADDING.
    pub fn handle(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local: SocketAddr,
        bytes: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        let arrival = Arrival { now, source, local };
        // RFC 8489 section 6.3: what is malformed is silently discarded, without an error response.
        match Message::parse(bytes) {
            Ok(message) => self.judge(arrival, Dialect::Rfc8489, &message, reply),
            Err(ParseError::Cookie) if self.speaks_rfc3489 => {
                let mut copy = std::mem::take(&mut self.modernized);
                let verdict = self.judge_classic(arrival, bytes, &mut copy, reply);
                self.modernized = copy;
                verdict
            }
            Err(error) => Verdict::Dropped(error.into()),
        }
    }

    fn judge_classic(
        &self,
        arrival: Arrival,
        bytes: &[u8],
        copy: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        // RFC 3489 section 11.2.1 knows IPv4 alone.
        let is_ipv4 = arrival.source.ip().to_canonical().is_ipv4();
        let Some(cookie) = classic::modernize(bytes, copy).filter(|_| is_ipv4) else {
            return Verdict::Dropped(DropReason::NotStun);
        };
        match Message::parse(copy) {
            Ok(message) => {
                let verdict = self.judge(arrival, Dialect::Rfc3489, &message, reply);
                classic::exchange_cookie(reply, cookie);
                verdict
            }
            Err(error) => Verdict::Dropped(error.into()),
        }
    }

    fn judge(
        &self,
        arrival: Arrival,
        dialect: Dialect,
        message: &Message<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        match (message.class(), message.method()) {
            (Class::Request, Method::BINDING) => self.answer(arrival, dialect, message, reply),
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
        arrival: Arrival,
        dialect: Dialect,
        request: &Message<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let Arrival { now, source, local } = arrival;
        let canonical = SocketAddr::new(source.ip().to_canonical(), source.port());
        if !can_be_answered(canonical) {
            return Verdict::Dropped(DropReason::BadSource);
        }
        if let Admission::Refused(limit) = self.limits.admit(now, canonical.ip()) {
            return Verdict::Dropped(DropReason::RateLimited(limit));
        }
        let asked = self.endpoints.and_then(|endpoints| endpoints.at(local));
        let wishes = match read(dialect, request, asked.as_ref()) {
            Ok(wishes) => wishes,
            Err(refusal) => {
                return Verdict::Reply {
                    answer: write_refusal(dialect, request, refusal, reply),
                    from: local,
                    to: source,
                };
            }
        };
        let from = asked.map_or(local, |asked| asked.changed(wishes.change));
        let mut to = source;
        if let Some(port) = wishes.response_port {
            to.set_port(port);
        }
        if (from, to) != (local, source)
            && let Admission::Refused(limit) = self.limits.admit_redirect(now, canonical.ip())
        {
            return Verdict::Dropped(DropReason::RateLimited(limit));
        }
        let tx = request.transaction_id();
        let mut writer = MessageWriter::new(reply, Class::Success, Method::BINDING, tx);
        match (dialect, &asked) {
            (Dialect::Rfc3489, asked) => {
                classic::write_success(&mut writer, canonical, from, asked.as_ref());
            }
            (Dialect::Rfc8489, Some(asked)) => {
                let mut room = Room::of(request, wishes.is_padded);
                if !room.is_enough(canonical) && self.limits.admit_long(now, canonical.ip()) {
                    room = room.widened();
                }
                behavior::write_success(&mut writer, canonical, from, asked, room);
            }
            // XOR-MAPPED-ADDRESS and nothing else: SOFTWARE and the like would make the answer larger
            // than a forged request is worth. 32 bytes for IPv4, 44 for IPv6 (RFC 8489 section 6.3.1.1).
            (Dialect::Rfc8489, None) => {
                writer.attribute(&XorMappedAddress(canonical));
            }
        }
        finish(writer, request.has_fingerprint());
        let answer = Answer::Success;
        Verdict::Reply { answer, from, to }
    }
}

/// What a request asks for, or why it is refused.
fn read(
    dialect: Dialect,
    request: &Message<'_>,
    asked: Option<&Endpoint>,
) -> Result<Wishes, Refusal> {
    if dialect == Dialect::Rfc3489 {
        return classic::read(request, asked);
    }
    // RFC 8489 section 6.3.1: unknown comprehension-required attributes are listed in a 420; so are
    // those of RFC 5780 where there is one address only (its section 6.1).
    let mut unknown = request.unknown_required(&KNOWN);
    if asked.is_some() {
        let names = unknown.iter();
        unknown = names.filter(|name| !Wishes::KNOWN.contains(name)).collect();
    }
    if !unknown.is_empty() {
        return Err(Refusal::Unknown(unknown));
    }
    if asked.is_some() {
        Wishes::read(request)
    } else {
        Ok(Wishes::default())
    }
}

fn write_refusal(
    dialect: Dialect,
    request: &Message<'_>,
    refusal: Refusal,
    reply: &mut Vec<u8>,
) -> Answer {
    let tx = request.transaction_id();
    let mut writer = MessageWriter::new(reply, Class::Error, Method::BINDING, tx);
    let answer = match refusal {
        Refusal::Unknown(unknown) => {
            writer.attribute(&ErrorCode::bare(error_code::UNKNOWN_ATTRIBUTE));
            write_unknown(dialect, &mut writer, &unknown);
            Answer::UnknownAttribute
        }
        Refusal::BadRequest => {
            writer.attribute(&ErrorCode::bare(error_code::BAD_REQUEST));
            Answer::BadRequest
        }
    };
    finish(writer, request.has_fingerprint());
    answer
}

fn write_unknown(dialect: Dialect, writer: &mut MessageWriter<'_>, unknown: &UnknownAttributes) {
    match dialect {
        Dialect::Rfc8489 => {
            writer.attribute(unknown);
        }
        Dialect::Rfc3489 => classic::write_unknown(writer, unknown),
    }
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
