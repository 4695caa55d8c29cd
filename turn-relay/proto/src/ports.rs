//! Ports of relay sockets: which are free here, and which are open in the whole daemon.
//!
//! A pool is one bit a port, so that an even port, or an even port with its next, is found by the
//! same scan as any other. Picks are random (RFC 8656 §7.2, RFC 6056): the seed is the operating
//! system's, the generator ChaCha (CVE-2025-69217 was a `random()` here).

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::config::{RelayAddress, RelayConfig};
use crate::spares::Spares;
use crate::verdict::{Family, RelayAddr};

/// Which relay ports are open, over all shards that share it: one bit a port and address. A player
/// relayed by one shard is a peer that players of the other shards may reach.
#[derive(Debug, Default)]
pub struct LivePorts {
    addresses: Vec<(IpAddr, Box<[AtomicU64]>)>,
}

impl LivePorts {
    const WORDS: usize = 65_536 / 64;

    /// No port is open on any of these addresses (in their bound form).
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let bits = || (0..Self::WORDS).map(|_| AtomicU64::new(0)).collect();
        Self {
            addresses: addresses.into_iter().map(|ip| (ip, bits())).collect(),
        }
    }

    /// True if a relay socket is open there.
    #[must_use]
    pub fn contains(&self, ip: IpAddr, port: u16) -> bool {
        self.word(ip, port)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// How many relay sockets are open.
    #[must_use]
    pub fn len(&self) -> usize {
        let words = self.addresses.iter().flat_map(|(_, bits)| bits.iter());
        words
            .map(|word| word.load(Ordering::Relaxed).count_ones() as usize)
            .sum()
    }

    /// True if no relay socket is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn covers(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|(known, _)| *known == ip)
    }

    fn set(&self, addr: RelayAddr, open: bool) {
        if let Some((word, bit)) = self.word(addr.0.ip(), addr.0.port()) {
            if open {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    fn word(&self, ip: IpAddr, port: u16) -> Option<(&AtomicU64, u64)> {
        let (_, bits) = self.addresses.iter().find(|(known, _)| *known == ip)?;
        Some((bits.get(usize::from(port) / 64)?, 1 << (port % 64)))
    }
}

/// What an Allocate asks of its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parity {
    /// Any port.
    Any,
    /// An even port (EVEN-PORT, R = 0).
    Even,
    /// An even port and the next one, held for a token (EVEN-PORT, R = 1).
    EvenPair,
}

/// The free ports of one machine on each of its addresses.
pub(crate) struct Ports {
    pools: Vec<Pool>,
    live: Arc<LivePorts>,
    live_tcp: Arc<LivePorts>,
    /// Taken, and in no use. Those that are taken out of it are used or given back.
    pub(crate) spares: Spares,
}

impl Ports {
    /// All ports of the configuration, free.
    pub(crate) fn new(config: &RelayConfig) -> Self {
        let binds = || config.relay_addresses.iter().map(|address| address.bind);
        let own_unless_covering = |live: &Arc<LivePorts>| {
            if binds().all(|bind| live.covers(bind)) {
                Arc::clone(live)
            } else {
                Arc::new(LivePorts::new(binds()))
            }
        };
        let live = own_unless_covering(&config.live_ports);
        let live_tcp = own_unless_covering(&config.live_tcp_ports);
        let pools = config
            .relay_addresses
            .iter()
            .map(|address| Pool::new(*address, &config.ports))
            .collect();
        Self {
            pools,
            live,
            live_tcp,
            spares: Spares::default(),
        }
    }

    pub(crate) fn live(&self) -> &Arc<LivePorts> {
        &self.live
    }

    pub(crate) fn live_tcp(&self) -> &Arc<LivePorts> {
        &self.live_tcp
    }

    /// True if some address is of this family.
    pub(crate) fn has_family(&self, family: Family) -> bool {
        self.pools.iter().any(|pool| pool.family() == family)
    }

    /// A free port at random, on an address at random; of a pair the even one is returned.
    pub(crate) fn take(
        &mut self,
        rng: &mut StdRng,
        family: Family,
        parity: Parity,
        avoid: &[RelayAddr],
    ) -> Option<RelayAddr> {
        let count = self.pools.len();
        let first = if count > 1 {
            rng.random_range(0..count)
        } else {
            0
        };
        (0..count).find_map(|offset| {
            let pool = self.pools.get_mut((first + offset) % count)?;
            if pool.family() != family {
                return None;
            }
            pool.take(rng, parity, avoid)
        })
    }

    /// The port is free again, for either protocol: it never is in use for both.
    pub(crate) fn give_back(&mut self, addr: RelayAddr) {
        self.live.set(addr, false);
        self.live_tcp.set(addr, false);
        if let Some(pool) = self
            .pools
            .iter_mut()
            .find(|pool| pool.address.bind == addr.0.ip())
        {
            pool.set(addr.0.port(), false);
        }
    }

    /// The port is in no use, but its socket stays open.
    pub(crate) fn spare(&mut self, addr: RelayAddr) {
        self.live.set(addr, false);
        self.spares.add(addr);
    }

    /// The socket of this port is open: players may be reached there.
    pub(crate) fn opened(&self, addr: RelayAddr) {
        self.live.set(addr, true);
    }

    /// The listener of this port is open: players may be reached there over TCP.
    pub(crate) fn opened_tcp(&self, addr: RelayAddr) {
        self.live_tcp.set(addr, true);
    }

    /// The form of a relay address that clients and peers see.
    pub(crate) fn public(&self, addr: RelayAddr) -> SocketAddr {
        let pool = self
            .pools
            .iter()
            .find(|pool| pool.address.bind == addr.0.ip());
        SocketAddr::new(
            pool.map_or_else(|| addr.0.ip(), |pool| pool.address.public()),
            addr.0.port(),
        )
    }

    /// The form in which a peer is known: a relay socket of ours is known by its public form,
    /// whichever of the two a datagram or a client names.
    pub(crate) fn public_peer(&self, peer: SocketAddr) -> SocketAddr {
        let pool = self
            .pools
            .iter()
            .find(|pool| pool.address.bind == peer.ip());
        pool.map_or(peer, |pool| {
            SocketAddr::new(pool.address.public(), peer.port())
        })
    }

    /// Ports in use, over all addresses.
    pub(crate) fn in_use(&self) -> usize {
        let free: usize = self.pools.iter().map(|pool| pool.free).sum();
        self.limit() - free - self.spares.len()
    }

    /// Ports there are, over all addresses.
    pub(crate) fn limit(&self) -> usize {
        self.pools.iter().map(|pool| pool.size).sum()
    }
}

/// The ports of one address.
struct Pool {
    address: RelayAddress,
    range: RangeInclusive<u16>,
    /// The port of bit 0, a multiple of 64, so that even bits are even ports.
    base: u16,
    /// One bit a port; bits outside the range are always set.
    used: Box<[u64]>,
    free: usize,
    size: usize,
}

/// The bits of even ports.
const EVEN: u64 = 0x5555_5555_5555_5555;

impl Pool {
    fn new(address: RelayAddress, range: &RangeInclusive<u16>) -> Self {
        let (low, high) = (*range.start(), *range.end());
        let base = low / 64 * 64;
        let words = usize::from(high.saturating_sub(base)) / 64 + 1;
        let mut pool = Self {
            address,
            range: range.clone(),
            base,
            used: vec![u64::MAX; words].into_boxed_slice(),
            free: 0,
            size: range.len(),
        };
        for port in range.clone() {
            pool.set(port, false);
        }
        pool
    }

    fn family(&self) -> Family {
        Family::of(self.address.bind)
    }

    fn set(&mut self, port: u16, used: bool) {
        if !self.range.contains(&port) {
            return;
        }
        let bit = 1 << (port % 64);
        let Some(word) = self.used.get_mut(usize::from(port - self.base) / 64) else {
            return;
        };
        match (used, *word & bit != 0) {
            (true, false) => {
                *word |= bit;
                self.free -= 1;
            }
            (false, true) => {
                *word &= !bit;
                self.free += 1;
            }
            (true, true) | (false, false) => {}
        }
    }

    fn take(&mut self, rng: &mut StdRng, parity: Parity, avoid: &[RelayAddr]) -> Option<RelayAddr> {
        if self.free == 0 {
            return None;
        }
        let port = self
            .sample(rng, parity, avoid)
            .or_else(|| self.scan(rng, parity, avoid))?;
        self.set(port, true);
        if parity == Parity::EvenPair {
            self.set(port + 1, true);
        }
        Some(RelayAddr(SocketAddr::new(self.address.bind, port)))
    }

    /// A few throws of the dice: uniform, and almost always enough.
    fn sample(&self, rng: &mut StdRng, parity: Parity, avoid: &[RelayAddr]) -> Option<u16> {
        (0..8).find_map(|_| {
            let port = rng.random_range(self.range.clone());
            let port = if parity == Parity::Any {
                port
            } else {
                port & !1
            };
            let usable = self.usable(usize::from(port.checked_sub(self.base)?) / 64, parity);
            (usable & 1 << (port % 64) != 0 && !self.avoided(port, avoid)).then_some(port)
        })
    }

    /// The first usable port from a random place on: the pool is nearly full.
    fn scan(&self, rng: &mut StdRng, parity: Parity, avoid: &[RelayAddr]) -> Option<u16> {
        let first = rng.random_range(0..self.used.len());
        (0..self.used.len()).find_map(|offset| {
            let at = (first + offset) % self.used.len();
            let mut usable = self.usable(at, parity);
            while usable != 0 {
                let bit =
                    u16::try_from(at * 64).ok()? + u16::try_from(usable.trailing_zeros()).ok()?;
                let port = self.base + bit;
                if !self.avoided(port, avoid) {
                    return Some(port);
                }
                usable &= usable - 1;
            }
            None
        })
    }

    /// The bits of a word whose ports can be taken.
    fn usable(&self, word: usize, parity: Parity) -> u64 {
        let free = self.used.get(word).map_or(0, |used| !used);
        match parity {
            Parity::Any => free,
            Parity::Even => free & EVEN,
            Parity::EvenPair => free & free >> 1 & EVEN,
        }
    }

    fn avoided(&self, port: u16, avoid: &[RelayAddr]) -> bool {
        avoid.contains(&RelayAddr(SocketAddr::new(self.address.bind, port)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    fn ports(range: RangeInclusive<u16>) -> (Ports, StdRng) {
        let config = RelayConfig {
            relay_addresses: vec![RelayAddress::new(IpAddr::from([192, 0, 2, 1]))],
            ports: range,
            ..RelayConfig::default()
        };
        (Ports::new(&config), StdRng::from_seed([3; 32]))
    }

    #[test]
    fn every_port_is_given_out_once_and_comes_back() {
        let (mut ports, mut rng) = ports(50_001..=50_199);
        let mut taken = BTreeSet::new();
        while let Some(addr) = ports.take(&mut rng, Family::V4, Parity::Any, &[]) {
            assert!(taken.insert(addr), "{addr} was given out twice");
        }
        let numbers: Vec<u16> = taken.iter().map(|addr| addr.0.port()).collect();
        assert_eq!(numbers, (50_001..=50_199).collect::<Vec<_>>());
        assert_eq!((ports.in_use(), ports.limit()), (199, 199));
        for addr in taken {
            ports.give_back(addr);
        }
        assert_eq!(ports.in_use(), 0);
    }

    #[test]
    fn even_pairs_stay_inside_the_range() {
        let (mut ports, mut rng) = ports(49_153..=49_160);
        let mut even = BTreeSet::new();
        while let Some(addr) = ports.take(&mut rng, Family::V4, Parity::EvenPair, &[]) {
            even.insert(addr.0.port());
        }
        assert_eq!(
            even,
            BTreeSet::from([49_154, 49_156, 49_158]),
            "49160 has no next port"
        );
        assert_eq!(ports.in_use(), 6);
        let mut rest = BTreeSet::new();
        while let Some(addr) = ports.take(&mut rng, Family::V4, Parity::Even, &[]) {
            rest.insert(addr.0.port());
        }
        assert_eq!(rest, BTreeSet::from([49_160]));
    }

    #[test]
    fn the_highest_port_is_usable() {
        let (mut ports, mut rng) = ports(65_535..=65_535);
        let addr = ports.take(&mut rng, Family::V4, Parity::Any, &[]).unwrap();
        assert_eq!(addr.0.port(), 65_535);
        ports.give_back(addr);
        assert_eq!(
            ports.take(&mut rng, Family::V4, Parity::EvenPair, &[]),
            None
        );
        assert_eq!(
            ports.take(&mut rng, Family::V4, Parity::Any, &[addr]),
            None,
            "avoided"
        );
        assert_eq!(
            ports.take(&mut rng, Family::V6, Parity::Any, &[]),
            None,
            "no such family"
        );
    }

    #[test]
    fn picks_are_spread_over_the_range() {
        let (mut ports, mut rng) = ports(49_152..=65_535);
        let picks: Vec<u16> = (0..256)
            .filter_map(|_| ports.take(&mut rng, Family::V4, Parity::Any, &[]))
            .map(|addr| addr.0.port())
            .collect();
        assert_eq!(picks.len(), 256);
        let neighbours = picks
            .windows(2)
            .filter(|w| w[0].abs_diff(w[1]) < 16)
            .count();
        assert!(
            neighbours < 16,
            "{neighbours} of 255 steps are short: ports can be guessed"
        );
    }

    #[test]
    fn live_ports_are_seen_by_everybody_who_shares_them() {
        let live = LivePorts::new([IpAddr::from([192, 0, 2, 1])]);
        let addr = RelayAddr("192.0.2.1:50000".parse().unwrap());
        assert!(!live.contains(addr.0.ip(), 50_000));
        live.set(addr, true);
        assert!(live.contains(addr.0.ip(), 50_000));
        assert!(!live.contains(addr.0.ip(), 50_001));
        assert_eq!(live.len(), 1);
        live.set(addr, false);
        assert!(live.is_empty());
    }
}
