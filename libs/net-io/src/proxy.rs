//! The PROXY protocol, version 2: what a load balancer says of a connection before the connection's own
//! bytes (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, section 2.2).
//!
//! ```text
//!  signature (12)  version|command (1)  family|protocol (1)  length (2)
//!  source, destination: 4 + 4 + 2 + 2 or 16 + 16 + 2 + 2       length counts from here …
//!  TLVs: passed over unread                                    … to here
//! ```
//!
//! Only the addresses are kept, in place: a header costs [`KEPT`] bytes whatever it says of its length.
//! Whom to believe is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A whole header is never longer, its TLVs included. The TLVs in use (authority, TLS details, a cloud's
/// endpoint id) come to some hundred bytes.
pub const LONGEST_HEADER: usize = 2048;

/// What every header of version 2 begins with. No STUN message and no TLS record does.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// How a header of version 1 begins.
const VERSION_1: &[u8] = b"PROXY ";

const FIXED: usize = 16;
const V4_ADDRESSES: usize = 12;
const V6_ADDRESSES: usize = 36;
/// What is kept of a header: its fixed part and the longer addresses.
const KEPT: usize = FIXED + V6_ADDRESSES;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself, such as to see whether somebody listens.
    Local,
    /// It speaks for a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// Why something is no header that can be used; the connection has no meaning then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    /// It begins with something else.
    Missing,
    /// It is one of version 1.
    Version1,
    /// Another version, another command, or addresses that its length has no room for.
    Malformed,
    /// Longer than [`LONGEST_HEADER`].
    TooLong,
    /// Of a connection that is neither TCP over IPv4 nor TCP over IPv6.
    Unsupported,
    /// A client at an address that nobody has: unspecified, multicast, port 0.
    BadSource,
}

/// Reads one header, in whatever pieces it comes.
#[derive(Debug, Clone)]
pub struct HeaderReader {
    kept: [u8; KEPT],
    len: usize,
    /// Bytes of the header that are passed over; known once its fixed part is there.
    skip: usize,
    /// Bytes of the header to keep.
    wanted: usize,
}

impl Default for HeaderReader {
    fn default() -> Self {
        Self {
            kept: [0; KEPT],
            len: 0,
            skip: 0,
            wanted: FIXED,
        }
    }
}

impl HeaderReader {
    /// Takes what belongs to the header from the start of `input`, which is shortened by it. `None`: all of
    /// `input` is taken, and the header goes on.
    ///
    /// # Errors
    /// As soon as the bytes cannot become a header.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Header>, ProxyError> {
        while self.len < self.wanted {
            if input.is_empty() {
                return Ok(None);
            }
            self.keep(input);
            self.check_signature()?;
            if self.len == FIXED {
                self.plan()?;
            }
        }
        let skipped = self.skip.min(input.len());
        *input = input.get(skipped..).unwrap_or_default();
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        self.header().map(Some)
    }

    fn keep(&mut self, input: &mut &[u8]) {
        let (taken, rest) = input.split_at((self.wanted - self.len).min(input.len()));
        if let Some(into) = self.kept.get_mut(self.len..self.len + taken.len()) {
            into.copy_from_slice(taken);
        }
        self.len += taken.len();
        *input = rest;
    }

    fn bytes(&self) -> &[u8] {
        self.kept.get(..self.len).unwrap_or_default()
    }

    fn check_signature(&self) -> Result<(), ProxyError> {
        let bytes = self.bytes();
        if bytes
            .iter()
            .zip(SIGNATURE)
            .all(|(is, should)| *is == should)
        {
            return Ok(());
        }
        let begins_like_version_1 = bytes.iter().zip(VERSION_1).all(|(is, should)| is == should);
        match bytes.len() >= VERSION_1.len() {
            true if begins_like_version_1 => Err(ProxyError::Version1),
            // It may become one: the operator is told which mistake it is.
            false if begins_like_version_1 => Ok(()),
            true | false => Err(ProxyError::Missing),
        }
    }

    /// Finds in the fixed part how much follows and what of it is to be kept.
    fn plan(&mut self) -> Result<(), ProxyError> {
        let [version_and_command, family, high, low] = self.array(SIGNATURE.len());
        let length = usize::from(u16::from_be_bytes([high, low]));
        let addresses = match (version_and_command, family) {
            // Section 2.2: the receiver ignores what a LOCAL header says of addresses.
            (0x20, _) => 0,
            (0x21, 0x11) => V4_ADDRESSES,
            (0x21, 0x21) => V6_ADDRESSES,
            (0x21, _) => return Err(ProxyError::Unsupported),
            _ => return Err(ProxyError::Malformed),
        };
        if FIXED + length > LONGEST_HEADER {
            return Err(ProxyError::TooLong);
        }
        self.skip = length.checked_sub(addresses).ok_or(ProxyError::Malformed)?;
        self.wanted = FIXED + addresses;
        Ok(())
    }

    /// What the header says, once all of it is there.
    fn header(&self) -> Result<Header, ProxyError> {
        let (source, destination): (IpAddr, IpAddr) = match self.wanted - FIXED {
            V4_ADDRESSES => (
                Ipv4Addr::from(self.array(FIXED)).into(),
                Ipv4Addr::from(self.array(FIXED + 4)).into(),
            ),
            V6_ADDRESSES => (
                // A proxy that listens for both families on one socket writes IPv4 clients as mapped.
                Ipv6Addr::from(self.array(FIXED)).to_canonical(),
                Ipv6Addr::from(self.array(FIXED + 16)).to_canonical(),
            ),
            _ => return Ok(Header::Local),
        };
        let ports = self.array(self.wanted - 4);
        let [s0, s1, d0, d1] = ports;
        let source = SocketAddr::new(source, u16::from_be_bytes([s0, s1]));
        if source.ip().is_unspecified() || source.ip().is_multicast() || source.port() == 0 {
            return Err(ProxyError::BadSource);
        }
        Ok(Header::Proxied {
            source,
            destination: SocketAddr::new(destination, u16::from_be_bytes([d0, d1])),
        })
    }

    /// Kept bytes from `at` on.
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.kept.get(at..).and_then(<[u8]>::first_chunk);
        *bytes.expect("every offset here is inside of what is kept")
    }
}

/// Writes the header that a proxy sends in front of a connection from `source` to `destination`; for tests
/// and load generators. Addresses of two families become IPv6.
#[must_use]
pub fn header_for(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let ports = [
        source.port().to_be_bytes(),
        destination.port().to_be_bytes(),
    ]
    .concat();
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) {
        header.extend([0x21, 0x11, 0, 12]);
        header.extend([from.octets(), to.octets()].concat());
    } else {
        header.extend([0x21, 0x21, 0, 36]);
        for ip in [source.ip(), destination.ip()] {
            header.extend(match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            });
        }
    }
    header.extend(ports);
    header
}

#[cfg(test)]
mod tests;
