//! ALTERNATE-DOMAIN (RFC 8489 section 14.16).

text_attribute! {
    /// The name to expect in the certificate of the ALTERNATE-SERVER: at most 255 bytes.
    AlternateDomain = ALTERNATE_DOMAIN, max_bytes: 255, max_chars: 255
}
