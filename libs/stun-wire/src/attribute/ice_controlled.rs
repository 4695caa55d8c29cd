//! ICE-CONTROLLED (RFC 8445 section 16.1).

number_attribute! {
    /// The sender believes to be controlled; the number breaks ties.
    IceControlled = ICE_CONTROLLED, u64
}
