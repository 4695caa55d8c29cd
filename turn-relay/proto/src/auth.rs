//! The long-term credential mechanism (RFC 8489 §9.2.4): who asks, and is the question theirs?
//!
//! Nothing is stored for a client here, before or after; what a failed guess costs is a record in a
//! fixed table. The order of checks is the RFC's, with one exception: a nonce that is not ours is
//! answered with 438 before the signature is judged, because a sender who has not even received a
//! nonce must neither learn about passwords nor count against the owner of an address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use credentials::{CredentialError, Secrets};
use stun_wire::attribute::{Nonce, PasswordAlgorithm, PasswordAlgorithms, Userhash, Username};
use stun_wire::{AttributeType, IntegrityKey, IntegrityKind, Message, attribute, error_code};

use crate::auth::nonce::{Features, NonceState, Nonces};
use crate::clock::Tick;
use crate::config::{Realm, RelayConfig};
use crate::counters::AuthFailure;
use crate::limits::Limiter;
use crate::verdict::{DropReason, Now, Path};

pub(crate) mod nonce;

/// The wall clocks of issuer and relay may differ by this much.
const CLOCK_SKEW: u64 = 60;

/// The key of a proven request; its response is signed with it, the same way.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) key: IntegrityKey,
    pub(crate) kind: IntegrityKind,
}

/// Who asked.
pub(crate) struct Proof {
    pub(crate) signer: Signer,
    /// The subject of a time-limited credential, or a static user's name.
    pub(crate) user: Box<str>,
}

/// Why a request was not authenticated, and what to say.
pub(crate) enum Refusal {
    /// An error response, signed if the key is known.
    Say {
        code: u16,
        why: AuthFailure,
        signer: Option<Signer>,
    },
    /// Not a word.
    Drop(DropReason),
}

impl Refusal {
    fn unsigned(code: u16, why: AuthFailure) -> Self {
        Self::Say {
            code,
            why,
            signer: None,
        }
    }

    fn malformed() -> Self {
        Self::unsigned(error_code::BAD_REQUEST, AuthFailure::Malformed)
    }

    fn unauthenticated(why: AuthFailure) -> Self {
        Self::unsigned(error_code::UNAUTHENTICATED, why)
    }
}

/// What is known about the request beside its bytes.
pub(crate) struct Circumstances<'a> {
    pub(crate) now: Now,
    pub(crate) tick: Tick,
    pub(crate) path: &'a Path,
    /// Whose allocation the 5-tuple has: he is never locked out of it by others' failures. Other
    /// users are guessed at there as slowly as anywhere.
    pub(crate) owner: Option<&'a str>,
    /// An expired credential is refused (Allocate, Refresh); an allocation that lives on may still
    /// be worked with and ended.
    pub(crate) expiry_counts: bool,
}

/// Credentials, nonces and what was configured about them.
pub(crate) struct Authenticator {
    realm: Realm,
    secrets: Option<Arc<Secrets>>,
    /// Keys by name; the names by USERHASH.
    users: BTreeMap<Box<str>, Keys>,
    hashes: BTreeMap<[u8; 32], Box<str>>,
    /// With these the signature of a user is judged who is none.
    nobody: Keys,
    sha1: bool,
    nonce_life: Duration,
    nonces: Nonces,
}

impl Authenticator {
    pub(crate) fn new(config: &RelayConfig, nonce_key: [u8; 32]) -> Self {
        let mut authenticator = Self {
            realm: config.realm.clone(),
            secrets: None,
            users: BTreeMap::new(),
            hashes: BTreeMap::new(),
            nobody: Keys::new("nobody", config.realm.as_str(), "has no password"),
            sha1: true,
            nonce_life: Duration::ZERO,
            nonces: Nonces::new(nonce_key),
        };
        authenticator.set_config(config);
        authenticator
    }

    /// Nonces stay good; credentials are as they are now.
    pub(crate) fn set_config(&mut self, config: &RelayConfig) {
        self.realm = config.realm.clone();
        self.secrets = config.secrets.clone().filter(|secrets| !secrets.is_empty());
        self.users = config
            .users
            .iter()
            .map(|user| {
                let keys = Keys::new(&user.name, self.realm.as_str(), user.password.as_str());
                (user.name.as_str().into(), keys)
            })
            .collect();
        self.hashes = config
            .users
            .iter()
            .map(|user| {
                (
                    Userhash::of(&user.name, self.realm.as_str()).0,
                    user.name.as_str().into(),
                )
            })
            .collect();
        self.sha1 = config.protocol.sha1_integrity;
        self.nonce_life = config.lifetime.nonce;
    }

    pub(crate) fn realm(&self) -> &str {
        self.realm.as_str()
    }

