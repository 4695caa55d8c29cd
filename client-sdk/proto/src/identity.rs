//! A player's Ed25519 key: it signs session descriptions and is the raw public key of the encrypted session.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
pub use signal_wire::PublicKey;

/// RFC 8410 §4: the DER prefix of an Ed25519 SubjectPublicKeyInfo; the 32 bytes of the key follow.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// RFC 8410 §7: the DER prefix of a PKCS#8 v1 Ed25519 private key; the 32 bytes of the seed follow.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A player's key pair.
///
/// Keep it for a player who should be recognised, or make a new one for each game.
pub struct Identity {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public_key())
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self::from_seed(self.seed)
    }
}

impl Identity {
    /// The identity made from 32 secret random bytes (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .expect("every 32-byte string is an Ed25519 seed");
        Self { seed, pair }
    }

    /// The secret it was made from, to be stored by the game.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half. Of two players the one with the lower key is ICE controlling and QUIC client.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The private key as TLS wants it.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        [PKCS8_PREFIX.as_slice(), self.seed.as_slice()].concat()
    }
}

/// Whether `signature` is `key`'s signature of `message`.
pub(crate) fn verify(key: PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0)
        .verify(message, signature)
        .is_ok()
}

/// A key as a SubjectPublicKeyInfo, the form of a raw public key in TLS (RFC 7250 §3).
pub(crate) fn spki(key: PublicKey) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), key.0.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_refused_over_other_bytes_and_by_other_keys() {
        let identity = Identity::from_seed([1; 32]);
        let signature = identity.sign(b"meet me");
        assert!(verify(identity.public_key(), b"meet me", &signature));
        assert!(!verify(identity.public_key(), b"meet him", &signature));
        assert!(!verify(
            Identity::from_seed([2; 32]).public_key(),
            b"meet me",
            &signature
        ));
    }

    /// RFC 8032 §7.1, test 1.
    #[test]
    fn the_public_key_is_the_one_of_the_rfc() {
        let seed: [u8; 32] = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let public = Identity::from_seed(seed).public_key();
        assert_eq!(public.0[..4], [0xd7, 0x5a, 0x98, 0x01]);
    }
}
