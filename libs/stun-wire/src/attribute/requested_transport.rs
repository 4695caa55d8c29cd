//! REQUESTED-TRANSPORT (RFC 8656 section 18.8).

use super::shape::exactly;
use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// The IP protocol number of the transport between relay and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestedTransport(pub u8);

impl RequestedTransport {
    /// UDP.
    pub const UDP: Self = Self(17);
    /// TCP (RFC 6062).
    pub const TCP: Self = Self(6);
}

impl Attribute<'_> for RequestedTransport {
    const TYPE: AttributeType = AttributeType::REQUESTED_TRANSPORT;

    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [protocol, _, _, _] = exactly(value)?;
        Ok(Self(protocol))
    }

    fn len(&self) -> usize {
        4
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        out.copy_from_slice(&[self.0, 0, 0, 0]);
    }
}
