//! The names of attributes (RFC 8489 section 18.3 and the registries of the RFCs that add to it).

use core::fmt;

/// The 16-bit number of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType(pub u16);

impl AttributeType {
    /// Whether a receiver that does not know it must refuse the message: the lower half of the
    /// numbers.
    #[must_use]
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }

    /// Whether it signs or ends a message, and so is seen even behind the signature.
    pub(crate) const fn is_trailer(self) -> bool {
        matches!(
            self,
            Self::MESSAGE_INTEGRITY | Self::MESSAGE_INTEGRITY_SHA256 | Self::FINGERPRINT
        )
    }
}

macro_rules! attribute_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl AttributeType {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every named attribute.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in the RFCs, if it is one of those above.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    Self(_) => None,
                }
            }
        }
    };
}

attribute_types! {
    /// RFC 8489: the sender's address in clear.
    MAPPED_ADDRESS = 0x0001, "MAPPED-ADDRESS";
    /// RFC 5780: answer from another address or port.
    CHANGE_REQUEST = 0x0003, "CHANGE-REQUEST";
    /// RFC 8489: who signs.
    USERNAME = 0x0006, "USERNAME";
    /// RFC 8489: HMAC-SHA1 of the message.
    MESSAGE_INTEGRITY = 0x0008, "MESSAGE-INTEGRITY";
    /// RFC 8489: why not.
    ERROR_CODE = 0x0009, "ERROR-CODE";
    /// RFC 8489: what was not understood.
    UNKNOWN_ATTRIBUTES = 0x000A, "UNKNOWN-ATTRIBUTES";
    /// RFC 8656: the channel to bind.
    CHANNEL_NUMBER = 0x000C, "CHANNEL-NUMBER";
    /// RFC 8656: seconds an allocation lasts.
    LIFETIME = 0x000D, "LIFETIME";
    /// RFC 8656: a peer's address.
    XOR_PEER_ADDRESS = 0x0012, "XOR-PEER-ADDRESS";
    /// RFC 8656: what a peer sent or gets.
    DATA = 0x0013, "DATA";
    /// RFC 8489: the realm of long-term credentials.
    REALM = 0x0014, "REALM";
    /// RFC 8489: the server's replay guard.
    NONCE = 0x0015, "NONCE";
    /// RFC 8656: the address the relay allocated.
    XOR_RELAYED_ADDRESS = 0x0016, "XOR-RELAYED-ADDRESS";
    /// RFC 8656: the family of the address wanted.
    REQUESTED_ADDRESS_FAMILY = 0x0017, "REQUESTED-ADDRESS-FAMILY";
    /// RFC 8656: an even port, and maybe the next one.
    EVEN_PORT = 0x0018, "EVEN-PORT";
    /// RFC 8656: UDP or, by RFC 6062, TCP towards the peers.
    REQUESTED_TRANSPORT = 0x0019, "REQUESTED-TRANSPORT";
    /// RFC 8656: set the DF bit.
    DONT_FRAGMENT = 0x001A, "DONT-FRAGMENT";
    /// RFC 7635: a token in place of a password.
    ACCESS_TOKEN = 0x001B, "ACCESS-TOKEN";
    /// RFC 8489: HMAC-SHA256 of the message.
    MESSAGE_INTEGRITY_SHA256 = 0x001C, "MESSAGE-INTEGRITY-SHA256";
    /// RFC 8489: the algorithm chosen.
    PASSWORD_ALGORITHM = 0x001D, "PASSWORD-ALGORITHM";
    /// RFC 8489: who signs, hashed.
    USERHASH = 0x001E, "USERHASH";
    /// RFC 8489: the sender's address, safe from rewriting NATs.
    XOR_MAPPED_ADDRESS = 0x0020, "XOR-MAPPED-ADDRESS";
    /// RFC 8656: redeems a port reserved by EVEN-PORT.
    RESERVATION_TOKEN = 0x0022, "RESERVATION-TOKEN";
    /// RFC 8445: of the candidate a check would find.
    PRIORITY = 0x0024, "PRIORITY";
    /// RFC 8445: nominates the pair.
    USE_CANDIDATE = 0x0025, "USE-CANDIDATE";
    /// RFC 5780: makes a message long.
    PADDING = 0x0026, "PADDING";
    /// RFC 5780: answer to another port.
    RESPONSE_PORT = 0x0027, "RESPONSE-PORT";
    /// RFC 6062: names a TCP connection to a peer.
    CONNECTION_ID = 0x002A, "CONNECTION-ID";
    /// RFC 8656: also an address of the other family.
    ADDITIONAL_ADDRESS_FAMILY = 0x8000, "ADDITIONAL-ADDRESS-FAMILY";
    /// RFC 8656: the family that could not be had.
    ADDRESS_ERROR_CODE = 0x8001, "ADDRESS-ERROR-CODE";
    /// RFC 8489: the algorithms offered.
    PASSWORD_ALGORITHMS = 0x8002, "PASSWORD-ALGORITHMS";
    /// RFC 8489: the name of the server to try, for its certificate.
    ALTERNATE_DOMAIN = 0x8003, "ALTERNATE-DOMAIN";
    /// RFC 8656: an ICMP error a peer's side sent.
    ICMP = 0x8004, "ICMP";
    /// RFC 8489: the sender's program.
    SOFTWARE = 0x8022, "SOFTWARE";
    /// RFC 8489: the server to try.
    ALTERNATE_SERVER = 0x8023, "ALTERNATE-SERVER";
    /// RFC 8489: CRC-32 of the message.
    FINGERPRINT = 0x8028, "FINGERPRINT";
    /// RFC 8445: the sender is controlled.
    ICE_CONTROLLED = 0x8029, "ICE-CONTROLLED";
    /// RFC 8445: the sender controls.
    ICE_CONTROLLING = 0x802A, "ICE-CONTROLLING";
    /// RFC 5780: where the answer came from.
    RESPONSE_ORIGIN = 0x802B, "RESPONSE-ORIGIN";
    /// RFC 5780: the server's other address and port.
    OTHER_ADDRESS = 0x802C, "OTHER-ADDRESS";
    /// RFC 7635: where to get a token.
    THIRD_PARTY_AUTHORIZATION = 0x802E, "THIRD-PARTY-AUTHORIZATION";
    /// RFC 8016: moves an allocation to another 5-tuple.
    MOBILITY_TICKET = 0x8030, "MOBILITY-TICKET";
}

impl fmt::Debug for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "AttributeType({:#06x})", self.0),
        }
    }
}
