//! CHANGE-REQUEST (RFC 5780 section 7.2).

use super::shape::exactly;
use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// Answer from elsewhere than where the request was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChangeRequest {
    /// From the other address.
    pub change_ip: bool,
    /// From the other port.
    pub change_port: bool,
}

impl Attribute<'_> for ChangeRequest {
    const TYPE: AttributeType = AttributeType::CHANGE_REQUEST;

    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [_, _, _, flags] = exactly(value)?;
        Ok(Self { change_ip: flags & 0x04 != 0, change_port: flags & 0x02 != 0 })
    }

    fn len(&self) -> usize {
        4
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let ip = if self.change_ip { 0x04 } else { 0 };
        let port = if self.change_port { 0x02 } else { 0 };
        out.copy_from_slice(&[0, 0, 0, ip | port]);
    }
}
