//! The client connections of one shard: by 5-tuple, with their deadlines and what they wait to send.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Registry, Token};
use net_io::opening::{Door, Opened, Opening, OpeningError};
use net_io::proxy::Header;
use ops::config::IpPrefix;
use ops::tls::Certificates;
use rustls::ServerConnection;
use slab::Slab;
use turn_relay_proto::{Path, Transport};

use crate::config::StreamLimits;
use crate::connections::Connections;
use crate::counters::{
    Dropped, Operation, ProxyHeader, ShardCounters, StreamEnd, StreamKind, StreamRefusal, Towards,
    UndecidedEnd,
};
use crate::stream::{Buffers, Kind, Stream};

/// Names no peer: what a data connection carries that is about to be closed.
const NO_PEER: usize = usize::MAX;

/// What flushing a data connection led to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flushed {
    /// The connection with the peer whose data it carries.
    pub(crate) peer: usize,
    pub(crate) progressed: bool,
}

/// All connections of a shard.
pub(crate) struct Streams {
    streams: Slab<Stream>,
    by_path: HashMap<(SocketAddr, SocketAddr), usize>,
    /// One entry for each connection that can run out of time. An entry may be early: then it is
    /// set anew, so that a message need not move it.
    deadlines: BTreeSet<(Instant, usize)>,
    dirty: Vec<usize>,
    /// Data connections (RFC 6062) that have been flushed, and whether they took anything.
    flushed: Vec<Flushed>,
    /// Connections that are over and not closed yet: closing tells the machine.
    doomed: Vec<(usize, StreamEnd)>,
    limits: StreamLimits,
    connections: Connections,
    tls: Option<Certificates>,
    /// Whose PROXY headers are believed.
    proxies: Vec<IpPrefix>,
}

impl Streams {
    pub(crate) fn new(
        limits: StreamLimits,
        connections: Connections,
        tls: Option<Certificates>,
        proxies: Vec<IpPrefix>,
    ) -> Self {
        Self {
            streams: Slab::new(),
            by_path: HashMap::new(),
            deadlines: BTreeSet::new(),
            dirty: Vec::new(),
            flushed: Vec::new(),
            doomed: Vec::new(),
            limits,
            connections,
            tls,
            proxies,
        }
    }

