//! The UDP sockets of one shard: listeners, and relay sockets found by their port.
//!
//! What is to be sent is gathered for each socket while a round lasts and sent by one call, and what is one datagram of
//! each of many sockets by one call for all of them (io_uring). An allocation that sends mostly to one peer has a second
//! socket for that (`sockets/connected.rs`).

mod connected;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use mio::{Interest, Registry, Token};
use net_io::udp::is_out_of_resources;
use net_io::{
    BindOptions, Departed, IcmpError, MAX_RING, RecvBatch, SendBatch, SendReport, SendRing,
    UdpSocket,
};
use slab::Slab;
use turn_relay_proto::{RelayAddr, SocketOutcome};

use crate::counters::{Dropped, Operation, ShardCounters, Towards};

use connected::{ConnectedSockets, Votes};

/// The listeners carry everybody's datagrams: they get as long a queue as the system gives.
pub(crate) const LISTENER_QUEUE: usize = 4 * 1024 * 1024;

/// Emptied batches kept for the next round, and the bytes they may hold.
const SPARE_BATCHES: usize = DIRTY_SOCKETS;
const SPARE_MEMORY: usize = 1024 * 1024;

/// Trains come in as the network brings them, and leave as trains where one is to be sent.
pub(crate) fn with_trains() -> BindOptions {
    BindOptions {
        receive_trains: true,
        send_trains: true,
        ..BindOptions::default()
    }
}

/// Sockets with something to send before they are flushed within a round.
const DIRTY_SOCKETS: usize = MAX_RING;

/// From so many sockets on a call for all of them is cheaper than one for each.
const WORTH_A_RING: usize = 4;

/// Errors taken from one socket in a row; a socket in trouble does not hold up the others.
const ERRORS_IN_A_ROW: usize = 8;

/// Listeners and relay sockets of a shard.
pub(crate) struct Sockets {
    listeners: Vec<Outgoing>,
    relays: Slab<Outgoing>,
    connected: ConnectedSockets,
    ports: Vec<PortTable>,
    dirty: Vec<SocketKey>,
    /// Sends for many sockets at once, where the system can.
    ring: Option<SendRing<SocketKey>>,
    /// Emptied batches for whoever sends next.
    #[expect(
        clippy::vec_box,
        reason = "they move between sockets, which hold only a pointer"
    )]
    spare: Vec<Box<SendBatch>>,
    /// What they hold.
    spare_memory: usize,
}

/// Which socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketKey {
    /// By its place in the configuration.
    Listener(usize),
    /// By its place in the slab.
    Relay(usize),
    /// The second one of a relay socket, connected to one peer, by its place in a slab of their own.
    Connected(usize),
}

/// A socket and what waits to be sent on it.
struct Outgoing {
    socket: UdpSocket,
    /// There while something waits, so that an idle allocation holds no memory for it.
    batch: Option<Box<SendBatch>>,
    is_ready: bool,
    /// Errors of the network wait.
    has_errors: bool,
    /// Of relay sockets: the system was asked to keep errors, because something was sent, and to take trains, because there
    /// was a queue.
    has_sent: bool,
    has_queued: bool,
    /// Of relay sockets: what the system was last seen to have dropped.
    overflow: u64,
    /// Of relay sockets: who gets most of what is sent, and the second socket that is connected to him.
    votes: Votes,
    connected: Option<u32>,
}

impl Outgoing {
    fn new(socket: UdpSocket) -> Self {
        Self {
            socket,
            batch: None,
            is_ready: false,
            has_errors: false,
            has_sent: false,
            has_queued: false,
            overflow: 0,
            votes: Votes::default(),
            connected: None,
        }
    }

    /// One that is ready for everything at once.
    fn of_connected(socket: UdpSocket) -> Self {
        Self {
            has_sent: true,
            has_queued: true,
            ..Self::new(socket)
        }
    }
}

