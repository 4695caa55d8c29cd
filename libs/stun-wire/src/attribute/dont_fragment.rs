//! DONT-FRAGMENT (RFC 8656 section 18.9).

flag_attribute! {
    /// Send to the peer with the DF bit set.
    DontFragment = DONT_FRAGMENT
}
