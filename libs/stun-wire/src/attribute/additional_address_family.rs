//! ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.11).

family_attribute! {
    /// A second relayed address, which may only be of IPv6: IPv4 is a 400 (RFC 8656 section 7.2).
    AdditionalAddressFamily = ADDITIONAL_ADDRESS_FAMILY
}