/// The relay sockets on one address: key + 1 by port, 0 for none. Zero pages until ports are used.
struct PortTable {
    ip: IpAddr,
    first: u16,
    keys: Vec<u32>,
}

/// One datagram to send.
pub(crate) struct Departure<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) parts: &'a [&'a [u8]],
    pub(crate) dont_fragment: bool,
}

impl Sockets {
    pub(crate) fn new(
        listeners: Vec<UdpSocket>,
        relay_ips: &[IpAddr],
        ports: &RangeInclusive<u16>,
        connected_limit: usize,
    ) -> Self {
        let table = |ip: &IpAddr| PortTable {
            ip: *ip,
            first: *ports.start(),
            keys: vec![0; ports.len()],
        };
        Self {
            listeners: listeners.into_iter().map(Outgoing::new).collect(),
            relays: Slab::new(),
            connected: ConnectedSockets::new(connected_limit),
            ports: relay_ips.iter().map(table).collect(),
            dirty: Vec::new(),
            ring: None,
            spare: Vec::new(),
            spare_memory: 0,
        }
    }

    /// Has the system send for many sockets at once, if it can. To be called by the thread that sends: the system
    /// interrupts the one that made a ring when the ring goes.
    pub(crate) fn use_ring(&mut self) {
        match SendRing::new() {
            Ok(ring) => self.ring = Some(ring),
            Err(error) => tracing::info!(%error, "no io_uring here: a call for each socket"),
        }
    }

