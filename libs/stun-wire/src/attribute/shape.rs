//! The shapes most attributes share, and a macro for each that makes a type of it.

use core::net::{IpAddr, SocketAddr};

use super::{AddressFamily, AttributeError};
use crate::{MAGIC_COOKIE, TransactionId};

/// The value as exactly `N` bytes.
pub(super) fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], AttributeError> {
    value.try_into().map_err(|_| AttributeError::Length)
}

/// Reads an address (RFC 8489 section 14.1): a byte to ignore, family, port, address.
pub(super) fn parse_address(value: &[u8]) -> Result<SocketAddr, AttributeError> {
    let ([_, family, p0, p1], address) = value.split_first_chunk().ok_or(AttributeError::Length)?;
    let ip = match AddressFamily::from_u8(*family)? {
        AddressFamily::Ipv4 => IpAddr::from(exactly::<4>(address)?),
        AddressFamily::Ipv6 => IpAddr::from(exactly::<16>(address)?),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes([*p0, *p1])))
}

pub(super) const fn address_len(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(_) => 8,
        SocketAddr::V6(_) => 20,
    }
}

pub(super) fn write_address(out: &mut [u8], address: SocketAddr) {
    let family = AddressFamily::of(address.ip()).as_u8();
    let [p0, p1] = address.port().to_be_bytes();
    let (head, rest) = out.split_at_mut(4);
    head.copy_from_slice(&[0, family, p0, p1]);
    match address.ip() {
        IpAddr::V4(ip) => rest.copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => rest.copy_from_slice(&ip.octets()),
    }
}

/// Hides or reveals an address (RFC 8489 section 14.2): the port with the cookie's first half, an
/// IPv4 address with the cookie, an IPv6 address with cookie and transaction id.
pub(super) fn xor_address(address: SocketAddr, tx: &TransactionId) -> SocketAddr {
    let [c0, c1, c2, c3] = MAGIC_COOKIE.to_be_bytes();
    let port = address.port() ^ u16::from_be_bytes([c0, c1]);
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() ^ MAGIC_COOKIE).into()),
        IpAddr::V6(ip) => {
            let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11] = tx.0;
            let mask = [
                c0, c1, c2, c3, t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11,
            ];
            IpAddr::V6((ip.to_bits() ^ u128::from_be_bytes(mask)).into())
        }
    };
    SocketAddr::new(ip, port)
}

/// Reads a text within its bounds: RFC 8489 counts some in bytes, some in characters.
pub(super) fn parse_text(
    value: &[u8],
    max_bytes: usize,
    max_chars: usize,
) -> Result<&str, AttributeError> {
    if value.len() > max_bytes {
        return Err(AttributeError::Length);
    }
    let text = core::str::from_utf8(value).map_err(|_| AttributeError::Utf8)?;
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(AttributeError::Length);
    }
    Ok(text)
}

/// Reads class, number and reason of an error, which follow two bytes (RFC 8489 section 14.8).
pub(super) fn parse_error(value: &[u8]) -> Result<(u16, &str), AttributeError> {
    let ([class, number], reason) = value.split_first_chunk().ok_or(AttributeError::Length)?;
    let (class, number) = (u16::from(class & 0x07), u16::from(*number));
    if !(3..=6).contains(&class) || number > 99 {
        return Err(AttributeError::Value);
    }
    Ok((
        class * 100 + number,
        parse_text(reason, MAX_PHRASE_BYTES, MAX_PHRASE_CHARS)?,
    ))
}

/// Writes what [`parse_error`] reads. Codes outside 300 to 699 do not exist; they are written as
/// the nearest one.
pub(super) fn write_error(out: &mut [u8], code: u16, reason: &str) {
    let code = code.clamp(300, 699);
    let (head, rest) = out.split_at_mut(2);
    let [_, class] = (code / 100).to_be_bytes();
    let [_, number] = (code % 100).to_be_bytes();
    head.copy_from_slice(&[class, number]);
    rest.copy_from_slice(reason.as_bytes());
}

/// "Fewer than 128 characters (which can be as long as 509 bytes when encoding them or 763 bytes
/// when decoding them)": REALM, NONCE, SOFTWARE and the reason phrase.
pub(super) const MAX_PHRASE_BYTES: usize = 763;
pub(super) const MAX_PHRASE_CHARS: usize = 127;

/// An address in clear.
macro_rules! address_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub core::net::SocketAddr);

        impl $crate::Attribute<'_> for $name {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &[u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                $crate::attribute::shape::parse_address(value).map(Self)
            }

            fn len(&self) -> usize {
                $crate::attribute::shape::address_len(self.0)
            }

            fn write(&self, out: &mut [u8], _: &$crate::TransactionId) {
                $crate::attribute::shape::write_address(out, self.0);
            }
        }
    };
}

/// An address XORed with cookie and transaction id.
macro_rules! xor_address_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub core::net::SocketAddr);

        impl $crate::Attribute<'_> for $name {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &[u8],
                tx: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                let hidden = $crate::attribute::shape::parse_address(value)?;
                Ok(Self($crate::attribute::shape::xor_address(hidden, tx)))
            }

            fn len(&self) -> usize {
                $crate::attribute::shape::address_len(self.0)
            }

            fn write(&self, out: &mut [u8], tx: &$crate::TransactionId) {
                let hidden = $crate::attribute::shape::xor_address(self.0, tx);
                $crate::attribute::shape::write_address(out, hidden);
            }
        }
    };
}

