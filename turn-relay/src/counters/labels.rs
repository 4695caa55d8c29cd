//! The closed label sets of the relay's metrics.

use std::net::SocketAddr;

use net_io::proxy::{Header, ProxyError};
use ops::label;
use turn_relay_proto::{
    ConnectionEnd, Direction, DropReason, EndReason, Framing, IncomingRefusal, Path, SocketOutcome,
    Transport,
};

label! {
    /// Who sent what was received.
    pub(crate) enum Side: "side" {
        /// On a listening socket or a connection.
        Client = "client",
        /// On a relay socket.
        Peer = "peer",
    }
}

label! {
    /// The end of something received: exactly one.
    pub(crate) enum Outcome: "verdict" {
        Forwarded = "forwarded",
        Replied = "replied",
        Absorbed = "absorbed",
        Dropped = "dropped",
    }
}

label! {
    /// Which way a payload goes.
    pub(crate) enum Towards: "direction" {
        Peer = "to_peer",
        Client = "to_client",
    }
}

label! {
    /// How a payload is wrapped between client and relay.
    pub(crate) enum Wrapped: "framing" {
        Channel = "channel",
        Indication = "indication",
        /// Not at all: the bytes of a data connection (RFC 6062).
        Connection = "connection",
    }
}

label! {
    /// What carries a client's messages.
    pub(crate) enum Carrier: "transport" {
        Udp = "udp",
        Tcp = "tcp",
        Tls = "tls",
    }
}

label! {
    /// IP version of a client.
    pub(crate) enum Version: "family" {
        V4 = "ipv4",
        V6 = "ipv6",
    }
}

label! {
    /// Why something was dropped: the machine's reasons, then the shell's.
    pub(crate) enum Dropped: "reason" {
        NotTurn = "not_turn",
        Malformed = "malformed",
        NotARequest = "not_a_request",
        UnknownMethod = "unknown_method",
        BadIndication = "bad_indication",
        NoAllocation = "unknown_source",
        NoChannel = "no_channel",
        NoPermission = "no_permission",
        PeerDenied = "peer_denied",
        WrongFamily = "wrong_family",
        Bandwidth = "bandwidth",
        SilentPeer = "silent_peer",
        TooLarge = "too_large",
        UnknownRelay = "unknown_relay",
        AnswerLimited = "answer_limited",
        SignatureLimited = "signature_limited",
        /// A socket's or a connection's queue is full.
        SendQueueFull = "send_queue_full",
        /// The system refused to send: no route, a firewall.
        SendRefused = "send_refused",
        /// The socket or connection to send on is gone.
        Gone = "gone",
        /// A reason this shell does not know.
        Other = "other",
    }
}

label! {
    /// Why an allocation ended.
    pub(crate) enum Ended: "reason" {
        Expired = "expired",
        Deleted = "deleted",
        Disconnected = "disconnected",
        Drained = "drained",
        Admin = "admin",
    }
}

label! {
    /// What came of a relay socket that the machine asked for.
    pub(crate) enum Bound: "outcome" {
        Opened = "opened",
        InUse = "in_use",
        Failed = "failed",
    }
}

label! {
    /// A call that the system answered with an error; service goes on.
    pub(crate) enum Operation: "operation" {
        Receive = "receive",
        Accept = "accept",
        Register = "register",
        Connect = "connect",
    }
}

label! {
    /// What became of an ICMP error for something relayed to a peer.
    pub(crate) enum Told: "outcome" {
        Told = "told",
        /// The client has no permission for the peer (any more), or the error is of no kind that is told.
        Dropped = "dropped",
    }
}

label! {
    /// A rate limit that refused something.
    pub(crate) enum Limiter: "limiter" {
        Answers = "answers",
        Signatures = "signatures",
        SilentPeers = "silent_peers",
        Bandwidth = "bandwidth",
    }
}

label! {
    /// What carries a connection.
    pub(crate) enum StreamKind: "transport" {
        Tcp = "tcp",
        Tls = "tls",
    }
}

label! {
    /// Why a connection ended.
    pub(crate) enum StreamEnd: "reason" {
        /// The client closed it.
        Closed = "closed",
        /// The client reset it, or the network failed.
        Reset = "reset",
        /// No valid message in time.
        Slow = "slow",
        /// Neither an allocation nor a message for a while.
        Idle = "idle",
        /// It does not read what it is sent.
        Deaf = "deaf",
        /// It spoke something else, or a message too long for a stranger.
        Malformed = "malformed",
        /// TLS failed.
        Tls = "tls",
        /// The relay stops.
        Shutdown = "shutdown",
        /// The connection with the peer whose data it carried has ended.
        PeerEnded = "peer_ended",
    }
}

