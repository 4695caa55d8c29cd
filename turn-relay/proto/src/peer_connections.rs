//! What TCP allocations (RFC 6062) have beside the table of all allocations: their listeners and
//! their connections with peers. A UDP allocation costs nothing here.
//!
//! A connection belongs to one allocation and one peer, is found by its id, and once bound by the
//! client connection that carries its data. Insert and remove keep the indexes true. How many there
//! are is bounded by [`Quota`](crate::Quota) per allocation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::clock::Bucket;
use crate::respond::Envelope;
use crate::tables::AllocationId;
use crate::timers::TimerId;
use crate::verdict::{Path, PeerConnectionId, RelayAddr, Transport};

/// All TCP allocations of a machine.
#[derive(Default)]
pub(crate) struct TcpAllocations {
    /// Those that wait for their listeners included.
    allocations: BTreeMap<AllocationId, TcpAllocation>,
    connections: BTreeMap<PeerConnectionId, PeerConnection>,
    by_client: BTreeMap<ClientKey, PeerConnectionId>,
    /// Relay addresses whose sockets are listeners: asked for, open, or waiting to be closed.
    listeners: BTreeSet<RelayAddr>,
}

#[derive(Default)]
struct TcpAllocation {
    /// In no order; few.
    connections: Vec<PeerConnectionId>,
    /// What Connect requests are taken from.
    connects: Bucket,
}

/// A connection with a peer.
pub(crate) struct PeerConnection {
    pub(crate) allocation: AllocationId,
    pub(crate) peer: SocketAddr,
    pub(crate) state: State,
}

/// How far it has come.
pub(crate) enum State {
    /// The shell connects to the peer; the response to Connect follows.
    Connecting {
        envelope: Box<Envelope>,
        timer: TimerId,
    },
    /// It waits for its ConnectionBind; the peer's bytes wait with it.
    Waiting { timer: TimerId },
    /// A client connection carries its data.
    Bound { client: Path },
}

impl State {
    pub(crate) fn timer(&self) -> Option<TimerId> {
        match self {
            Self::Connecting { timer, .. } | Self::Waiting { timer } => Some(*timer),
            Self::Bound { .. } => None,
        }
    }
}

/// What a 5-tuple is sorted by.
type ClientKey = (Transport, SocketAddr, SocketAddr);

fn key_of(client: &Path) -> ClientKey {
    (client.transport, client.local, client.remote)
}

impl TcpAllocations {
    /// An allocation is one for TCP.
    pub(crate) fn insert(&mut self, id: AllocationId) {
        self.allocations.insert(id, TcpAllocation::default());
    }

    /// It is gone; its connections were ended before.
    pub(crate) fn remove(&mut self, id: AllocationId) {
        let gone = self.allocations.remove(&id);
        debug_assert!(gone.is_none_or(|gone| gone.connections.is_empty()));
    }

    #[inline]
    pub(crate) fn is_tcp(&self, id: AllocationId) -> bool {
        self.allocations.contains_key(&id)
    }

    /// The socket asked for at this address is a listener.
    pub(crate) fn listen(&mut self, addr: RelayAddr) {
        self.listeners.insert(addr);
    }

    /// It is none any more. False if it was none.
    pub(crate) fn unlisten(&mut self, addr: RelayAddr) -> bool {
        self.listeners.remove(&addr)
    }

    /// Connections in whatever state.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Connections that no client connection carries yet; each has a timer.
    pub(crate) fn waiting(&self) -> usize {
        self.connections.len() - self.by_client.len()
    }

    pub(crate) fn get(&self, id: PeerConnectionId) -> Option<&PeerConnection> {
        self.connections.get(&id)
    }

