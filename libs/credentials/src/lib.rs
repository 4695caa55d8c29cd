//! Time-limited TURN credentials: minted by the signaling server, verified by the relay.
//!
//! The two share a secret and no state. A credential is a username that says until when and for
//! whom it is good, `expiry:keyid:subject`, and the HMAC of that username as password. Any issuer of the
//! common REST form (draft-uberti-behave-turn-rest), `expiry:subject`, is understood too.
//!
//! ```
//! use credentials::{Secret, Secrets, mint};
//!
//! let key = b"thirty-two bytes, random, please";
//! let secret = || Secret { id: Some("k1".into()), key: key.into() };
//! let credential = mint(&secret(), "alice", 1_700_021_600);
//! assert_eq!(credential.username, "1700021600:k1:alice");
//!
//! let secrets = Secrets::new(vec![secret()]);
//! let candidates = secrets.password_for(&credential.username, 1_700_000_000)?;
//! assert_eq!(candidates.subject(), "alice");
//! assert!(candidates.passwords().any(|password| password.as_str() == credential.password));
//! # Ok::<(), credentials::CredentialError>(())
//! ```
//!
//! No clock is read and nothing is compared here: the relay passes the time in, and proves the
//! password by the message's signature.

#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod password;
mod secret;
mod username;

use std::fmt;

pub use password::Password;
pub use secret::{Secret, SecretError};

use crate::username::Username;

/// How long a credential lasts unless an issuer says otherwise, in seconds.
pub const DEFAULT_LIFE: u64 = 6 * 60 * 60;

/// What a client logs in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `expiry:keyid:subject`, or `expiry:subject` for a secret without id.
    pub username: String,
    /// base64(HMAC-SHA1(secret, username)).
    pub password: String,
}

/// Makes a credential for `subject` that is good while the time is before `expiry_unix`.
///
/// The subject is the user in the relay's eyes: quotas count by it, whatever the expiry or the
/// secret. It may hold colons, except that for a secret without id it should not begin with another
/// secret's id and a colon.
#[must_use]
pub fn mint(secret: &Secret, subject: &str, expiry_unix: u64) -> Credential {
    let username = match &secret.id {
        Some(id) => format!("{expiry_unix}:{id}:{subject}"),
        None => format!("{expiry_unix}:{subject}"),
    };
    let password = Password::of(secret, &username).as_str().to_owned();
    Credential { username, password }
}

/// The secrets in force. Rotation is adding the new one in front, and taking the old one away a
/// credential's life later.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    secrets: Vec<Secret>,
}

impl Secrets {
    /// From the secrets a configuration lists. Of two with one id the first counts.
    #[must_use]
    pub const fn new(secrets: Vec<Secret>) -> Self {
        Self { secrets }
    }

    /// Whether no credential can be good.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// The passwords that go with a username at that time.
    ///
    /// A known key id names the one secret; without one every listed secret may have made the
    /// credential.
    ///
    /// # Errors
    ///
    /// No secret can make this username good.
    pub fn password_for<'a>(
        &'a self,
        username: &'a str,
        now_unix: u64,
    ) -> Result<Candidates<'a>, CredentialError> {
        let parsed = Username::parse(username).ok_or(CredentialError::Malformed)?;
        if parsed.expiry <= now_unix {
            return Err(CredentialError::Expired);
        }
        let (secrets, subject) = self.split(&parsed);
        if secrets.is_empty() {
            return Err(CredentialError::UnknownKey);
        }
        Ok(Candidates {
            secrets,
            username,
            subject,
            expiry: parsed.expiry,
        })
    }

    /// Whose username this is, expired or not: the identity that quotas count by.
    ///
    /// A username that names nobody (`expiry` alone) is its own subject.
    ///
    /// # Errors
    ///
    /// The username is none of ours.
    pub fn subject<'a>(&self, username: &'a str) -> Result<&'a str, CredentialError> {
        let parsed = Username::parse(username).ok_or(CredentialError::Malformed)?;
        Ok(self.split(&parsed).1)
    }

    /// The secrets that may have made a username, and its subject.
    fn split<'a>(&self, username: &Username<'a>) -> (&[Secret], &'a str) {
        if let Some((id, subject)) = username.rest.split_once(':')
            && let Some(secret) = self
                .secrets
                .iter()
                .find(|known| known.id.as_deref() == Some(id))
        {
            return (std::slice::from_ref(secret), username.or_whole(subject));
        }
        (&self.secrets, username.or_whole(username.rest))
    }
}

/// The passwords a username may go with: one for each secret that may have made it.
#[derive(Clone)]
pub struct Candidates<'a> {
    secrets: &'a [Secret],
    username: &'a str,
    subject: &'a str,
    expiry: u64,
}

impl<'a> Candidates<'a> {
    /// The passwords, each computed when it is asked for.
    pub fn passwords(&self) -> impl Iterator<Item = Password> + use<'a> {
        let username = self.username;
        self.secrets
            .iter()
            .map(move |secret| Password::of(secret, username))
    }

    /// Who the user is, for quotas.
    #[must_use]
    pub const fn subject(&self) -> &'a str {
        self.subject
    }

    /// When the credential ends, in seconds since 1970.
    #[must_use]
    pub const fn expiry(&self) -> u64 {
        self.expiry
    }
}

/// Why a username cannot be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialError {
    /// It does not begin with an expiry.
    Malformed,
    /// It was good once.
    Expired,
    /// No secret is listed that could have made it.
    UnknownKey,
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the username is not expiry:keyid:subject",
            Self::Expired => "the credential has expired",
            Self::UnknownKey => "no secret can have made the credential",
        })
    }
}

impl std::error::Error for CredentialError {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidates")
            .field("username", &self.username)
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}
