//! Passphrases: what form they have, and the keyed hash that is all that is kept of them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

/// The server's key for passphrases; never printed.
#[derive(Clone)]
pub struct PassphraseKey(Zeroizing<[u8; 32]>);

impl PassphraseKey {
    /// Uses these 32 random bytes.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// Derives the key from a secret of any length.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        mac.update(b"rallypoint passphrase key");
        Self::new(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for PassphraseKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PassphraseKey(…)")
    }
}

/// HMAC-SHA-256 of game and passphrase: the name of a lobby within the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PassphraseHash([u8; 32]);

impl fmt::Debug for PassphraseHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(4)
            .try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The form a passphrase must have, judged after NFKC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseFormat {
    /// Whether it must be lower-case words (`a-z 0-9`) joined by single hyphens; otherwise any text
    /// without control characters and without spaces at either end.
    pub words: bool,
    /// Fewest characters.
    pub shortest: usize,
    /// Most characters.
    pub longest: usize,
}

impl Default for PassphraseFormat {
    fn default() -> Self {
        Self {
            words: true,
            shortest: 3,
            longest: 64,
        }
    }
}

impl PassphraseFormat {
    /// The keyed hash of `passphrase` within `game`, if it has this form.
    pub(crate) fn hash(
        &self,
        key: &PassphraseKey,
        game: &str,
        passphrase: &str,
    ) -> Option<PassphraseHash> {
        // NFKC may write one character as eighteen: the raw text is bounded first.
        if passphrase.len() > signal_wire::limits::PASSPHRASE_BYTES {
            return None;
        }
        let mut normal: String = passphrase.nfkc().collect();
        let hash = self.allows(&normal).then(|| keyed_hash(key, game, &normal));
        normal.zeroize();
        hash
    }

    fn allows(&self, passphrase: &str) -> bool {
        let length = (self.shortest..=self.longest).contains(&passphrase.chars().count());
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let form = if self.words {
            passphrase.split('-').all(is_word)
        } else {
            passphrase.trim() == passphrase && !passphrase.chars().any(char::is_control)
        };
        length && form
    }
}

/// HMAC-SHA-256(key, game ‖ 0 ‖ passphrase); a game holds no zero byte ([`signal_wire::is_game`]).
fn keyed_hash(key: &PassphraseKey, game: &str, passphrase: &str) -> PassphraseHash {
    let mut mac = Hmac::<Sha256>::new_from_slice(&*key.0).expect("HMAC takes keys of any length");
    mac.update(game.as_bytes());
    mac.update(&[0]);
    mac.update(passphrase.as_bytes());
    PassphraseHash(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(format: PassphraseFormat, passphrase: &str) -> bool {
        format
            .hash(&PassphraseKey::new([1; 32]), "tank", passphrase)
            .is_some()
    }

    #[test]
    fn by_default_words_joined_by_hyphens_are_allowed() {
        let words = PassphraseFormat::default();
        for good in [
            "jump-rocket",
            "laser-dragon",
            "abc",
            "a-1",
            &"x".repeat(64),
            "ｊｕｍｐ-rocket",
        ] {
            assert!(allows(words, good), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            "ab",
            &long,
            "Jump-Rocket",
            "-jump",
            "jump-",
            "jump--rocket",
            "jump rocket",
            "ж-ж",
            "a\0b",
        ] {
            assert!(!allows(words, bad), "{bad:?}");
        }
    }

    #[test]
    fn free_text_may_be_allowed() {
        let free = PassphraseFormat {
            words: false,
            ..PassphraseFormat::default()
        };
        assert!(allows(free, "Жди меня!") && allows(free, "Jump Rocket"));
        for bad in ["ab", " abc", "abc\n", "a\u{7}bc"] {
            assert!(!allows(free, bad), "{bad:?}");
        }
        // U+FDFA is one character that NFKC writes as eighteen.
        assert!(
            !allows(free, &"\u{FDFA}".repeat(4)),
            "the normal form is what is counted"
        );
    }

    #[test]
    fn a_hash_depends_on_key_game_and_normal_form_alone() {
        let format = PassphraseFormat::default();
        let hash = |key: u8, game: &str, passphrase: &str| {
            format
                .hash(&PassphraseKey::new([key; 32]), game, passphrase)
                .unwrap()
        };
        assert_eq!(
            hash(1, "tank", "jump-rocket"),
            hash(1, "tank", "ｊｕｍｐ-rocket")
        );
        assert_ne!(
            hash(1, "tank", "jump-rocket"),
            hash(2, "tank", "jump-rocket")
        );
        assert_ne!(
            hash(1, "tank", "jump-rocket"),
            hash(1, "chat", "jump-rocket")
        );
        assert_ne!(
            hash(1, "tank", "jump-rocket"),
            hash(1, "tank", "jump-rockets")
        );
    }

    #[test]
    fn the_hash_is_hmac_sha256_as_documented() {
        // From `printf 'tank\0jump-rocket' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…01`.
        let hash = keyed_hash(&PassphraseKey::new([1; 32]), "tank", "jump-rocket");
        let hex: String = hash.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0b4f2efe497a929d48ed68c227fc34429d0fce6f0573db905454c0aa7d40497e"
        );
    }
}
