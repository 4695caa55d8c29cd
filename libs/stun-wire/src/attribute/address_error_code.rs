//! ADDRESS-ERROR-CODE (RFC 8656 section 18.12).
//!
//! ```text
//! |  family       |  reserved, 0            |class|  number       |
//! |  reason phrase, UTF-8 ...                                     |
//! ```

use super::shape::{parse_error, write_error};
use super::{AddressFamily, Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// Why one of the two families asked for could not be had, in an answer that grants the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressErrorCode<'a> {
    /// The family that failed.
    pub family: AddressFamily,
    /// 440 or 508.
    pub code: u16,
    /// For people.
    pub reason: &'a str,
}

impl<'a> Attribute<'a> for AddressErrorCode<'a> {
    const TYPE: AttributeType = AttributeType::ADDRESS_ERROR_CODE;

    fn parse(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let ([family, _], error) = value.split_first_chunk::<2>().ok_or(AttributeError::Length)?;
        let (code, reason) = parse_error(error)?;
        Ok(Self { family: AddressFamily::from_u8(*family)?, code, reason })
    }

    fn len(&self) -> usize {
        4 + self.reason.len()
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let (head, error) = out.split_at_mut(2);
        head.copy_from_slice(&[self.family.as_u8(), 0]);
        write_error(error, self.code, self.reason);
    }
}
