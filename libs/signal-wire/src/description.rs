//! What native players put into the `data` of a signal: signed session descriptions and candidates.
//!
//! The signature covers exactly the bytes of the description as sent, so nobody has to agree on a
//! canonical JSON. Signing and checking it is the client's; this file only carries it.

use crate::encoding::{from_base64url, to_base64url};
use crate::ids::{LobbyId, MemberId};
use crate::limits;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The version both forms of `data` carry.
const VERSION: u32 = 1;

/// Why `data` is not a description or candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DescriptionError {
    /// A `v` this version does not know.
    Version,
    /// Longer than its limit.
    TooLarge,
    /// Not base64url, or not of the length it must have.
    Encoding,
    /// The bytes are not the JSON object they should be.
    Malformed,
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Version => "unknown version",
            Self::TooLarge => "too large",
            Self::Encoding => "not base64url of the right length",
            Self::Malformed => "not a session description",
        })
    }
}

impl std::error::Error for DescriptionError {}

/// The `data` of a native offer, answer or restart: bytes of a [`SessionDescription`] and their
/// Ed25519 signature by the key within.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedDescription {
    /// 1.
    pub v: u32,
    /// The description's bytes in base64url.
    pub description: String,
    /// Ed25519 over exactly those bytes, 64 bytes in base64url.
    pub signature: String,
}

impl SignedDescription {
    /// Carries `description` and its `signature`.
    #[must_use]
    pub fn new(description: &[u8], signature: &[u8; 64]) -> Self {
        Self {
            v: VERSION,
            description: to_base64url(description),
            signature: to_base64url(signature),
        }
    }

    /// The bytes that are signed and the signature.
    ///
    /// # Errors
    /// When the version is unknown, a text is not base64url, or a length is wrong.
    pub fn decode(&self) -> Result<(Vec<u8>, [u8; 64]), DescriptionError> {
        if self.v != VERSION {
            return Err(DescriptionError::Version);
        }
        // base64 makes four characters of three bytes.
        if self.description.len() > limits::DESCRIPTION_BYTES.div_ceil(3) * 4 {
            return Err(DescriptionError::TooLarge);
        }
        let description = from_base64url(&self.description).ok_or(DescriptionError::Encoding)?;
        let signature = from_base64url(&self.signature).ok_or(DescriptionError::Encoding)?;
        let signature = signature
            .try_into()
            .map_err(|_| DescriptionError::Encoding)?;
        Ok((description, signature))
    }
}

/// A player's Ed25519 public key, also its raw public key in TLS; base64url on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// Sixteen random bytes that no two descriptions share; base64url on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

macro_rules! base64url_bytes {
    ($name:ident, $length:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                let bytes = from_base64url(&text).and_then(|bytes| bytes.try_into().ok());
                let message = concat!("not ", $length, " bytes in base64url");
                bytes.map(Self).ok_or_else(|| D::Error::custom(message))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&to_base64url(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

base64url_bytes!(PublicKey, "32");
base64url_bytes!(Nonce, "16");

/// What one player offers another: ICE credentials bound to an identity, a room and two members.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDescription {
    /// ICE username fragment (RFC 8839 §5.4).
    pub ufrag: String,
    /// ICE password; never printed.
    pub pwd: String,
    /// Session protocols this player speaks, best first.
    pub session: Vec<String>,
    /// Who signs this, and with whom TLS must end.
    pub key: PublicKey,
    /// The lobby both are in.
    pub room: LobbyId,
    /// Who sends this.
    pub from: MemberId,
    /// For whom it is.
    pub to: MemberId,
    /// Makes every description different.
    pub nonce: Nonce,
    /// Seconds since 1970-01-01 UTC when it was made.
    pub time: u64,
}

impl SessionDescription {
    /// The session protocol of native players: QUIC over the ICE path.
    pub const QUIC_1: &'static str = "quic/1";

    /// The bytes to sign and send.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a description has string keys and finite numbers")
    }

    /// Reads bytes whose signature the caller checks with the key found here.
    ///
    /// # Errors
    /// When the bytes are too many or not a description; ICE credentials outside RFC 8839's
    /// lengths are refused too.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DescriptionError> {
        if bytes.len() > limits::DESCRIPTION_BYTES {
            return Err(DescriptionError::TooLarge);
        }
        let description: Self =
            serde_json::from_slice(bytes).map_err(|_| DescriptionError::Malformed)?;
        // RFC 8839 §5.4: ufrag 4 to 256, password 22 to 256 characters of `ice-char`.
        let good = is_ice_text(&description.ufrag, 4) && is_ice_text(&description.pwd, 22);
        good.then_some(description)
            .ok_or(DescriptionError::Malformed)
    }
}

fn is_ice_text(text: &str, shortest: usize) -> bool {
    let ice_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    (shortest..=256).contains(&text.len()) && text.bytes().all(ice_char)
}

impl fmt::Debug for SessionDescription {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SessionDescription")
            .field("ufrag", &self.ufrag)
            .field("session", &self.session)
            .field("key", &self.key)
            .field("room", &self.room)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// The `data` of a native `candidate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateData {
    /// 1.
    pub v: u32,
    /// `candidate:…` as in SDP (RFC 8839 §5.1).
    pub candidate: String,
}

impl CandidateData {
    /// Carries one candidate.
    #[must_use]
    pub const fn new(candidate: String) -> Self {
        Self {
            v: VERSION,
            candidate,
        }
    }

    /// The candidate, if the version is known and its length within bounds.
    ///
    /// # Errors
    /// See [`DescriptionError`].
    pub fn candidate(&self) -> Result<&str, DescriptionError> {
        if self.v != VERSION {
            return Err(DescriptionError::Version);
        }
        if self.candidate.len() > limits::CANDIDATE_BYTES {
            return Err(DescriptionError::TooLarge);
        }
        Ok(&self.candidate)
    }
}
