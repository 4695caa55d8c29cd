//! UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13).

use core::fmt;

use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// What a 420 did not understand, or would not: at most [`Self::MAX`] names, each once.
///
/// The bound keeps a stranger's 64 KiB of unknown attributes from making the answer large.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct UnknownAttributes {
    names: [u16; Self::MAX],
    len: u8,
}

impl UnknownAttributes {
    /// How many names it holds; further ones are left out.
    pub const MAX: usize = 8;

    /// Adds a name, unless it is there or there is no room.
    pub fn push(&mut self, name: AttributeType) {
        if self.contains(name) {
            return;
        }
        if let Some(slot) = self.names.get_mut(usize::from(self.len)) {
            *slot = name.0;
            self.len += 1;
        }
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = AttributeType> + '_ {
        self.names.iter().take(usize::from(self.len)).map(|name| AttributeType(*name))
    }

    /// Whether a name is among them.
    #[must_use]
    pub fn contains(&self, name: AttributeType) -> bool {
        self.iter().any(|known| known == name)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl FromIterator<AttributeType> for UnknownAttributes {
    fn from_iter<I: IntoIterator<Item = AttributeType>>(names: I) -> Self {
        let mut unknown = Self::default();
        names.into_iter().for_each(|name| unknown.push(name));
        unknown
    }
}

impl Attribute<'_> for UnknownAttributes {
    const TYPE: AttributeType = AttributeType::UNKNOWN_ATTRIBUTES;

    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let (names, rest) = value.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(AttributeError::Length);
        }
        Ok(names.iter().map(|name| AttributeType(u16::from_be_bytes(*name))).collect())
    }

    fn len(&self) -> usize {
        usize::from(self.len) * 2
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        for (slot, name) in out.as_chunks_mut::<2>().0.iter_mut().zip(self.iter()) {
            *slot = name.0.to_be_bytes();
        }
    }
}

impl fmt::Debug for UnknownAttributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_each_name_once_and_eight_at_most() {
        let mut unknown: UnknownAttributes = [3, 3, 1, 3].into_iter().map(AttributeType).collect();
        assert!(unknown.iter().eq([AttributeType(3), AttributeType(1)]));
        (10..100).map(AttributeType).for_each(|name| unknown.push(name));
        assert_eq!(unknown.iter().count(), UnknownAttributes::MAX);
        assert_eq!(unknown.len(), 16);
        assert!(!unknown.contains(AttributeType(99)));
    }

    #[test]
    fn half_a_name_is_refused() {
        let parsed = UnknownAttributes::parse(&[0, 3, 0], &TransactionId([0; 12]));
        assert_eq!(parsed, Err(AttributeError::Length));
    }
}
