//! CHANNEL-NUMBER (RFC 8656 section 18.1).

use super::shape::exactly;
use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// The channel a client wants to bind, in range or not: out of range is a 400, which the server
/// answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelNumberAttribute(pub u16);

impl Attribute<'_> for ChannelNumberAttribute {
    const TYPE: AttributeType = AttributeType::CHANNEL_NUMBER;

    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [n0, n1, _, _] = exactly(value)?;
        Ok(Self(u16::from_be_bytes([n0, n1])))
    }

    fn len(&self) -> usize {
        4
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let [n0, n1] = self.0.to_be_bytes();
        out.copy_from_slice(&[n0, n1, 0, 0]);
    }
}
