//! The life of connections with peers (RFC 6062) after they were asked for: made, accepted, carried
//! and ended. The shell moves the bytes; here it is decided that it may.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng as _;
use stun_wire::error_code;

use super::{Due, Relay};
use crate::clock::Tick;
use crate::counters::QuotaKind;
use crate::data;
use crate::peer_connections::{PeerConnection, State};
use crate::respond::{Answer, Reject};
use crate::tables::AllocationId;
use crate::timers::TimerId;
use crate::verdict::{
    ConnectionEnd, Direction, Event, Family, IncomingRefusal, Now, Path, PeerConnectionId, Reason,
    RelayAddr,
};

impl Relay {
    /// The answer to [`Event::ConnectWanted`]: the peer is connected, or cannot be. One that was not
    /// asked for, or whose time is over, is ignored.
    pub fn handle_connected(&mut self, now: Now, connection: PeerConnectionId, success: bool) {
        let tick = self.clock.tick(now.mono);
        if !success {
            let connecting = self.tcp.get(connection);
            if connecting.is_some_and(|c| matches!(c.state, State::Connecting { .. })) {
                self.end_connection(connection, ConnectionEnd::PeerLost);
            }
            return;
        }
        let Some((envelope, timer)) = self.tcp.connected(connection) else {
            return;
        };
        let until = tick.after(self.config.lifetime.unclaimed);
        self.timers.set(timer, until, Reason::PeerConnection);
        if let Some(client) = self.control_of(connection) {
            self.respond_later(client, &envelope, Ok(Answer::Connected(connection)));
        }
    }

    /// A connection that was accepted on a relayed address (RFC 6062 §5.3): its client hears of it,
    /// or it is to be closed at once.
    ///
    /// # Errors
    /// Why it is closed.
    pub fn handle_incoming(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
    ) -> Result<PeerConnectionId, IncomingRefusal> {
        let tick = self.clock.tick(now.mono);
        let id = self.tables.find_relayed(relayed);
        let id = id.filter(|id| self.tcp.is_tcp(*id));
        let id = id.ok_or(IncomingRefusal::UnknownRelay)?;
        let peer = self.ports.public_peer(peer);
        let allocation = self
            .tables
            .get_mut(id)
            .ok_or(IncomingRefusal::UnknownRelay)?;
        let client = allocation.client;
        allocation
            .side(Family::of(relayed.0.ip()), tick)
            .ok_or(IncomingRefusal::UnknownRelay)?;
        // RFC 6062 §5.3: without a permission it is closed, and nobody hears of it.
        allocation
            .permitted_mut(peer.ip(), tick)
            .ok_or(IncomingRefusal::NoPermission)?;
        // Bytes go back to that very port.
        self.tcp_policy
            .judge(peer)
            .map_err(|_| IncomingRefusal::PeerDenied)?;
        if self.tcp.has_peer(id, peer) {
            return Err(IncomingRefusal::Exists);
        }
        if let Some(kind) = self.full_of_connections(id) {
            self.counters.count_quota_rejection(kind);
            return Err(IncomingRefusal::Full);
        }
        let until = tick.after(self.config.lifetime.unclaimed);
        let connection = self.add_connection(id, peer, until, |timer| State::Waiting { timer });
        self.indicate_attempt(client, peer, connection);
        Ok(connection)
    }

    /// True if this client connection carries a peer's data: nothing on it is a message any more.
    #[must_use]
    pub fn carries_data(&self, client: Path) -> bool {
        self.tcp.carries_data(&client)
    }

    /// May the shell read what it will carry this way? If the allocation or its user is over its
    /// bandwidth, from when on; what has arrived waits until then.
    ///
    /// # Errors
    /// When to ask again.
    pub fn may_carry(
        &mut self,
        now: Now,
        connection: PeerConnectionId,
        direction: Direction,
    ) -> Result<(), Instant> {
        let tick = self.clock.tick(now.mono);
        let Some(known) = self.tcp.get(connection) else {
            return Ok(()); // it is about to be closed
        };
        let Some(at) = data::bandwidth_room_at(self, known.allocation, direction) else {
            return Ok(());
        };
        if at <= tick {
            return Ok(());
        }
        self.counters.count_quota_rejection(QuotaKind::Bandwidth);
        Err(self.clock.instant(at).unwrap_or(now.mono))
    }

