//! The 20 bytes in front of every message (RFC 8489 section 5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |0 0|  type (14 bits)           |  length of the attributes     |
//! |  magic cookie 0x2112A442                                      |
//! |  transaction id (96 bits)                                     |
//! ```

use core::fmt;

/// Bytes of a message header.
pub const HEADER_LEN: usize = 20;

/// The constant in every header that tells STUN from its neighbours on a socket.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// Whether a datagram claims to be STUN: the first two bits zero, the cookie, a length that is a
/// multiple of 4.
///
/// This is RFC 8489 section 5's test for telling it from other protocols; [`crate::Message::parse`]
/// does the rest.
#[must_use]
pub fn is_stun(bytes: &[u8]) -> bool {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return false;
    };
    let [kind, _, _, length, c0, c1, c2, c3, ..] = *header;
    kind & 0xC0 == 0 && length & 3 == 0 && [c0, c1, c2, c3] == MAGIC_COOKIE.to_be_bytes()
}

/// The 96 bits that pair an answer with its question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What kind of message it is: the two class bits of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Asks for an answer.
    Request,
    /// Wants no answer and gets none.
    Indication,
    /// Answers a request that was granted.
    Success,
    /// Answers a request that was not.
    Error,
}

/// What a message is about: the twelve method bits of the type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(u16);

impl Method {
    /// RFC 8489: what is my address as you see it?
    pub const BINDING: Self = Self(0x001);
    /// RFC 8656: give me a relayed transport address.
    pub const ALLOCATE: Self = Self(0x003);
    /// RFC 8656: prolong or end the allocation.
    pub const REFRESH: Self = Self(0x004);
    /// RFC 8656: an indication that carries data to a peer.
    pub const SEND: Self = Self(0x006);
    /// RFC 8656: an indication that carries data from a peer.
    pub const DATA: Self = Self(0x007);
    /// RFC 8656: let these peer addresses through.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// RFC 8656: give a peer a channel number.
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062: open a TCP connection to a peer.
    pub const CONNECT: Self = Self(0x00A);
    /// RFC 6062: this connection carries that peer's data.
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// RFC 6062: an indication that a peer has connected.
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// The method of that number, if it fits in twelve bits.
    #[must_use]
    pub const fn from_u16(number: u16) -> Option<Self> {
        if number > 0xFFF {
            None
        } else {
            Some(Self(number))
        }
    }

    /// Its number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Its name in the RFCs, if it is one of those above.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::BINDING => "Binding",
            Self::ALLOCATE => "Allocate",
            Self::REFRESH => "Refresh",
            Self::SEND => "Send",
            Self::DATA => "Data",
            Self::CREATE_PERMISSION => "CreatePermission",
            Self::CHANNEL_BIND => "ChannelBind",
            Self::CONNECT => "Connect",
            Self::CONNECTION_BIND => "ConnectionBind",
            Self::CONNECTION_ATTEMPT => "ConnectionAttempt",
            Self(_) => return None,
        })
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Method({:#05x})", self.0),
        }
    }
}

/// The type field: method bits with the two class bits at 0x0100 and 0x0010 between them.
pub(crate) const fn type_field(class: Class, method: Method) -> u16 {
    let class_bits = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    let m = method.0;
    class_bits | (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2)
}

/// The inverse of [`type_field`], for a field whose first two bits are zero.
pub(crate) const fn split_type_field(field: u16) -> (Class, Method) {
    let class = match (field & 0x0100 != 0, field & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    let method = (field & 0x000F) | ((field & 0x00E0) >> 1) | ((field & 0x3E00) >> 2);
    (class, Method(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_field_splits_into_what_it_was_made_of() {
        for number in 0..=0xFFF {
            let method = Method::from_u16(number).expect("twelve bits");
            for class in [
                Class::Request,
                Class::Indication,
                Class::Success,
                Class::Error,
            ] {
                let field = type_field(class, method);
                assert_eq!(field & 0xC000, 0);
                assert_eq!(split_type_field(field), (class, method));
            }
        }
        assert_eq!(Method::from_u16(0x1000), None);
    }

    #[test]
    fn type_field_has_the_values_of_the_registry() {
        assert_eq!(type_field(Class::Request, Method::BINDING), 0x0001);
        assert_eq!(type_field(Class::Success, Method::BINDING), 0x0101);
        assert_eq!(type_field(Class::Error, Method::ALLOCATE), 0x0113);
        assert_eq!(type_field(Class::Indication, Method::SEND), 0x0016);
    }

    #[test]
    fn is_stun_refuses_its_neighbours() {
        let mut bytes = [0; 20];
        bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        assert!(is_stun(&bytes));
        assert!(!is_stun(&bytes[..19]));
        for (at, value) in [(0, 0x40), (0, 0x80), (3, 1), (3, 2), (4, 0), (7, 0)] {
            let mut other = bytes;
            other[at] = value;
            assert!(!is_stun(&other), "byte {at} = {value}");
        }
    }
}
