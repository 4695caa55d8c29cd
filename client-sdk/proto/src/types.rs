//! The nouns that every part of the machine shares: players, channels, paths, candidates.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Both clocks, read once per batch by the caller.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic time: timers and intervals.
    pub mono: Instant,
    /// Seconds since 1970 on the signaling server's clock: freshness of signed descriptions.
    pub unix: u64,
}

/// A player's number within the room, given by the signaling server and never reused in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlayerId(pub u16);

impl fmt::Display for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "player {}", self.0)
    }
}

/// A channel's number: the game chooses it, the same on both ends.
pub type ChannelId = u8;

/// How messages of a channel travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Each message once or not at all, in any order, in one datagram: state that the next message replaces.
    Unreliable,
    /// Every message, in order, however long it takes; up to [`MAX_RELIABLE_MESSAGE`](crate::MAX_RELIABLE_MESSAGE) bytes.
    ReliableOrdered,
}

/// One of the caller's datagram sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// One of the caller's byte streams to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Bytes for the caller to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// One datagram.
    Datagram {
        /// From this socket.
        socket: SocketId,
        /// To this address.
        to: SocketAddr,
        /// The payload of the datagram.
        bytes: Vec<u8>,
    },
    /// Bytes of a stream, in order.
    Stream {
        /// On this stream.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// What the machine asks of the caller's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamRequest {
    /// Connect to `to` and answer with [`Node::handle_stream_opened`](crate::Node::handle_stream_opened) or
    /// [`Node::handle_stream_closed`](crate::Node::handle_stream_closed).
    Open {
        /// The name of the new stream.
        stream: StreamId,
        /// The relay's address.
        to: SocketAddr,
        /// TLS with this server name, or plain TCP.
        tls: Option<String>,
    },
    /// Close the stream; it will not be named again.
    Close {
        /// The stream.
        stream: StreamId,
    },
}

/// What kind of address a candidate is (RFC 8445 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An address of the player's own machine.
    Host,
    /// The outside of the player's NAT, as a STUN server saw it.
    ServerReflexive,
    /// The outside of a NAT, as the other player saw it.
    PeerReflexive,
    /// An address on a TURN relay.
    Relayed,
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::ServerReflexive => "server-reflexive",
            Self::PeerReflexive => "peer-reflexive",
            Self::Relayed => "relayed",
        })
    }
}

/// How the player reaches a TURN relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayTransport {
    /// Datagrams.
    Udp,
    /// A plain TCP stream, for networks that block UDP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl fmt::Display for RelayTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// A local candidate, for the game's eyes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateInfo {
    /// Its kind.
    pub kind: CandidateKind,
    /// The address other players are told.
    pub address: SocketAddr,
    /// The local socket behind it; of a relayed candidate over a stream, the stream's local address.
    pub base: SocketAddr,
    /// The URL of the STUN or TURN server it was learnt from.
    pub server: Option<Arc<str>>,
    /// How the relay is reached, when it is relayed.
    pub transport: Option<RelayTransport>,
}

impl fmt::Display for CandidateInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.address)?;
        if let Some(transport) = self.transport {
            write!(f, " over {transport}")?;
        }
        Ok(())
    }
}

/// Whether a relay carries the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// Straight from machine to machine.
    Direct,
    /// Over one TURN relay, ours or the other player's (or both). `transport` is how *we* reach ours; it is `Udp` when only
    /// the other side uses a relay.
    Relayed {
        /// How our side reaches the relay.
        transport: RelayTransport,
    },
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Relayed {
                transport: RelayTransport::Udp,
            } => f.write_str("relay"),
            Self::Relayed { transport } => write!(f, "relay over {transport}"),
        }
    }
}

/// The path in use between two players.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Direct or relayed.
    pub kind: PathKind,
    /// Our end: the socket, or our address on the relay.
    pub local: SocketAddr,
    /// The other player's end, as we see it.
    pub remote: SocketAddr,
    /// What our end is.
    pub local_kind: CandidateKind,
    /// What the other end is.
    pub remote_kind: CandidateKind,
}

impl fmt::Display for PathInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} {} to {} {})",
            self.kind, self.local_kind, self.local, self.remote_kind, self.remote
        )
    }
}

/// Who vouches that the key at the other end is the player the game means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// The signaling server: it could have named another key. Nobody else could.
    Signaling,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signaling => "signaling",
        })
    }
}

/// Figures of the session with one player, since it was opened unless said otherwise.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The path in use.
    pub path: PathInfo,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Least round-trip time seen on this path.
    pub rtt_min: Duration,
    /// Share of our datagrams that were lost, 0 to 1.
    pub loss: f64,
    /// Datagrams sent, retransmissions and acknowledgements included.
    pub sent_datagrams: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// Datagrams we sent that were lost.
    pub lost_datagrams: u64,
    /// Bytes sent, as UDP payload before any relay framing.
    pub sent_bytes: u64,
    /// Bytes received, likewise.
    pub received_bytes: u64,
    /// Bytes of reliable messages waiting to be sent.
    pub queued_bytes: usize,
    /// Unreliable messages dropped here because the path was congested or the game did not poll.
    pub dropped_messages: u64,
    /// Times the path changed.
    pub path_changes: u32,
}
