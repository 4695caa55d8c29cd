//! RESPONSE-PORT (RFC 5780 section 7.5).

use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// Answer to this port of the sender's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResponsePort(pub u16);

impl Attribute<'_> for ResponsePort {
    const TYPE: AttributeType = AttributeType::RESPONSE_PORT;

    /// RFC 5780 draws the value with two bytes of padding; senders differ in whether the length
    /// counts them.
    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        match *value {
            [p0, p1] | [p0, p1, _, _] => Ok(Self(u16::from_be_bytes([p0, p1]))),
            _ => Err(AttributeError::Length),
        }
    }

    fn len(&self) -> usize {
        4
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let [p0, p1] = self.0.to_be_bytes();
        out.copy_from_slice(&[p0, p1, 0, 0]);
    }
}