label! {
    /// What came of a Connect request's connection (RFC 6062).
    pub(crate) enum Connected: "outcome" {
        Made = "connected",
        /// The peer refused, or no way leads there.
        Failed = "failed",
        TimedOut = "timed_out",
        /// Its allocation ended before the peer answered.
        Abandoned = "abandoned",
    }
}

label! {
    /// Who made a connection between the relay and a peer.
    pub(crate) enum Origin: "origin" {
        Connect = "connect",
        Peer = "peer",
    }
}

label! {
    /// Why a connection with a peer ended.
    pub(crate) enum PeerEnd: "reason" {
        Finished = "finished",
        ClientLost = "client_lost",
        PeerLost = "peer_lost",
        Stalled = "stalled",
        Unclaimed = "unclaimed",
        AllocationEnded = "allocation_ended",
        PeerDenied = "peer_denied",
    }
}

label! {
    /// Why a peer's connection was closed at once.
    pub(crate) enum PeerRefusal: "reason" {
        UnknownRelay = "unknown_relay",
        NoPermission = "no_permission",
        PeerDenied = "peer_denied",
        Exists = "exists",
        Full = "full",
    }
}

impl PeerEnd {
    /// Of a connection that existed; one that never did has its outcome.
    pub(crate) fn of(end: ConnectionEnd) -> Self {
        match end {
            ConnectionEnd::Finished => Self::Finished,
            ConnectionEnd::ClientLost => Self::ClientLost,
            ConnectionEnd::PeerLost => Self::PeerLost,
            ConnectionEnd::Stalled => Self::Stalled,
            ConnectionEnd::ConnectTimeout | ConnectionEnd::Unclaimed => Self::Unclaimed,
            ConnectionEnd::AllocationEnded => Self::AllocationEnded,
            ConnectionEnd::PeerDenied => Self::PeerDenied,
        }
    }
}

impl Connected {
    /// Of a connection that ended before it existed.
    pub(crate) fn failed(end: ConnectionEnd) -> Self {
        match end {
            ConnectionEnd::ConnectTimeout => Self::TimedOut,
            ConnectionEnd::AllocationEnded | ConnectionEnd::PeerDenied => Self::Abandoned,
            ConnectionEnd::PeerLost
            | ConnectionEnd::Finished
            | ConnectionEnd::ClientLost
            | ConnectionEnd::Stalled
            | ConnectionEnd::Unclaimed => Self::Failed,
        }
    }
}

impl From<IncomingRefusal> for PeerRefusal {
    fn from(refusal: IncomingRefusal) -> Self {
        match refusal {
            IncomingRefusal::UnknownRelay => Self::UnknownRelay,
            IncomingRefusal::NoPermission => Self::NoPermission,
            IncomingRefusal::PeerDenied => Self::PeerDenied,
            IncomingRefusal::Exists => Self::Exists,
            IncomingRefusal::Full => Self::Full,
        }
    }
}

label! {
    /// Why a connection was not accepted.
    pub(crate) enum StreamRefusal: "reason" {
        /// Its address has its share.
        AddressLimit = "address_limit",
        /// The relay has as many as it takes.
        TotalLimit = "total_limit",
        /// The system has no descriptors or memory left.
        Resources = "resources",
        /// Another connection has its 5-tuple: a proxy said so of both.
        Duplicate = "duplicate",
    }
}

label! {
    /// Why a connection ended before it was known what it is.
    pub(crate) enum UndecidedEnd: "reason" {
        /// The client, or the proxy, closed it.
        Closed = "closed",
        /// It was reset, or the network failed.
        Reset = "reset",
        /// It took too long.
        Slow = "slow",
        /// No PROXY header that could be used, where one is due.
        ProxyHeader = "proxy_header",
        /// Neither TLS nor STUN.
        Unknown = "unknown_protocol",
        /// Refused, once its client was known.
        Refused = "refused",
        /// The relay stops.
        Shutdown = "shutdown",
    }
}

