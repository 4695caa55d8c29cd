//! What goes in and what comes out: paths, verdicts, events. Plain data, comparable in tests.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use stun_wire::channel_data::ChannelNumber;

/// Both clocks, read once per batch by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: allocations, permissions, nonces and rates live by it.
    pub mono: Instant,
    /// Seconds since the Unix epoch: time-limited credentials expire by it.
    pub unix: u64,
}

/// What carries a client's messages to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams; a message is a datagram.
    Udp,
    /// A byte stream; the shell cuts it into messages and pads channel data.
    Tcp,
    /// TLS on such a stream.
    Tls,
}

impl Transport {
    /// True where messages are framed by their own length and the source is proven by a handshake.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }

    /// The lower-case name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// A pair of transport addresses seen from the relay: a client's 5-tuple, or a relay socket and a
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// What carries it; towards peers always UDP.
    pub transport: Transport,
    /// The relay's end: a listening address, or the bound address of a relay socket.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// The address a relay socket is bound to (not the external form told to clients behind 1:1 NAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayAddr(pub SocketAddr);

impl RelayAddr {
    /// The same address, next port; there is one, because it is asked of even ports.
    pub(crate) fn next(self) -> Self {
        Self(SocketAddr::new(
            self.0.ip(),
            self.0.port().saturating_add(1),
        ))
    }
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a TCP connection between the relay and a peer: the CONNECTION-ID of RFC 6062.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerConnectionId(pub u32);

/// IP version of a relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// The end of every datagram: exactly one of these.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send `header ++ input[payload] ++ padding`.
    Forward(Forward),
    /// Send the bytes of the reply buffer.
    Reply {
        /// Where they go: back on the way the request came.
        path: Path,
    },
    /// State changed or nothing needs saying; a response may follow by `poll_transmit`.
    Absorbed,
    /// Nothing happens, for a named reason.
    Dropped(DropReason),
}

/// A datagram to be passed on: all of it but the bytes themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Send on this path: towards a peer from the relay socket `local`, towards a client from the
    /// listening socket (or on the stream) it uses.
    pub path: Path,
    /// Goes before the payload; empty towards a peer.
    pub header: Header,
    /// The payload as a range of the input.
    pub payload: Range<usize>,
    /// Zero bytes that go behind the payload (0 to 3): STUN attributes always, channel data on
    /// streams (RFC 8656 §12.5).
    pub padding: u8,
    /// Set the DF bit (or forbid fragmentation) for this datagram (RFC 8656 §11.2, DONT-FRAGMENT).
    pub dont_fragment: bool,
    /// `path.remote` is itself a live relay socket (perhaps of a sibling shard): the shell may send
    /// it, or, where `Relay::owns` it, hand the payload to `handle_peer` without leaving the process.
    pub hairpin: bool,
    /// Which way, for counting.
    pub direction: Direction,
    /// How the client's side is framed, for counting.
    pub framing: Framing,
}

/// Which way a payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From a client to a peer.
    ToPeer,
    /// From a peer to a client.
    ToClient,
}

impl Direction {
    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ToPeer => "to_peer",
            Self::ToClient => "to_client",
        }
    }
}

/// How a payload is wrapped between client and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Framing {
    /// ChannelData, 4 bytes (RFC 8656 §12.4).
    Channel,
    /// Send or Data indication, 36 or 48 bytes (RFC 8656 §11).
    Indication,
}

impl Framing {
    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Indication => "indication",
        }
    }
}

/// The bytes before a payload, held inline: a ChannelData header or a Data indication up to the
/// value of DATA.
#[derive(Clone, Copy)]
pub struct Header {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl Header {
    /// STUN header 20, XOR-PEER-ADDRESS of an IPv6 peer 24, DATA type and length 4.
    pub const CAPACITY: usize = 48;

    /// Nothing before the payload.
    pub const EMPTY: Self = Self {
        bytes: [0; Self::CAPACITY],
        len: 0,
    };