    /// Registers the listeners; relay sockets are registered as they are opened.
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        token: impl Fn(SocketKey) -> Token,
    ) -> io::Result<()> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let token = token(SocketKey::Listener(index));
            registry.register(&mut listener.socket, token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Binds the relay socket that the machine wants. A busy port is an answer, not an error.
    pub(crate) fn open(
        &mut self,
        addr: RelayAddr,
        registry: &Registry,
        token: impl Fn(SocketKey) -> Token,
        counters: &ShardCounters,
    ) -> SocketOutcome {
        let options = BindOptions {
            lazy: true,
            ..with_trains()
        };
        let mut outcome = UdpSocket::bind(addr.0, &options);
        if matches!(&outcome, Err(error) if is_out_of_resources(error)) && self.connected.len() > 0
        {
            // Nobody goes without a port for those.
            self.disconnect_down_to(0, counters);
            outcome = UdpSocket::bind(addr.0, &options);
        }
        let mut socket = match outcome {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return SocketOutcome::InUse,
            Err(error) => {
                tracing::debug!(%addr, %error, "relay socket not opened");
                return SocketOutcome::Failed;
            }
        };
        let entry = self.relays.vacant_entry();
        let key = entry.key();
        let token = token(SocketKey::Relay(key));
        if let Err(error) = registry.register(&mut socket, token, Interest::READABLE) {
            tracing::debug!(%addr, %error, "relay socket not registered");
            return SocketOutcome::Failed;
        }
        entry.insert(Outgoing::new(socket));
        match (self.cell(addr.0), u32::try_from(key + 1)) {
            (Some(cell), Ok(number)) => {
                *cell = number;
                SocketOutcome::Opened
            }
            (None, _) | (_, Err(_)) => {
                self.relays.remove(key);
                SocketOutcome::Failed
            }
        }
    }

    /// Closes a relay socket; what waits on it is sent first.
    pub(crate) fn close(&mut self, addr: RelayAddr, counters: &ShardCounters) {
        let Some(SocketKey::Relay(key)) = self.relay(addr.0) else {
            return;
        };
        self.disconnect(addr, counters);
        self.flush_one(SocketKey::Relay(key), counters);
        if let Some(cell) = self.cell(addr.0) {
            *cell = 0;
        }
        // A socket that is closed is out of the poll too: no call for that.
        self.relays.remove(key);
    }

    /// Gives up room for relay sockets behind the last that is open.
    pub(crate) fn shrink(&mut self) {
        self.relays.shrink_to_fit();
        self.connected.shrink();
        self.spare = Vec::new();
        self.spare_memory = 0;
        self.dirty.shrink_to_fit();
    }

    /// The address a relay socket, or its second one, is bound to.
    pub(crate) fn relay_addr(&self, key: SocketKey) -> Option<RelayAddr> {
        let outgoing = match key {
            SocketKey::Listener(_) => return None,
            SocketKey::Relay(key) => self.relays.get(key)?,
            SocketKey::Connected(index) => &self.connected.get(index)?.outgoing,
        };
        Some(RelayAddr(outgoing.socket.local_addr()))
    }

    /// The listener that a client talks to at `local`.
    fn listener(&self, local: SocketAddr) -> Option<SocketKey> {
        let is_exact = |listener: &Outgoing| listener.socket.local_addr() == local;
        let is_wildcard = |listener: &Outgoing| {
            let bound = listener.socket.local_addr();
            bound.ip().is_unspecified()
                && bound.port() == local.port()
                && bound.is_ipv4() == local.is_ipv4()
        };
        let exact = self.listeners.iter().position(is_exact);
        exact
            .or_else(|| self.listeners.iter().position(is_wildcard))
            .map(SocketKey::Listener)
    }

    fn relay(&self, addr: SocketAddr) -> Option<SocketKey> {
        let table = self.ports.iter().find(|table| table.ip == addr.ip())?;
        let number = table
            .keys
            .get(usize::from(addr.port().checked_sub(table.first)?))?;
        usize::try_from(number.checked_sub(1)?)
            .ok()
            .map(SocketKey::Relay)
    }

    fn cell(&mut self, addr: SocketAddr) -> Option<&mut u32> {
        let table = self.ports.iter_mut().find(|table| table.ip == addr.ip())?;
        table
            .keys
            .get_mut(usize::from(addr.port().checked_sub(table.first)?))
    }

    fn get_mut(&mut self, key: SocketKey) -> Option<&mut Outgoing> {
        find(
            &mut self.listeners,
            &mut self.relays,
            &mut self.connected,
            key,
        )
    }

    /// Receives a batch. `false`: the socket has nothing more for now.
    pub(crate) fn receive(
        &mut self,
        key: SocketKey,
        into: &mut RecvBatch,
        counters: &ShardCounters,
    ) -> bool {
        let Some(outgoing) = self.get_mut(key) else {
            return false;
        };
        for _ in 0..ERRORS_IN_A_ROW {
            match outgoing.socket.recv_batch(into) {
                Ok(received) => {
                    let is_full = received == into.capacity();
                    if is_full {
                        outgoing.note_queue(key, counters);
                    }
                    outgoing.note_overflow(key, counters);
                    return is_full;
                }
                Err(_) => counters.socket_errors.inc(Operation::Receive),
            }
        }
        true
    }

    /// Marks a socket as having something to read. True if it was not marked before.
    pub(crate) fn mark_ready(&mut self, key: SocketKey, ready: bool) -> bool {
        let Some(outgoing) = self.get_mut(key) else {
            return false;
        };
        std::mem::replace(&mut outgoing.is_ready, ready) != ready
    }

    /// Notes that the system has errors of the network to tell of.
    pub(crate) fn mark_errors(&mut self, key: SocketKey) {
        if let Some(outgoing) = self.get_mut(key) {
            outgoing.has_errors = true;
        }
    }

    /// The next error that came back to a relay socket. After `None` it is not asked until the next
    /// [mark](Self::mark_errors).
    pub(crate) fn next_peer_error(&mut self, key: SocketKey) -> Option<IcmpError> {
        let outgoing = self.get_mut(key).filter(|socket| socket.has_errors)?;
        let error = outgoing.socket.next_icmp_error();
        outgoing.has_errors = error.is_some();
        error
    }

    /// Queues a datagram for a client.
    pub(crate) fn push_to_client(&mut self, departure: &Departure<'_>, counters: &ShardCounters) {
        match self.listener(departure.from) {
            Some(key) => self.push(key, departure, counters),
            None => counters.traffic.unsent(Towards::Client, Dropped::Gone, 1),
        }
    }

    /// Queues a datagram for a peer.
    pub(crate) fn push_to_peer(&mut self, departure: &Departure<'_>, counters: &ShardCounters) {
        match self.relay(departure.from) {
            Some(key) if departure.dont_fragment => self.send_whole(key, departure, counters),
            Some(key) => {
                let key = self.way_to(departure.to, key);
                self.push(key, departure, counters);
            }
            None => counters.traffic.unsent(Towards::Peer, Dropped::Gone, 1),
        }
    }

    fn push(&mut self, key: SocketKey, departure: &Departure<'_>, counters: &ShardCounters) {
        let Self {
            listeners,
            relays,
            connected,
            dirty,
            spare,
            spare_memory,
            ..
        } = self;
        let Some(outgoing) = find(listeners, relays, connected, key) else {
            return;
        };
        outgoing.note_sending(key, counters);
        let batch = outgoing.batch.get_or_insert_with(|| {
            dirty.push(key);
            let batch = spare.pop().unwrap_or_default();
            *spare_memory -= batch.memory();
            batch
        });
        if batch.is_full() {
            count_report(key, outgoing.socket.send_batch(batch), counters);
        }
        let pushed = batch.push(departure.to, departure.from.ip(), departure.parts);
        debug_assert!(pushed, "a full batch is sent first");
        if dirty.len() >= DIRTY_SOCKETS {
            self.flush(counters);
        }
    }

    /// Sends one datagram with the Don't Fragment bit (RFC 8656 §11.2), after those before it.
    fn send_whole(&mut self, key: SocketKey, departure: &Departure<'_>, counters: &ShardCounters) {
        if let SocketKey::Relay(relay) = key
            && let Some(index) = self.second(relay)
        {
            self.flush_one(SocketKey::Connected(index), counters);
        }
        self.flush_one(key, counters);
        let Some(outgoing) = self.get_mut(key) else {
            return;
        };
        outgoing.note_sending(key, counters);
        if outgoing.socket.set_dont_fragment(true).is_err() {
            counters
                .traffic
                .unsent(Towards::Peer, Dropped::SendRefused, 1);
            return;
        }
        self.push(key, departure, counters);
        self.flush_one(key, counters);
        let outgoing = self.get_mut(key);
        if outgoing.is_some_and(|outgoing| outgoing.socket.set_dont_fragment(false).is_err()) {
            counters.socket_errors.inc(Operation::Register);
        }
    }

    /// Sends everything that waits.
    pub(crate) fn flush(&mut self, counters: &ShardCounters) {
        let mut dirty = std::mem::take(&mut self.dirty);
        if dirty.len() >= WORTH_A_RING {
            self.flush_together(&dirty, counters);
        }
        for key in dirty.drain(..) {
            self.flush_one(key, counters);
        }
        self.dirty = dirty;
    }

    /// Sends by one call what is one datagram of a socket; the rest stays.
    fn flush_together(&mut self, dirty: &[SocketKey], counters: &ShardCounters) {
        let Some(mut ring) = self.ring.take() else {
            return;
        };
        let mut pushed = 0;
        for key in dirty {
            let Some(outgoing) = self.get_mut(*key) else {
                continue;
            };
            let Some(batch) = outgoing.batch.take() else {
                continue;
            };
            outgoing.batch = ring.push(*key, &outgoing.socket, batch).err();
            pushed += usize::from(outgoing.batch.is_none());
        }
        let outcome = ring.submit(|departed| {
            pushed -= 1;
            self.note_departed(departed, counters);
        });
        match outcome {
            Ok(()) => self.ring = Some(ring),
            Err(error) => {
                tracing::warn!(%error, "io_uring failed and is given up: a call for each socket from here on");
                counters
                    .traffic
                    .unsent(Towards::Peer, Dropped::SendRefused, pushed);
            }
        }
    }

    fn note_departed(&mut self, departed: Departed<SocketKey>, counters: &ShardCounters) {
        let Departed {
            tag: key,
            mut batch,
            outcome,
        } = departed;
        // An error may be of a datagram before, told to whoever called next: sending it alone finds out.
        if outcome.is_err()
            && let Some(outgoing) = self.get_mut(key)
        {
            count_report(key, outgoing.socket.send_batch(&mut batch), counters);
        }
        self.keep(batch);
    }

    fn keep(&mut self, batch: Box<SendBatch>) {
        let memory = self.spare_memory + batch.memory();
        if self.spare.len() < SPARE_BATCHES && memory <= SPARE_MEMORY {
            self.spare_memory = memory;
            self.spare.push(batch);
        }
    }

    /// Sends what waits on one socket. It stays in the list of dirty ones, where it does no harm.
    fn flush_one(&mut self, key: SocketKey, counters: &ShardCounters) {
        let Some(outgoing) = self.get_mut(key) else {
            return;
        };
        let Some(mut batch) = outgoing.batch.take() else {
            return;
        };
        count_report(key, outgoing.socket.send_batch(&mut batch), counters);
        self.keep(batch);
    }
}

