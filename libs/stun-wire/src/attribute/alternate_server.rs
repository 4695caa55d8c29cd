//! ALTERNATE-SERVER (RFC 8489 section 14.15).

address_attribute! {
    /// Where a 300 sends the client.
    AlternateServer = ALTERNATE_SERVER
}
