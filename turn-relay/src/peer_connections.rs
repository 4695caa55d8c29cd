//! TCP connections with peers (RFC 6062): listeners on relayed addresses, connections from them, and
//! the splice of each with the client connection that carries its data.
//!
//! The machine decides what there is and when it ends; here bytes are moved. Each direction holds at
//! most a queue and one read more; while the queue is full the other end is not read, so that a slow
//! reader slows its writer down and nothing else. An end of stream is passed on when all before it is
//! sent. One that stands still ends after `[streams] stalled`.
//!
//! A client's control and data connections must meet the same shard, or its ConnectionBind names a
//! connection that nobody knows (400): listeners steer by source address (`server/listening.rs`).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Interest, Registry};
use net_io::tcp;
use slab::Slab;
use turn_relay_proto::{
    ConnectionEnd, Direction, Event, Now, Path, PeerConnectionId, Relay, RelayAddr, SocketOutcome,
};

use crate::counters::{Connected, Operation, Origin, PeerEnd, ShardCounters, StreamEnd};
use crate::peer_socket::{PeerSocket, SYSTEM_QUEUE};
use crate::source::Source;
use crate::stream::Buffers;
use crate::streams::Streams;

/// Connections the system queues on a relayed address before they are accepted.
const BACKLOG: i32 = 16;

/// Connections accepted from one relayed address in a round.
const ACCEPTS: usize = 8;

/// After an accept failed for want of descriptors or memory, the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TCP side of relayed addresses, of one shard.
pub(crate) struct PeerConnections {
    listeners: Slab<PeerListener>,
    by_addr: HashMap<RelayAddr, usize>,
    peers: Slab<PeerSocket>,
    by_id: HashMap<PeerConnectionId, usize>,
    dirty: Vec<usize>,
    deadlines: BTreeSet<(Instant, Due)>,
    /// What can be read again; the shard puts it into its list.
    woken: Vec<Source>,
    stalled: Duration,
}

struct PeerListener {
    listener: TcpListener,
    addr: RelayAddr,
    is_ready: bool,
}

/// What a deadline is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A listener may accept again.
    Accept(usize),
    /// An end may be read again, as far as bandwidth goes: the source behind it.
    ClientBandwidth(usize),
    PeerBandwidth(usize),
    /// Nothing may have moved for too long.
    Stalled(usize),
}

/// What a shard lends for moving bytes.
pub(crate) struct Lent<'a> {
    pub(crate) relay: &'a mut Relay,
    pub(crate) streams: &'a mut Streams,
    pub(crate) counters: &'a ShardCounters,
    pub(crate) registry: &'a Registry,
    pub(crate) now: Now,
}

impl PeerConnections {
    pub(crate) fn new(stalled: Duration) -> Self {
        Self {
            listeners: Slab::new(),
            by_addr: HashMap::new(),
            peers: Slab::new(),
            by_id: HashMap::new(),
            dirty: Vec::new(),
            deadlines: BTreeSet::new(),
            woken: Vec::new(),
            stalled,
        }
    }

    /// Another patience, for connections that come to wait from here on.
    pub(crate) fn set_stalled(&mut self, stalled: Duration) {
        self.stalled = stalled;
    }

    /// Does what the machine wants of connections with peers; other events are not for here.
    pub(crate) fn act(&mut self, event: &Event, lent: &mut Lent<'_>) {
        match *event {
            Event::ListenWanted { addr } => {
                let outcome = self.listen(addr, lent.registry);
                lent.counters.relay_sockets.inc(outcome.into());
                lent.relay.handle_socket(lent.now, addr, outcome);
            }
            Event::ListenFreed { addr } => self.unlisten(addr, lent.registry),
            Event::ConnectWanted {
                connection,
                relayed,
                peer,
            } => {
                if !self.connect(connection, (relayed, peer), lent) {
                    lent.counters.peers.connects.inc(Connected::Failed);
                    lent.relay.handle_connected(lent.now, connection, false);
                }
            }
            Event::ConnectionBound { connection, client } => self.bind(connection, client, lent),
            Event::ConnectionEnded { connection, reason } => self.end(connection, reason, lent),
            Event::SocketWanted { .. }
            | Event::AddressEnded { .. }
            | Event::SocketFreed { .. }
            | Event::AllocationCreated { .. }
            | Event::AllocationEnded { .. }
            | Event::ChannelBound { .. }
            | Event::ChannelFreed { .. } => {}
        }
    }

