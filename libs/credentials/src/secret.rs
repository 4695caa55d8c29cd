//! A secret shared by the issuer of credentials and the relay.

use std::fmt;

use zeroize::Zeroize as _;

/// One secret: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// What usernames name it by; no colon in it.
    pub id: Option<String>,
    /// The bytes; see [`Secret::check`].
    pub key: Vec<u8>,
}

impl Secret {
    /// The shortest key a configuration may have.
    pub const MIN_KEY_LEN: usize = 16;

    /// Whether a secret is fit for use. Whoever reads one from a configuration asks this first.
    ///
    /// # Errors
    ///
    /// It is too short, or one that somebody has printed somewhere, or its id could not be told
    /// from its surroundings.
    pub fn check(&self) -> Result<(), SecretError> {
        if self.key.len() < Self::MIN_KEY_LEN {
            return Err(SecretError::TooShort);
        }
        if is_sample(&self.key) {
            return Err(SecretError::Sample);
        }
        match self.id.as_deref() {
            Some(id) if id.is_empty() || id.contains(':') => Err(SecretError::Id),
            _ => Ok(()),
        }
    }
}

/// Words that stand in documentation and sample configurations in place of a secret.
const SAMPLE_WORDS: [&str; 8] = [
    "changeme",
    "change-me",
    "change_me",
    "replace",
    "example",
    "sample",
    "your-secret",
    "your_secret",
];

/// Whether nobody drew this key at random: a placeholder, or hardly more than one byte over and
/// over.
fn is_sample(key: &[u8]) -> bool {
    let text = String::from_utf8_lossy(key).to_lowercase();
    let sample = SAMPLE_WORDS.iter().any(|word| text.contains(word));
    let steps = || {
        key.windows(2)
            .map(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) <= 1))
    };
    // "0000000000000000", "0123456789abcdef", "aaaabbbbccccdddd": almost every byte is the last one
    // or its successor.
    let counted = steps().filter(|step| *step).count() * 10 >= steps().count() * 9;
    sample || counted
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a secret is not fit for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretError {
    /// The key is under 16 bytes.
    TooShort,
    /// The key is a placeholder.
    Sample,
    /// The id is empty or holds a colon.
    Id,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the secret has under 16 bytes; 32 random ones are right",
            Self::Sample => "the secret is a sample; draw 32 random bytes",
            Self::Id => "the id is empty or holds a colon",
        })
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: Option<&str>, key: &str) -> Result<(), SecretError> {
        Secret {
            id: id.map(Into::into),
            key: key.into(),
        }
        .check()
    }

    #[test]
    fn random_keys_are_fit() {
        for key in [
            "tq3DkPz0u5W8mC7x",
            "9f86d081884c7d659a2feaa0c55ad015",
            "K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72",
        ] {
            assert_eq!(check(Some("k1"), key), Ok(()), "{key}");
            assert_eq!(check(None, key), Ok(()), "{key}");
        }
    }

    #[test]
    fn short_and_sample_keys_are_not() {
        assert_eq!(check(None, ""), Err(SecretError::TooShort));
        assert_eq!(check(None, "tq3DkPz0u5W8mC7"), Err(SecretError::TooShort));
        for key in [
            "please-CHANGEME-now",
            "replace-with-random-bytes",
            "this is an example secret",
            "0000000000000000",
            "0123456789abcdef",
            "aaaabbbbccccdddd",
        ] {
            assert_eq!(check(None, key), Err(SecretError::Sample), "{key}");
        }
    }

    #[test]
    fn ids_are_told_from_their_surroundings() {
        for id in ["", "a:b", ":"] {
            assert_eq!(
                check(Some(id), "tq3DkPz0u5W8mC7x"),
                Err(SecretError::Id),
                "{id:?}"
            );
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let secret = Secret {
            id: Some("k1".into()),
            key: b"tq3DkPz0u5W8mC7x".into(),
        };
        assert_eq!(format!("{secret:?}"), r#"Secret { id: Some("k1"), .. }"#);
    }
}
