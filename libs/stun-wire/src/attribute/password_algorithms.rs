//! PASSWORD-ALGORITHMS (RFC 8489 section 14.11).

use super::{Attribute, AttributeError, PasswordAlgorithm};
use crate::{AttributeType, TransactionId};

/// The algorithms a server offers, the best first; the client sends the list back unaltered (RFC
/// 8489 section 9.2.5).
///
/// Two lists are equal if their bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PasswordAlgorithms<'a> {
    bytes: &'a [u8],
}

impl PasswordAlgorithms<'static> {
    /// SHA-256, then MD5.
    pub const SHA256_AND_MD5: Self = Self { bytes: &[0, 2, 0, 0, 0, 1, 0, 0] };
    /// Only SHA-256.
    pub const SHA256: Self = Self { bytes: &[0, 2, 0, 0] };
    /// Only MD5.
    pub const MD5: Self = Self { bytes: &[0, 1, 0, 0] };
}

impl<'a> PasswordAlgorithms<'a> {
    /// The list as it stands on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The algorithms in order.
    #[must_use]
    pub const fn iter(&self) -> PasswordAlgorithmsIter<'a> {
        PasswordAlgorithmsIter { rest: self.bytes }
    }

    /// Whether an algorithm, with these parameters, is among them.
    #[must_use]
    pub fn contains(&self, algorithm: PasswordAlgorithm<'_>) -> bool {
        self.iter().any(|offered| offered == algorithm)
    }
}

impl<'a> IntoIterator for PasswordAlgorithms<'a> {
    type Item = PasswordAlgorithm<'a>;
    type IntoIter = PasswordAlgorithmsIter<'a>;

    fn into_iter(self) -> PasswordAlgorithmsIter<'a> {
        self.iter()
    }
}

impl<'a> Attribute<'a> for PasswordAlgorithms<'a> {
    const TYPE: AttributeType = AttributeType::PASSWORD_ALGORITHMS;

    fn parse(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let mut rest = value;
        while !rest.is_empty() {
            (_, rest) = PasswordAlgorithm::split_first(rest).ok_or(AttributeError::Length)?;
        }
        Ok(Self { bytes: value })
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        out.copy_from_slice(self.bytes);
    }
}

/// Iterates over [`PasswordAlgorithms`].
#[derive(Clone, Debug)]
pub struct PasswordAlgorithmsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for PasswordAlgorithmsIter<'a> {
    type Item = PasswordAlgorithm<'a>;

    fn next(&mut self) -> Option<PasswordAlgorithm<'a>> {
        let (algorithm, rest) = PasswordAlgorithm::split_first(self.rest)?;
        self.rest = rest;
        Some(algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &[u8]) -> Result<PasswordAlgorithms<'_>, AttributeError> {
        PasswordAlgorithms::parse(value, &TransactionId([0; 12]))
    }

    #[test]
    fn list_is_read_in_order() {
        let list = PasswordAlgorithms::SHA256_AND_MD5;
        assert_eq!(parse(list.as_bytes()), Ok(list));
        assert!(list.iter().eq([PasswordAlgorithm::SHA256, PasswordAlgorithm::MD5]));
        assert!(!PasswordAlgorithms::SHA256.contains(PasswordAlgorithm::MD5));
    }

    #[test]
    fn parameters_are_padded_to_four_bytes() {
        let list = parse(&[0, 9, 0, 1, 0xAA, 0, 0, 0, 0, 1, 0, 0]).expect("well formed");
        let odd = PasswordAlgorithm { algorithm: 9, parameters: &[0xAA] };
        assert!(list.iter().eq([odd, PasswordAlgorithm::MD5]));
        assert!(list.contains(odd));
    }

    #[test]
    fn cut_list_is_refused() {
        for value in [&[0, 1, 0][..], &[0, 1, 0, 4], &[0, 1, 0, 0, 0], &[0, 1, 0, 4, 1, 2, 3]] {
            assert_eq!(parse(value), Err(AttributeError::Length));
        }
    }
}