    /// Listens where the machine wants it. A busy port is an answer, not an error.
    fn listen(&mut self, addr: RelayAddr, registry: &Registry) -> SocketOutcome {
        let mut listener = match tcp::listen_and_connect(addr.0, BACKLOG, SYSTEM_QUEUE) {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return SocketOutcome::InUse,
            Err(error) => {
                tracing::debug!(%addr, %error, "relayed address does not listen");
                return SocketOutcome::Failed;
            }
        };
        let entry = self.listeners.vacant_entry();
        let token = Source::PeerAccept(entry.key()).token();
        if let Err(error) = registry.register(&mut listener, token, Interest::READABLE) {
            tracing::debug!(%addr, %error, "relayed address not registered");
            return SocketOutcome::Failed;
        }
        self.by_addr.insert(addr, entry.key());
        entry.insert(PeerListener {
            listener,
            addr,
            is_ready: false,
        });
        SocketOutcome::Opened
    }

    /// Closes a listener.
    fn unlisten(&mut self, addr: RelayAddr, registry: &Registry) {
        let Some(key) = self.by_addr.remove(&addr) else {
            return;
        };
        let mut gone = self.listeners.remove(key);
        // Closing deregisters as well, should this fail.
        let _ = registry.deregister(&mut gone.listener);
    }

