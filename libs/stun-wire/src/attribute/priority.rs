//! PRIORITY (RFC 8445 section 16.1).

number_attribute! {
    /// The priority of the peer-reflexive candidate a check would find.
    Priority = PRIORITY, u32
}
