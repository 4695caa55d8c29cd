//! What stands in a username: `expiry[:rest]`.

/// A username cut at its first colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Username<'a> {
    whole: &'a str,
    /// Seconds since 1970.
    pub(crate) expiry: u64,
    /// What follows the expiry; empty if nothing does.
    pub(crate) rest: &'a str,
}

impl<'a> Username<'a> {
    /// `None` unless it begins with a decimal number: digits only, no sign, no space.
    pub(crate) fn parse(whole: &'a str) -> Option<Self> {
        let (expiry, rest) = whole.split_once(':').unwrap_or((whole, ""));
        if !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            whole,
            expiry: expiry.parse().ok()?,
            rest,
        })
    }

    /// The subject, or the whole username for a credential that names nobody: two such are not one
    /// user.
    pub(crate) const fn or_whole(&self, subject: &'a str) -> &'a str {
        if subject.is_empty() {
            self.whole
        } else {
            subject
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_plain_number() {
        for (whole, expected) in [
            ("1700000000:k1:alice", Some((1_700_000_000, "k1:alice"))),
            ("1700000000:alice", Some((1_700_000_000, "alice"))),
            ("1700000000:", Some((1_700_000_000, ""))),
            ("1700000000", Some((1_700_000_000, ""))),
            ("18446744073709551615:x", Some((u64::MAX, "x"))),
            ("18446744073709551616:x", None),
            ("+1700000000:x", None),
            ("-1:x", None),
            (" 1700000000:x", None),
            ("1e9:x", None),
            ("alice:1700000000", None),
            (":alice", None),
            ("alice", None),
            ("", None),
        ] {
            let parsed = Username::parse(whole).map(|username| (username.expiry, username.rest));
            assert_eq!(parsed, expected, "{whole:?}");
        }
    }
}
