//! FINGERPRINT (RFC 8489 section 14.7).

number_attribute! {
    /// The CRC as it stands in a message; parsing has found it right.
    Fingerprint = FINGERPRINT, u32
}
