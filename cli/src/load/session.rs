//! A TURN client's requests, one behind the other: what to ask, and what an answer means. No socket, no clock.
//!
//! Challenge → Allocate → CreatePermission → ChannelBind → Refresh to 0; before that any number of times, to renew, Refresh →
//! ChannelBind. The long-term credential is the one that every
//! server knows: MD5 and SHA-1 (RFC 8489 section 9.2).

use std::net::{IpAddr, SocketAddr};

use stun_wire::attribute::{
    AddressFamily, ChannelNumberAttribute, ErrorCode, Lifetime, Nonce, Realm,
    RequestedAddressFamily, RequestedTransport, Username, XorPeerAddress, XorRelayedAddress,
};
use stun_wire::{
    Attribute, AttributeError, Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method,
    TransactionId, error_code,
};

use super::packet::CHANNEL;

/// Stale nonces in a row before it is an error: each is answered with a fresh one (RFC 8489 section 9.2.5).
const MOST_STALE: u8 = 3;

/// Who the clients are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User<'a> {
    pub(crate) name: &'a str,
    pub(crate) password: &'a str,
}

/// What is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// An Allocate without credentials, for realm and nonce.
    Challenge,
    /// The Allocate.
    Allocate,
    /// A permission for the peer.
    Permission,
    /// A channel to the peer.
    Channel,
    /// A longer life for the allocation; a channel follows, whose renewal is its permission's too (RFC 8656 section 12).
    Refresh,
    /// The allocation's end.
    Release,
    /// Nothing: it has ended.
    Done,
}

/// One client's state.
#[derive(Debug)]
pub(crate) struct Session {
    step: Step,
    family: AddressFamily,
    peer: Option<SocketAddr>,
    relayed: Option<SocketAddr>,
    login: Option<Login>,
    stale: u8,
}

/// What the challenge brought.
#[derive(Debug)]
struct Login {
    realm: String,
    nonce: String,
    key: IntegrityKey,
}

/// Why a server is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It said no.
    #[error("the server refused {step}: {code} {reason}")]
    Refused {
        /// Which request.
        step: &'static str,
        /// ERROR-CODE.
        code: u16,
        /// Its words.
        reason: String,
    },
    /// It answered what no server should.
    #[error("the answer to {0} is no valid one")]
    Invalid(&'static str),
}

impl Session {
    /// A client that wants a relayed address of the family of `like`.
    pub(crate) fn new(like: IpAddr) -> Self {
        Self {
            step: Step::Challenge,
            family: AddressFamily::of(like),
            peer: None,
            relayed: None,
            login: None,
            stale: 0,
        }
    }

    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Ends the allocation next, whatever stood before that.
    pub(crate) fn release(&mut self) {
        self.step = Step::Release;
    }

    /// Renews the allocation, its permission and its channel next.
    pub(crate) fn renew(&mut self) {
        self.step = Step::Refresh;
    }

    /// To be told before [`Step::Permission`] is asked.
    pub(crate) fn set_peer(&mut self, peer: SocketAddr) {
        self.peer = Some(peer);
    }

