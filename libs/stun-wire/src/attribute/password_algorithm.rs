//! PASSWORD-ALGORITHM (RFC 8489 section 14.12).
//!
//! ```text
//! |  algorithm                    |  length of the parameters     |
//! |  parameters ...                                               |
//! ```

use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// How a long-term password becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PasswordAlgorithm<'a> {
    /// Its number in the registry.
    pub algorithm: u16,
    /// Its parameters; MD5 and SHA-256 have none.
    pub parameters: &'a [u8],
}

impl PasswordAlgorithm<'static> {
    /// MD5, as before RFC 8489.
    pub const MD5: Self = Self { algorithm: 1, parameters: &[] };
    /// SHA-256.
    pub const SHA256: Self = Self { algorithm: 2, parameters: &[] };
}

impl<'a> PasswordAlgorithm<'a> {
    /// Reads one algorithm and what stands behind its padding. The last one of a list may come
    /// without padding.
    pub(super) fn split_first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([a0, a1, l0, l1], rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let parameters = rest.get(..length)?;
        let after = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
        Some((Self { algorithm: u16::from_be_bytes([*a0, *a1]), parameters }, after))
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithm<'a> {
    const TYPE: AttributeType = AttributeType::PASSWORD_ALGORITHM;

    fn parse(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        match Self::split_first(value) {
            Some((algorithm, [])) => Ok(algorithm),
            _ => Err(AttributeError::Length),
        }
    }

    fn len(&self) -> usize {
        4 + self.parameters.len()
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let [a0, a1] = self.algorithm.to_be_bytes();
        // Parameters too long for the field make an attribute too long for a message, which is
        // never sent.
        let [l0, l1] = u16::try_from(self.parameters.len()).unwrap_or(u16::MAX).to_be_bytes();
        let (head, rest) = out.split_at_mut(4);
        head.copy_from_slice(&[a0, a1, l0, l1]);
        rest.copy_from_slice(self.parameters);
    }
}
