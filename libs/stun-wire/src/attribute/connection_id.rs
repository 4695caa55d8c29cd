//! CONNECTION-ID (RFC 6062 section 6.2.1).

number_attribute! {
    /// Names a TCP connection between relay and peer.
    ConnectionId = CONNECTION_ID, u32
}
