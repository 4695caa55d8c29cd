//! ICE-CONTROLLING (RFC 8445 section 16.1).

number_attribute! {
    /// The sender believes to control; the number breaks ties.
    IceControlling = ICE_CONTROLLING, u64
}