    /// So many bytes were read from one end of a connection and will be sent to the other.
    pub fn handle_carried(
        &mut self,
        now: Now,
        connection: PeerConnectionId,
        direction: Direction,
        bytes: usize,
    ) {
        let tick = self.clock.tick(now.mono);
        if let Some(id) = self.tcp.get(connection).map(|known| known.allocation) {
            data::count_stream(self, tick, id, direction, bytes);
        }
    }

    /// A connection that the shell was told of is over, for a reason that the shell has found.
    pub fn handle_connection_end(&mut self, connection: PeerConnectionId, reason: ConnectionEnd) {
        self.end_connection(connection, reason);
    }

    /// The bound that another connection would break.
    pub(crate) fn full_of_connections(&self, id: AllocationId) -> Option<QuotaKind> {
        let (mut all, mut waiting) = (0, 0);
        for (_, connection) in self.tcp.of(id) {
            all += 1;
            waiting += usize::from(connection.state.timer().is_some());
        }
        let quota = &self.config.quota;
        if all >= usize::from(quota.peer_connections_per_allocation) {
            Some(QuotaKind::PeerConnections)
        } else if waiting >= usize::from(quota.waiting_connections_per_allocation) {
            Some(QuotaKind::WaitingConnections)
        } else {
            None
        }
    }

    /// A connection that ends at `until` unless something comes of it.
    pub(crate) fn add_connection(
        &mut self,
        allocation: AllocationId,
        peer: SocketAddr,
        until: Tick,
        state: impl FnOnce(TimerId) -> State,
    ) -> PeerConnectionId {
        // Random, so that an id tells nothing of others and is not met again soon.
        let connection = loop {
            let id = PeerConnectionId(self.rng.next_u32());
            if self.tcp.get(id).is_none() {
                break id;
            }
        };
        let owner = Due::PeerConnection(connection);
        let timer = self.timers.insert(until, Reason::PeerConnection, owner);
        let state = state(timer);
        self.tcp.add(
            connection,
            PeerConnection {
                allocation,
                peer,
                state,
            },
        );
        connection
    }

    /// The peer has not answered, or the client has not come, in time.
    pub(super) fn end_overdue(&mut self, connection: PeerConnectionId) {
        let reason = match self.tcp.get(connection).map(|known| &known.state) {
            Some(State::Connecting { .. }) => ConnectionEnd::ConnectTimeout,
            Some(State::Waiting { .. } | State::Bound { .. }) | None => ConnectionEnd::Unclaimed,
        };
        self.end_connection(connection, reason);
    }

    /// Ends the connections of an allocation with some peers.
    pub(super) fn end_connections(
        &mut self,
        id: AllocationId,
        reason: ConnectionEnd,
        with: impl Fn(SocketAddr) -> bool,
    ) {
        let theirs = self.tcp.of(id).filter(|(_, known)| with(known.peer));
        let theirs: Vec<PeerConnectionId> = theirs.map(|(connection, _)| connection).collect();
        for connection in theirs {
            self.end_connection(connection, reason);
        }
    }

    /// Nothing of it is left when this returns. A Connect that waits for it is answered with 447
    /// (RFC 6062 §5.2).
    pub(super) fn end_connection(&mut self, connection: PeerConnectionId, reason: ConnectionEnd) {
        let client = self.control_of(connection);
        let Some(ended) = self.tcp.take(connection) else {
            return;
        };
        if let Some(timer) = ended.state.timer() {
            self.timers.remove(timer);
        }
        self.events
            .push_back(Event::ConnectionEnded { connection, reason });
        if let (State::Connecting { envelope, .. }, Some(client)) = (ended.state, client) {
            let failed = Reject::bare(error_code::CONNECTION_TIMEOUT_OR_FAILURE);
            self.respond_later(client, &envelope, Err(failed));
        }
    }

    fn control_of(&self, connection: PeerConnectionId) -> Option<Path> {
        let id = self.tcp.get(connection)?.allocation;
        self.tables.get(id).map(|allocation| allocation.client)
    }
}
