//! Writing a message into a buffer the caller keeps.

use alloc::vec::Vec;

use crate::attribute::Attribute;
use crate::header::{HEADER_LEN, MAGIC_COOKIE, type_field};
use crate::integrity::{IntegrityKey, IntegrityKind, SHA1_LEN, SHA256_LEN};
use crate::message::ATTRIBUTE_HEADER_LEN;
use crate::{AttributeType, Class, Method, TransactionId, fingerprint};

/// Appends one message to a buffer; what the buffer held before stays in front of it.
///
/// Attributes first, then [`integrity`](Self::integrity), then [`fingerprint`](Self::fingerprint),
/// then [`finish`](Self::finish), without which the message has no length. A message that would
/// outgrow its 16-bit length is not written at all: `finish` takes it back and returns 0.
#[derive(Debug)]
#[must_use = "a message is only whole after `finish`"]
pub struct MessageWriter<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    transaction_id: TransactionId,
    too_long: bool,
}

impl<'b> MessageWriter<'b> {
    /// Begins a message.
    pub fn new(out: &'b mut Vec<u8>, class: Class, method: Method, tx: TransactionId) -> Self {
        let start = out.len();
        out.extend_from_slice(&type_field(class, method).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&tx.0);
        Self {
            out,
            start,
            transaction_id: tx,
            too_long: false,
        }
    }

    /// Adds an attribute.
    pub fn attribute<'v, A: Attribute<'v>>(&mut self, attribute: &A) -> &mut Self {
        let tx = self.transaction_id;
        self.append(A::TYPE, attribute.len(), |value| {
            attribute.write(value, &tx);
        })
    }

    /// Adds an attribute with a value made elsewhere.
    pub fn raw(&mut self, kind: AttributeType, value: &[u8]) -> &mut Self {
        self.append(kind, value.len(), |out| out.copy_from_slice(value))
    }

    /// Signs what is written so far. To sign with both hashes, SHA-1 comes first (RFC 8489 section
    /// 9.2.5).
    pub fn integrity(&mut self, key: &IntegrityKey, kind: IntegrityKind) -> &mut Self {
        match kind {
            IntegrityKind::Sha1 => {
                let mac = self.sealed(ATTRIBUTE_HEADER_LEN + SHA1_LEN, |message| key.sha1(message));
                self.raw(AttributeType::MESSAGE_INTEGRITY, &mac)
            }
            IntegrityKind::Sha256 => {
                let mac = self.sealed(ATTRIBUTE_HEADER_LEN + SHA256_LEN, |message| {
                    key.sha256(message)
                });
                self.raw(AttributeType::MESSAGE_INTEGRITY_SHA256, &mac)
            }
        }
    }

    /// Ends the message with its CRC. Nothing may follow.
    pub fn fingerprint(&mut self) -> &mut Self {
        let crc = self.sealed(fingerprint::ATTRIBUTE_LEN, fingerprint::of);
        self.raw(AttributeType::FINGERPRINT, &crc.to_be_bytes())
    }

    /// Sets the length. Returns the message's size in bytes, 0 if it was too long to be one.
    pub fn finish(mut self) -> usize {
        if self.too_long {
            self.out.truncate(self.start);
            return 0;
        }
        self.set_length(0);
        self.out.len() - self.start
    }

    /// Ends the message with the header of an attribute whose value the caller sends from where it
    /// lies: the DATA of a Data indication is never copied. The value is to be followed by zeros up
    /// to a multiple of 4.
    ///
    /// Returns the size of what is written here, 0 if the whole would be too long for a message.
    pub fn finish_before_value(mut self, kind: AttributeType, value_len: usize) -> usize {
        if self.header(kind, value_len).is_none() {
            self.too_long = true;
        }
        if self.too_long {
            self.out.truncate(self.start);
            return 0;
        }
        self.set_length(value_len.next_multiple_of(4));
        self.out.len() - self.start
    }

    /// Writes type, length, zeros for value and padding, then lets `fill` write the value.
    fn append(
        &mut self,
        kind: AttributeType,
        value_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> &mut Self {
        let Some(padded) = self.header(kind, value_len) else {
            self.too_long = true;
            return self;
        };
        let at = self.out.len();
        self.out.resize(at + padded, 0);
        if let Some(value) = self.out.get_mut(at..at + value_len) {
            fill(value);
        }
        self
    }

    /// Writes type and length if the attribute still fits, and tells its padded length.
    fn header(&mut self, kind: AttributeType, value_len: usize) -> Option<usize> {
        let length = u16::try_from(value_len).ok()?;
        let padded = value_len.checked_next_multiple_of(4)?;
        self.body_len(ATTRIBUTE_HEADER_LEN.checked_add(padded)?)?;
        self.out.extend_from_slice(&kind.0.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
        Some(padded)
    }

    /// What `digest` makes of the message when its length already counts the `trailer` bytes of the
    /// attribute to come (RFC 8489 sections 14.5 and 14.7).
    fn sealed<T>(&mut self, trailer: usize, digest: impl FnOnce(&[u8]) -> T) -> T {
        self.set_length(trailer);
        digest(self.out.get(self.start..).unwrap_or_default())
    }

    /// The length field for a body with `more` bytes to come, if it can hold it.
    fn body_len(&self, more: usize) -> Option<u16> {
        let body = self.out.len().checked_sub(self.start + HEADER_LEN)?;
        u16::try_from(body.checked_add(more)?).ok()
    }

    fn set_length(&mut self, more: usize) {
        let Some(length) = self.body_len(more) else {
            self.too_long = true;
            return;
        };
        if let Some(field) = self.out.get_mut(self.start + 2..self.start + 4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}
