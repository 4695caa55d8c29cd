//! DATA (RFC 8656 section 18.4).

bytes_attribute! {
    /// What a Send or Data indication carries; may be empty.
    Data = DATA
}
