//! Everything that differs between two relays. `Default` is the documentation of the defaults;
//! the figures are those of a public game relay that nobody tuned.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use credentials::Secrets;

use crate::ledger::Ledger;
use crate::peers::PeerRules;
use crate::ports::LivePorts;

/// The configuration of one relay machine. Shards of one daemon differ in `ports` alone and share
/// `live_ports`, `live_tcp_ports` and `ledger`.
#[derive(Clone)]
pub struct RelayConfig {
    /// Told in challenges, part of every key.
    pub realm: Realm,
    /// Secrets that sign time-limited credentials; empty or `None`: none are accepted.
    pub secrets: Option<Arc<Secrets>>,
    /// Long-term credentials that do not expire.
    pub users: Vec<StaticUser>,
    /// Where relay sockets are bound; without one of a family, that family is refused with 440.
    pub relay_addresses: Vec<RelayAddress>,
    /// Ports of relay sockets, the same on each address. Fixed at start.
    pub ports: RangeInclusive<u16>,
    /// Sockets of allocations that have ended which are kept, a second or two, for the next ones. Each is open and bound,
    /// and nothing is relayed by it. 0: each allocation has a socket of its own.
    pub spare_sockets: usize,
    /// Which relay ports are open, over all shards of the daemon: a player may be relayed to a
    /// player on a sibling shard. Give the same `Arc` to each shard. Fixed at start.
    pub live_ports: Arc<LivePorts>,
    /// The same for the TCP listeners of TCP allocations (RFC 6062): a port may be open for one
    /// protocol and somebody else's for the other.
    pub live_tcp_ports: Arc<LivePorts>,
    /// What users hold over all shards of the daemon, so that their bounds are those of the daemon.
    /// Give the same `Arc` to each shard; `None`: this machine is alone. Fixed at start.
    pub ledger: Option<Arc<Ledger>>,
    /// Listening sockets of this host (STUN, TURN, admin, signaling): never peers. An unspecified
    /// address stands for every relay address.
    pub listeners: Vec<SocketAddr>,
    /// Every address of this host. What listens there may be shielded from the network but not from this
    /// host, so that one which is no relay address is a peer only if it is listed by itself.
    pub host_addresses: Vec<IpAddr>,
    /// Which peers may be reached.
    pub peers: PeerRules,
    /// Who may have how much.
    pub quota: Quota,
    /// How long things live.
    pub lifetime: Lifetimes,
    /// Rates of what is not authenticated.
    pub limits: Limits,
    /// Switches of the protocol.
    pub protocol: Protocol,
    /// While draining, clients of its family are sent here with 300 (Try Alternate) in place of 508.
    pub alternate: Option<SocketAddr>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            realm: Realm("rallypoint".into()),
            secrets: None,
            users: Vec::new(),
            relay_addresses: Vec::new(),
            ports: 49152..=65535, // RFC 8656 §7.2: the dynamic range
            spare_sockets: 256,
            live_ports: Arc::default(),
            live_tcp_ports: Arc::default(),
            ledger: None,
            listeners: Vec::new(),
            host_addresses: Vec::new(),
            peers: PeerRules::default(),
            quota: Quota::default(),
            lifetime: Lifetimes::default(),
            limits: Limits::default(),
            protocol: Protocol::default(),
            alternate: None,
        }
    }
}

/// A realm short enough that no challenge is longer than three times its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm(Box<str>);

impl Realm {
    /// The longest realm, in bytes.
    pub const MAX_LEN: usize = 12;

    /// Checks the length and the characters of a quoted string.
    pub fn new(text: &str) -> Result<Self, RealmError> {
        if text.is_empty() {
            Err(RealmError::Empty)
        } else if text.len() > Self::MAX_LEN {
            Err(RealmError::TooLong)
        } else if text
            .chars()
            .any(|c| c.is_control() || c == '"' || c == '\\')
        {
            Err(RealmError::Character)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealmError {
    /// It is empty.
    Empty,
    /// It is longer than [`Realm::MAX_LEN`] bytes.
    TooLong,
    /// It holds a control character, a quote or a backslash.
    Character,
}

impl fmt::Display for RealmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "must not be empty",
            Self::TooLong => {
                "must be at most 12 bytes, or a challenge would be longer than three times its request"
            }
            Self::Character => "must not hold control characters, quotes or backslashes",
        })
    }
}

impl std::error::Error for RealmError {}

