//! From the [`Config`] of a process to the configuration of each shard's machine.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use credentials::Secrets;
use ops::config::PortRange;
use turn_relay_proto::{Ledger, LivePorts, PeerRules, Protocol, RelayAddress, RelayConfig};

use super::file::prefix;
use super::{Config, NamedSecret};

/// Whether this system lets the shell set the Don't Fragment bit of a datagram.
pub(super) const DONT_FRAGMENT: bool = cfg!(target_os = "linux");

/// What all shards of a process know together.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Signs and checks time-limited credentials.
    pub(crate) secrets: Option<Arc<Secrets>>,
    /// Which relay ports are open: players on two shards may be peers.
    pub(crate) live_ports: Arc<LivePorts>,
    /// The same for TCP.
    pub(crate) live_tcp_ports: Arc<LivePorts>,
    /// What users hold: their bounds are those of the process.
    pub(crate) ledger: Option<Arc<Ledger>>,
    /// Every listening address of the process, as bound.
    pub(crate) listeners: Vec<SocketAddr>,
    /// Every address of this host.
    pub(crate) host: Vec<IpAddr>,
    /// Relay addresses behind a 1:1 NAT and what they are seen as: listed, or found out at start.
    pub(crate) external: Vec<(IpAddr, IpAddr)>,
}

impl Shared {
    pub(crate) fn new(
        config: &Config,
        listeners: Vec<SocketAddr>,
        external: Vec<(IpAddr, IpAddr)>,
    ) -> Self {
        Self {
            secrets: Self::secrets(config),
            live_ports: Arc::new(LivePorts::new(config.relay_addresses.iter().copied())),
            live_tcp_ports: Arc::new(LivePorts::new(config.relay_addresses.iter().copied())),
            ledger: None,
            listeners,
            host: host_addresses(),
            external,
        }
    }

    /// What signs and checks credentials under this configuration.
    pub(crate) fn secrets(config: &Config) -> Option<Arc<Secrets>> {
        let secrets: Vec<_> = config
            .secrets
            .iter()
            .map(NamedSecret::as_credentials)
            .collect();
        (!secrets.is_empty()).then(|| Arc::new(Secrets::new(secrets)))
    }
}

/// Every address of this host, as of now. Where the system does not tell them the policy knows only what is configured.
pub(crate) fn host_addresses() -> Vec<IpAddr> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().map(if_addrs::Interface::ip).collect(),
        Err(error) => {
            tracing::warn!(%error, "the addresses of this host are not known, and may be peers");
            Vec::new()
        }
    }
}

/// The configuration of the machine that owns `ports`.
pub(crate) fn relay_config(
    config: &Config,
    shared: &Shared,
    ports: RangeInclusive<u16>,
) -> RelayConfig {
    let external = |bind| {
        shared
            .external
            .iter()
            .find(|(inside, _)| *inside == bind)
            .map(|(_, out)| *out)
    };
    let relay_addresses = config
        .relay_addresses
        .iter()
        .map(|bind| RelayAddress {
            bind: *bind,
            external: external(*bind),
        })
        .collect();
    RelayConfig {
        realm: config.realm.clone(),
        secrets: shared.secrets.clone(),
        users: config.test_users.clone(),
        relay_addresses,
        ports,
        spare_sockets: config.spare_sockets,
        live_ports: Arc::clone(&shared.live_ports),
        live_tcp_ports: Arc::clone(&shared.live_tcp_ports),
        ledger: shared.ledger.clone(),
        listeners: shared.listeners.clone(),
        host_addresses: shared.host.clone(),
        peers: PeerRules {
            allow: config
                .peers
                .allow
                .iter()
                .copied()
                .filter_map(prefix)
                .collect(),
            allow_only: config.peers.allow_only,
            allow_loopback_for_tests: config.peers.allow_loopback_for_tests,
            min_port: config.peers.min_port,
        },
        quota: config.quota.clone(),
        lifetime: config.lifetime.clone(),
        limits: config.limits.clone(),
        protocol: Protocol {
            dont_fragment: config.protocol.dont_fragment && DONT_FRAGMENT,
            ..config.protocol.clone()
        },
        alternate: config.drain.alternate,
    }
}

/// Divides the relay ports among `shards`, in pieces that begin at even ports (EVEN-PORT asks for
/// pairs) and differ by one pair at most.
pub(crate) fn split_ports(range: PortRange, shards: usize) -> Vec<RangeInclusive<u16>> {
    let shards = u32::try_from(shards)
        .unwrap_or(u32::MAX)
        .clamp(1, range.count());
    let count = range.count();
    let mut first = u32::from(range.first);
    let end = u32::from(range.last) + 1;
    let mut slices = Vec::new();
    for shard in 1..=shards {
        let wanted = u32::from(range.first) + count * shard / shards;
        // Pieces of one port each cannot keep to pairs.
        let even = if count / shards >= 2 {
            wanted & !1
        } else {
            wanted
        };
        let next = if shard == shards {
            end
        } else {
            even.max(first + 1)
        };
        let (low, high) = (u16::try_from(first), u16::try_from(next - 1));
        slices.extend(low.ok().zip(high.ok()).map(|(low, high)| low..=high));
        first = next;
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_port_once_and_begin_even() {
        for shards in [1, 2, 3, 4, 7, 64] {
            let range = PortRange {
                first: 49152,
                last: 65535,
            };
            let slices = split_ports(range, shards);
            assert_eq!(slices.len(), shards);
            let all: Vec<u16> = slices.iter().cloned().flatten().collect();
            assert_eq!(all, (49152..=65535).collect::<Vec<_>>());
            assert!(
                slices.iter().all(|slice| slice.start() % 2 == 0),
                "{slices:?}"
            );
        }
    }

    #[test]
    fn odd_and_tiny_ranges_are_covered_too() {
        for (first, last, shards) in [(50001, 50010, 3), (50001, 50001, 1), (50000, 50003, 2)] {
            let slices = split_ports(PortRange { first, last }, shards);
            assert_eq!(slices.len(), shards);
            let all: Vec<u16> = slices.into_iter().flatten().collect();
            assert_eq!(all, (first..=last).collect::<Vec<_>>());
        }
    }
}
