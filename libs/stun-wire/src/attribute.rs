//! The attributes, one file each: what its value means, and how it stands on the wire.
//!
//! Most of them have one of a few shapes (an address, a text, a number), which `shape` writes once.
//! All implement [`Attribute`], by which [`Message::attribute`](crate::Message::attribute) reads
//! and [`MessageWriter::attribute`](crate::MessageWriter::attribute) writes them.

use core::fmt;

use crate::{AttributeType, TransactionId};

#[macro_use]
mod shape;

/// Declares the files of this folder and publishes what is in them.
macro_rules! attributes {
    ($($file:ident: $($name:ident),+;)*) => {
        $(mod $file; pub use $file::{$($name),+};)*
    };
}

// RFC 8489.
attributes! {
    alternate_domain: AlternateDomain;
    alternate_server: AlternateServer;
    error_code: ErrorCode;
    fingerprint: Fingerprint;
    mapped_address: MappedAddress;
    message_integrity: MessageIntegrity;
    message_integrity_sha256: MessageIntegritySha256;
    nonce: Nonce;
    password_algorithm: PasswordAlgorithm;
    password_algorithms: PasswordAlgorithms, PasswordAlgorithmsIter;
    realm: Realm;
    software: Software;
    unknown_attributes: UnknownAttributes;
    userhash: Userhash;
    username: Username;
    xor_mapped_address: XorMappedAddress;
}

// RFC 8656.
attributes! {
    additional_address_family: AdditionalAddressFamily;
    address_error_code: AddressErrorCode;
    channel_number: ChannelNumberAttribute;
    data: Data;
    dont_fragment: DontFragment;
    even_port: EvenPort;
    icmp: Icmp;
    lifetime: Lifetime;
    requested_address_family: RequestedAddressFamily;
    requested_transport: RequestedTransport;
    reservation_token: ReservationToken;
    xor_peer_address: XorPeerAddress;
    xor_relayed_address: XorRelayedAddress;
}

// RFC 8445.
attributes! {
    ice_controlled: IceControlled;
    ice_controlling: IceControlling;
    priority: Priority;
    use_candidate: UseCandidate;
}

// RFC 5780.
attributes! {
    change_request: ChangeRequest;
    other_address: OtherAddress;
    padding: Padding;
    response_origin: ResponseOrigin;
    response_port: ResponsePort;
}

// RFC 6062 and RFC 8016.
attributes! {
    connection_id: ConnectionId;
    mobility_ticket: MobilityTicket;
}

/// One attribute's value, typed.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length written, not a collection's"
)]
pub trait Attribute<'a>: Sized {
    /// Its number.
    const TYPE: AttributeType;

    /// Reads a value, which comes without padding. The transaction id is what addresses are XORed
    /// with.
    ///
    /// # Errors
    ///
    /// The bytes are no such value.
    fn parse(value: &'a [u8], tx: &TransactionId) -> Result<Self, AttributeError>;

    /// How many bytes [`Self::write`] writes.
    fn len(&self) -> usize;

    /// Writes the value.
    ///
    /// # Panics
    ///
    /// If `out` is not [`Self::len`] bytes long.
    fn write(&self, out: &mut [u8], tx: &TransactionId);
}

/// Why some bytes are not the value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttributeError {
    /// Too short or too long.
    Length,
    /// The address family is neither IPv4 nor IPv6.
    Family,
    /// The text is not UTF-8.
    Utf8,
    /// A number is out of its range.
    Value,
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the value has a wrong length",
            Self::Family => "the address family is unknown",
            Self::Utf8 => "the text is not UTF-8",
            Self::Value => "a number is out of range",
        })
    }
}

impl core::error::Error for AttributeError {}

/// The address families of STUN (RFC 8489 section 14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressFamily {
    /// 0x01
    Ipv4,
    /// 0x02
    Ipv6,
}

impl AddressFamily {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(_) => Self::Ipv4,
            core::net::IpAddr::V6(_) => Self::Ipv6,
        }
    }

    const fn from_u8(number: u8) -> Result<Self, AttributeError> {
        match number {
            1 => Ok(Self::Ipv4),
            2 => Ok(Self::Ipv6),
            _ => Err(AttributeError::Family),
        }
    }

    const fn as_u8(self) -> u8 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
        }
    }
}
