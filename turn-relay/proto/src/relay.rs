//! The relay machine: calls in, results out, dispatch only. What a request does stands in
//! `request/`, what a payload does in `data`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stun_wire::attribute::Icmp;

use crate::auth::Authenticator;
use crate::blocks::Blocks;
use crate::clock::Clock;
use crate::config::RelayConfig;
use crate::counters::Counters;
use crate::data;
use crate::demux::{Kind, classify};
use crate::hash::HashKey;
use crate::ledger::Ledger;
use crate::limits::Limiter;
use crate::peer_connections::TcpAllocations;
use crate::peers::PeerPolicy;
use crate::ports::Ports;
use crate::quota::{Holdings, UserId};
use crate::request::allocate;
use crate::tables::{AllocationId, Tables};
use crate::timers::{TimerId, Timers};
use crate::verdict::{
    ConnectionEnd, DropReason, EndReason, Event, Forward, Now, Path, PeerConnectionId, Reason,
    RelayAddr, SocketOutcome, Traffic, Verdict,
};

mod answer;
mod connections;
mod ending;
mod operator;

pub use operator::{AllocationHandle, AllocationView, HandleError};

/// Room that an empty queue keeps.
const QUEUE_KEPT: usize = 256;

/// One TURN relay (of a shard): see the crate's front page for the contract.
pub struct Relay {
    pub(crate) config: RelayConfig,
    clock: Clock,
    key: HashKey,
    pub(crate) rng: StdRng,
    auth: Authenticator,
    pub(crate) limiter: Limiter,
    pub(crate) policy: PeerPolicy,
    /// The same rules for connections, with the relayed addresses that listen for them.
    pub(crate) tcp_policy: PeerPolicy,
    pub(crate) ports: Ports,
    pub(crate) holdings: Holdings,
    pub(crate) blocks: Blocks,
    pub(crate) tables: Tables,
    pub(crate) tcp: TcpAllocations,
    pub(crate) reservations: BTreeMap<[u8; 8], Reservation>,
    /// Sockets asked for and not answered for, and who waits; nobody waits any more for some.
    pub(crate) wanted: BTreeMap<RelayAddr, Option<AllocationId>>,
    pub(crate) timers: Timers<Due>,
    /// When to look at the spare sockets, if there are any.
    spares_timer: Option<TimerId>,
    pub(crate) events: VecDeque<Event>,
    outbox: VecDeque<(Path, Vec<u8>)>,
    pub(crate) counters: Counters,
    pub(crate) draining: bool,
    /// Where the header of a Data indication is written before it is copied out.
    pub(crate) scratch: Vec<u8>,
}

/// What a deadline is about.
#[derive(Clone, Copy)]
pub(crate) enum Due {
    Allocation(AllocationId),
    Reservation([u8; 8]),
    PeerConnection(PeerConnectionId),
    Spares,
}

/// An open relay socket that waits for its RESERVATION-TOKEN.
pub(crate) struct Reservation {
    pub(crate) addr: RelayAddr,
    pub(crate) user: UserId,
    pub(crate) timer: TimerId,
}

/// Levels at this moment; each is kept, none is counted out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Allocations that exist.
    pub allocations: usize,
    /// Allocations that wait for a socket.
    pub pending: usize,
    /// Ports held for a RESERVATION-TOKEN.
    pub reservations: usize,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
    /// TCP connections with peers, in whatever state.
    pub peer_connections: usize,
    /// Users with an allocation.
    pub users: usize,
    /// Relay ports in use.
    pub ports_in_use: usize,
    /// Relay ports there are.
    pub ports_limit: usize,
    /// Relay sockets that are open and wait for an allocation.
    pub spare_sockets: usize,
}

impl Relay {
    /// A relay without allocations. The seed is 32 bytes of the operating system's generator.
    #[must_use]
    pub fn new(config: RelayConfig, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let mut nonce_key = [0; 32];
        rng.fill_bytes(&mut nonce_key);
        let key = HashKey::random(&mut rng);
        let ledger = config.ledger.clone().unwrap_or_else(|| {
            let mut seed = [0; 16];
            rng.fill_bytes(&mut seed);
            Arc::new(Ledger::new(seed))
        });
        let ports = Ports::new(&config);
        let policy = PeerPolicy::with_live_ports(&config, ports.live().clone());
        let tcp_policy = PeerPolicy::with_live_ports(&config, ports.live_tcp().clone());
        Self {
            clock: Clock::default(),
            key,
            blocks: Blocks::default(),
            auth: Authenticator::new(&config, nonce_key),
            limiter: Limiter::new(config.limits.clone(), key),
            policy,
            tcp_policy,
            ports,
            holdings: Holdings::new(key, ledger),
            tables: Tables::new(key),
            tcp: TcpAllocations::default(),
            reservations: BTreeMap::new(),
            wanted: BTreeMap::new(),
            timers: Timers::new(),
            spares_timer: None,
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            counters: Counters::default(),
            draining: false,
            scratch: Vec::with_capacity(64),
            rng,
            config,
        }
    }