/// UTF-8 of a bounded length.
macro_rules! text_attribute {
    (
        $(#[$doc:meta])*
        $name:ident = $kind:ident, max_bytes: $bytes:expr, max_chars: $chars:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name<'a>(pub &'a str);

        impl<'a> $crate::Attribute<'a> for $name<'a> {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &'a [u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                $crate::attribute::shape::parse_text(value, $bytes, $chars).map(Self)
            }

            fn len(&self) -> usize {
                self.0.len()
            }

            fn write(&self, out: &mut [u8], _: &$crate::TransactionId) {
                out.copy_from_slice(self.0.as_bytes());
            }
        }
    };
}

/// Bytes that mean something to someone else.
macro_rules! bytes_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name<'a>(pub &'a [u8]);

        impl<'a> $crate::Attribute<'a> for $name<'a> {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &'a [u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                Ok(Self(value))
            }

            fn len(&self) -> usize {
                self.0.len()
            }

            fn write(&self, out: &mut [u8], _: &$crate::TransactionId) {
                out.copy_from_slice(self.0);
            }
        }
    };
}

/// An array of a fixed size.
macro_rules! array_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $crate::Attribute<'_> for $name {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &[u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                $crate::attribute::shape::exactly(value).map(Self)
            }

            fn len(&self) -> usize {
                $len
            }

            fn write(&self, out: &mut [u8], _: &$crate::TransactionId) {
                out.copy_from_slice(&self.0);
            }
        }
    };
}

/// A number in network order.
macro_rules! number_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident, $number:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub $number);

        impl $crate::Attribute<'_> for $name {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &[u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                let bytes = $crate::attribute::shape::exactly(value)?;
                Ok(Self(<$number>::from_be_bytes(bytes)))
            }

            fn len(&self) -> usize {
                size_of::<$number>()
            }

            fn write(&self, out: &mut [u8], _: &$crate::TransactionId) {
                out.copy_from_slice(&self.0.to_be_bytes());
            }
        }
    };
}

/// No value: being there is all it says.
macro_rules! flag_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name;

        impl $crate::Attribute<'_> for $name {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &[u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                $crate::attribute::shape::exactly::<0>(value).map(|_| Self)
            }

            fn len(&self) -> usize {
                0
            }

            fn write(&self, _: &mut [u8], _: &$crate::TransactionId) {}
        }
    };
}

/// A family and three bytes to ignore.
macro_rules! family_attribute {
    ($(#[$doc:meta])* $name:ident = $kind:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub $crate::attribute::AddressFamily);

        impl $crate::Attribute<'_> for $name {
            const TYPE: $crate::AttributeType = $crate::AttributeType::$kind;

            fn parse(
                value: &[u8],
                _: &$crate::TransactionId,
            ) -> Result<Self, $crate::AttributeError> {
                let [family, ..] = $crate::attribute::shape::exactly::<4>(value)?;
                $crate::attribute::AddressFamily::from_u8(family).map(Self)
            }

            fn len(&self) -> usize {
                4
            }

            fn write(&self, out: &mut [u8], _: &$crate::TransactionId) {
                out.copy_from_slice(&[self.0.as_u8(), 0, 0, 0]);
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const TX: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");

    #[test]
    fn xor_hides_addresses_as_in_rfc5769() {
        let hidden = |text: &str| xor_address(text.parse().expect("an address"), &TX);
        // RFC 5769 sections 2.2 and 2.3.
        assert_eq!(
            hidden("192.0.2.1:32853"),
            "225.18.166.67:41287".parse().expect("an address")
        );
        let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
        assert_eq!(
            hidden(v6),
            "[113:a9fa:a5d3:f179:bc25:f4b5:bed2:b9d9]:41287"
                .parse()
                .expect("an address")
        );
    }

    #[test]
    fn address_needs_its_family_and_exact_length() {
        assert_eq!(
            parse_address(&[0xFF, 1, 0, 80, 127, 0, 0, 1]),
            Ok("127.0.0.1:80".parse().expect("an address"))
        );
        assert_eq!(
            parse_address(&[0, 3, 0, 80, 127, 0, 0, 1]),
            Err(AttributeError::Family)
        );
        assert_eq!(
            parse_address(&[0, 2, 0, 80, 127, 0, 0, 1]),
            Err(AttributeError::Length)
        );
        assert_eq!(
            parse_address(&[0, 1, 0, 80, 127, 0, 0, 1, 0]),
            Err(AttributeError::Length)
        );
        assert_eq!(parse_address(&[0, 1, 0]), Err(AttributeError::Length));
    }

    #[test]
    fn text_is_counted_in_bytes_and_in_characters() {
        assert_eq!(parse_text(b"abc", 3, 3), Ok("abc"));
        assert_eq!(parse_text(b"abcd", 3, 9), Err(AttributeError::Length));
        assert_eq!(parse_text("äöü".as_bytes(), 6, 3), Ok("äöü"));
        assert_eq!(
            parse_text("äöü".as_bytes(), 6, 2),
            Err(AttributeError::Length)
        );
        assert_eq!(parse_text(b"\xFF", 3, 3), Err(AttributeError::Utf8));
    }
}
