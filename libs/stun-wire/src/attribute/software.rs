//! SOFTWARE (RFC 8489 section 14.14).

use super::shape::{MAX_PHRASE_BYTES, MAX_PHRASE_CHARS};

text_attribute! {
    /// What program the sender is, for people: fewer than 128 characters.
    Software = SOFTWARE, max_bytes: MAX_PHRASE_BYTES, max_chars: MAX_PHRASE_CHARS
}
