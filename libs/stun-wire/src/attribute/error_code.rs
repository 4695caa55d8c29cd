//! ERROR-CODE (RFC 8489 section 14.8).
//!
//! ```text
//! |  reserved, 0                            |class|  number       |
//! |  reason phrase, UTF-8 ...                                     |
//! ```

use super::shape::{exactly, parse_error, write_error};
use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode<'a> {
    /// 300 to 699; see [`crate::error_code`] for names.
    pub code: u16,
    /// For people; fewer than 128 characters, often empty.
    pub reason: &'a str,
}

impl ErrorCode<'_> {
    /// The code with no phrase, which keeps answers small.
    #[must_use]
    pub const fn bare(code: u16) -> Self {
        Self { code, reason: "" }
    }
}

impl<'a> Attribute<'a> for ErrorCode<'a> {
    const TYPE: AttributeType = AttributeType::ERROR_CODE;

    fn parse(value: &'a [u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let (reserved, error) = value.split_at_checked(2).ok_or(AttributeError::Length)?;
        exactly::<2>(reserved)?;
        let (code, reason) = parse_error(error)?;
        Ok(Self { code, reason })
    }

    fn len(&self) -> usize {
        4 + self.reason.len()
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let (reserved, error) = out.split_at_mut(2);
        reserved.copy_from_slice(&[0, 0]);
        write_error(error, self.code, self.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &[u8]) -> Result<ErrorCode<'_>, AttributeError> {
        ErrorCode::parse(value, &TransactionId([0; 12]))
    }

    #[test]
    fn class_and_number_make_the_code() {
        // RFC 8489 section 14.8: the reserved bits are ignored.
        assert_eq!(parse(b"\xFF\xFF\xFC\x26"), Ok(ErrorCode::bare(438)));
        assert_eq!(parse(b"\0\0\x04\x01no"), Ok(ErrorCode { code: 401, reason: "no" }));
    }

    #[test]
    fn codes_that_do_not_exist_are_refused() {
        // RFC 8489 section 14.8: the class is 3 to 6, the number 0 to 99.
        for value in [b"\0\0\x02\x00", b"\0\0\x07\x00", b"\0\0\x00\x00", b"\0\0\x04\x64"] {
            assert_eq!(parse(value), Err(AttributeError::Value));
        }
        assert_eq!(parse(b"\0\0\x04"), Err(AttributeError::Length));
        assert_eq!(parse(b"\0\0\x04\x01\xC0"), Err(AttributeError::Utf8));
    }
}
