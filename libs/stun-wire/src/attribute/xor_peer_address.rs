//! XOR-PEER-ADDRESS (RFC 8656 section 18.3).

xor_address_attribute! {
    /// A peer as the relay sees it.
    XorPeerAddress = XOR_PEER_ADDRESS
}
