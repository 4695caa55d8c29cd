//! What is it? The first byte tells STUN from channel data from everything else (RFC 7983, with the
//! channel range of RFC 8656 §12).

use stun_wire::channel_data::is_channel_data;

/// What a client's datagram claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ChannelData,
    Stun,
    /// DTLS, RTP, QUIC, noise: not for us.
    Other,
}

/// Looks at the bytes that every message of its kind begins with.
#[inline]
pub(crate) fn classify(input: &[u8], rfc5766_channels: bool) -> Kind {
    if is_channel_data(input, rfc5766_channels) {
        Kind::ChannelData
    } else if stun_wire::is_stun(input) {
        Kind::Stun
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_has_one_kind() {
        for first in 0..=255_u8 {
            let mut datagram = [0; 20];
            datagram[0] = first;
            datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
            let expected = match first {
                0..=63 => Kind::Stun,
                64..=79 => Kind::ChannelData,
                80..=255 => Kind::Other,
            };
            assert_eq!(classify(&datagram, false), expected, "{first}");
            let wide = if (80..128).contains(&first) {
                Kind::ChannelData
            } else {
                expected
            };
            assert_eq!(classify(&datagram, true), wide, "{first}");
        }
    }

    #[test]
    fn stun_needs_its_cookie_and_its_header() {
        assert_eq!(classify(&[], false), Kind::Other);
        assert_eq!(classify(&[0; 20], false), Kind::Other);
        assert_eq!(
            classify(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42], false),
            Kind::Other
        );
    }
}
