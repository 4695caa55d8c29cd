//! REALM (RFC 8489 section 14.9).

use super::shape::{MAX_PHRASE_BYTES, MAX_PHRASE_CHARS};

text_attribute! {
    /// The realm of long-term credentials: fewer than 128 characters.
    Realm = REALM, max_bytes: MAX_PHRASE_BYTES, max_chars: MAX_PHRASE_CHARS
}
