//! RESPONSE-ORIGIN (RFC 5780 section 7.3).

address_attribute! {
    /// The address and port an answer was sent from.
    ResponseOrigin = RESPONSE_ORIGIN
}
