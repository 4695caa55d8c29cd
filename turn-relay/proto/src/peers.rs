//! Which peer addresses may be reached: one function for CreatePermission, ChannelBind, Send and
//! for every datagram that leaves towards a peer. Denied unless there is a reason to allow.
//!
//! The order (`judge`): a live relayed address of this relay is allowed, so that two players on one
//! relay reach each other; any other port of our own addresses, every listener and the other addresses
//! of this host are refused; forms that are never a player's address are refused; the rest of the special ranges is refused unless
//! the operator lists it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::config::{Prefix, RelayAddress, RelayConfig};
use crate::ports::LivePorts;

/// What the operator decides about peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRules {
    /// Special ranges that may be reached all the same: a private network of game hosts, a lab.
    /// Addresses that are always refused stay refused, and those of this host unless listed one by one.
    pub allow: Vec<Prefix>,
    /// Reach nothing but `allow` and this relay's own relayed addresses: for server-hosted games.
    pub allow_only: bool,
    /// Loopback peers, for tests on one host; the shell demands a loopback listener with it.
    pub allow_loopback_for_tests: bool,
    /// The lowest port a peer may have: players never live on well-known ports, reflectors do.
    pub min_port: u16,
}

impl Default for PeerRules {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_only: false,
            allow_loopback_for_tests: false,
            min_port: 1024,
        }
    }
}

/// Why a peer address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerDenial {
    /// No datagram can go to port 0.
    PortZero,
    /// The port is below the lowest one allowed.
    LowPort,
    /// One of our own addresses, on a port that is no live relay port, or another one of this host.
    OwnAddress,
    /// A listening socket of this host.
    Listener,
    /// Loopback, unspecified, link-local, multicast, broadcast, reserved, cloud metadata.
    NeverAPeer,
    /// An IPv6 form with an IPv4 address inside: mapped, compatible, SIIT, NAT64, 6to4, Teredo,
    /// ISATAP (RFC 8656 §21.1 and CVE-2026-27624).
    EmbeddedIpv4,
    /// A private, shared, documentation or otherwise special range the operator did not list.
    NotListed,
}

/// The rules together with what this relay knows about itself.
#[derive(Clone)]
pub struct PeerPolicy {
    rules: PeerRules,
    own: Vec<RelayAddress>,
    listeners: Vec<SocketAddr>,
    /// Sorted.
    host: Vec<IpAddr>,
    live: Arc<LivePorts>,
}

impl PeerPolicy {
    /// The policy of a configuration.
    #[must_use]
    pub fn new(config: &RelayConfig) -> Self {
        Self::with_live_ports(config, Arc::clone(&config.live_ports))
    }

    pub(crate) fn with_live_ports(config: &RelayConfig, live: Arc<LivePorts>) -> Self {
        let mut host = config.host_addresses.clone();
        host.sort_unstable();
        Self {
            rules: config.peers.clone(),
            own: config.relay_addresses.clone(),
            listeners: config.listeners.clone(),
            host,
            live,
        }
    }

    /// May a datagram go there?
    pub fn judge(&self, peer: SocketAddr) -> Result<(), PeerDenial> {
        self.judge_parts(peer.ip(), Some(peer.port()))
    }

    /// May a permission for this address be installed? Ports do not count in permissions (RFC 8656
    /// §9); each datagram is judged again with its port.
    pub fn judge_ip(&self, ip: IpAddr) -> Result<(), PeerDenial> {
        self.judge_parts(ip, None)
    }

    /// The bound form of an address that is one of ours, external form included.
    pub(crate) fn bound_form(&self, ip: IpAddr) -> Option<IpAddr> {
        self.own
            .iter()
            .find(|own| own.bind == ip || own.external == Some(ip))
            .map(|own| own.bind)
    }

    /// True if the peer is a live relayed address; its bound form goes on the path.
    pub(crate) fn live_relay(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let bind = self.bound_form(peer.ip())?;
        self.live
            .contains(bind, peer.port())
            .then(|| SocketAddr::new(bind, peer.port()))
    }

