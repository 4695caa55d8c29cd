//! LIFETIME (RFC 8656 section 18.2).

number_attribute! {
    /// Seconds until an allocation ends unless refreshed; 0 ends it.
    Lifetime = LIFETIME, u32
}