    /// The relayed address, once allocated.
    pub(crate) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed
    }

    /// Writes the request of this step into `out`, which is emptied first.
    pub(crate) fn write_request(&self, user: User<'_>, id: TransactionId, out: &mut Vec<u8>) {
        out.clear();
        let mut writer = MessageWriter::new(out, Class::Request, self.step.method(), id);
        match self.step {
            Step::Challenge | Step::Allocate => {
                writer.attribute(&RequestedTransport::UDP);
                // Some servers know no other family and refuse the attribute; IPv4 is what its absence means.
                if self.family == AddressFamily::Ipv6 {
                    writer.attribute(&RequestedAddressFamily(self.family));
                }
            }
            Step::Permission | Step::Channel => {
                if self.step == Step::Channel {
                    writer.attribute(&ChannelNumberAttribute(CHANNEL.as_u16()));
                }
                if let Some(peer) = self.peer {
                    writer.attribute(&XorPeerAddress(peer));
                }
            }
            // Without LIFETIME: as long as the server gives by itself.
            Step::Refresh => {}
            Step::Release | Step::Done => {
                writer.attribute(&Lifetime(0));
            }
        }
        if let Some(login) = &self.login {
            writer
                .attribute(&Username(user.name))
                .attribute(&Realm(&login.realm))
                .attribute(&Nonce(&login.nonce))
                .integrity(&login.key, IntegrityKind::Sha1);
        }
        writer.finish();
    }

    /// Takes what came in. False: it is no answer to `id`. True: [`Self::step`] says what to ask next, which after a stale
    /// nonce is the same once more.
    ///
    /// # Errors
    /// The server refused, or answered nonsense.
    pub(crate) fn take_answer(
        &mut self,
        user: User<'_>,
        id: TransactionId,
        bytes: &[u8],
    ) -> Result<bool, SessionError> {
        let Ok(message) = Message::parse(bytes) else {
            return Ok(false);
        };
        let is_answer = matches!(message.class(), Class::Success | Class::Error);
        if !is_answer || message.transaction_id() != id || message.method() != self.step.method() {
            return Ok(false);
        }
        if message.class() == Class::Error {
            self.take_error(user, &message)?;
        } else {
            self.take_success(&message)?;
        }
        Ok(true)
    }

    fn take_error(&mut self, user: User<'_>, message: &Message<'_>) -> Result<(), SessionError> {
        let error: ErrorCode<'_> = self.required(message.attribute())?;
        let challenged = self.step == Step::Challenge && error.code == error_code::UNAUTHENTICATED;
        let stale = error.code == error_code::STALE_NONCE && self.stale < MOST_STALE;
        if !challenged && !stale {
            return Err(SessionError::Refused {
                step: self.step.name(),
                code: error.code,
                reason: error.reason.to_owned(),
            });
        }
        let Realm(realm) = self.required(message.attribute())?;
        let Nonce(nonce) = self.required(message.attribute())?;
        self.login = Some(Login {
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key: IntegrityKey::long_term_md5(user.name, realm, user.password),
        });
        if challenged {
            self.step = Step::Allocate;
        } else {
            self.stale += 1;
        }
        Ok(())
    }

    fn take_success(&mut self, message: &Message<'_>) -> Result<(), SessionError> {
        let invalid = SessionError::Invalid(self.step.name());
        // RFC 8489 section 9.2.5: an answer that is not signed with the key is none. An open relay has no key to sign with.
        let login = self.login.as_ref().ok_or_else(|| invalid.clone())?;
        message
            .verify_integrity(&login.key, IntegrityKind::Sha1)
            .map_err(|_| invalid)?;
        if self.step == Step::Allocate {
            let XorRelayedAddress(relayed) = self.required(message.attribute())?;
            self.relayed = Some(relayed);
        }
        self.stale = 0;
        self.step = match self.step {
            Step::Challenge | Step::Allocate => Step::Permission,
            Step::Permission | Step::Refresh => Step::Channel,
            Step::Channel => Step::Release,
            Step::Release | Step::Done => Step::Done,
        };
        Ok(())
    }

    fn required<'a, A: Attribute<'a>>(
        &self,
        found: Result<Option<A>, AttributeError>,
    ) -> Result<A, SessionError> {
        found
            .ok()
            .flatten()
            .ok_or_else(|| SessionError::Invalid(self.step.name()))
    }
}

impl Step {
    fn method(self) -> Method {
        match self {
            Self::Challenge | Self::Allocate => Method::ALLOCATE,
            Self::Permission => Method::CREATE_PERMISSION,
            Self::Channel => Method::CHANNEL_BIND,
            Self::Refresh | Self::Release | Self::Done => Method::REFRESH,
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Challenge => "the first Allocate",
            Self::Allocate => "Allocate",
            Self::Permission => "CreatePermission",
            Self::Channel => "ChannelBind",
            Self::Refresh | Self::Release | Self::Done => "Refresh",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: User<'_> = User {
        name: "load",
        password: "of the test",
    };
    const ID: TransactionId = TransactionId([9; 12]);
    const LIKE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn answer(class: Class, method: Method, write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, class, method, ID);
        write(&mut writer);
        writer.finish();
        bytes
    }