    fn judge_parts(&self, ip: IpAddr, port: Option<u16>) -> Result<(), PeerDenial> {
        if port == Some(0) {
            return Err(PeerDenial::PortZero);
        }
        if let Some(bind) = self.bound_form(ip) {
            match port {
                None => return Ok(()),
                Some(port) if self.live.contains(bind, port) => return Ok(()),
                Some(_) if self.loopback_allowed(ip) => {}
                Some(_) => return Err(PeerDenial::OwnAddress),
            }
        }
        if self.is_listener(ip, port) {
            return Err(PeerDenial::Listener);
        }
        if !self.loopback_allowed(ip) {
            if self.host.binary_search(&ip).is_ok() && !self.is_listed_alone(ip) {
                return Err(PeerDenial::OwnAddress);
            }
            self.judge_form(ip)?;
        }
        if port.is_some_and(|port| port < self.rules.min_port) {
            return Err(PeerDenial::LowPort);
        }
        Ok(())
    }

    fn judge_form(&self, ip: IpAddr) -> Result<(), PeerDenial> {
        let form = match ip {
            IpAddr::V4(ip) => form_v4(ip),
            IpAddr::V6(ip) => form_v6(ip),
        };
        match form {
            Form::Never => Err(PeerDenial::NeverAPeer),
            Form::Embedded => Err(PeerDenial::EmbeddedIpv4),
            Form::Global if !self.rules.allow_only => Ok(()),
            Form::Global | Form::Special if self.is_listed(ip) => Ok(()),
            Form::Global | Form::Special => Err(PeerDenial::NotListed),
        }
    }

    fn is_listed(&self, ip: IpAddr) -> bool {
        self.rules.allow.iter().any(|prefix| prefix.contains(ip))
    }

    fn is_listed_alone(&self, ip: IpAddr) -> bool {
        self.rules.allow.iter().any(|prefix| prefix.is_only(ip))
    }

    fn loopback_allowed(&self, ip: IpAddr) -> bool {
        self.rules.allow_loopback_for_tests && ip.is_loopback()
    }

    /// An unspecified listener listens on every address of this host.
    fn is_listener(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.listeners.iter().any(|listener| {
            port == Some(listener.port())
                && (listener.ip() == ip
                    || listener.ip().is_unspecified()
                        && (ip.is_loopback()
                            || self.bound_form(ip).is_some()
                            || self.host.binary_search(&ip).is_ok()))
        })
    }
}

/// What kind of address it is, whoever asks.
enum Form {
    /// Ordinary unicast.
    Global,
    /// Private, shared, documentation, benchmarking, unassigned: only if listed.
    Special,
    /// Never a peer, whatever is listed.
    Never,
    /// IPv6 with an IPv4 address inside; no verdict on the inner address can rescue it.
    Embedded,
}

/// The IANA special-purpose registry (RFC 6890 and later), and cloud metadata services.
fn form_v4(ip: Ipv4Addr) -> Form {
    match ip.octets() {
        [0 | 127 | 224..=255, ..] | [169, 254, ..] => Form::Never,
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Form::Never,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Form::Special,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => Form::Special,
        [198, 51, 100, _] | [203, 0, 113, _] => Form::Special,
        _ => Form::Global,
    }
}

/// As above; outside 2000::/3 nothing is global unicast.
fn form_v6(ip: Ipv6Addr) -> Form {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Form::Never,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => Form::Embedded, // compatible, mapped
        [0, 0, 0, 0, 0xffff, 0, ..] => Form::Embedded,     // SIIT (RFC 2765)
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Form::Embedded, // NAT64
        [0x2002, ..] | [0x2001, 0, ..] => Form::Embedded,  // 6to4, Teredo (RFC 8656 §21.1)
        [0xff00..=0xffff, ..] | [0xfe80..=0xfebf, ..] => Form::Never, // multicast, link-local
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Form::Never,
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Form::Embedded, // ISATAP (RFC 5214 §6.1)
        [0x2001, 0x2..=0x1ff, ..] | [0x2001, 0xdb8, ..] => Form::Special,
        [0x2001, 1, ..] => Form::Special,
        [0x3fff, 0..=0xfff, ..] => Form::Special, // documentation (RFC 9637)
        [0x2000..=0x3fff, ..] => Form::Global,
        _ => Form::Special, // ULA, site-local, discard-only, SRv6 SIDs, unassigned
    }
}
