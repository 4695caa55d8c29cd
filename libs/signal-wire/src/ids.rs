//! Identifiers: member numbers within a lobby, and random 128-bit names for everything else.

use crate::encoding::{from_crockford, to_crockford};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The number of a member within its lobby; never reused while the lobby lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u16);

impl fmt::Display for MemberId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

macro_rules! random_id {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl $name {
            /// The identifier of a 26-digit text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                from_crockford(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&to_crockford(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| D::Error::custom("not an identifier"))
            }
        }
    };
}

random_id! {
    /// A lobby; 26 digits of Crockford base32 on the wire.
    LobbyId
}
random_id! {
    /// A session: what survives a cut of the WebSocket. Public; the token is the secret.
    SessionId
}
random_id! {
    /// What proves the right to resume a session; never printed.
    ResumeToken
}

impl fmt::Display for LobbyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&to_crockford(self.0))
    }
}

impl fmt::Debug for LobbyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LobbyId({self})")
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&to_crockford(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SessionId({self})")
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ResumeToken(…)")
    }
}

impl ResumeToken {
    /// Whether both are the same token, in time that does not depend on where they differ.
    #[must_use]
    pub const fn matches(self, other: Self) -> bool {
        self.0 ^ other.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_does_not_print() {
        assert_eq!(format!("{:?}", ResumeToken(7)), "ResumeToken(…)");
        assert_eq!(serde_json::to_string(&ResumeToken(7)).unwrap().len(), 28);
    }

    #[test]
    fn tokens_match_only_themselves() {
        assert!(ResumeToken(9).matches(ResumeToken(9)));
        assert!(!ResumeToken(9).matches(ResumeToken(9 | 1 << 127)));
    }
}
