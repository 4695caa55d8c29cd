//! A received message: checked once, borrowed, and read only as far as it is signed.

use core::fmt;

use crate::attribute::{Attribute, AttributeError, UnknownAttributes};
use crate::header::{HEADER_LEN, MAGIC_COOKIE, split_type_field};
use crate::integrity::{
    IntegrityError, IntegrityKey, IntegrityKind, SHA1_LEN, SHA256_LEN, SHA256_MIN_LEN,
};
use crate::{AttributeType, Class, Method, TransactionId, fingerprint};

/// Bytes of an attribute's type and length.
pub(crate) const ATTRIBUTE_HEADER_LEN: usize = 4;

/// A well-formed message, borrowed from the bytes it came in.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    transaction_id: TransactionId,
    trailers: Trailers,
}

/// Where the message stops to be read, and which signatures stand there. Offsets count from the
/// message's start.
#[derive(Clone, Copy)]
struct Trailers {
    visible_end: usize,
    sha1: Option<usize>,
    sha256: Option<usize>,
    fingerprint: Option<usize>,
}

impl<'a> Message<'a> {
    /// Checks a whole datagram, or one frame of a stream: the length is exact, attributes tile the
    /// body, a FINGERPRINT is last and right, signatures have a possible length.
    ///
    /// Whether a signature is genuine is [`Self::verify_integrity`]'s question.
    ///
    /// # Errors
    ///
    /// The first fault found. Such a message is silently discarded (RFC 8489 section 6.3).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ParseError::TooShort)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, id @ ..] = *header;
        let kind = u16::from_be_bytes([t0, t1]);
        if kind & 0xC000 != 0 {
            return Err(ParseError::NotStun);
        }
        if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(ParseError::Cookie);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length % 4 != 0 || length != body.len() {
            return Err(ParseError::Length);
        }
        let (class, method) = split_type_field(kind);
        let trailers = Trailers::find(bytes, body)?;
        Ok(Self {
            bytes,
            class,
            method,
            transaction_id: TransactionId(id),
            trailers,
        })
    }

    /// Request, indication, success or error.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it is about.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// What pairs it with its answer or question.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// The bytes it was parsed from, whole.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes in order, up to the first signature and without FINGERPRINT.
    ///
    /// What stands behind MESSAGE-INTEGRITY is not signed and must be ignored (RFC 8489 section
    /// 14.5).
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            rest: self
                .bytes
                .get(HEADER_LEN..self.trailers.visible_end)
                .unwrap_or_default(),
        }
    }

    /// The first attribute of that type, parsed; of duplicates the others are ignored (RFC 8489
    /// section 14).
    ///
    /// # Errors
    ///
    /// The attribute is there and its value is not one.
    pub fn attribute<A: Attribute<'a>>(&self) -> Result<Option<A>, AttributeError> {
        self.raw(A::TYPE)
            .map(|value| A::parse(value, &self.transaction_id))
            .transpose()
    }

    /// The value of the first attribute of that type. Signatures and FINGERPRINT are found too.
    #[must_use]
    pub fn raw(&self, kind: AttributeType) -> Option<&'a [u8]> {
        if kind.is_trailer() {
            return self.trailer(kind);
        }
        self.attributes()
            .find(|attribute| attribute.kind == kind)
            .map(|attribute| attribute.value)
    }

    /// Whether it has an attribute of that type.
    #[must_use]
    pub fn contains(&self, kind: AttributeType) -> bool {
        self.raw(kind).is_some()
    }

    /// How many attributes of that type it has, for those that may not come twice.
    #[must_use]
    pub fn count(&self, kind: AttributeType) -> usize {
        if kind.is_trailer() {
            return usize::from(self.contains(kind));
        }
        self.attributes()
            .filter(|attribute| attribute.kind == kind)
            .count()
    }

    /// The comprehension-required attributes that are not in `known`: what a 420 lists (RFC 8489
    /// section 6.3.1).
    ///
    /// Each once, at most [`UnknownAttributes::MAX`] of them. Signatures need not be in `known`.
    #[must_use]
    pub fn unknown_required(&self, known: &[AttributeType]) -> UnknownAttributes {
        let mut unknown = UnknownAttributes::default();
        for attribute in self.attributes() {
            if attribute.kind.is_comprehension_required() && !known.contains(&attribute.kind) {
                unknown.push(attribute.kind);
            }
        }
        unknown
    }

    /// Whether it ends in a FINGERPRINT (which parsing found to be right).
    #[must_use]
    pub const fn has_fingerprint(&self) -> bool {
        self.trailers.fingerprint.is_some()
    }

    /// The signature to judge it by; SHA-256 where both are there (RFC 8489 section 9.2.4).
    #[must_use]
    pub const fn integrity(&self) -> Option<IntegrityKind> {
        match (self.trailers.sha256, self.trailers.sha1) {
            (Some(_), _) => Some(IntegrityKind::Sha256),
            (None, Some(_)) => Some(IntegrityKind::Sha1),
            (None, None) => None,
        }
    }

    /// Whether `key` signed everything that [`Self::attributes`] shows, in constant time.
    ///
    /// A truncated MESSAGE-INTEGRITY-SHA256 is refused: it is only for usages that say so, and
    /// neither TURN nor ICE does (RFC 8489 section 14.6). See [`Self::verify_truncated_integrity`].
    ///
    /// # Errors
    ///
    /// There is no such signature, it is truncated, or it is another key's or message's.
    pub fn verify_integrity(
        &self,
        key: &IntegrityKey,
        kind: IntegrityKind,
    ) -> Result<(), IntegrityError> {
        match kind {
            IntegrityKind::Sha1 => {
                let (signed, received) = self.signature(self.trailers.sha1)?;
                key.verify_sha1(signed, received)
            }
            IntegrityKind::Sha256 => self.verify_truncated_integrity(key, SHA256_LEN),
        }
    }

    /// The same for a MESSAGE-INTEGRITY-SHA256 that may be cut to `shortest` bytes, which is never
    /// under 16.
    ///
    /// # Errors
    ///
    /// As [`Self::verify_integrity`].
    pub fn verify_truncated_integrity(
        &self,
        key: &IntegrityKey,
        shortest: usize,
    ) -> Result<(), IntegrityError> {
        let (signed, received) = self.signature(self.trailers.sha256)?;
        if received.len() < shortest.max(SHA256_MIN_LEN) {
            return Err(IntegrityError::Truncated);
        }
        key.verify_sha256(signed, received)
    }

    /// What stands before the signature at that offset, and its value.
    fn signature(&self, offset: Option<usize>) -> Result<(&'a [u8], &'a [u8]), IntegrityError> {
        let offset = offset.ok_or(IntegrityError::Missing)?;
        let (signed, tail) = self
            .bytes
            .split_at_checked(offset)
            .ok_or(IntegrityError::Missing)?;
        let (signature, _) = RawAttribute::split_first(tail).ok_or(IntegrityError::Missing)?;
        Ok((signed, signature.value))
    }

    fn trailer(&self, kind: AttributeType) -> Option<&'a [u8]> {
        let offset = match kind {
            AttributeType::MESSAGE_INTEGRITY => self.trailers.sha1,
            AttributeType::MESSAGE_INTEGRITY_SHA256 => self.trailers.sha256,
            AttributeType::FINGERPRINT => self.trailers.fingerprint,
            AttributeType(_) => None,
        }?;
        let (attribute, _) = RawAttribute::split_first(self.bytes.get(offset..)?)?;
        Some(attribute.value)
    }
}

