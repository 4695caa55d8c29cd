//! NONCE (RFC 8489 section 14.10).

use super::shape::{MAX_PHRASE_BYTES, MAX_PHRASE_CHARS};

text_attribute! {
    /// The server's replay guard, sent back as it came: fewer than 128 characters.
    Nonce = NONCE, max_bytes: MAX_PHRASE_BYTES, max_chars: MAX_PHRASE_CHARS
}
