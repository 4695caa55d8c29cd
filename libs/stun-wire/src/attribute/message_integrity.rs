//! MESSAGE-INTEGRITY (RFC 8489 section 14.5).

array_attribute! {
    /// The HMAC-SHA1 as it stands in a message;
    /// [`Message::verify_integrity`](crate::Message::verify_integrity) judges it.
    MessageIntegrity = MESSAGE_INTEGRITY, 20
}