impl Trailers {
    /// Walks the body once: attributes must tile it.
    fn find(message: &[u8], body: &[u8]) -> Result<Self, ParseError> {
        let mut found = Self {
            visible_end: HEADER_LEN,
            sha1: None,
            sha256: None,
            fingerprint: None,
        };
        let mut rest = body;
        while !rest.is_empty() {
            let offset = message.len() - rest.len();
            let (attribute, after) =
                RawAttribute::split_first(rest).ok_or(ParseError::Attribute)?;
            match attribute.kind {
                AttributeType::FINGERPRINT => {
                    check_fingerprint(message, offset, attribute.value, after)?;
                    found.fingerprint = Some(offset);
                }
                // RFC 8489 section 14.6: behind MESSAGE-INTEGRITY-SHA256 everything but FINGERPRINT
                // is ignored.
                _ if found.sha256.is_some() => {}
                AttributeType::MESSAGE_INTEGRITY_SHA256 => {
                    let length = attribute.value.len();
                    if !(SHA256_MIN_LEN..=SHA256_LEN).contains(&length) || length % 4 != 0 {
                        return Err(ParseError::IntegrityLength);
                    }
                    found.sha256 = Some(offset);
                }
                // RFC 8489 section 14.5: behind MESSAGE-INTEGRITY only MESSAGE-INTEGRITY-SHA256 is
                // left to be seen.
                _ if found.sha1.is_some() => {}
                AttributeType::MESSAGE_INTEGRITY => {
                    if attribute.value.len() != SHA1_LEN {
                        return Err(ParseError::IntegrityLength);
                    }
                    found.sha1 = Some(offset);
                }
                _ => found.visible_end = message.len() - after.len(),
            }
            rest = after;
        }
        Ok(found)
    }
}

