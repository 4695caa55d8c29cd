//! USERNAME (RFC 8489 section 14.3).

text_attribute! {
    /// Who signs: fewer than 509 bytes.
    Username = USERNAME, max_bytes: 508, max_chars: 508
}