    /// The list that goes into challenges and has to come back unaltered.
    pub(crate) fn algorithms(&self) -> PasswordAlgorithms<'static> {
        if self.sha1 {
            PasswordAlgorithms::SHA256_AND_MD5
        } else {
            PasswordAlgorithms::SHA256
        }
    }

    /// A nonce for a challenge that carries the list, or has no room for it.
    ///
    /// A time-limited user name cannot be found by its hash, so USERHASH is announced only where
    /// all users are listed; a listed user may send it in any case.
    pub(crate) fn nonce(&mut self, tick: Tick, path: &Path, with_algorithms: bool) -> String {
        let features = Features {
            password_algorithms: with_algorithms,
            user_anonymity: self.secrets.is_none() && !self.users.is_empty(),
        };
        self.nonces.make(tick, path, features)
    }

    /// RFC 8489 §9.2.4, check by check.
    pub(crate) fn authenticate(
        &mut self,
        at: &Circumstances<'_>,
        message: &Message<'_>,
        limiter: &mut Limiter,
    ) -> Result<Proof, Refusal> {
        let Some(kind) = message.integrity() else {
            return Err(Refusal::unauthenticated(AuthFailure::Missing));
        };
        if kind == IntegrityKind::Sha1 && !self.sha1 {
            return Err(Refusal::unauthenticated(AuthFailure::Missing));
        }
        let claim = Claim::read(message).ok_or_else(Refusal::malformed)?;
        let algorithm = self.algorithm(message)?;
        let nonce = self
            .nonces
            .judge(at.tick, at.path, claim.nonce, self.nonce_life);
        let features = match nonce {
            NonceState::Fresh(features) | NonceState::Stale(features) => features,
            NonceState::Foreign => {
                return Err(Refusal::unsigned(
                    error_code::STALE_NONCE,
                    AuthFailure::StaleNonce,
                ));
            }
        };
        // The list has to be the one that came with this nonce; with some came none.
        if algorithm.listed && !features.password_algorithms {
            return Err(Refusal::malformed());
        }
        if claim.realm != self.realm.as_str() {
            return Err(Refusal::unauthenticated(AuthFailure::WrongRealm));
        }
        let proof = self.verify(at, message, &claim, algorithm.key, kind, limiter)?;
        if matches!(nonce, NonceState::Stale(_)) {
            return Err(Refusal::Say {
                code: error_code::STALE_NONCE,
                why: AuthFailure::StaleNonce,
                signer: Some(proof.signer),
            });
        }
        Ok(proof)
    }

    /// Which algorithm made the key: neither attribute means MD5; one alone, an altered list, or an
    /// algorithm that is not in it is 400.
    fn algorithm(&self, message: &Message<'_>) -> Result<Algorithm, Refusal> {
        let malformed = |_| Refusal::malformed();
        let chosen = message
            .attribute::<PasswordAlgorithm<'_>>()
            .map_err(malformed)?;
        let list = message
            .attribute::<PasswordAlgorithms<'_>>()
            .map_err(malformed)?;
        match (chosen, list) {
            (None, None) => Ok(Algorithm {
                key: KeyAlgorithm::Md5,
                listed: false,
            }),
            (Some(chosen), Some(list)) if list == self.algorithms() && list.contains(chosen) => {
                let sha256 = chosen == PasswordAlgorithm::SHA256;
                let key = if sha256 {
                    KeyAlgorithm::Sha256
                } else {
                    KeyAlgorithm::Md5
                };
                Ok(Algorithm { key, listed: true })
            }
            _ => Err(Refusal::malformed()),
        }
    }

    /// Judges the signature, unless this user has failed too often from there.
    fn verify(
        &self,
        at: &Circumstances<'_>,
        message: &Message<'_>,
        claim: &Claim<'_>,
        algorithm: KeyAlgorithm,
        kind: IntegrityKind,
        limiter: &mut Limiter,
    ) -> Result<Proof, Refusal> {
        let source = at.path.remote.ip();
        let name = claim.user.limit_key();
        let is_owner = self.is_owner(at.owner, &claim.user);
        if !is_owner && !limiter.may_judge(at.tick, source, &name) {
            return Err(Refusal::Drop(DropReason::SignatureLimited));
        }
        let signer_if_right = |key: &IntegrityKey| {
            let key = message
                .verify_integrity(key, kind)
                .ok()
                .map(|()| key.clone());
            key.map(|key| Signer { key, kind })
        };
        let (found, why) = self.look_up(at, &claim.user, algorithm, signer_if_right);
        match found {
            Some(proof) => {
                limiter.succeeded(source, &name);
                Ok(proof)
            }
            None => {
                if !is_owner && why != AuthFailure::Expired {
                    limiter.failed(at.tick, source, &name);
                }
                Err(Refusal::unauthenticated(why))
            }
        }
    }

    fn is_owner(&self, owner: Option<&str>, user: &ClaimedUser<'_>) -> bool {
        owner.is_some_and(|owner| match user {
            ClaimedUser::Name(name) => {
                *name == owner
                    || self
                        .secrets
                        .as_ref()
                        .is_some_and(|secrets| secrets.subject(name) == Ok(owner))
            }
            ClaimedUser::Hash(hash) => self.hashes.get(hash).is_some_and(|name| **name == *owner),
        })
    }

    /// Tries each key the user may have. One signature is judged for unknown users too, with a key as
    /// ready as that of a listed one, so that time does not tell who exists.
    fn look_up(
        &self,
        at: &Circumstances<'_>,
        user: &ClaimedUser<'_>,
        algorithm: KeyAlgorithm,
        signer_if_right: impl Fn(&IntegrityKey) -> Option<Signer>,
    ) -> (Option<Proof>, AuthFailure) {
        let name = match user {
            ClaimedUser::Name(name) => Some(*name),
            ClaimedUser::Hash(hash) => self.hashes.get(hash).map(AsRef::as_ref),
        };
        if let Some((name, keys)) = name.and_then(|name| self.users.get_key_value(name)) {
            let signer = signer_if_right(keys.of(algorithm));
            let proof = signer.map(|signer| Proof {
                signer,
                user: name.clone(),
            });
            return (proof, AuthFailure::BadIntegrity);
        }
        let now = if at.expiry_counts {
            at.now.unix.saturating_sub(CLOCK_SKEW)
        } else {
            0
        };
        let candidates = name
            .zip(self.secrets.as_ref())
            .map(|(name, secrets)| (name, secrets.password_for(name, now)));
        match candidates {
            Some((name, Ok(candidates))) => {
                let key = |password: &str| algorithm.key(name, self.realm(), password);
                let signer = candidates
                    .passwords()
                    .find_map(|password| signer_if_right(&key(password.as_str())));
                let user = candidates.subject();
                let proof = signer.map(|signer| Proof {
                    signer,
                    user: user.into(),
                });
                (proof, AuthFailure::BadIntegrity)
            }
            Some((_, Err(CredentialError::Expired))) => (None, AuthFailure::Expired),
            Some((_, Err(CredentialError::Malformed | CredentialError::UnknownKey))) | None => {
                let _ = signer_if_right(self.nobody.of(algorithm));
                (None, AuthFailure::UnknownUser)
            }
        }
    }
}