    /// Begins to connect to a peer. False: it cannot even begin.
    fn connect(
        &mut self,
        id: PeerConnectionId,
        (relayed, peer): (RelayAddr, SocketAddr),
        lent: &Lent<'_>,
    ) -> bool {
        let socket = match tcp::connect_from(relayed.0, peer, SYSTEM_QUEUE) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%relayed, %peer, %error, "peer not connected");
                return false;
            }
        };
        self.take_in(
            PeerSocket::new(id, socket, false, lent.now.mono),
            lent.registry,
        )
    }

    fn take_in(&mut self, peer: PeerSocket, registry: &Registry) -> bool {
        let id = peer.id;
        let key = self.peers.insert(peer);
        let token = Source::Peer(key).token();
        let registered = self.peers.get_mut(key).map(|p| p.register(registry, token));
        if !matches!(registered, Some(Ok(()))) {
            self.peers.remove(key);
            return false;
        }
        self.by_id.insert(id, key);
        true
    }

    /// Marks something as readable. True if it was not marked before.
    pub(crate) fn mark_ready(&mut self, source: Source, ready: bool) -> bool {
        let mark = match source {
            Source::PeerAccept(key) => self.listeners.get_mut(key).map(|l| &mut l.is_ready),
            Source::Peer(key) => self.peers.get_mut(key).map(|p| &mut p.is_ready),
            Source::Commands
            | Source::Socket(_)
            | Source::Accept(_)
            | Source::Stream(_)
            | Source::Alarm => None,
        };
        mark.is_some_and(|mark| std::mem::replace(mark, ready) != ready)
    }

    /// What can be read again, since the last call.
    pub(crate) fn take_woken(&mut self) -> Vec<Source> {
        std::mem::take(&mut self.woken)
    }

    /// The socket takes bytes again, or there are some for it.
    pub(crate) fn mark_dirty(&mut self, key: usize) {
        if let Some(peer) = self.peers.get_mut(key)
            && peer.is_connected
            && !std::mem::replace(&mut peer.is_dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Accepts what peers have sent to a relayed address. True: there may be more.
    pub(crate) fn serve_accept(&mut self, key: usize, lent: &mut Lent<'_>) -> bool {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(key) else {
                return false;
            };
            let addr = listener.addr;
            match listener.listener.accept() {
                Ok((socket, from)) => match lent.relay.handle_incoming(lent.now, addr, from) {
                    Ok(id) => {
                        let peer = PeerSocket::new(id, socket, true, lent.now.mono);
                        if self.take_in(peer, lent.registry) {
                            lent.counters.peers.opened.inc(Origin::Peer);
                        } else {
                            lent.counters.socket_errors.inc(Operation::Register);
                            lent.relay
                                .handle_connection_end(id, ConnectionEnd::PeerLost);
                        }
                    }
                    Err(refusal) => lent.counters.peers.refused.inc(refusal.into()),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    // Without descriptors it stays queued in the system, which does not tell again.
                    lent.counters.socket_errors.inc(Operation::Accept);
                    let again = lent.now.mono + ACCEPT_PAUSE;
                    self.deadlines.insert((again, Due::Accept(key)));
                    return false;
                }
            }
        }
        true
    }

    /// The client connection that carries the data of `id` from here on.
    fn bind(&mut self, id: PeerConnectionId, client: Path, lent: &mut Lent<'_>) {
        let Some(key) = self.by_id.get(&id).copied() else {
            return;
        };
        let Some(stream_key) = lent.streams.carry(client, key) else {
            return; // it has just been reset: the machine hears of that next
        };
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.stream = Some(stream_key);
        peer.progress = lent.now.mono;
        let stream = lent.streams.get_mut(stream_key);
        let early = stream.map(|stream| std::mem::take(&mut stream.early));
        let early = early.unwrap_or_default();
        if !early.is_empty() {
            count_carried(lent, id, Direction::ToPeer, early.len());
            peer.push(&early);
            self.mark_dirty(key);
        }
        self.woken.push(Source::Peer(key));
        self.woken.push(Source::Stream(stream_key));
    }

    /// The machine has ended a connection: both its ends are closed.
    fn end(&mut self, id: PeerConnectionId, reason: ConnectionEnd, lent: &mut Lent<'_>) {
        let Some(key) = self.by_id.remove(&id) else {
            return; // it could not even be begun, and was counted so
        };
        let peer = self.peers.remove(key);
        let entries = [
            (peer.watched, Due::Stalled(key)),
            (peer.client_held, Due::ClientBandwidth(key)),
            (peer.peer_held, Due::PeerBandwidth(key)),
        ];
        for (at, due) in entries {
            if let Some(at) = at {
                self.deadlines.remove(&(at, due));
            }
        }
        if peer.is_connected {
            lent.counters.peers.ended.inc(PeerEnd::of(reason));
        } else {
            lent.counters.peers.connects.inc(Connected::failed(reason));
        }
        if let Some(stream) = peer.stream {
            lent.streams.end_carrying(stream, key);
        }
        peer.close(lent.registry);
    }

    /// What a peer's socket has to say. True: there may be more.
    pub(crate) fn serve_peer(
        &mut self,
        key: usize,
        buffers: &mut Buffers,
        lent: &mut Lent<'_>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(key) else {
            return false;
        };
        if !peer.is_connected {
            if let Some(success) = peer.outcome() {
                peer.is_connected = success;
                if success {
                    lent.counters.peers.connects.inc(Connected::Made);
                    lent.counters.peers.opened.inc(Origin::Connect);
                }
                lent.relay.handle_connected(lent.now, peer.id, success);
            }
            return false;
        }
        self.carry_to_client(key, buffers, lent)
    }

    /// One read of the peer, for the client. Nothing is read before the client is bound.
    fn carry_to_client(&mut self, key: usize, buffers: &mut Buffers, lent: &mut Lent<'_>) -> bool {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.peer_finished) else {
            return false;
        };
        let Some(stream_key) = peer.stream else {
            return false;
        };
        let Some(stream) = lent.streams.get_mut(stream_key) else {
            return false; // the machine hears of its end next
        };
        if stream.carries != Some(key) {
            return false;
        }
        if stream.is_full() {
            peer.peer_paused = true;
            self.watch(key, lent.now.mono);
            return false;
        }
        if let Err(at) = lent.relay.may_carry(lent.now, peer.id, Direction::ToClient) {
            if peer.peer_held.is_none() {
                peer.peer_held = Some(at);
                self.deadlines.insert((at, Due::PeerBandwidth(key)));
            }
            return false;
        }
        match peer.receive(buffers.space()) {
            Ok(Some(0)) => {
                peer.peer_finished = true;
                stream.finish();
                lent.streams.mark_dirty(stream_key);
                self.watch(key, lent.now.mono);
                false
            }
            Ok(Some(len)) => {
                peer.progress = lent.now.mono;
                let id = peer.id;
                stream.push_carried(buffers.received(len));
                lent.streams.mark_dirty(stream_key);
                count_carried(lent, id, Direction::ToClient, len);
                true
            }
            Ok(None) => false,
            Err(_) => {
                lent.relay
                    .handle_connection_end(peer.id, ConnectionEnd::PeerLost);
                false
            }
        }
    }

    /// One read of a client's data connection, for the peer. True: there may be more.
    pub(crate) fn serve_client(
        &mut self,
        key: usize,
        stream_key: usize,
        buffers: &mut Buffers,
        lent: &mut Lent<'_>,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.client_finished) else {
            return false;
        };
        if peer.stream != Some(stream_key) {
            return false;
        }
        if peer.is_full() {
            peer.client_paused = true;
            self.watch(key, lent.now.mono);
            return false;
        }
        if let Err(at) = lent.relay.may_carry(lent.now, peer.id, Direction::ToPeer) {
            if peer.client_held.is_none() {
                peer.client_held = Some(at);
                self.deadlines.insert((at, Due::ClientBandwidth(key)));
            }
            return false;
        }
        let Some(stream) = lent.streams.get_mut(stream_key) else {
            return false;
        };
        match stream.receive(buffers) {
            Ok(Some(len)) => {
                peer.progress = lent.now.mono;
                peer.push(buffers.received(len));
                let id = peer.id;
                self.mark_dirty(key);
                // TLS may have something to say of its own.
                lent.streams.mark_dirty(stream_key);
                count_carried(lent, id, Direction::ToPeer, len);
                true
            }
            Ok(None) => false,
            Err(StreamEnd::Closed) => {
                peer.client_finished = true;
                self.mark_dirty(key);
                self.watch(key, lent.now.mono);
                false
            }
            Err(end) => {
                lent.streams.doom(stream_key, end);
                false
            }
        }
    }

    /// Sends what waits for peers, lets those be read again whose other end has room, and ends what
    /// has said all.
    pub(crate) fn flush(&mut self, lent: &mut Lent<'_>) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(peer) = self.peers.get_mut(key) else {
                continue;
            };
            peer.is_dirty = false;
            match peer.flush() {
                Ok(progressed) => self.after_flush(key, progressed, lent),
                Err(_) => lent
                    .relay
                    .handle_connection_end(peer.id, ConnectionEnd::PeerLost),
            }
        }
        for flushed in lent.streams.take_flushed() {
            self.after_flush(flushed.peer, flushed.progressed, lent);
        }
    }

    fn after_flush(&mut self, key: usize, progressed: bool, lent: &mut Lent<'_>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if progressed {
            peer.progress = lent.now.mono;
        }
        let Some(stream_key) = peer.stream else {
            return;
        };
        let Some(stream) = lent.streams.get_mut(stream_key) else {
            return;
        };
        if peer.client_paused && !peer.is_full() {
            peer.client_paused = false;
            self.woken.push(Source::Stream(stream_key));
        }
        if peer.peer_paused && !stream.is_full() {
            peer.peer_paused = false;
            self.woken.push(Source::Peer(key));
        }
        if peer.is_finished() && stream.is_finished() {
            lent.relay
                .handle_connection_end(peer.id, ConnectionEnd::Finished);
        } else if peer.waiting() > 0 || stream.waiting() > 0 {
            self.watch(key, lent.now.mono);
        }
    }

    /// When something may be due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Lets those be read again that waited for bandwidth, and ends what has stood still too long.
    pub(crate) fn handle_timeout(&mut self, lent: &mut Lent<'_>) {
        while let Some((at, due)) = self.deadlines.first().copied() {
            if at > lent.now.mono {
                return;
            }
            self.deadlines.pop_first();
            match due {
                Due::Accept(key) => self.woken.push(Source::PeerAccept(key)),
                Due::PeerBandwidth(key) => {
                    if let Some(peer) = self.peers.get_mut(key) {
                        peer.peer_held = None;
                        self.woken.push(Source::Peer(key));
                    }
                }
                Due::ClientBandwidth(key) => {
                    if let Some(peer) = self.peers.get_mut(key) {
                        peer.client_held = None;
                        self.woken.extend(peer.stream.map(Source::Stream));
                    }
                }
                Due::Stalled(key) => self.end_if_stalled(key, lent),
            }
        }
    }

    /// From here on it matters whether anything moves.
    fn watch(&mut self, key: usize, now: Instant) {
        let stalled = self.stalled;
        if let Some(peer) = self.peers.get_mut(key)
            && peer.watched.is_none()
        {
            peer.watched = Some(now + stalled);
            self.deadlines.insert((now + stalled, Due::Stalled(key)));
        }
    }

    fn end_if_stalled(&mut self, key: usize, lent: &mut Lent<'_>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.watched = None;
        let stream = peer.stream.and_then(|key| lent.streams.get_mut(key));
        let waits = peer.waiting() > 0 || stream.is_some_and(|stream| stream.waiting() > 0);
        if !waits && !peer.client_finished && !peer.peer_finished {
            return;
        }
        let due = peer.progress + self.stalled;
        if due <= lent.now.mono {
            lent.relay
                .handle_connection_end(peer.id, ConnectionEnd::Stalled);
        } else {
            peer.watched = Some(due);
            self.deadlines.insert((due, Due::Stalled(key)));
        }
    }
}

fn count_carried(lent: &mut Lent<'_>, id: PeerConnectionId, direction: Direction, bytes: usize) {
    lent.relay.handle_carried(lent.now, id, direction, bytes);
    lent.counters.traffic.carried(direction, bytes);
}