    fn challenge(code: u16, nonce: &str) -> Vec<u8> {
        answer(Class::Error, Method::ALLOCATE, |writer| {
            let error = ErrorCode { code, reason: "" };
            writer
                .attribute(&error)
                .attribute(&Realm("r"))
                .attribute(&Nonce(nonce));
        })
    }

    fn key() -> IntegrityKey {
        IntegrityKey::long_term_md5(USER.name, "r", USER.password)
    }

    #[test]
    fn a_challenge_is_answered_signed_and_a_stale_nonce_replaced() {
        let mut session = Session::new(LIKE);
        let taken = session.take_answer(USER, ID, &challenge(401, "one"));
        assert_eq!((taken, session.step()), (Ok(true), Step::Allocate));
        let taken = session.take_answer(USER, ID, &challenge(438, "two"));
        assert_eq!((taken, session.step()), (Ok(true), Step::Allocate));

        let mut request = Vec::new();
        session.write_request(USER, ID, &mut request);
        let message = Message::parse(&request).expect("a message");
        assert_eq!(message.attribute(), Ok(Some(Nonce("two"))));
        assert_eq!(message.attribute(), Ok(Some(Username(USER.name))));
        assert_eq!(
            message.verify_integrity(&key(), IntegrityKind::Sha1),
            Ok(())
        );
    }

    #[test]
    fn stale_nonces_without_end_are_an_error() {
        let mut session = Session::new(LIKE);
        let stale = challenge(438, "again");
        let mut answers = (0..=MOST_STALE).map(|_| session.take_answer(USER, ID, &stale));
        assert!(answers.any(|answer| answer.is_err()));
    }

    #[test]
    fn an_allocation_is_believed_only_when_signed() {
        let relayed = SocketAddr::from(([192, 0, 2, 1], 50_000));
        let mut session = Session::new(LIKE);
        assert_eq!(
            session.take_answer(USER, ID, &challenge(401, "n")),
            Ok(true)
        );
        let unsigned = answer(Class::Success, Method::ALLOCATE, |writer| {
            writer.attribute(&XorRelayedAddress(relayed));
        });
        let refused = session.take_answer(USER, ID, &unsigned);
        assert_eq!(refused, Err(SessionError::Invalid("Allocate")));
        assert_eq!(session.relayed(), None);
        let signed = answer(Class::Success, Method::ALLOCATE, |writer| {
            let relayed = XorRelayedAddress(relayed);
            writer
                .attribute(&relayed)
                .integrity(&key(), IntegrityKind::Sha1);
        });
        assert_eq!(session.take_answer(USER, ID, &signed), Ok(true));
        assert_eq!(
            (session.relayed(), session.step()),
            (Some(relayed), Step::Permission)
        );
    }

    #[test]
    fn renewing_asks_for_the_allocation_and_then_for_its_channel() {
        let mut session = Session::new(LIKE);
        assert_eq!(
            session.take_answer(USER, ID, &challenge(401, "n")),
            Ok(true)
        );
        session.renew();
        let mut request = Vec::new();
        session.write_request(USER, ID, &mut request);
        let message = Message::parse(&request).expect("a message");
        assert_eq!(message.method(), Method::REFRESH);
        assert_eq!(message.attribute::<Lifetime>(), Ok(None), "0 would end it");
        let done = answer(Class::Success, Method::REFRESH, |writer| {
            writer.integrity(&key(), IntegrityKind::Sha1);
        });
        assert_eq!(session.take_answer(USER, ID, &done), Ok(true));
        assert_eq!(session.step(), Step::Channel);
    }

    #[test]
    fn a_refusal_is_told_with_its_code_and_foreign_answers_are_passed_over() {
        let mut session = Session::new(LIKE);
        let other = TransactionId([8; 12]);
        assert_eq!(
            session.take_answer(USER, other, &challenge(401, "n")),
            Ok(false)
        );
        assert_eq!(session.take_answer(USER, ID, b"noise"), Ok(false));
        let refused = session.take_answer(USER, ID, &challenge(486, "n"));
        let expected = SessionError::Refused {
            step: "the first Allocate",
            code: 486,
            reason: String::new(),
        };
        assert_eq!(refused, Err(expected));
    }
}
