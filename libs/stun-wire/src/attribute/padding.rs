//! PADDING (RFC 5780 section 7.6).

bytes_attribute! {
    /// Makes a message long enough to be fragmented; its content means nothing.
    Padding = PADDING
}
