//! REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).

family_attribute! {
    /// The family of the relayed address wanted. An unknown one is a 440 (RFC 8656 section 7.2).
    RequestedAddressFamily = REQUESTED_ADDRESS_FAMILY
}