    /// Other bounds, for open connections too: their time may be up sooner, or later.
    pub(crate) fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
        let all: Vec<usize> = self.streams.iter().map(|(key, _)| key).collect();
        for key in all {
            self.set_deadline(key);
        }
    }

    /// Takes a connection in, or closes it at once and counts why.
    pub(crate) fn accept(
        &mut self,
        socket: TcpStream,
        door: Door,
        registry: &Registry,
        token: impl FnOnce(usize) -> Token,
        now: Instant,
        counters: &ShardCounters,
    ) {
        let (Ok(local), Ok(remote)) = (socket.local_addr(), socket.peer_addr()) else {
            // It was reset while it waited to be accepted.
            counters.socket_errors.inc(Operation::Accept);
            return;
        };
        if door.is_proxied && !self.proxies.iter().any(|proxy| proxy.contains(remote.ip())) {
            counters.streams.proxy_headers.inc(ProxyHeader::Untrusted);
            return;
        }
        // Behind a proxy the client is known only when the header is there.
        let client = (!door.is_proxied).then_some(remote.ip());
        let place = match self.connections.enter(client) {
            Ok(place) => place,
            Err(refusal) => {
                counters.streams.refused.inc(refusal);
                return;
            }
        };
        let path = Path {
            transport: Transport::Tcp,
            local,
            remote,
        };
        let key = self
            .streams
            .insert(Stream::new(socket, Opening::new(door), path, place, now));
        if let Some(opened) = door.known_at_once() {
            if let Err(refusal) = self.admit(key, opened, counters) {
                counters.streams.refused.inc(refusal);
                self.streams.remove(key);
                return;
            }
        } else {
            counters.streams.undecided.inc(());
        }
        self.set_deadline(key);
        let stream = self.streams.get_mut(key);
        if stream.is_some_and(|stream| stream.register(registry, token(key)).is_err()) {
            counters.socket_errors.inc(Operation::Register);
            self.doom(key, StreamEnd::Reset);
        }
    }

    /// It is known whose a connection is and what is spoken: it becomes a client's, within the limits.
    fn admit(
        &mut self,
        key: usize,
        opened: Opened,
        counters: &ShardCounters,
    ) -> Result<(), StreamRefusal> {
        let stream = self.streams.get_mut(key).ok_or(StreamRefusal::Resources)?;
        let mut path = stream.path();
        if let Some(Header::Proxied {
            source,
            destination,
        }) = opened.header
        {
            (path.remote, path.local) = (source, destination);
        }
        // Answers would go to the other one.
        if self.by_path.contains_key(&(path.local, path.remote)) {
            return Err(StreamRefusal::Duplicate);
        }
        if opened.header.is_some() {
            stream.place.give_to(path.remote.ip())?;
        }
        let mut tls = None;
        if opened.is_tls {
            path.transport = Transport::Tls;
            let config = self.tls.as_ref().ok_or(StreamRefusal::Resources)?.current();
            let connection = ServerConnection::new(config);
            tls = Some(connection.map_err(|_| StreamRefusal::Resources)?);
        }
        stream.decide(path, tls);
        self.by_path.insert((path.local, path.remote), key);
        counters.streams.current.inc(kind_of(path.transport));
        counters.streams.accepted.inc(kind_of(path.transport));
        Ok(())
    }

    /// Reads once from a connection into `buffers`: how much there is for the machine, or `None` when
    /// nothing is left to read.
    pub(crate) fn receive(
        &mut self,
        key: usize,
        buffers: &mut Buffers,
        counters: &ShardCounters,
    ) -> Result<Option<usize>, StreamEnd> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if !stream.is_undecided() {
            return stream.receive(buffers);
        }
        let beginning = match stream.receive_beginning(buffers)? {
            None => return Ok(None),
            Some(Ok(None)) => return Ok(Some(0)),
            Some(Ok(Some(beginning))) => beginning,
            Some(Err(error)) => {
                stream.note_undecided_end(match error {
                    OpeningError::Proxy(error) => {
                        counters.streams.proxy_headers.inc(error.into());
                        UndecidedEnd::ProxyHeader
                    }
                    OpeningError::Unknown => UndecidedEnd::Unknown,
                });
                return Err(StreamEnd::Malformed);
            }
        };
        let admitted = self.admit(key, beginning.opened, counters);
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        if let Err(refusal) = admitted {
            counters.streams.refused.inc(refusal);
            stream.note_undecided_end(UndecidedEnd::Refused);
            return Err(StreamEnd::Malformed);
        }
        counters.streams.undecided.sub((), 1);
        if let Some(header) = beginning.opened.header {
            counters.streams.proxy_headers.inc(header.into());
        }
        stream.receive_rest(&beginning, buffers).map(Some)
    }

    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut Stream> {
        self.streams.get_mut(key)
    }

    /// Queues a message for the client on `path`.
    pub(crate) fn push(
        &mut self,
        path: Path,
        parts: &[&[u8]],
        kind: Kind,
        counters: &ShardCounters,
    ) {
        let key = self.by_path.get(&(path.local, path.remote)).copied();
        let Some((key, stream)) = key.and_then(|key| Some((key, self.streams.get_mut(key)?)))
        else {
            counters.traffic.unsent(Towards::Client, Dropped::Gone, 1);
            return;
        };
        match stream.push(parts, kind) {
            Ok(true) => self.mark_dirty(key),
            Ok(false) => counters
                .traffic
                .unsent(Towards::Client, Dropped::SendQueueFull, 1),
            Err(end) => {
                counters
                    .traffic
                    .unsent(Towards::Client, Dropped::SendQueueFull, 1);
                self.doom(key, end);
            }
        }
    }

    /// It has something to send, or the socket takes bytes again.
    pub(crate) fn mark_dirty(&mut self, key: usize) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut stream.is_dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Sends what waits, as far as the sockets take it.
    pub(crate) fn flush(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            stream.is_dirty = false;
            let before = stream.waiting();
            let outcome = stream.flush();
            if let Some(peer) = stream.carries {
                let progressed = stream.waiting() < before;
                self.flushed.push(Flushed { peer, progressed });
            }
            if let Err(end) = outcome {
                self.doom(key, end);
            }
        }
    }

    /// The data connections flushed since the last call.
    pub(crate) fn take_flushed(&mut self) -> Vec<Flushed> {
        std::mem::take(&mut self.flushed)
    }

    /// The connection of `client` carries a peer's data from here on: as long as that lasts it has no
    /// deadline.
    pub(crate) fn carry(&mut self, client: Path, peer: usize) -> Option<usize> {
        let key = self.by_path.get(&(client.local, client.remote)).copied()?;
        self.streams.get_mut(key)?.carries = Some(peer);
        self.set_deadline(key);
        Some(key)
    }

    /// The connection with the peer is over, and so is the data connection, if it still is one.
    pub(crate) fn end_carrying(&mut self, key: usize, peer: usize) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if stream.carries == Some(peer) {
            stream.carries = Some(NO_PEER);
            self.doom(key, StreamEnd::PeerEnded);
        }
    }

    /// The client on `path` has got its allocation, or lost it.
    pub(crate) fn set_allocation(&mut self, path: Path, owns: bool, now: Instant) {
        let Some(key) = self.by_path.get(&(path.local, path.remote)).copied() else {
            return;
        };
        if let Some(stream) = self.streams.get_mut(key) {
            stream.set_allocation(owns, now);
        }
        self.set_deadline(key);
    }

    /// The connection is over: [`take_doomed`](Self::take_doomed) ends it.
    pub(crate) fn doom(&mut self, key: usize, end: StreamEnd) {
        self.doomed.push((key, end));
    }

    /// Some connection waits to be ended.
    pub(crate) fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// Ends one connection and names its client, so that the machine can be told.
    pub(crate) fn take_doomed(
        &mut self,
        registry: &Registry,
        counters: &ShardCounters,
    ) -> Option<Path> {
        while let Some((key, end)) = self.doomed.pop() {
            // Doomed twice in one round: the first end counts.
            let Some(stream) = self.streams.try_remove(key) else {
                continue;
            };
            if let Some(deadline) = stream.deadline {
                self.deadlines.remove(&(deadline, key));
            }
            if let Some((opening, reason)) = stream.undecided() {
                count_undecided_end(opening, reason.unwrap_or_else(|| end.into()), counters);
                // The machine has never heard of it.
                stream.close(registry);
                continue;
            }
            let path = stream.path();
            self.by_path.remove(&(path.local, path.remote));
            counters.streams.current.sub(kind_of(path.transport), 1);
            counters.streams.ended.inc(end);
            stream.close(registry);
            return Some(path);
        }
        None
    }

    /// When the next connection may have run out of time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Dooms connections whose time is up.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, key)) = self.deadlines.first().copied() {
            if deadline > now {
                return;
            }
            match self
                .streams
                .get(key)
                .and_then(|stream| stream.due(&self.limits))
            {
                Some((due, end)) if due <= now => {
                    self.deadlines.remove(&(deadline, key));
                    if let Some(stream) = self.streams.get_mut(key) {
                        stream.deadline = None;
                    }
                    self.doom(key, end);
                }
                Some(_) => self.set_deadline(key),
                None => {
                    self.deadlines.remove(&(deadline, key));
                    if let Some(stream) = self.streams.get_mut(key) {
                        stream.deadline = None;
                    }
                }
            }
        }
    }

    fn set_deadline(&mut self, key: usize) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let due = stream.due(&self.limits).map(|(due, _)| due);
        let before = std::mem::replace(&mut stream.deadline, due);
        if let Some(before) = before {
            self.deadlines.remove(&(before, key));
        }
        if let Some(due) = due {
            self.deadlines.insert((due, key));
        }
    }

    /// Dooms every connection: the relay stops.
    pub(crate) fn doom_all(&mut self) {
        let all: Vec<usize> = self.streams.iter().map(|(key, _)| key).collect();
        for key in all {
            self.doom(key, StreamEnd::Shutdown);
        }
    }
}

fn count_undecided_end(opening: &Opening, reason: UndecidedEnd, counters: &ShardCounters) {
    counters.streams.undecided.sub((), 1);
    counters.streams.undecided_ended.inc(reason);
    if let Some(header) = opening.header() {
        counters.streams.proxy_headers.inc(header.into());
    }
}

fn kind_of(transport: Transport) -> StreamKind {
    match transport {
        Transport::Tls => StreamKind::Tls,
        Transport::Udp | Transport::Tcp => StreamKind::Tcp,
    }
}
