//! Signatures: MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 14.5 and 14.6) and
//! their keys.

use core::fmt;

use md5::{Digest, Md5};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use self::hmac::Hmac;
use crate::header::HEADER_LEN;
use crate::message::ATTRIBUTE_HEADER_LEN;

mod hmac;

/// Bytes of an HMAC-SHA1.
pub(crate) const SHA1_LEN: usize = 20;
/// Bytes of a whole HMAC-SHA256.
pub(crate) const SHA256_LEN: usize = 32;
/// Bytes of the shortest truncated HMAC-SHA256.
pub(crate) const SHA256_MIN_LEN: usize = 16;

/// Which of the two signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegrityKind {
    /// MESSAGE-INTEGRITY: HMAC-SHA1.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256.
    Sha256,
}

/// A key, kept as the HMAC states it leads to: signing never hashes it again. 104 bytes, wiped when
/// dropped.
///
/// Names and passwords are taken as they are: OpaqueString preparation (RFC 8265) is the caller's.
#[derive(Clone)]
pub struct IntegrityKey {
    sha1: Hmac<5>,
    sha256: Hmac<8>,
}

impl IntegrityKey {
    /// The key of long-term credentials with the MD5 algorithm: MD5(user ":" realm ":" password)
    /// (RFC 8489 section 18.5.1.1).
    #[must_use]
    pub fn long_term_md5(user: &str, realm: &str, password: &str) -> Self {
        Self::from_bytes(&joined::<Md5>(&[user, realm, password]))
    }

    /// The key of long-term credentials with the SHA-256 algorithm: SHA-256(user ":" realm ":"
    /// password) (RFC 8489 section 18.5.1.2).
    #[must_use]
    pub fn long_term_sha256(user: &str, realm: &str, password: &str) -> Self {
        Self::from_bytes(&joined::<Sha256>(&[user, realm, password]))
    }

    /// The key of short-term credentials, as in ICE: the password itself (RFC 8489 section 9.1.1).
    #[must_use]
    pub fn short_term(password: &str) -> Self {
        Self::from_bytes(password.as_bytes())
    }

    /// A key made elsewhere.
    #[must_use]
    pub fn from_bytes(key: &[u8]) -> Self {
        Self {
            sha1: Hmac::sha1(key),
            sha256: Hmac::sha256(key),
        }
    }

    /// The value of MESSAGE-INTEGRITY for a message whose length field already counts it.
    pub(crate) fn sha1(&self, message: &[u8]) -> [u8; SHA1_LEN] {
        self.sha1.of(&[message])
    }

    /// The value of MESSAGE-INTEGRITY-SHA256 for a message whose length field already counts it.
    pub(crate) fn sha256(&self, message: &[u8]) -> [u8; SHA256_LEN] {
        self.sha256.of(&[message])
    }

    /// Compares a received MESSAGE-INTEGRITY with that of the bytes before it.
    pub(crate) fn verify_sha1(&self, signed: &[u8], received: &[u8]) -> Result<(), IntegrityError> {
        let (head, length, tail) =
            with_length_up_to(signed, SHA1_LEN).ok_or(IntegrityError::Missing)?;
        same(&self.sha1.of(&[head, &length, tail]), received)
    }

    /// Compares a received, maybe truncated MESSAGE-INTEGRITY-SHA256 with that of the bytes before
    /// it.
    pub(crate) fn verify_sha256(
        &self,
        signed: &[u8],
        received: &[u8],
    ) -> Result<(), IntegrityError> {
        let (head, length, tail) =
            with_length_up_to(signed, received.len()).ok_or(IntegrityError::Missing)?;
        let mac: [u8; SHA256_LEN] = self.sha256.of(&[head, &length, tail]);
        same(
            mac.get(..received.len()).ok_or(IntegrityError::Missing)?,
            received,
        )
    }
}

/// The signed bytes in three pieces, of which the middle is the length field as the signer saw it:
/// the message ended with the signature then, whatever stands behind it in the message received
/// (RFC 8489 section 14.5).
fn with_length_up_to(signed: &[u8], value_len: usize) -> Option<(&[u8], [u8; 2], &[u8])> {
    let (head, rest) = signed.split_at_checked(2)?;
    let (_, tail) = rest.split_at_checked(2)?;
    let body = signed.len().checked_sub(HEADER_LEN)?;
    let length = body
        .checked_add(ATTRIBUTE_HEADER_LEN)?
        .checked_add(value_len)?;
    Some((head, u16::try_from(length).ok()?.to_be_bytes(), tail))
}

fn same(expected: &[u8], received: &[u8]) -> Result<(), IntegrityError> {
    if bool::from(expected.ct_eq(received)) {
        Ok(())
    } else {
        Err(IntegrityError::Mismatch)
    }
}

/// The hash of some texts with ":" between them: also what USERHASH is made of.
pub(crate) fn joined<D: Digest>(texts: &[&str]) -> md5::digest::Output<D> {
    let mut hash = D::new();
    for (at, text) in texts.iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(text.as_bytes());
    }
    hash.finalize()
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

/// Why a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegrityError {
    /// There is none of that kind.
    Missing,
    /// It is shorter than asked for.
    Truncated,
    /// Another key made it, or the message was changed.
    Mismatch,
}

impl fmt::Display for IntegrityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the message is not signed",
            Self::Truncated => "the signature is too short",
            Self::Mismatch => "the signature is wrong",
        })
    }
}

impl core::error::Error for IntegrityError {}
