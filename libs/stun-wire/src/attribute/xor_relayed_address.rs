//! XOR-RELAYED-ADDRESS (RFC 8656 section 18.5).

xor_address_attribute! {
    /// The relayed transport address of the allocation.
    XorRelayedAddress = XOR_RELAYED_ADDRESS
}
