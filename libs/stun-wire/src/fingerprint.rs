//! The CRC that tells STUN from other protocols on one socket (RFC 8489 section 14.7).

/// The attribute's whole size: header and 32 bits.
pub(crate) const ATTRIBUTE_LEN: usize = 8;

const XOR: u32 = 0x5354_554E; // "STUN"

/// The value of FINGERPRINT for the message up to, and with a length field that includes, the
/// attribute.
pub(crate) fn of(message_before: &[u8]) -> u32 {
    crc32fast::hash(message_before) ^ XOR
}