    /// Copies at most [`Self::CAPACITY`] bytes; the rest of a longer slice is left out.
    #[must_use]
    pub(crate) fn new(from: &[u8]) -> Self {
        let mut header = Self::EMPTY;
        for (to, from) in header.bytes.iter_mut().zip(from) {
            *to = *from;
            header.len += 1;
        }
        header
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl PartialEq for Header {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Header {}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Header").field(&self.as_bytes()).finish()
    }
}

/// Why a datagram ended without being forwarded or answered.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The first bytes are neither STUN nor channel data (RFC 7983, RFC 9443).
    NotTurn,
    /// STUN that does not parse: length, attributes or FINGERPRINT are wrong.
    Malformed,
    /// A response, or an indication of a method that has none for a server.
    NotARequest,
    /// A method this relay does not speak (RFC 8489 §6.3).
    UnknownMethod,
    /// A Send indication without peer or data, or with an unknown required attribute.
    BadIndication,
    /// Data from a client that has no allocation.
    NoAllocation,
    /// Channel data on a number that is not bound.
    NoChannel,
    /// No permission covers the peer.
    NoPermission,
    /// The peer policy refuses the address.
    PeerDenied,
    /// The allocation has no relayed address of the peer's family.
    WrongFamily,
    /// The allocation or its user is over its bandwidth.
    Bandwidth,
    /// Too many packets to a peer that has not answered yet.
    SilentPeer,
    /// The payload does not fit the framing of the other side.
    TooLarge,
    /// A datagram on a relay address that no allocation owns.
    UnknownRelay,
    /// The source has had its share of unauthenticated answers.
    AnswerLimited,
    /// The source has failed too often as this user; the signature was not judged.
    SignatureLimited,
}

impl DropReason {
    /// All of them, for registering metrics at start.
    pub const ALL: [Self; 16] = [
        Self::NotTurn,
        Self::Malformed,
        Self::NotARequest,
        Self::UnknownMethod,
        Self::BadIndication,
        Self::NoAllocation,
        Self::NoChannel,
        Self::NoPermission,
        Self::PeerDenied,
        Self::WrongFamily,
        Self::Bandwidth,
        Self::SilentPeer,
        Self::TooLarge,
        Self::UnknownRelay,
        Self::AnswerLimited,
        Self::SignatureLimited,
    ];

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NotTurn => "not_turn",
            Self::Malformed => "malformed",
            Self::NotARequest => "not_a_request",
            Self::UnknownMethod => "unknown_method",
            Self::BadIndication => "bad_indication",
            Self::NoAllocation => "unknown_source",
            Self::NoChannel => "no_channel",
            Self::NoPermission => "no_permission",
            Self::PeerDenied => "peer_denied",
            Self::WrongFamily => "wrong_family",
            Self::Bandwidth => "bandwidth",
            Self::SilentPeer => "silent_peer",
            Self::TooLarge => "too_large",
            Self::UnknownRelay => "unknown_relay",
            Self::AnswerLimited => "answer_limited",
            Self::SignatureLimited => "signature_limited",
        }
    }
}

/// The shell's answer to [`Event::SocketWanted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOutcome {
    /// Bound; datagrams on it go to `handle_peer`.
    Opened,
    /// Somebody else has the port: the machine asks for another.
    InUse,
    /// It cannot be had (descriptors, address not on this host): the client reads 508.
    Failed,
}

/// What the shell has to know or do beside moving bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bind a UDP socket here and answer with `handle_socket`.
    SocketWanted {
        /// IP address and port to bind.
        addr: RelayAddr,
    },
    /// One of two addresses of an allocation has ended, and the allocation goes on. As with those of `AllocationEnded`, the
    /// socket may serve another: nothing that was set up for this one may stay with it.
    AddressEnded {
        /// Which.
        addr: RelayAddr,
    },
    /// Close this socket: nothing uses it any more.
    SocketFreed {
        /// As in `SocketWanted`.
        addr: RelayAddr,
    },
    /// Listen for TCP connections here and answer with `handle_socket`; what is accepted goes to
    /// `handle_incoming`.
    ListenWanted {
        /// IP address and port to listen on.
        addr: RelayAddr,
    },
    /// Close this listener: nothing uses it any more.
    ListenFreed {
        /// As in `ListenWanted`.
        addr: RelayAddr,
    },
    /// Connect to a peer from a relayed address and answer with `handle_connected`.
    ConnectWanted {
        /// Named in the answer.
        connection: PeerConnectionId,
        /// The address and port to connect from; a listener has them too.
        relayed: RelayAddr,
        /// The peer.
        peer: SocketAddr,
    },
    /// What the client sends on this connection from here on is the peer's, unframed, and the other
    /// way round. Its response is sent first.
    ConnectionBound {
        /// The connection to the peer.
        connection: PeerConnectionId,
        /// The client's data connection.
        client: Path,
    },
    /// Close the connection to the peer, and the client's data connection if one was bound to it.
    ConnectionEnded {
        /// The connection to the peer.
        connection: PeerConnectionId,
        /// Why.
        reason: ConnectionEnd,
    },
    /// An allocation exists; its response is in `poll_transmit`.
    AllocationCreated {
        /// The client's 5-tuple.
        client: Path,
        /// Bound relay addresses: one, or one of each family.
        relayed: [Option<RelayAddr>; 2],
    },
    /// An allocation is gone with its permissions, channels, port and quota.
    AllocationEnded {
        /// The client's 5-tuple.
        client: Path,
        /// Its relay addresses at the end.
        relayed: [Option<RelayAddr>; 2],
        /// Why.
        reason: EndReason,
        /// How long it lived.
        duration: Duration,
        /// What it carried.
        traffic: Traffic,
    },
    /// A channel leads from this client to this peer: a fast path may carry it.
    ChannelBound {
        /// The client's 5-tuple.
        client: Path,
        /// The relay socket towards the peer.
        relayed: RelayAddr,
        /// The peer.
        peer: SocketAddr,
        /// The number both ends of the client's side use.
        channel: ChannelNumber,
    },
    /// The channel is gone.
    ChannelFreed {
        /// The client's 5-tuple.
        client: Path,
        /// The relay socket towards the peer.
        relayed: RelayAddr,
        /// The peer.
        peer: SocketAddr,
        /// The number.
        channel: ChannelNumber,
    },
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndReason {
    /// Its lifetime ran out.
    Expired,
    /// Its client asked for it: Refresh with lifetime 0.
    Deleted,
    /// Its client's stream ended.
    Disconnected,
    /// The operator ended it.
    Kicked,
    /// The relay stops.
    Drained,
}