/// A user whose password does not expire: for tests and foreign clients.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticUser {
    /// USERNAME, as the client sends it.
    pub name: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for StaticUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One address that relay sockets are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// On this host.
    pub bind: IpAddr,
    /// What clients and peers see where a 1:1 NAT stands before the host; same family.
    pub external: Option<IpAddr>,
}

impl RelayAddress {
    /// An address without NAT before it.
    #[must_use]
    pub fn new(bind: IpAddr) -> Self {
        Self {
            bind,
            external: None,
        }
    }

    /// The address told to clients.
    #[must_use]
    pub fn public(&self) -> IpAddr {
        self.external.unwrap_or(self.bind)
    }
}

/// Who may have how much. A bound that is hit is answered (486, 508) or counted as a drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Allocations and reserved ports of one user, over all shards.
    pub allocations_per_user: u32,
    /// Allocations of one client address (IPv4 /32, IPv6 /64), which the shell steers to one shard.
    pub allocations_per_address: u32,
    /// Allocations over all shards, beside the number of ports.
    pub allocations: u32,
    /// Percent of the ports kept for users who have none yet.
    pub reserved_percent: u8,
    /// Permissions of one allocation, both families together.
    pub permissions_per_allocation: u16,
    /// Channels of one allocation.
    pub channels_per_allocation: u16,
    /// TCP connections with peers of one TCP allocation (RFC 6062), in whatever state.
    pub peer_connections_per_allocation: u16,
    /// Of these, connections that are being made or wait for their ConnectionBind.
    pub waiting_connections_per_allocation: u16,
    /// Payload bytes a second, each way, of one allocation; bursts of one second.
    pub bandwidth_per_allocation: Option<u32>,
    /// Payload bytes a second, each way, of all allocations that one user has on this shard: buckets
    /// are touched by each packet, so none is shared.
    pub bandwidth_per_user: Option<u32>,
    /// Packets a second to a peer address that has not sent anything yet, and Connect requests a
    /// second of a TCP allocation: a relay is no scanner.
    pub silent_peer_packets: Option<u32>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            allocations_per_user: 16,
            allocations_per_address: 64,
            allocations: 10_000,
            reserved_percent: 10,
            permissions_per_allocation: 256,
            channels_per_allocation: 64,
            peer_connections_per_allocation: 16,
            waiting_connections_per_allocation: 8,
            bandwidth_per_allocation: Some(250_000), // 2 Mb/s
            bandwidth_per_user: Some(1_000_000),     // 8 Mb/s
            silent_peer_packets: Some(20),
        }
    }
}

/// How long things live (RFC 8656 §3.2, §9, §12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// What an allocation gets that asks for nothing or for less.
    pub allocation_default: Duration,
    /// The most it can ask for.
    pub allocation_max: Duration,
    /// Of a permission.
    pub permission: Duration,
    /// Of a channel binding.
    pub channel: Duration,
    /// Of a nonce.
    pub nonce: Duration,
    /// Of a port held for a RESERVATION-TOKEN (RFC 8656 §7.2: at least 30 s).
    pub reservation: Duration,
    /// How long a Connect may take (RFC 6062 §5.2: at least 30 s).
    pub connect: Duration,
    /// How long a connection to a peer waits for its ConnectionBind (RFC 6062 §5.2, §5.3: 30 s).
    pub unclaimed: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            allocation_default: Duration::from_secs(600),
            allocation_max: Duration::from_secs(3600),
            permission: Duration::from_secs(300),
            channel: Duration::from_secs(600),
            nonce: Duration::from_secs(600),
            reservation: Duration::from_secs(30),
            connect: Duration::from_secs(30),
            unclaimed: Duration::from_secs(30),
        }
    }
}

/// Rates of what is not authenticated, held in one fixed table of
/// 65,536 buckets: sources are IPv4 /32 and IPv6 /64; their /24 and /48 have eight times as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Binding answers a second to one source.
    pub bindings_per_second: u32,
    /// At once.
    pub bindings_burst: u32,
    /// Binding answers a second to everybody.
    pub bindings_ceiling: u32,
    /// Challenges and unsigned errors a second to one source.
    pub challenges_per_second: u32,
    /// At once.
    pub challenges_burst: u32,
    /// Challenges and unsigned errors a second to everybody.
    pub challenges_ceiling: u32,
    /// Wrong signatures of one user from one source before they are no longer judged.
    pub failed_signatures: u32,
    /// Sources without limits: load generators, monitoring.
    pub exempt: Vec<Prefix>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bindings_per_second: 100,
            bindings_burst: 200,
            bindings_ceiling: 50_000,
            challenges_per_second: 20,
            challenges_burst: 60,
            challenges_ceiling: 20_000,
            failed_signatures: 5,
            exempt: Vec::new(),
        }
    }
}