fn find<'s>(
    listeners: &'s mut [Outgoing],
    relays: &'s mut Slab<Outgoing>,
    connected: &'s mut ConnectedSockets,
    key: SocketKey,
) -> Option<&'s mut Outgoing> {
    match key {
        SocketKey::Listener(index) => listeners.get_mut(index),
        SocketKey::Relay(key) => relays.get_mut(key),
        SocketKey::Connected(index) => connected.get_mut(index).map(|it| &mut it.outgoing),
    }
}

impl Outgoing {
    /// A relay socket sends: the first time it becomes one that may be fragmented, and that tells of what comes back.
    fn note_sending(&mut self, key: SocketKey, counters: &ShardCounters) {
        if !matches!(key, SocketKey::Relay(_)) || std::mem::replace(&mut self.has_sent, true) {
            return;
        }
        let outcome = self.socket.set_dont_fragment(false);
        if outcome.and_then(|()| self.socket.expect_errors()).is_err() {
            counters.socket_errors.inc(Operation::Register);
        }
    }

    /// A relay socket has a queue: the first time the system is asked for trains, and for what it drops.
    fn note_queue(&mut self, key: SocketKey, counters: &ShardCounters) {
        if matches!(key, SocketKey::Relay(_))
            && !std::mem::replace(&mut self.has_queued, true)
            && self.socket.expect_queue().is_err()
        {
            counters.socket_errors.inc(Operation::Register);
        }
    }

    fn note_overflow(&mut self, key: SocketKey, counters: &ShardCounters) {
        let total = self.socket.overflow_drops();
        match key {
            SocketKey::Listener(index) => counters.cells.listener_overflow(index, total),
            SocketKey::Relay(_) | SocketKey::Connected(_) => {
                let before = std::mem::replace(&mut self.overflow, total);
                counters.cells.relay_overflow(total.saturating_sub(before));
            }
        }
    }
}

fn count_report(key: SocketKey, report: SendReport, counters: &ShardCounters) {
    let towards = match key {
        SocketKey::Listener(_) => Towards::Client,
        SocketKey::Relay(_) | SocketKey::Connected(_) => Towards::Peer,
    };
    counters
        .traffic
        .unsent(towards, Dropped::SendQueueFull, report.queue_full);
    counters
        .traffic
        .unsent(towards, Dropped::TooLarge, report.too_large);
    counters
        .traffic
        .unsent(towards, Dropped::SendRefused, report.refused);
}
