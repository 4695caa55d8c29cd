//! Writes responses. An answer to an unproven source carries no reason phrase and no SOFTWARE and is
//! never longer than three times its request; an answer to a proven one is signed as its request
//! was, errors included.

use std::net::SocketAddr;

use stun_wire::attribute::{
    AddressErrorCode, AddressFamily, AlternateServer, ConnectionId, ErrorCode, Lifetime,
    Nonce as NonceAttribute, PasswordAlgorithms, Realm, ReservationToken, XorMappedAddress,
    XorRelayedAddress,
};
use stun_wire::{Class, MessageWriter, TransactionId, UnknownAttributes, error_code};

use crate::auth::Signer;
use crate::auth::nonce::Nonces;
use crate::counters::RequestMethod;
use crate::verdict::{Family, PeerConnectionId};

/// What a response takes over from its request.
#[derive(Clone)]
pub(crate) struct Envelope {
    pub(crate) method: RequestMethod,
    pub(crate) transaction: TransactionId,
    pub(crate) signer: Option<Signer>,
    /// The request had a FINGERPRINT; so has the response.
    pub(crate) fingerprint: bool,
}

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Binding: the address the request came from.
    Mapped(SocketAddr),
    /// Allocate.
    Allocated(Allocated),
    /// Refresh: seconds, 0 for "gone".
    Refreshed(u32),
    /// Connect: what ConnectionBind has to name.
    Connected(PeerConnectionId),
    /// CreatePermission, ChannelBind and ConnectionBind say nothing more.
    Done,
    /// The response follows when sockets are open, or the peer has answered.
    Later,
}

/// The success response to Allocate (RFC 8656 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// Public relayed addresses, IPv4 first.
    pub(crate) relayed: [Option<SocketAddr>; 2],
    pub(crate) mapped: SocketAddr,
    pub(crate) lifetime_secs: u32,
    pub(crate) token: Option<[u8; 8]>,
    pub(crate) address_error: Option<(Family, u16)>,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) code: u16,
    unknown: Option<UnknownAttributes>,
    alternate: Option<SocketAddr>,
}

impl Reject {
    /// An error that its code explains.
    pub(crate) const fn bare(code: u16) -> Self {
        Self {
            code,
            unknown: None,
            alternate: None,
        }
    }

    /// 420 with the names (RFC 8489 §6.3.1).
    pub(crate) const fn unknown(names: UnknownAttributes) -> Self {
        Self {
            code: error_code::UNKNOWN_ATTRIBUTE,
            unknown: Some(names),
            alternate: None,
        }
    }

    /// 300 with the server to try (RFC 8489 §10).
    pub(crate) const fn alternate(server: SocketAddr) -> Self {
        Self {
            code: error_code::TRY_ALTERNATE,
            unknown: None,
            alternate: Some(server),
        }
    }

    pub(crate) const BAD_REQUEST: Self = Self::bare(error_code::BAD_REQUEST);
}

/// What a client needs in order to ask again, signed.
pub(crate) struct Challenge<'a> {
    pub(crate) code: u16,
    pub(crate) realm: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) algorithms: Option<PasswordAlgorithms<'static>>,
}

impl Challenge<'_> {
    /// Bytes of an unsigned challenge, so that it can be left out before it is made.
    pub(crate) fn len(realm: &str, algorithms: Option<PasswordAlgorithms<'static>>) -> usize {
        let padded = |len: usize| 4 + len.next_multiple_of(4);
        let list = algorithms.map_or(0, |list| padded(list.as_bytes().len()));
        20 + padded(4) + padded(realm.len()) + padded(Nonces::LEN) + list
    }
}

impl Envelope {
    /// Bytes of a FINGERPRINT.
    pub(crate) const FINGERPRINT_LEN: usize = 8;

    pub(crate) fn success(&self, out: &mut Vec<u8>, answer: &Answer) {
        self.write(out, Class::Success, |writer| match answer {
            Answer::Mapped(addr) => {
                writer.attribute(&XorMappedAddress(*addr));
            }
            Answer::Allocated(allocated) => write_allocated(writer, allocated),
            Answer::Refreshed(seconds) => {
                writer.attribute(&Lifetime(*seconds));
            }
            Answer::Connected(connection) => {
                writer.attribute(&ConnectionId(connection.0));
            }
            Answer::Done | Answer::Later => {}
        });
    }

    pub(crate) fn reject(&self, out: &mut Vec<u8>, reject: &Reject) {
        self.write(out, Class::Error, |writer| {
            writer.attribute(&ErrorCode::bare(reject.code));
            if let Some(names) = &reject.unknown {
                writer.attribute(names);
            }
            if let Some(server) = reject.alternate {
                writer.attribute(&AlternateServer(server));
            }
        });
    }

    pub(crate) fn challenge(&self, out: &mut Vec<u8>, challenge: &Challenge<'_>) {
        self.write(out, Class::Error, |writer| {
            writer
                .attribute(&ErrorCode::bare(challenge.code))
                .attribute(&Realm(challenge.realm))
                .attribute(&NonceAttribute(challenge.nonce));
            if let Some(list) = &challenge.algorithms {
                writer.attribute(list);
            }
        });
    }

    fn write(&self, out: &mut Vec<u8>, class: Class, fill: impl FnOnce(&mut MessageWriter<'_>)) {
        let mut writer = MessageWriter::new(out, class, self.method.method(), self.transaction);
        fill(&mut writer);
        if let Some(signer) = &self.signer {
            writer.integrity(&signer.key, signer.kind);
        }
        if self.fingerprint {
            writer.fingerprint();
        }
        writer.finish();
    }
}

fn write_allocated(writer: &mut MessageWriter<'_>, allocated: &Allocated) {
    for relayed in allocated.relayed.into_iter().flatten() {
        writer.attribute(&XorRelayedAddress(relayed));
    }
    writer
        .attribute(&Lifetime(allocated.lifetime_secs))
        .attribute(&XorMappedAddress(allocated.mapped));
    if let Some(token) = allocated.token {
        writer.attribute(&ReservationToken(token));
    }
    if let Some((family, code)) = allocated.address_error {
        let family = match family {
            Family::V4 => AddressFamily::Ipv4,
            Family::V6 => AddressFamily::Ipv6,
        };
        writer.attribute(&AddressErrorCode {
            family,
            code,
            reason: "",
        });
    }
}
