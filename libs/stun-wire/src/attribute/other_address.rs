//! OTHER-ADDRESS (RFC 5780 section 7.4).

address_attribute! {
    /// The address and port the server would answer from if asked to change both.
    OtherAddress = OTHER_ADDRESS
}
