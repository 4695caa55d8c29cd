//! XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).

xor_address_attribute! {
    /// The sender's address as the server sees it: what Binding is for.
    XorMappedAddress = XOR_MAPPED_ADDRESS
}
