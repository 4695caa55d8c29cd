//! USERHASH (RFC 8489 section 14.4).

use sha2::Sha256;

use crate::integrity::joined;

array_attribute! {
    /// Who signs, without saying it to everybody on the way.
    Userhash = USERHASH, 32
}

impl Userhash {
    /// SHA-256(user ":" realm), both prepared by OpaqueString.
    #[must_use]
    pub fn of(user: &str, realm: &str) -> Self {
        Self(joined::<Sha256>(&[user, realm]).into())
    }
}
