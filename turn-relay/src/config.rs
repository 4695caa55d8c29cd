//! What differs between two relays, as programs build it. `config/file.rs` reads it from TOML.
//!
//! `Default` holds the documented defaults. What cannot be defaulted (relay addresses, credentials)
//! is empty there, and [`Server::bind`](crate::Server::bind) refuses to start with it.

mod external;
mod file;
mod machine;
mod quota;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ops::config::{IpPrefix, ListenUrl, PortRange, Problems, ProxyListeners, Scheme, Secret};
use ops::logging::LogConfig;
use ops::tls::TlsFiles;
use turn_relay_proto::{Lifetimes, Limits, Protocol, Quota, Realm, RelayConfig, StaticUser};

pub use external::{Discovery, ExternalAddresses, StunServer};
pub(crate) use machine::{Shared, host_addresses, relay_config, split_ports};
pub(crate) use quota::{patched, to_json};

/// A commented configuration with every key, as `config default` prints it.
pub const EXAMPLE: &str = include_str!("../../deploy/config/rallypoint-turn.toml");

/// The configuration of a relay.
#[derive(Debug, Clone)]
pub struct Config {
    /// Named in challenges and part of every password's key; at most 12 bytes.
    pub realm: Realm,
    /// Where clients connect: `udp`, `tcp`, `tls` and `tcp+tls`. Port 0 lets the system choose.
    pub listen: Vec<ListenUrl>,
    /// Which listeners stand behind a proxy that says who the client is.
    pub proxy: ProxyListeners,
    /// Addresses of this host that relay sockets are bound to.
    pub relay_addresses: Vec<IpAddr>,
    /// Ports of relay sockets, divided among the shards.
    pub relay_ports: PortRange,
    /// Relay addresses behind a 1:1 NAT, and what they are seen as.
    pub external_addresses: ExternalAddresses,
    /// Shards; 0: one for each core.
    pub threads: usize,
    /// `io-uring`: send to many peers by one system call, where the system has it.
    pub io_uring: bool,
    /// Sockets of allocations that have ended which each thread keeps for the next ones.
    pub spare_sockets: usize,
    /// Second sockets, each connected to the peer that an allocation sends most to, which each thread may have open.
    pub connected_sockets: usize,
    /// Certificate and key of the `tls` and `tcp+tls` listeners.
    pub tls: Option<TlsFiles>,
    /// Secrets that sign time-limited credentials.
    pub secrets: Vec<NamedSecret>,
    /// Long-term credentials for tests and foreign clients.
    pub test_users: Vec<StaticUser>,
    /// Which peers may be reached.
    pub peers: Peers,
    /// Who may have how much.
    pub quota: Quota,
    /// How long things live.
    pub lifetime: Lifetimes,
    /// Rates of what is not authenticated.
    pub limits: Limits,
    /// Bounds of TCP and TLS connections.
    pub streams: StreamLimits,
    /// Switches of the protocol.
    pub protocol: Protocol,
    /// How the relay ends.
    pub drain: Drain,
    /// Where `/metrics`, `/healthz` and `/readyz` are; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// Lets an operator in to the routes under `/v1/` there; `None`: nobody.
    pub admin_token: Option<Secret>,
    /// What is logged and how.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            realm: Realm::new("rallypoint").expect("it is ten plain letters"),
            listen: default_listeners(),
            proxy: ProxyListeners::default(),
            relay_addresses: Vec::new(),
            relay_ports: PortRange {
                first: 49152,
                last: 65535,
            },
            external_addresses: ExternalAddresses::default(),
            threads: 0,
            io_uring: true,
            spare_sockets: RelayConfig::default().spare_sockets,
            connected_sockets: 256,
            tls: None,
            secrets: Vec::new(),
            test_users: Vec::new(),
            peers: Peers::default(),
            quota: Quota::default(),
            lifetime: Lifetimes::default(),
            limits: Limits::default(),
            streams: StreamLimits::default(),
            protocol: Protocol::default(),
            drain: Drain::default(),
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9479))),
            admin_token: None,
            log: LogConfig::default(),
        }
    }
}

/// UDP and TCP on every address of both families, at the port of RFC 8656.
fn default_listeners() -> Vec<ListenUrl> {
    let any = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let schemes = [Scheme::Udp, Scheme::Tcp];
    let on = |scheme| {
        any.map(|ip| ListenUrl {
            scheme,
            address: SocketAddr::new(ip, 3478),
        })
    };
    schemes.into_iter().flat_map(on).collect()
}

impl Config {
    /// Reads TOML that is in no file.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        ops::config::parse(text)
    }

    /// Shards to run, at least one and no more than there are pairs of relay ports.
    pub(crate) fn shards(&self) -> usize {
        let wanted = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let pairs = usize::try_from(self.relay_ports.count() / 2).unwrap_or(1);
        wanted.clamp(1, MAX_THREADS).min(pairs.max(1))
    }
}

/// The protocol names of RFC 7443: TURN, and STUN usages that a TURN server serves too.
pub(crate) const ALPN: &[&[u8]] = &[b"stun.turn", b"stun.nat-discovery"];

/// More cores than one relay is given; each worker has a metric of its own.
pub(crate) const MAX_THREADS: usize = 32;

/// A secret shared with whoever mints credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSecret {
    /// Named in the usernames it signs, so that others need not be tried.
    pub id: Option<String>,
    /// The secret.
    pub secret: Secret,
}

impl NamedSecret {
    /// In the form that credentials are checked with.
    pub(crate) fn as_credentials(&self) -> credentials::Secret {
        credentials::Secret {
            id: self.id.clone(),
            key: self.secret.expose().to_vec(),
        }
    }
}

/// Which peers may be reached; what is always refused stands in [`turn_relay_proto::PeerPolicy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// Prefixes allowed although they are not of the public internet.
    pub allow: Vec<IpPrefix>,
    /// Reach nothing but `allow` and this relay's own relayed addresses.
    pub allow_only: bool,
    /// Allow loopback peers; only with listeners on loopback.
    pub allow_loopback_for_tests: bool,
    /// The lowest port of a peer.
    pub min_port: u16,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_only: false,
            allow_loopback_for_tests: false,
            min_port: 1024,
        }
    }
}

/// How a relay that is to end treats its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Allocations that have not ended by themselves after this are ended.
    pub deadline: Duration,
    /// Another relay, which new clients of its address family are sent to (300) in place of being
    /// refused (508).
    pub alternate: Option<SocketAddr>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(300),
            alternate: None,
        }
    }
}

/// Bounds of TCP and TLS connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLimits {
    /// Connections at once, over all listeners.
    pub connections: u32,
    /// Connections at once of one client address (IPv4 /32, IPv6 /64).
    pub connections_per_address: u32,
    /// A connection without a valid message, or with an unfinished TLS handshake, ends after this.
    pub first_message: Duration,
    /// A connection without an allocation ends this long after its last valid message.
    pub idle: Duration,
    /// A data connection (RFC 6062) ends when one end has not read, or has said its last, and nothing
    /// has moved for this long.
    pub stalled: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: 64,
            first_message: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stalled: Duration::from_secs(120),
        }
    }
}

#[cfg(test)]
mod tests;