    /// The connections of an allocation.
    pub(crate) fn of(
        &self,
        id: AllocationId,
    ) -> impl Iterator<Item = (PeerConnectionId, &PeerConnection)> {
        let ids = self.allocations.get(&id).map(|known| &known.connections);
        ids.into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.connections.get(id)?)))
    }

    /// An allocation has at most one connection with a peer.
    pub(crate) fn has_peer(&self, id: AllocationId, peer: SocketAddr) -> bool {
        self.of(id).any(|(_, connection)| connection.peer == peer)
    }

    /// What the allocation's Connect requests are taken from.
    pub(crate) fn connects_mut(&mut self, id: AllocationId) -> Option<&mut Bucket> {
        Some(&mut self.allocations.get_mut(&id)?.connects)
    }

    /// A new connection of a TCP allocation, not bound yet; its id is in use nowhere.
    pub(crate) fn add(&mut self, id: PeerConnectionId, connection: PeerConnection) {
        let Some(owner) = self.allocations.get_mut(&connection.allocation) else {
            return;
        };
        owner.connections.push(id);
        self.connections.insert(id, connection);
    }

    /// The peer has answered: the response to Connect is due.
    pub(crate) fn connected(&mut self, id: PeerConnectionId) -> Option<(Envelope, TimerId)> {
        let state = &mut self.connections.get_mut(&id)?.state;
        let State::Connecting { timer, .. } = state else {
            return None;
        };
        let timer = *timer;
        match std::mem::replace(state, State::Waiting { timer }) {
            State::Connecting { envelope, .. } => Some((*envelope, timer)),
            State::Waiting { .. } | State::Bound { .. } => None,
        }
    }

    /// A client connection carries its data from here on. The timer is to be removed.
    pub(crate) fn bind(&mut self, id: PeerConnectionId, client: Path) -> Option<TimerId> {
        let state = &mut self.connections.get_mut(&id)?.state;
        let State::Waiting { timer } = *state else {
            return None;
        };
        *state = State::Bound { client };
        self.by_client.insert(key_of(&client), id);
        Some(timer)
    }

    /// Out of every index. The timer is to be removed.
    pub(crate) fn take(&mut self, id: PeerConnectionId) -> Option<PeerConnection> {
        let connection = self.connections.remove(&id)?;
        if let Some(owner) = self.allocations.get_mut(&connection.allocation) {
            owner.connections.retain(|known| *known != id);
        }
        if let State::Bound { client } = &connection.state {
            self.by_client.remove(&key_of(client));
        }
        Some(connection)
    }

    /// The connection whose data this client connection carries.
    pub(crate) fn carried_by(&self, client: &Path) -> Option<PeerConnectionId> {
        self.by_client.get(&key_of(client)).copied()
    }

    /// True if a client connection carries data, and no messages any more.
    pub(crate) fn carries_data(&self, client: &Path) -> bool {
        !self.by_client.is_empty() && self.by_client.contains_key(&key_of(client))
    }

    /// Every connection with the allocation it belongs to.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (PeerConnectionId, AllocationId)> {
        let all = self.connections.iter();
        all.map(|(id, connection)| (*id, connection.allocation))
    }

    /// Every index says what the others say. For tests; linear.
    pub(crate) fn assert_consistent(&self) {
        let mut pairs = BTreeSet::new();
        let mut bound = 0;
        for (id, connection) in &self.connections {
            let owner = self.allocations.get(&connection.allocation);
            let listed = owner.map_or(0, |owner| {
                owner
                    .connections
                    .iter()
                    .filter(|known| *known == id)
                    .count()
            });
            assert_eq!(listed, 1, "listed once with its allocation");
            let pair = (connection.allocation, connection.peer);
            assert!(pairs.insert(pair), "one connection with a peer");
            if let State::Bound { client } = &connection.state {
                assert_eq!(self.carried_by(client), Some(*id), "client index");
                bound += 1;
            }
        }
        assert_eq!(self.by_client.len(), bound, "one entry a data connection");
        let listed: usize = self.allocations.values().map(|a| a.connections.len()).sum();
        assert_eq!(listed, self.connections.len(), "one entry a connection");
    }
}