label! {
    /// What came of the PROXY header of a connection.
    pub(crate) enum ProxyHeader: "outcome" {
        /// It names a client.
        Proxied = "proxied",
        /// The proxy spoke for itself.
        Local = "local",
        /// The connection is not from a trusted address.
        Untrusted = "untrusted",
        /// Something else came.
        Missing = "missing",
        Version1 = "version_1",
        Malformed = "malformed",
        TooLong = "too_long",
        /// Of something that is not TCP over IP.
        Unsupported = "unsupported",
        /// A client at an address that nobody has.
        BadSource = "bad_source",
    }
}

impl From<Header> for ProxyHeader {
    fn from(header: Header) -> Self {
        match header {
            Header::Proxied { .. } => Self::Proxied,
            Header::Local => Self::Local,
        }
    }
}

impl From<ProxyError> for ProxyHeader {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Missing => Self::Missing,
            ProxyError::Version1 => Self::Version1,
            ProxyError::Malformed => Self::Malformed,
            ProxyError::TooLong => Self::TooLong,
            ProxyError::Unsupported => Self::Unsupported,
            ProxyError::BadSource => Self::BadSource,
        }
    }
}

impl From<StreamEnd> for UndecidedEnd {
    fn from(end: StreamEnd) -> Self {
        match end {
            StreamEnd::Closed => Self::Closed,
            StreamEnd::Reset => Self::Reset,
            StreamEnd::Slow | StreamEnd::Idle => Self::Slow,
            // The last three are of connections whose client is known.
            StreamEnd::Malformed | StreamEnd::Deaf | StreamEnd::Tls | StreamEnd::PeerEnded => {
                Self::Unknown
            }
            StreamEnd::Shutdown => Self::Shutdown,
        }
    }
}

impl From<SocketOutcome> for Bound {
    fn from(outcome: SocketOutcome) -> Self {
        match outcome {
            SocketOutcome::Opened => Self::Opened,
            SocketOutcome::InUse => Self::InUse,
            SocketOutcome::Failed => Self::Failed,
        }
    }
}

impl From<Direction> for Towards {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::ToPeer => Self::Peer,
            Direction::ToClient => Self::Client,
        }
    }
}

impl From<Framing> for Wrapped {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Channel => Self::Channel,
            Framing::Indication => Self::Indication,
        }
    }
}

impl From<EndReason> for Ended {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Expired => Self::Expired,
            EndReason::Deleted => Self::Deleted,
            EndReason::Disconnected => Self::Disconnected,
            EndReason::Drained => Self::Drained,
            EndReason::Kicked => Self::Admin,
        }
    }
}

impl From<DropReason> for Dropped {
    fn from(reason: DropReason) -> Self {
        match reason {
            DropReason::NotTurn => Self::NotTurn,
            DropReason::Malformed => Self::Malformed,
            DropReason::NotARequest => Self::NotARequest,
            DropReason::UnknownMethod => Self::UnknownMethod,
            DropReason::BadIndication => Self::BadIndication,
            DropReason::NoAllocation => Self::NoAllocation,
            DropReason::NoChannel => Self::NoChannel,
            DropReason::NoPermission => Self::NoPermission,
            DropReason::PeerDenied => Self::PeerDenied,
            DropReason::WrongFamily => Self::WrongFamily,
            DropReason::Bandwidth => Self::Bandwidth,
            DropReason::SilentPeer => Self::SilentPeer,
            DropReason::TooLarge => Self::TooLarge,
            DropReason::UnknownRelay => Self::UnknownRelay,
            DropReason::AnswerLimited => Self::AnswerLimited,
            DropReason::SignatureLimited => Self::SignatureLimited,
            _ => Self::Other,
        }
    }
}

impl Dropped {
    /// The rate limit behind the reason, if it is one.
    pub(crate) fn limiter(self) -> Option<Limiter> {
        let limiters = [
            (Self::AnswerLimited, Limiter::Answers),
            (Self::SignatureLimited, Limiter::Signatures),
            (Self::SilentPeer, Limiter::SilentPeers),
            (Self::Bandwidth, Limiter::Bandwidth),
        ];
        let found = limiters.into_iter().find(|(reason, _)| *reason == self);
        found.map(|(_, limiter)| limiter)
    }
}

/// The labels of a client: what carries its messages, and the family of its own address.
pub(crate) fn client_labels(client: Path) -> (Carrier, Version) {
    let carrier = match client.transport {
        Transport::Udp => Carrier::Udp,
        Transport::Tcp => Carrier::Tcp,
        Transport::Tls => Carrier::Tls,
    };
    let version = match client.remote {
        SocketAddr::V4(_) => Version::V4,
        SocketAddr::V6(_) => Version::V6,
    };
    (carrier, version)
}