#[derive(Clone, Copy)]
enum KeyAlgorithm {
    Md5,
    Sha256,
}

impl KeyAlgorithm {
    fn key(self, user: &str, realm: &str, password: &str) -> IntegrityKey {
        match self {
            Self::Md5 => IntegrityKey::long_term_md5(user, realm, password),
            Self::Sha256 => IntegrityKey::long_term_sha256(user, realm, password),
        }
    }
}

/// The keys of one password.
struct Keys {
    md5: IntegrityKey,
    sha256: IntegrityKey,
}

impl Keys {
    fn new(user: &str, realm: &str, password: &str) -> Self {
        Self {
            md5: KeyAlgorithm::Md5.key(user, realm, password),
            sha256: KeyAlgorithm::Sha256.key(user, realm, password),
        }
    }

    fn of(&self, algorithm: KeyAlgorithm) -> &IntegrityKey {
        match algorithm {
            KeyAlgorithm::Md5 => &self.md5,
            KeyAlgorithm::Sha256 => &self.sha256,
        }
    }
}

struct Algorithm {
    key: KeyAlgorithm,
    /// PASSWORD-ALGORITHMS came back.
    listed: bool,
}

/// Who the request says it is from.
enum ClaimedUser<'a> {
    Name(&'a str),
    Hash([u8; 32]),
}

impl ClaimedUser<'_> {
    /// By what failures are counted.
    fn limit_key(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Name(name) => (*name).into(),
            Self::Hash(hash) => hash
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
        }
    }
}

/// The attributes that a signed request has to have, each once.
struct Claim<'a> {
    user: ClaimedUser<'a>,
    realm: &'a str,
    nonce: &'a str,
}

impl<'a> Claim<'a> {
    /// `None` is 400: something is missing, doubled, or no text.
    fn read(message: &Message<'a>) -> Option<Self> {
        let once = [AttributeType::REALM, AttributeType::NONCE];
        let names = message.count(AttributeType::USERNAME) + message.count(AttributeType::USERHASH);
        if names != 1 || once.iter().any(|kind| message.count(*kind) != 1) {
            return None;
        }
        let user = match message.attribute::<Username<'_>>().ok()? {
            Some(name) => ClaimedUser::Name(name.0),
            None => ClaimedUser::Hash(message.attribute::<Userhash>().ok()??.0),
        };
        let realm = message.attribute::<attribute::Realm<'_>>().ok()??.0;
        let nonce = message.attribute::<Nonce<'_>>().ok()??.0;
        Some(Self { user, realm, nonce })
    }
}