    /// A new configuration, between two calls. Relay addresses, ports, live ports and ledger stay as
    /// they were at the start; permissions and channels towards peers that are refused by it end.
    pub fn set_config(&mut self, now: Now, config: RelayConfig) {
        let tick = self.clock.tick(now.mono);
        self.end_due(tick);
        let started = std::mem::replace(&mut self.config, config);
        self.config.relay_addresses = started.relay_addresses;
        self.config.ports = started.ports;
        self.config.live_ports = started.live_ports;
        self.config.live_tcp_ports = started.live_tcp_ports;
        self.config.ledger = started.ledger;
        self.auth.set_config(&self.config);
        self.limiter.set_config(self.config.limits.clone());
        if self.ports.spares.len() > self.config.spare_sockets {
            self.close_spares();
        }
        self.policy = PeerPolicy::with_live_ports(&self.config, self.ports.live().clone());
        self.tcp_policy = PeerPolicy::with_live_ports(&self.config, self.ports.live_tcp().clone());
        let ids: Vec<AllocationId> = self.tables.iter().map(|(id, _)| id).collect();
        for id in ids {
            let policy = &self.policy;
            let freed = self.tables.retain(id, |ip| policy.judge_ip(ip).is_ok());
            self.report_freed(id, freed);
            self.rearm(id);
            let policy = self.tcp_policy.clone();
            self.end_connections(id, ConnectionEnd::PeerDenied, |peer| {
                policy.judge(peer).is_err()
            });
        }
    }

