//! The beginning of a connection: a PROXY header where one is due, then the first byte, which tells TLS
//! from what is spoken in the clear. Nothing of it is buffered but the header's addresses.

use crate::proxy::{Header, HeaderReader, ProxyError};

/// The first byte of a TLS connection: a record of handshake messages (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What may be spoken on a listener.
#[derive(Debug, Clone, Copy)]
pub enum Spoken {
    /// In the clear.
    Plain,
    /// TLS.
    Tls,
    /// TLS, or a protocol in the clear whose first byte this accepts.
    Either(fn(u8) -> bool),
}

/// How connections of a listener begin.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// What may be spoken.
    pub spoken: Spoken,
    /// Whether a PROXY header comes first.
    pub is_proxied: bool,
}

impl Door {
    /// What every connection is, if nothing needs to be read to know it.
    #[must_use]
    pub fn known_at_once(self) -> Option<Opened> {
        let is_tls = match self.spoken {
            Spoken::Plain => false,
            Spoken::Tls => true,
            Spoken::Either(_) => return None,
        };
        let header = None;
        (!self.is_proxied).then_some(Opened { header, is_tls })
    }
}

/// What a connection has turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What the proxy said, where one speaks.
    pub header: Option<Header>,
    /// TLS, not the clear.
    pub is_tls: bool,
}

/// Why a connection cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpeningError {
    /// No PROXY header where one is due.
    Proxy(ProxyError),
    /// Neither TLS nor the protocol in the clear.
    Unknown,
}

/// A connection that is not decided yet.
#[derive(Debug, Clone)]
pub struct Opening {
    spoken: Spoken,
    reader: Option<HeaderReader>,
    header: Option<Header>,
}

impl Opening {
    /// Of a connection that has sent nothing yet.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self {
            spoken: door.spoken,
            reader: door.is_proxied.then(HeaderReader::default),
            header: None,
        }
    }

    /// What the proxy said, as soon as it has said all of it.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        self.header
    }

    /// Goes on with what was received, and takes the header from its start; the first byte behind it stays.
    /// `None`: more is needed, and all of `input` is taken.
    ///
    /// # Errors
    /// As soon as it can become nothing that is served.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Opened>, OpeningError> {
        if let Some(reader) = &mut self.reader {
            match reader.read(input).map_err(OpeningError::Proxy)? {
                None => return Ok(None),
                header => self.header = header,
            }
            self.reader = None;
        }
        let is_tls = match (self.spoken, input.first()) {
            (Spoken::Plain, _) => false,
            (Spoken::Tls, _) | (Spoken::Either(_), Some(&TLS_HANDSHAKE)) => true,
            (Spoken::Either(is_plain), Some(first)) if is_plain(*first) => false,
            (Spoken::Either(_), Some(_)) => return Err(OpeningError::Unknown),
            (Spoken::Either(_), None) => return Ok(None),
        };
        Ok(Some(Opened {
            header: self.header,
            is_tls,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::header_for;

    const STUN_OR_TLS: Spoken = Spoken::Either(|first| first <= 3);

    fn opening(spoken: Spoken, is_proxied: bool) -> Opening {
        Opening::new(Door { spoken, is_proxied })
    }

    fn header() -> (Vec<u8>, Header) {
        let (source, destination) = (
            "192.0.2.7:50000".parse().unwrap(),
            "198.51.100.1:443".parse().unwrap(),
        );
        let proxied = Header::Proxied {
            source,
            destination,
        };
        (header_for(source, destination), proxied)
    }

    #[test]
    fn the_first_byte_decides_and_stays() {
        for (bytes, is_tls) in [([0x16, 3], true), ([0, 1], false), ([3, 0], false)] {
            let mut opening = opening(STUN_OR_TLS, false);
            assert_eq!(opening.read(&mut &[][..]), Ok(None));
            let mut input = &bytes[..];
            let opened = opening.read(&mut input).unwrap().unwrap();
            assert_eq!((opened.header, opened.is_tls), (None, is_tls));
            assert_eq!(input, bytes);
        }
        for first in (4..=255).filter(|first| *first != 0x16) {
            let mut opening = opening(STUN_OR_TLS, false);
            let outcome = opening.read(&mut &[first][..]);
            assert_eq!(outcome, Err(OpeningError::Unknown), "{first:#x}");
        }
    }

    #[test]
    fn a_header_comes_first_however_it_is_cut() {
        let (bytes, proxied) = header();
        let stream = [&bytes[..], &[0x16, 3, 1]].concat();
        for size in 1..=stream.len() {
            let mut opening = opening(STUN_OR_TLS, true);
            let mut opened = None;
            let mut left = Vec::new();
            for chunk in stream.chunks(size) {
                let mut input = chunk;
                if opened.is_none() {
                    opened = opening.read(&mut input).unwrap();
                }
                left.extend_from_slice(input);
            }
            let expected = Opened {
                header: Some(proxied),
                is_tls: true,
            };
            assert_eq!(opened, Some(expected), "in pieces of {size}");
            assert_eq!(left, [0x16, 3, 1], "in pieces of {size}");
        }
    }

    #[test]
    fn one_protocol_needs_no_first_byte() {
        let known = |spoken, is_proxied| Door { spoken, is_proxied }.known_at_once();
        for (spoken, is_tls) in [(Spoken::Plain, false), (Spoken::Tls, true)] {
            let opened = known(spoken, false).unwrap();
            assert_eq!((opened.header, opened.is_tls), (None, is_tls));
            assert_eq!(known(spoken, true), None);
            let (bytes, proxied) = header();
            let opened = opening(spoken, true).read(&mut &bytes[..]);
            let header = Some(proxied);
            assert_eq!(opened, Ok(Some(Opened { header, is_tls })));
        }
        assert_eq!(known(STUN_OR_TLS, false), None);
    }
}
