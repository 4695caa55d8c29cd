//! MAPPED-ADDRESS (RFC 8489 section 14.1).

address_attribute! {
    /// The sender's address as the server sees it, in clear: only RFC 5780 still asks for it.
    MappedAddress = MAPPED_ADDRESS
}
