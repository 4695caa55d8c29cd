//! EVEN-PORT (RFC 8656 section 18.7).

use super::shape::exactly;
use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// The relayed address shall have an even port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EvenPort {
    /// The R bit: keep the next port for whoever brings the RESERVATION-TOKEN.
    pub reserve: bool,
}

impl Attribute<'_> for EvenPort {
    const TYPE: AttributeType = AttributeType::EVEN_PORT;

    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [flags] = exactly(value)?;
        Ok(Self { reserve: flags & 0x80 != 0 })
    }

    fn len(&self) -> usize {
        1
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        out.copy_from_slice(&[if self.reserve { 0x80 } else { 0 }]);
    }
}
