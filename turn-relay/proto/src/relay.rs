//! The relay machine: calls in, results out, dispatch only. What a request does stands in
//! `request/`, what a payload does in `data`.

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::RelayConfig;
use crate::counters::Counters;
use crate::verdict::{
    DropReason, Event, Now, Path, Reason, RelayAddr, SocketOutcome, Traffic, Verdict,
};

/// One TURN relay (of a shard): see the crate's front page for the contract.
pub struct Relay {
    counters: Counters,
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
    /// Users with an allocation.
    pub users: usize,
    /// Relay ports in use.
    pub ports_in_use: usize,
    /// Relay ports there are.
    pub ports_limit: usize,
}

/// One allocation, for lists and dashboards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationView<'a> {
    /// The client's 5-tuple.
    pub client: Path,
    /// Who owns it: the subject of the credential.
    pub user: &'a str,
    /// Bound relay addresses.
    pub relayed: [Option<RelayAddr>; 2],
    /// When it was made.
    pub created: Instant,
    /// When it ends unless refreshed.
    pub expires: Instant,
    /// What it carried.
    pub traffic: Traffic,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
}

impl Relay {
    /// A relay without allocations. The seed is 32 bytes of the operating system's generator.
    #[must_use]
    pub fn new(config: RelayConfig, seed: [u8; 32]) -> Self {
        let _ = (config, seed);
        Self {
            counters: Counters::default(),
        }
    }

    /// A new configuration, between two calls. Relay addresses, ports and live ports stay as they
    /// were at the start; permissions and channels towards peers that are refused now end.
    pub fn set_config(&mut self, now: Now, config: RelayConfig) {
        let _ = (now, config);
    }

    /// While draining, new allocations are refused (508, or 300 with an alternate server) and the
    /// existing ones live on.
    pub fn set_draining(&mut self, draining: bool) {
        let _ = draining;
    }

    /// A datagram, or a frame of a stream, from a client.
    pub fn handle_client(
        &mut self,
        now: Now,
        path: Path,
        input: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let _ = (now, path, input);
        reply.clear();
        Verdict::Dropped(DropReason::NotTurn)
    }

    /// A datagram from a peer on a relay socket.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
        input: &[u8],
    ) -> Verdict {
        let _ = (now, relayed, peer, input);
        Verdict::Dropped(DropReason::UnknownRelay)
    }

    /// An ICMP error for a datagram that left a relay socket towards `peer` (RFC 8656 §11.5):
    /// type, code and the 32 bits that belong to them (the MTU of "fragmentation needed").
    pub fn handle_peer_error(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
        icmp: (u8, u8, [u8; 4]),
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let _ = (now, relayed, peer, icmp);
        reply.clear();
        Verdict::Dropped(DropReason::UnknownRelay)
    }

    /// The answer to [`Event::SocketWanted`].
    pub fn handle_socket(&mut self, now: Now, addr: RelayAddr, outcome: SocketOutcome) {
        let _ = (now, addr, outcome);
    }

    /// The TCP or TLS connection of a client ended: so does its allocation (RFC 8656 §3.1).
    pub fn handle_disconnect(&mut self, now: Now, client: Path) {
        let _ = (now, client);
    }

    /// What a kernel fast path carried for a client since the last report.
    pub fn handle_usage(&mut self, client: Path, carried: Traffic) {
        let _ = (client, carried);
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    /// Ends all allocations of a user (a credential's subject, or a static user's name). Returns how
    /// many.
    pub fn kick_user(&mut self, now: Now, user: &str) -> usize {
        let _ = (now, user);
        0
    }

    /// Ends the allocation of a client. False if there was none.
    pub fn kick_client(&mut self, now: Now, client: Path) -> bool {
        let _ = (now, client);
        false
    }

    /// Ends everything: the relay stops. The sockets come back as [`Event::SocketFreed`].
    pub fn end_all(&mut self, now: Now) {
        let _ = now;
    }

    /// A response that had to wait, written into `reply` (cleared first); send it on the path.
    pub fn poll_transmit(&mut self, reply: &mut Vec<u8>) -> Option<Path> {
        reply.clear();
        None
    }

    /// What the shell has to do or to know, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When `handle_timeout` is due, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        None
    }

    /// True if this machine has a relay socket open there.
    #[must_use]
    pub fn owns(&self, addr: RelayAddr) -> bool {
        let _ = addr;
        false
    }

    /// Allocations one by one, in no particular order.
    pub fn allocations(&self) -> impl Iterator<Item = AllocationView<'_>> {
        std::iter::empty()
    }

    /// Levels at this moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges::default()
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
