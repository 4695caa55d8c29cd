//! ICMP (RFC 8656 section 18.13): seven bits of type and nine of code, as the RFC draws it.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |  reserved, 0                  |  type       |  code           |
//! |  error data                                                   |
//! ```

use super::shape::exactly;
use super::{Attribute, AttributeError};
use crate::{AttributeType, TransactionId};

/// An ICMP error that came back for a datagram to a peer, in a Data indication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// The ICMP type. Errors are under 128 in ICMP and ICMPv6; only seven bits are written.
    pub icmp_type: u8,
    /// The ICMP code; only nine bits are written.
    pub code: u16,
    /// The MTU where type and code say "too big", else 0.
    pub data: u32,
}

impl Attribute<'_> for Icmp {
    const TYPE: AttributeType = AttributeType::ICMP;

    fn parse(value: &[u8], _: &TransactionId) -> Result<Self, AttributeError> {
        let [_, _, kind, code, d0, d1, d2, d3] = exactly(value)?;
        Ok(Self {
            icmp_type: kind >> 1,
            code: u16::from_be_bytes([kind & 1, code]),
            data: u32::from_be_bytes([d0, d1, d2, d3]),
        })
    }

    fn len(&self) -> usize {
        8
    }

    fn write(&self, out: &mut [u8], _: &TransactionId) {
        let [k, c] = ((u16::from(self.icmp_type) << 9) | (self.code & 0x01FF)).to_be_bytes();
        let [d0, d1, d2, d3] = self.data.to_be_bytes();
        out.copy_from_slice(&[0, 0, k, c, d0, d1, d2, d3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_has_seven_bits_and_code_nine() {
        let too_big = Icmp { icmp_type: 3, code: 4, data: 1280 };
        let mut out = [0xFF; 8];
        let tx = TransactionId([0; 12]);
        too_big.write(&mut out, &tx);
        assert_eq!(out, [0, 0, 0b0000_0110, 4, 0, 0, 5, 0]);
        assert_eq!(Icmp::parse(&out, &tx), Ok(too_big));
    }
}
