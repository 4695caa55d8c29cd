//! RFC 5780: four endpoints that answer for each other, so that a client can tell how its NAT maps and
//! filters.
//!
//! ```text
//!              port 1     port 2
//! address 1     A1:P1      A1:P2       the other of A1:P1 is A2:P2, that of A1:P2 is A2:P1
//! address 2     A2:P1      A2:P2
//! ```
//!
//! An answer that leaves from elsewhere, or goes elsewhere, than its request says has a limit of its own
//! (see `limits.rs`): it is what a stranger could abuse.

use std::net::SocketAddr;

use stun_wire::attribute::{
    ChangeRequest, MappedAddress, OtherAddress, ResponseOrigin, ResponsePort, XorMappedAddress,
};
use stun_wire::{
    Attribute, AttributeError, AttributeType, HEADER_LEN, Message, MessageWriter, UnknownAttributes,
};

/// Type and length of an attribute.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// FINGERPRINT with its header.
const FINGERPRINT_LEN: usize = 8;
/// What PADDING is made of, and the most of it.
const ZEROS: [u8; 2048] = [0; 2048];

/// Two addresses and two ports: the four places where a server with RFC 5780 is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    primary: SocketAddr,
    alternate: SocketAddr,
}

impl Endpoints {
    /// The four made of these two, which must be of one family and differ in address and port.
    #[must_use]
    pub fn new(primary: SocketAddr, alternate: SocketAddr) -> Option<Self> {
        let is_one_family = primary.is_ipv4() == alternate.is_ipv4();
        let differ = primary.ip() != alternate.ip() && primary.port() != alternate.port();
        (is_one_family && differ).then_some(Self { primary, alternate })
    }

    /// A1:P1, A1:P2, A2:P1, A2:P2.
    #[must_use]
    pub fn all(&self) -> [SocketAddr; 4] {
        let mixed = |ip: SocketAddr, port: SocketAddr| SocketAddr::new(ip.ip(), port.port());
        [
            self.primary,
            mixed(self.primary, self.alternate),
            mixed(self.alternate, self.primary),
            self.alternate,
        ]
    }

    /// The endpoint at our address `local`, if it is one of the four.
    pub(crate) fn at(&self, local: SocketAddr) -> Option<Endpoint> {
        let (primary, alternate) = (self.primary, self.alternate);
        let ip = the_other(local.ip(), primary.ip(), alternate.ip())?;
        let port = the_other(local.port(), primary.port(), alternate.port())?;
        Some(Endpoint {
            local,
            other: SocketAddr::new(ip, port),
        })
    }
}

fn the_other<T: PartialEq>(this: T, first: T, second: T) -> Option<T> {
    if this == first {
        Some(second)
    } else {
        (this == second).then_some(first)
    }
}

/// One of the four, and the one that differs from it in address and port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint {
    local: SocketAddr,
    pub(crate) other: SocketAddr,
}

impl Endpoint {
    /// Where the answer leaves from (RFC 5780 section 6.1, table 1).
    pub(crate) fn changed(&self, change: ChangeRequest) -> SocketAddr {
        let choose = |changes| if changes { self.other } else { self.local };
        let (address, port) = (choose(change.change_ip), choose(change.change_port));
        SocketAddr::new(address.ip(), port.port())
    }
}

/// What a Binding request asks for beyond its own address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) change: ChangeRequest,
    pub(crate) response_port: Option<u16>,
    pub(crate) is_padded: bool,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 420.
    Unknown(UnknownAttributes),
    /// 400.
    BadRequest,
}

impl From<AttributeError> for Refusal {
    fn from(_: AttributeError) -> Self {
        Self::BadRequest
    }
}

impl Wishes {
    /// The attributes of RFC 5780 that a request may have.
    pub(crate) const KNOWN: [AttributeType; 3] = [
        AttributeType::CHANGE_REQUEST,
        AttributeType::RESPONSE_PORT,
        AttributeType::PADDING,
    ];

    /// Reads them from a request that was sent to one of the four.
    pub(crate) fn read(request: &Message<'_>) -> Result<Self, Refusal> {
        let change = request.attribute::<ChangeRequest>()?.unwrap_or_default();
        let response_port = request.attribute::<ResponsePort>()?.map(|port| port.0);
        let is_padded = request.contains(AttributeType::PADDING);
        // RFC 5780 section 6.1: both together MUST be answered with 400, since a large datagram would
        // go to a port that did not ask for it. To port 0 nothing can be sent.
        if response_port.is_some_and(|port| is_padded || port == 0) {
            return Err(Refusal::BadRequest);
        }
        Ok(Self {
            change,
            response_port,
            is_padded,
        })
    }
}

/// RFC 5780 section 6.1: both forms of the source, where the answer comes from, and the other of the
/// endpoint asked. If the request is padded, so is the answer. What has no room is left out, and the
/// second form of the source first.
pub(crate) fn write_success(
    writer: &mut MessageWriter<'_>,
    source: SocketAddr,
    from: SocketAddr,
    asked: &Endpoint,
    room: Room,
) {
    let (plain, xored) = (MappedAddress(source), XorMappedAddress(source));
    let (origin, other) = (ResponseOrigin(from), OtherAddress(asked.other));
    let mut length = HEADER_LEN + ATTRIBUTE_HEADER_LEN + xored.len();
    let mut takes = |value: usize| {
        let longer = length + ATTRIBUTE_HEADER_LEN + value;
        let fits = longer <= room.answer;
        length = if fits { longer } else { length };
        fits
    };
    let has_other = takes(other.len());
    let has_origin = takes(origin.len());
    let has_plain = takes(plain.len());
    writer.attribute(&xored);
    if has_plain {
        writer.attribute(&plain);
    }
    if has_origin {
        writer.attribute(&origin);
    }
    if has_other {
        writer.attribute(&other);
    }
    if let Some(zeros) = room.padding(length) {
        writer.raw(AttributeType::PADDING, zeros);
    }
}

/// How long an answer may be, before its FINGERPRINT. With PADDING it is as long as its request: RFC
/// 5780 would have the interface's MTU, which makes 57 bytes out of each one that a stranger sends in
/// somebody else's name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    answer: usize,
    padded: Option<usize>,
}

impl Room {
    /// Three times the request, which is all that is answered to anybody who asks often.
    pub(crate) fn of(request: &Message<'_>, is_padded: bool) -> Self {
        let trailer = if request.has_fingerprint() {
            FINGERPRINT_LEN
        } else {
            0
        };
        let length = request.as_bytes().len();
        Self {
            answer: (length * 3).saturating_sub(trailer),
            padded: is_padded.then(|| length.saturating_sub(trailer)),
        }
    }

    /// Whether the four addresses, of the source's family, have room.
    pub(crate) fn is_enough(self, source: SocketAddr) -> bool {
        let address = ATTRIBUTE_HEADER_LEN + MappedAddress(source).len();
        HEADER_LEN + 4 * address <= self.answer
    }

    /// Room for them in any case.
    pub(crate) fn widened(self) -> Self {
        Self {
            answer: usize::MAX,
            ..self
        }
    }

    /// The PADDING for an answer that is `length` bytes long without it; `None` where not even its
    /// header has room. Messages and all other attributes are whole words, so this is too.
    fn padding(self, length: usize) -> Option<&'static [u8]> {
        let rest = self.padded?.checked_sub(length + ATTRIBUTE_HEADER_LEN)?;
        ZEROS.get(..rest.min(ZEROS.len()))
    }
}
