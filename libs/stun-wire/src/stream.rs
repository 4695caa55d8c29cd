//! Frames on TCP and TLS: where one message ends and the next begins (RFC 8489 section 6.2.2, RFC
//! 8656 section 12.5).
//!
//! The reader keeps its bytes in a buffer of its own and asks after each read. A frame is never
//! longer than [`MAX_FRAME`], so neither is the buffer.

use core::fmt;

use crate::channel_data;
use crate::header::{HEADER_LEN, MAGIC_COOKIE};

/// The longest frame: ChannelData of 65,535 bytes with header and padding.
pub const MAX_FRAME: usize = channel_data::HEADER_LEN + channel_data::MAX_PAYLOAD + 1;

/// The length of the frame that `bytes` begin with, its padding included; `None` until enough is
/// there to tell.
///
/// The frame may be longer than `bytes`: then it is not complete. As soon as four bytes are there
/// the length is known. A frame of ChannelData is padded to a multiple of 4, which its length field
/// does not count.
///
/// # Errors
///
/// The stream is neither STUN nor ChannelData and cannot be read on: there is nothing to
/// synchronise on.
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, StreamError> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    // RFC 8656 section 12: the first two bits tell the two apart.
    match first >> 6 {
        0 => message_length(bytes),
        1 => Ok(channel_data_length(bytes)),
        _ => Err(StreamError::NotStun),
    }
}

fn message_length(bytes: &[u8]) -> Result<Option<usize>, StreamError> {
    if let Some([_, _, _, _, c0, c1, c2, c3]) = bytes.first_chunk::<8>()
        && u32::from_be_bytes([*c0, *c1, *c2, *c3]) != MAGIC_COOKIE
    {
        return Err(StreamError::Cookie);
    }
    let Some([_, _, l0, l1]) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    if length % 4 != 0 {
        return Err(StreamError::Length);
    }
    Ok(HEADER_LEN.checked_add(length))
}

fn channel_data_length(bytes: &[u8]) -> Option<usize> {
    let [_, _, l0, l1] = bytes.first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    channel_data::HEADER_LEN
        .checked_add(length)?
        .checked_next_multiple_of(4)
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamError {
    /// The first two bits belong to neither STUN nor ChannelData.
    NotStun,
    /// A message without the magic cookie.
    Cookie,
    /// A message whose length is no multiple of 4.
    Length,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStun => "neither STUN nor ChannelData",
            Self::Cookie => "no magic cookie",
            Self::Length => "the length is not a multiple of 4",
        })
    }
}

impl core::error::Error for StreamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_its_header_and_its_length() {
        let bytes = [0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42, 0];
        assert_eq!(frame_length(&bytes), Ok(Some(28)));
        assert_eq!(frame_length(&bytes[..4]), Ok(Some(28)));
        for short in 0..4 {
            assert_eq!(frame_length(&bytes[..short]), Ok(None));
        }
    }

    #[test]
    fn channel_data_is_padded_to_a_multiple_of_4() {
        for (length, frame) in [
            (0_u16, 4),
            (1, 8),
            (4, 8),
            (5, 12),
            (65_532, 65_536),
            (65_535, 65_540),
        ] {
            let [l0, l1] = length.to_be_bytes();
            assert_eq!(
                frame_length(&[0x40, 0, l0, l1]),
                Ok(Some(frame)),
                "{length}"
            );
        }
        assert_eq!(MAX_FRAME, 65_540);
    }

    #[test]
    fn longest_message_fits_a_frame() {
        assert_eq!(frame_length(&[0, 1, 0xFF, 0xFC]), Ok(Some(65_552)));
    }

    #[test]
    fn other_protocols_are_refused_at_once() {
        assert_eq!(frame_length(b"\x80"), Err(StreamError::NotStun));
        assert_eq!(frame_length(b"\xff\xff"), Err(StreamError::NotStun));
        assert_eq!(frame_length(&[0, 1, 0, 3]), Err(StreamError::Length));
        assert_eq!(
            frame_length(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x43]),
            Err(StreamError::Cookie)
        );
        // A TLS ClientHello on the plain port begins with 22, 3, 1: it looks like STUN until the
        // cookie.
        assert_eq!(
            frame_length(b"\x16\x03\x01\x02\x00\x01\x00\x01"),
            Err(StreamError::Cookie)
        );
    }
}