/// RFC 8489 section 14.7: FINGERPRINT is the last attribute; a wrong one means that this is not
/// STUN.
fn check_fingerprint(
    message: &[u8],
    offset: usize,
    value: &[u8],
    after: &[u8],
) -> Result<(), ParseError> {
    if !after.is_empty() {
        return Err(ParseError::FingerprintNotLast);
    }
    let before = message.get(..offset).ok_or(ParseError::Attribute)?;
    if value != fingerprint::of(before).to_be_bytes() {
        return Err(ParseError::FingerprintMismatch);
    }
    Ok(())
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("class", &self.class)
            .field("method", &self.method)
            .field("transaction_id", &self.transaction_id)
            .field("length", &self.bytes.len())
            .field("integrity", &self.integrity())
            .field("fingerprint", &self.has_fingerprint())
            .finish()
    }
}

/// An attribute as it stands on the wire, without its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    /// Its type.
    pub kind: AttributeType,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> RawAttribute<'a> {
    /// The attribute that `bytes` begin with, and what follows its padding. Padding may have any
    /// content (RFC 8489 section 14).
    fn split_first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([t0, t1, l0, l1], rest) = bytes.split_first_chunk::<ATTRIBUTE_HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (padded, after) = rest.split_at_checked(length.checked_next_multiple_of(4)?)?;
        let kind = AttributeType(u16::from_be_bytes([*t0, *t1]));
        Some((
            Self {
                kind,
                value: padded.get(..length)?,
            },
            after,
        ))
    }
}

/// Iterates over the visible attributes of a [`Message`].
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<RawAttribute<'a>> {
        let (attribute, rest) = RawAttribute::split_first(self.rest)?;
        self.rest = rest;
        Some(attribute)
    }
}

/// Why some bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// Under 20 bytes.
    TooShort,
    /// The first two bits are not zero.
    NotStun,
    /// The magic cookie is missing (RFC 3489 has none; it is not spoken here).
    Cookie,
    /// The length field is not the body's length, or no multiple of 4.
    Length,
    /// An attribute goes over the message's end.
    Attribute,
    /// A signature has a length that no signature has.
    IntegrityLength,
    /// Something stands behind FINGERPRINT.
    FingerprintNotLast,
    /// FINGERPRINT is not the message's.
    FingerprintMismatch,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "shorter than a STUN header",
            Self::NotStun => "the first two bits are not zero",
            Self::Cookie => "no magic cookie",
            Self::Length => "the length field is wrong",
            Self::Attribute => "an attribute goes over the end",
            Self::IntegrityLength => "a signature has an impossible length",
            Self::FingerprintNotLast => "something stands behind FINGERPRINT",
            Self::FingerprintMismatch => "FINGERPRINT is wrong",
        })
    }
}

impl core::error::Error for ParseError {}