/// Switches of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Accept channel numbers up to 0x7FFF as RFC 5766 did (`turnutils_uclient` of 2023 uses them).
    pub rfc5766_channels: bool,
    /// Accept MESSAGE-INTEGRITY (SHA-1) and MD5 keys: browsers know nothing else.
    pub sha1_integrity: bool,
    /// The shell can set the DF bit; without it DONT-FRAGMENT is an unknown attribute (420).
    pub dont_fragment: bool,
    /// Make TCP allocations (RFC 6062). Off: REQUESTED-TRANSPORT 6 is 442, and Connect and
    /// ConnectionBind are methods that this relay does not speak.
    pub tcp_relaying: bool,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            rfc5766_channels: false,
            sha1_integrity: true,
            dont_fragment: true,
            tcp_relaying: false,
        }
    }
}

/// A block of addresses: `10.9.0.0/16`, `2001:db8::/32`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    network: IpAddr,
    len: u8,
}

impl Prefix {
    /// A block; bits behind the length must be zero.
    pub fn new(network: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let width = match network {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if len > width {
            return Err(PrefixError::Length);
        }
        if mask(network, len) != network {
            return Err(PrefixError::HostBits);
        }
        Ok(Self { network, len })
    }

    /// True if the address lies in the block. Families never match each other.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        mask(ip, self.len) == self.network
    }

    /// True if the block is this address and no other.
    #[must_use]
    pub fn is_only(&self, ip: IpAddr) -> bool {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        self.len == width && self.network == ip
    }

    /// The block of an address by which sources are told apart: IPv4 /32 and IPv6 /64.
    #[must_use]
    pub(crate) fn source(ip: IpAddr) -> IpAddr {
        mask(ip, if ip.is_ipv4() { 32 } else { 64 })
    }

    /// The wider block around a source: IPv4 /24 and IPv6 /48.
    #[must_use]
    pub(crate) fn neighbourhood(ip: IpAddr) -> IpAddr {
        mask(ip, if ip.is_ipv4() { 24 } else { 48 })
    }
}

/// Clears the bits behind the first `len`.
fn mask(ip: IpAddr, len: u8) -> IpAddr {
    let len = u32::from(len);
    match ip {
        IpAddr::V4(ip) => {
            let keep = u32::MAX
                .checked_shl(32_u32.saturating_sub(len))
                .unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & keep))
        }
        IpAddr::V6(ip) => {
            let keep = u128::MAX
                .checked_shl(128_u32.saturating_sub(len))
                .unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & keep))
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (network, len) = match text.split_once('/') {
            Some((network, len)) => (
                network,
                Some(len.parse::<u8>().map_err(|_| PrefixError::Length)?),
            ),
            None => (text, None),
        };
        let network: IpAddr = network.parse().map_err(|_| PrefixError::Address)?;
        let whole = if network.is_ipv4() { 32 } else { 128 };
        Self::new(network, len.unwrap_or(whole))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// The part before the slash is no IP address.
    Address,
    /// The part behind the slash is no length of that family.
    Length,
    /// Bits behind the length are set: the writer meant something else.
    HostBits,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "is no IP address",
            Self::Length => "has a prefix length that its family does not have",
            Self::HostBits => "has bits set behind its prefix length",
        })
    }
}

impl std::error::Error for PrefixError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_parse_and_print() {
        for text in [
            "10.9.0.0/16",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            assert_eq!(
                text.parse::<Prefix>().map(|p| p.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            "10.0.0.1".parse::<Prefix>().map(|p| p.to_string()),
            Ok("10.0.0.1/32".into())
        );
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length));
        assert_eq!("10.0.0.0/".parse::<Prefix>(), Err(PrefixError::Length));
        assert_eq!("10.0.0.1/8".parse::<Prefix>(), Err(PrefixError::HostBits));
        assert_eq!("ten/8".parse::<Prefix>(), Err(PrefixError::Address));
    }

    #[test]
    fn realm_is_bounded() {
        assert!(Realm::new("rallypoint").is_ok());
        assert!(Realm::new("twelve-bytes").is_ok());
        assert_eq!(Realm::new("thirteen-byte"), Err(RealmError::TooLong));
        assert_eq!(Realm::new(""), Err(RealmError::Empty));
        assert_eq!(Realm::new("a\"b"), Err(RealmError::Character));
    }
}
