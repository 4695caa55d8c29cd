//! A response, taken apart so that tests compare values.

use std::net::SocketAddr;

use stun_wire::attribute::{
    AddressErrorCode, AddressFamily, AlternateServer, ConnectionId, Data, ErrorCode, Icmp,
    Lifetime, Nonce, PasswordAlgorithms, Realm, ReservationToken, XorMappedAddress, XorPeerAddress,
    XorRelayedAddress,
};
use stun_wire::{
    Attribute, AttributeType, Class, IntegrityKey, IntegrityKind, Message, Method, TransactionId,
    UnknownAttributes,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub class: Class,
    pub method: Method,
    pub transaction: TransactionId,
    /// `None`: success.
    pub code: Option<u16>,
    pub relayed: Vec<SocketAddr>,
    pub mapped: Option<SocketAddr>,
    pub lifetime: Option<u32>,
    pub token: Option<[u8; 8]>,
    pub connection: Option<u32>,
    pub address_error: Option<(AddressFamily, u16)>,
    pub unknown: Vec<u16>,
    pub realm: Option<String>,
    pub nonce: Option<String>,
    pub algorithms: Option<Vec<u8>>,
    pub alternate: Option<SocketAddr>,
    pub signature: Option<IntegrityKind>,
    pub fingerprint: bool,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let message = Message::parse(bytes).expect("a relay sends well-formed messages");
        fn get<'a, A: Attribute<'a>>(message: &Message<'a>) -> Option<A> {
            message
                .attribute::<A>()
                .expect("a relay sends well-formed attributes")
        }
        assert!(!message.contains(AttributeType::SOFTWARE), "no banner");
        let error = get::<ErrorCode<'_>>(&message);
        assert!(
            error.is_none_or(|error| error.reason.is_empty()),
            "no reason phrase"
        );
        assert_eq!(error.is_some(), message.class() == Class::Error);
        let relayed = message
            .attributes()
            .filter(|attribute| attribute.kind == AttributeType::XOR_RELAYED_ADDRESS)
            .map(|attribute| {
                let parsed = XorRelayedAddress::parse(attribute.value, &message.transaction_id());
                parsed.expect("an address").0
            })
            .collect();
        Self {
            class: message.class(),
            method: message.method(),
            transaction: message.transaction_id(),
            code: error.map(|error| error.code),
            relayed,
            mapped: get::<XorMappedAddress>(&message).map(|mapped| mapped.0),
            lifetime: get::<Lifetime>(&message).map(|lifetime| lifetime.0),
            token: get::<ReservationToken>(&message).map(|token| token.0),
            connection: get::<ConnectionId>(&message).map(|connection| connection.0),
            address_error: get::<AddressErrorCode<'_>>(&message)
                .map(|error| (error.family, error.code)),
            unknown: get::<UnknownAttributes>(&message)
                .map(|names| names.iter().map(|name| name.0).collect())
                .unwrap_or_default(),
            realm: get::<Realm<'_>>(&message).map(|realm| realm.0.to_owned()),
            nonce: get::<Nonce<'_>>(&message).map(|nonce| nonce.0.to_owned()),
            algorithms: get::<PasswordAlgorithms<'_>>(&message)
                .map(|list| list.as_bytes().to_vec()),
            alternate: get::<AlternateServer>(&message).map(|server| server.0),
            signature: message.integrity(),
            fingerprint: message.has_fingerprint(),
            bytes: bytes.to_vec(),
        }
    }

    pub fn is_signed_by(&self, key: &IntegrityKey) -> bool {
        let message = Message::parse(&self.bytes).expect("parsed before");
        self.signature
            .is_some_and(|kind| message.verify_integrity(key, kind).is_ok())
    }

    /// The one relayed address.
    pub fn relayed(&self) -> SocketAddr {
        assert_eq!(self.code, None, "not a success: {self:?}");
        let [relayed] = self.relayed[..] else {
            panic!("not one address: {self:?}")
        };
        relayed
    }
}

/// What a Data indication carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indication {
    pub peer: SocketAddr,
    pub data: Option<Vec<u8>>,
    pub icmp: Option<Icmp>,
}

impl Indication {
    pub fn parse(bytes: &[u8]) -> Self {
        let message = Message::parse(bytes).expect("a relay sends well-formed messages");
        assert_eq!(
            (message.class(), message.method()),
            (Class::Indication, Method::DATA)
        );
        let peer = message
            .attribute::<XorPeerAddress>()
            .expect("well-formed")
            .expect("there")
            .0;
        let data = message.attribute::<Data<'_>>().expect("well-formed");
        let icmp = message.attribute::<Icmp>().expect("well-formed");
        Self {
            peer,
            data: data.map(|data| data.0.to_vec()),
            icmp,
        }
    }
}

/// What a ConnectionAttempt indication tells (RFC 6062 §6.1): the peer, and the connection's id.
pub fn attempt(bytes: &[u8]) -> (SocketAddr, u32) {
    let message = Message::parse(bytes).expect("a relay sends well-formed messages");
    assert_eq!(
        (message.class(), message.method()),
        (Class::Indication, Method::CONNECTION_ATTEMPT)
    );
    let peer = message.attribute::<XorPeerAddress>().expect("well-formed");
    let connection = message.attribute::<ConnectionId>().expect("well-formed");
    (peer.expect("there").0, connection.expect("there").0)
}