    /// While draining, new allocations are refused (508, or 300 with an alternate server) and the
    /// existing ones live on.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
        if draining {
            self.close_spares();
        }
    }

    /// A datagram, or a frame of a stream, from a client.
    pub fn handle_client(
        &mut self,
        now: Now,
        path: Path,
        input: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        let tick = self.clock.tick(now.mono);
        match classify(input, self.config.protocol.rfc5766_channels) {
            Kind::ChannelData => forward(data::from_channel(self, tick, &path, input)),
            Kind::Stun => self.handle_stun(now, tick, path, input, reply),
            Kind::Other => Verdict::Dropped(DropReason::NotTurn),
        }
    }

    /// A datagram from a peer on a relay socket.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
        input: &[u8],
    ) -> Verdict {
        let tick = self.clock.tick(now.mono);
        let outcome = data::from_peer(self, tick, relayed, peer, input);
        if matches!(outcome, Err(DropReason::UnknownRelay)) {
            self.close_spare(relayed);
        }
        forward(outcome)
    }

    /// An ICMP error for a datagram that left a relay socket towards `peer` (RFC 8656 §11.5), for
    /// the client who sent it; `icmp.data` is the MTU of "too big" and 0 otherwise.
    pub fn handle_peer_error(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
        icmp: Icmp,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        let tick = self.clock.tick(now.mono);
        match data::peer_error(self, tick, relayed, peer, icmp, reply) {
            Ok(path) => Verdict::Reply { path },
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// The answer to [`Event::SocketWanted`]. One that was not asked for is ignored.
    pub fn handle_socket(&mut self, now: Now, addr: RelayAddr, outcome: SocketOutcome) {
        let tick = self.clock.tick(now.mono);
        match self.wanted.remove(&addr) {
            Some(Some(id)) => allocate::handle_socket(self, tick, id, addr, outcome),
            Some(None) => {
                if outcome == SocketOutcome::Opened {
                    self.free_socket(addr);
                } else {
                    self.forget_socket(addr);
                }
            }
            None => {}
        }
    }

    /// The TCP or TLS connection of a client ended: so does its allocation (RFC 8656 §3.1), or the
    /// connection to a peer whose data it carried (RFC 6062 §5.5).
    pub fn handle_disconnect(&mut self, now: Now, client: Path) {
        let tick = self.clock.tick(now.mono);
        if let Some(connection) = self.tcp.carried_by(&client) {
            self.end_connection(connection, ConnectionEnd::ClientLost);
        }
        if let Some(id) = self.tables.find_client(&client) {
            self.end(id, tick, EndReason::Disconnected);
        }
    }

    /// What a kernel fast path carried for a client since the last report.
    pub fn handle_usage(&mut self, client: Path, carried: Traffic) {
        let id = self.tables.find_client(&client);
        if let Some(allocation) = id.and_then(|id| self.tables.get_mut(id)) {
            let traffic = &mut allocation.traffic;
            traffic.to_peer_packets += carried.to_peer_packets;
            traffic.to_peer_bytes += carried.to_peer_bytes;
            traffic.to_client_packets += carried.to_client_packets;
            traffic.to_client_bytes += carried.to_client_bytes;
        }
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let tick = self.clock.tick(now.mono);
        self.end_due(tick);
    }

    /// Ends everything: the relay stops. The sockets come back as [`Event::SocketFreed`].
    pub fn end_all(&mut self, now: Now) {
        let tick = self.clock.tick(now.mono);
        let ids: Vec<AllocationId> = self.tables.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.end(id, tick, EndReason::Drained);
        }
        let tokens: Vec<[u8; 8]> = self.reservations.keys().copied().collect();
        for token in tokens {
            self.end_reservation(token);
        }
        self.close_spares();
    }

    /// A response that had to wait, written into `reply` (cleared first); send it on the path.
    pub fn poll_transmit(&mut self, reply: &mut Vec<u8>) -> Option<Path> {
        reply.clear();
        let Some((path, bytes)) = self.outbox.pop_front() else {
            if self.outbox.capacity() > QUEUE_KEPT {
                self.outbox = VecDeque::new();
            }
            return None;
        };
        reply.extend_from_slice(&bytes);
        Some(path)
    }

    /// What the shell has to do or to know, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > QUEUE_KEPT {
            self.events = VecDeque::new(); // after a rush its memory goes back
        }
        event
    }

    /// When `handle_timeout` is due, and why. O(1), and never earlier than something ends.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let (tick, reason) = self.timers.next()?;
        Some((self.clock.instant(tick)?, reason))
    }

    /// True if this machine relays on that address.
    #[must_use]
    pub fn owns(&self, addr: RelayAddr) -> bool {
        self.tables.find_relayed(addr).is_some()
    }

    /// Levels at this moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            allocations: self.tables.len() - self.tables.pending(),
            pending: self.tables.pending(),
            reservations: self.reservations.len(),
            permissions: self.tables.permissions(),
            channels: self.tables.channels(),
            peer_connections: self.tcp.len(),
            users: self.holdings.users(),
            ports_in_use: self.ports.in_use(),
            ports_limit: self.ports.limit(),
            spare_sockets: self.ports.spares.len(),
        }
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Checks every invariant between tables, quotas, ports and timers. Linear: for tests and
    /// fuzzing.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn assert_consistent(&self) {
        self.tables.assert_consistent();
        let pairs = self
            .tables
            .iter()
            .filter(|(_, a)| a.pending.as_ref().is_some_and(|p| p.is_pair()));
        let holdings = self.tables.len() + self.reservations.len() + pairs.count();
        assert_eq!(self.holdings.total(), holdings, "what users hold");
        self.holdings.assert_listed();
        assert_eq!(
            self.holdings.addresses_total(),
            self.tables.len(),
            "what addresses hold"
        );
        assert_eq!(
            self.timers.len(),
            self.tables.len()
                + self.reservations.len()
                + self.tcp.waiting()
                + usize::from(self.spares_timer.is_some()),
            "timers"
        );
        assert!(
            self.spares_timer.is_some() || self.ports.spares.len() == 0,
            "spare sockets are looked after"
        );
        self.tcp.assert_consistent();
        for (connection, id) in self.tcp.owners() {
            let allocation = self.tables.get(id);
            assert!(
                allocation.is_some_and(|allocation| allocation.pending.is_none()),
                "{connection:?} has an allocation"
            );
        }
        let live = self
            .tables
            .iter()
            .flat_map(|(_, a)| a.relayed())
            .flatten()
            .count();
        let open_wants = self.tables.iter().filter_map(|(_, a)| a.pending.as_ref());
        let open_wants: usize = open_wants.map(|pending| pending.open()).sum();
        let used = live + open_wants + self.reservations.len() + self.wanted.len();
        assert_eq!(self.ports.in_use(), used, "ports");
    }
}

fn forward(result: Result<Forward, DropReason>) -> Verdict {
    match result {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason) => Verdict::Dropped(reason),
    }
}