impl EndReason {
    /// All of them, for registering metrics at start.
    pub const ALL: [Self; 5] = [
        Self::Expired,
        Self::Deleted,
        Self::Disconnected,
        Self::Kicked,
        Self::Drained,
    ];

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Disconnected => "disconnected",
            Self::Kicked => "admin",
            Self::Drained => "drained",
        }
    }
}

/// Why a connection to a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionEnd {
    /// Both ends have said all they had to say.
    Finished,
    /// The client's data connection broke.
    ClientLost,
    /// The peer's connection broke, or the peer could not be reached.
    PeerLost,
    /// One end reads nothing, or is gone without a word.
    Stalled,
    /// The peer did not answer in time.
    ConnectTimeout,
    /// No ConnectionBind came for it in time.
    Unclaimed,
    /// Its allocation, or the allocation's address of that family, ended.
    AllocationEnded,
    /// The operator's new rules refuse the peer.
    PeerDenied,
}

impl ConnectionEnd {
    /// All of them, for registering metrics at start.
    pub const ALL: [Self; 8] = [
        Self::Finished,
        Self::ClientLost,
        Self::PeerLost,
        Self::Stalled,
        Self::ConnectTimeout,
        Self::Unclaimed,
        Self::AllocationEnded,
        Self::PeerDenied,
    ];

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientLost => "client_lost",
            Self::PeerLost => "peer_lost",
            Self::Stalled => "stalled",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unclaimed => "unclaimed",
            Self::AllocationEnded => "allocation_ended",
            Self::PeerDenied => "peer_denied",
        }
    }
}

/// Why a peer's connection to a relayed address is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IncomingRefusal {
    /// No TCP allocation owns the relayed address.
    UnknownRelay,
    /// No permission covers the peer.
    NoPermission,
    /// The peer policy refuses the address.
    PeerDenied,
    /// There is a connection with that peer already.
    Exists,
    /// The allocation has as many connections, or waiting ones, as it may have.
    Full,
}

impl IncomingRefusal {
    /// All of them, for registering metrics at start.
    pub const ALL: [Self; 5] = [
        Self::UnknownRelay,
        Self::NoPermission,
        Self::PeerDenied,
        Self::Exists,
        Self::Full,
    ];

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::UnknownRelay => "unknown_relay",
            Self::NoPermission => "no_permission",
            Self::PeerDenied => "peer_denied",
            Self::Exists => "exists",
            Self::Full => "full",
        }
    }
}

/// Payload carried, framing not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams from the client to peers.
    pub to_peer_packets: u64,
    /// Their payload bytes.
    pub to_peer_bytes: u64,
    /// Datagrams from peers to the client.
    pub to_client_packets: u64,
    /// Their payload bytes.
    pub to_client_bytes: u64,
}

/// What is due at the deadline of `poll_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An allocation (or one family of a dual one) expires.
    Allocation,
    /// A permission expires.
    Permission,
    /// A channel binding expires.
    Channel,
    /// A port held for a RESERVATION-TOKEN was not claimed.
    Reservation,
    /// The shell has not answered a `SocketWanted`.
    SocketOverdue,
    /// A peer has not answered a Connect, or no ConnectionBind has come for a connection.
    PeerConnection,
    /// Relay sockets were kept for allocations that may not have come.
    SpareSockets,
}
