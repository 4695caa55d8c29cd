//! ChannelData: four bytes in front of what a peer sends or gets (RFC 8656 section 12.4).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |  channel number               |  length of the data           |
//! |  data; over TCP and TLS followed by 0 to 3 bytes of padding   |
//! ```

use core::fmt;
use core::ops::Range;

/// Bytes in front of the data.
pub const HEADER_LEN: usize = 4;

/// The largest payload a length field can name.
pub const MAX_PAYLOAD: usize = 65_535;

/// A channel's number: 0x4000 to 0x4FFF, for clients of RFC 5766 to 0x7FFF.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The first channel.
    pub const MIN: Self = Self(0x4000);
    /// The last channel of RFC 8656.
    pub const MAX: Self = Self(0x4FFF);
    /// The last channel of RFC 5766.
    pub const MAX_RFC5766: Self = Self(0x7FFF);

    /// The channel of that number, if RFC 8656 section 12 allows it.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < Self::MIN.0 || number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The channel of that number, if RFC 5766 allowed it.
    #[must_use]
    pub const fn new_rfc5766(number: u16) -> Option<Self> {
        if number < Self::MIN.0 || number > Self::MAX_RFC5766.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Whether only RFC 5766 has it: RFC 8656 took 0x5000 to 0x7FFF back.
    #[must_use]
    pub const fn in_rfc5766_range(self) -> bool {
        self.0 > Self::MAX.0
    }

    /// Its number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for ChannelNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelNumber({:#06x})", self.0)
    }
}

/// A parsed header: whose data, and where in the input it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelData {
    /// The channel, of RFC 5766's range: whether it is bound is the receiver's table's to say.
    pub channel: ChannelNumber,
    /// The data within the bytes parsed.
    pub payload: Range<usize>,
}

impl ChannelData {
    /// Reads a datagram, or one frame of a stream. Bytes behind the data are padding (RFC 8656
    /// section 12.5).
    ///
    /// # Errors
    ///
    /// The bytes are silently discarded (RFC 8656 section 12.6).
    pub fn parse(bytes: &[u8]) -> Result<Self, ChannelDataError> {
        let ([n0, n1, l0, l1], data) = bytes
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(ChannelDataError::TooShort)?;
        let number = u16::from_be_bytes([*n0, *n1]);
        let channel = ChannelNumber::new_rfc5766(number).ok_or(ChannelDataError::Channel)?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if length > data.len() {
            return Err(ChannelDataError::Length);
        }
        Ok(Self {
            channel,
            payload: HEADER_LEN..HEADER_LEN + length,
        })
    }

    /// The header to put in front of `payload_len` bytes, if a channel can carry so many.
    #[must_use]
    pub fn header(channel: ChannelNumber, payload_len: usize) -> Option<[u8; HEADER_LEN]> {
        let [n0, n1] = channel.0.to_be_bytes();
        let [l0, l1] = u16::try_from(payload_len).ok()?.to_be_bytes();
        Some([n0, n1, l0, l1])
    }

    /// The zeros to put behind `payload_len` bytes on a stream (RFC 8656 section 12.5); in a
    /// datagram none are needed.
    #[must_use]
    pub const fn stream_padding(payload_len: usize) -> &'static [u8] {
        match payload_len % 4 {
            1 => &[0; 3],
            2 => &[0; 2],
            3 => &[0; 1],
            _ => &[],
        }
    }
}

/// Whether a datagram's first byte is in ChannelData's range, 64 to 79, or to 127 for RFC 5766 (RFC
/// 7983 section 7).
#[must_use]
pub fn is_channel_data(bytes: &[u8], rfc5766: bool) -> bool {
    let last = if rfc5766 { 127 } else { 79 };
    bytes
        .first()
        .is_some_and(|first| (64..=last).contains(first))
}

/// Why some bytes are no ChannelData.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelDataError {
    /// Under 4 bytes.
    TooShort,
    /// The first two bytes are no channel number.
    Channel,
    /// The length field goes over the end.
    Length,
}

impl fmt::Display for ChannelDataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "shorter than a ChannelData header",
            Self::Channel => "not a channel number",
            Self::Length => "the data goes over the end",
        })
    }
}

impl core::error::Error for ChannelDataError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_reads_back_with_the_payload_behind_it() {
        let channel = ChannelNumber::new(0x4001).expect("in range");
        let mut bytes = ChannelData::header(channel, 5).expect("short").to_vec();
        bytes.extend_from_slice(b"hello");
        let parsed = ChannelData {
            channel,
            payload: 4..9,
        };
        assert_eq!(ChannelData::parse(&bytes), Ok(parsed.clone()));
        bytes.extend_from_slice(ChannelData::stream_padding(5));
        assert_eq!(bytes.len(), 12);
        assert_eq!(ChannelData::parse(&bytes), Ok(parsed));
    }

    #[test]
    fn largest_payload_is_65535_bytes() {
        let header = ChannelData::header(ChannelNumber::MIN, MAX_PAYLOAD).expect("fits");
        assert_eq!(header, [0x40, 0, 0xFF, 0xFF]);
        assert_eq!(
            ChannelData::header(ChannelNumber::MIN, MAX_PAYLOAD + 1),
            None
        );
        let mut bytes = header.to_vec();
        bytes.resize(HEADER_LEN + MAX_PAYLOAD, 1);
        assert_eq!(
            ChannelData::parse(&bytes).map(|data| data.payload),
            Ok(4..65_539)
        );
        bytes.pop();
        assert_eq!(ChannelData::parse(&bytes), Err(ChannelDataError::Length));
    }

    #[test]
    fn empty_payload_is_allowed() {
        assert_eq!(
            ChannelData::parse(&[0x40, 0, 0, 0]).map(|data| data.payload),
            Ok(4..4)
        );
    }

    #[test]
    fn channel_numbers_end_where_the_rfcs_end_them() {
        // RFC 8656 section 12: 0x4000 through 0x4FFF; RFC 5766 section 11: through 0x7FFF.
        for (number, strict, wide) in [
            (0x0000, false, false),
            (0x3FFF, false, false),
            (0x4000, true, true),
            (0x4FFF, true, true),
            (0x5000, false, true),
            (0x7FFF, false, true),
            (0x8000, false, false),
            (0xFFFF, false, false),
        ] {
            assert_eq!(ChannelNumber::new(number).is_some(), strict, "{number:#x}");
            assert_eq!(
                ChannelNumber::new_rfc5766(number).is_some(),
                wide,
                "{number:#x}"
            );
            let bytes = [number.to_be_bytes(), [0, 0]].concat();
            assert_eq!(ChannelData::parse(&bytes).is_ok(), wide, "{number:#x}");
            assert_eq!(is_channel_data(&bytes, false), strict, "{number:#x}");
            assert_eq!(is_channel_data(&bytes, true), wide, "{number:#x}");
        }
    }

    #[test]
    fn shorter_than_a_header_is_refused() {
        for length in 0..4 {
            assert_eq!(
                ChannelData::parse(&[0x40; 4][..length]),
                Err(ChannelDataError::TooShort)
            );
        }
        assert!(!is_channel_data(&[], true));
    }
}
