//! MESSAGE-INTEGRITY-SHA256 (RFC 8489 section 14.6).

use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// The HMAC-SHA256 as it stands in a message, maybe truncated: 16 to 32 bytes, a multiple of 4.
///
/// [`Message::verify_integrity`](crate::Message::verify_integrity) judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageIntegritySha256<'a>(pub &'a [u8]);

impl<'a> Attribute<'a> for MessageIntegritySha256<'a> {
    const TYPE: AttributeType = AttributeType::MESSAGE_INTEGRITY_SHA256;

    fn parse(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        match value.len() {
            16 | 20 | 24 | 28 | 32 => Ok(Self(value)),
            _ => Err(AttributeError::Length),
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        out.copy_from_slice(self.0);
    }
}
