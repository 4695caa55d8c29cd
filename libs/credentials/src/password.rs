//! The password that goes with a username: base64(HMAC-SHA1(secret, username)).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroize as _;

use crate::Secret;

const LEN: usize = 28; // 20 bytes in base64 with padding

/// A password: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    base64: [u8; LEN],
}

impl Password {
    pub(crate) fn of(secret: &Secret, username: &str) -> Self {
        let mut hmac =
            Hmac::<Sha1>::new_from_slice(&secret.key).expect("HMAC takes keys of any length");
        hmac.update(username.as_bytes());
        let mut base64 = [0; LEN];
        STANDARD
            .encode_slice(hmac.finalize().into_bytes(), &mut base64)
            .expect("20 bytes are 28 in base64");
        Self { base64 }
    }

    /// The password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.base64).expect("base64 is ASCII")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.base64.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
