//! What a client asks, in fluent lines: `allocate().even_port(true).lifetime(0)`.

use std::net::SocketAddr;

use stun_wire::attribute::{
    AdditionalAddressFamily, AddressFamily, Attribute, ChannelNumberAttribute, ConnectionId,
    DontFragment, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport, ReservationToken,
    XorPeerAddress,
};
use stun_wire::{AttributeType, Class, MessageWriter, Method, TransactionId};

use super::addr;

/// A message before it has credentials and a transaction id.
#[derive(Clone)]
pub struct Ask {
    pub class: Class,
    pub method: Method,
    pub attributes: Vec<Piece>,
    pub fingerprint: bool,
}

#[derive(Clone)]
pub enum Piece {
    Raw(AttributeType, Vec<u8>),
    Peer(SocketAddr),
}

pub fn allocate() -> Ask {
    Ask::request(Method::ALLOCATE).transport(RequestedTransport::UDP.0)
}

pub fn allocate_tcp() -> Ask {
    Ask::request(Method::ALLOCATE).transport(RequestedTransport::TCP.0)
}

pub fn connect(peer: &str) -> Ask {
    Ask::request(Method::CONNECT).peer(addr(peer))
}

pub fn connection_bind(connection: u32) -> Ask {
    Ask::request(Method::CONNECTION_BIND).with(&ConnectionId(connection))
}

pub fn refresh() -> Ask {
    Ask::request(Method::REFRESH)
}

pub fn create_permission(peers: &[&str]) -> Ask {
    peers
        .iter()
        .fold(Ask::request(Method::CREATE_PERMISSION), |ask, peer| {
            ask.peer(addr(peer))
        })
}

pub fn channel_bind(number: u16, peer: &str) -> Ask {
    Ask::request(Method::CHANNEL_BIND)
        .channel(number)
        .peer(addr(peer))
}

pub fn binding() -> Ask {
    Ask::request(Method::BINDING)
}

impl Ask {
    pub fn request(method: Method) -> Self {
        Self {
            class: Class::Request,
            method,
            attributes: Vec::new(),
            fingerprint: false,
        }
    }

    pub fn indication(method: Method) -> Self {
        Self {
            class: Class::Indication,
            ..Self::request(method)
        }
    }

    pub fn raw(mut self, kind: AttributeType, value: &[u8]) -> Self {
        self.attributes.push(Piece::Raw(kind, value.to_vec()));
        self
    }

    pub fn with<'a>(self, attribute: &impl Attribute<'a>) -> Self {
        fn value<'a, A: Attribute<'a>>(attribute: &A) -> (AttributeType, Vec<u8>) {
            let mut bytes = vec![0; attribute.len()];
            attribute.write(&mut bytes, &TransactionId([0; 12]));
            (A::TYPE, bytes)
        }
        let (kind, bytes) = value(attribute);
        self.raw(kind, &bytes)
    }

    /// Takes out every attribute of that type.
    pub fn without(mut self, kind: AttributeType) -> Self {
        self.attributes.retain(|piece| match piece {
            Piece::Raw(known, _) => *known != kind,
            Piece::Peer(_) => kind != AttributeType::XOR_PEER_ADDRESS,
        });
        self
    }

    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.attributes.push(Piece::Peer(peer));
        self
    }

    pub fn transport(self, protocol: u8) -> Self {
        self.with(&RequestedTransport(protocol))
    }

    pub fn channel(self, number: u16) -> Self {
        self.with(&ChannelNumberAttribute(number))
    }

    pub fn lifetime(self, seconds: u32) -> Self {
        self.with(&Lifetime(seconds))
    }

    pub fn family(self, family: AddressFamily) -> Self {
        self.with(&RequestedAddressFamily(family))
    }

    pub fn additional_family(self, family: AddressFamily) -> Self {
        self.with(&AdditionalAddressFamily(family))
    }

    pub fn even_port(self, reserve: bool) -> Self {
        self.with(&EvenPort { reserve })
    }

    pub fn token(self, token: [u8; 8]) -> Self {
        self.with(&ReservationToken(token))
    }

    pub fn dont_fragment(self) -> Self {
        self.with(&DontFragment)
    }

    pub fn fingerprint(mut self) -> Self {
        self.fingerprint = true;
        self
    }

    /// The message up to its credentials.
    pub fn start<'b>(&self, out: &'b mut Vec<u8>, transaction: TransactionId) -> MessageWriter<'b> {
        let mut writer = MessageWriter::new(out, self.class, self.method, transaction);
        for piece in &self.attributes {
            match piece {
                Piece::Raw(kind, value) => writer.raw(*kind, value),
                Piece::Peer(peer) => writer.attribute(&XorPeerAddress(*peer)),
            };
        }
        writer
    }

    /// The message without credentials.
    pub fn unsigned(&self, transaction: TransactionId) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = self.start(&mut out, transaction);
        if self.fingerprint {
            writer.fingerprint();
        }
        writer.finish();
        out
    }
}
