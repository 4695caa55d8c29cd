//! One thread of the relay and its only loop: wait, receive a batch, ask the machine, send, repeat.
//!
//! A round does, in this order: what sockets and connections have received; timers; the machine's
//! events (sockets it wants or gives back) and deferred replies; sending; copying counts. Nothing in
//! it blocks, and nothing a stranger does ends it: what fails is counted.

mod datagrams;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;

use mio::net::TcpListener;
use mio::{Events, Poll};
use net_io::opening::Door;
use net_io::{Alarm, MAX_BATCH, MAX_DATAGRAM, RecvBatch, clock};
use turn_relay_proto::{Event, Now, Relay, RelayConfig, Verdict};

use crate::accepts::Accepts;
use crate::config::StreamLimits;
use crate::counters::{ShardCounters, Side, StreamEnd};
use crate::frame::Deframer;
use crate::memory::Reclaim;
use crate::outward::Outward;
use crate::peer_connections::{Lent, PeerConnections};
use crate::sockets::{SocketKey, Sockets};
use crate::source::Source;
use crate::stream::{Buffers, Kind};
use crate::streams::Streams;

/// Events taken from the system at once; the rest stays there.
const EVENTS: usize = 512;

/// One round in so many is sampled for the latency histogram.
const FORWARD_SAMPLE: u32 = 64;

/// What the process asks of a shard.
pub(crate) enum Command {
    /// End everything and return.
    Stop,
    /// Take no new allocations, and drop this when there are none.
    Drain(Sender<Infallible>),
    /// Go on with another configuration.
    Reload(Box<NewConfig>),
    /// Do this to the machine, between two batches.
    Visit(Visit),
}

/// What an operator wants to know or to have done.
pub(crate) type Visit = Box<dyn FnOnce(&mut Relay, Now) + Send>;

/// A shard's part of a new configuration.
pub(crate) struct NewConfig {
    pub(crate) relay: RelayConfig,
    pub(crate) streams: StreamLimits,
    pub(crate) connected_sockets: usize,
}

/// Everything one thread owns.
pub(crate) struct Shard {
    poll: Poll,
    alarm: Alarm,
    commands: Receiver<Command>,
    relay: Relay,
    outward: Outward,
    peers: PeerConnections,
    accepts: Accepts,
    /// What has more to read, in turn.
    ready: VecDeque<Source>,
    datagrams: RecvBatch,
    buffers: Buffers,
    reply: Vec<u8>,
    now: Now,
    /// Requests were handled: the machine's counts have changed.
    counts_changed: bool,
    reclaim: Reclaim,
    wants_ring: bool,
    receives: u32,
    busy_rounds: u32,
    is_stopping: bool,
    /// Held while it drains and still has allocations; whoever waits sees it dropped.
    draining: Option<Sender<Infallible>>,
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) commands: Receiver<Command>,
    pub(crate) relay: Relay,
    pub(crate) sockets: Sockets,
    pub(crate) streams: Streams,
    pub(crate) peers: PeerConnections,
    pub(crate) tcp: Vec<(TcpListener, Door)>,
    pub(crate) counters: ShardCounters,
    /// Send for many sockets at once, where the system can.
    pub(crate) io_uring: bool,
}

impl Shard {
    /// Puts a shard together and registers its listeners.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            poll,
            commands,
            relay,
            mut sockets,
            streams,
            peers,
            tcp,
            counters,
            io_uring,
        } = parts;
        sockets.register(poll.registry(), |key| Source::Socket(key).token())?;
        let accepts = Accepts::new(tcp, poll.registry())?;
        let alarm = Alarm::new(poll.registry(), Source::Alarm.token())?;
        counters.cells.publish(&relay);
        Ok(Self {
            poll,
            alarm,
            commands,
            relay,
            outward: Outward {
                sockets,
                streams,
                counters,
            },
            peers,
            accepts,
            ready: VecDeque::new(),
            datagrams: RecvBatch::new(MAX_BATCH, MAX_DATAGRAM),
            buffers: Buffers::new(),
            reply: Vec::new(),
            now: read_clocks(),
            counts_changed: false,
            reclaim: Reclaim::default(),
            wants_ring: io_uring,
            receives: 0,
            busy_rounds: 0,
            is_stopping: false,
            draining: None,
        })
    }

    /// Serves until told to stop. An error is one that no round could survive.
    pub(crate) fn run(mut self) -> io::Result<()> {
        if self.wants_ring {
            self.outward.sockets.use_ring();
        }
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_stopping {
            self.wait(&mut events)?;
            self.note_events(&events);
            self.serve_ready();
            self.serve_timers();
            self.finish_round();
            self.tell_if_drained();
        }
        self.relay.end_all(self.now);
        self.outward.streams.doom_all();
        self.finish_round();
        Ok(())
    }

    /// Sleeps until something can be read or is due, and reads the clocks, once a round.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let before = clock::mono();
        let worked = before.saturating_duration_since(self.now.mono);
        self.outward.counters.cells.busy_for(worked);
        if !self.ready.is_empty() || !events.is_empty() {
            self.busy_rounds = self.busy_rounds.wrapping_add(1);
            if self.busy_rounds.is_multiple_of(FORWARD_SAMPLE) {
                self.outward.counters.traffic.sample_forward(worked);
            }
        }
        let timeout = self.alarm.timeout(self.deadline(before), before);
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        self.now = read_clocks();
        Ok(())
    }

    /// Until when nothing needs doing unless something arrives; `None`: for ever.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.ready.is_empty() || self.outward.streams.has_doomed() {
            return Some(now);
        }
        let machine = self.relay.poll_timeout().map(|(deadline, _)| deadline);
        let deadlines = [
            machine,
            self.outward.streams.next_deadline(),
            self.peers.next_deadline(),
            self.accepts.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Puts what can be read into the list, once each.
    fn note_events(&mut self, events: &Events) {
        for event in events {
            let source = Source::of(event.token());
            if source == Source::Alarm {
                self.alarm.note_event();
            }
            if let Source::Socket(key) = source
                && event.is_error()
            {
                self.outward.sockets.mark_errors(key);
            }
            if let Source::Stream(key) = source
                && event.is_writable()
            {
                self.outward.streams.mark_dirty(key);
            }
            // A connection that is being made is told of as one that can be written to.
            let mut reads = false;
            if let Source::Peer(key) = source
                && event.is_writable()
            {
                self.peers.mark_dirty(key);
                reads = true;
            }
            reads |= event.is_readable() || event.is_read_closed() || event.is_error();
            if reads && self.mark_ready(source, true) {
                self.ready.push_back(source);
            }
        }
    }

    fn mark_ready(&mut self, source: Source, ready: bool) -> bool {
        let mark = match source {
            Source::Commands => return ready,
            Source::Alarm => return false,
            Source::PeerAccept(_) | Source::Peer(_) => return self.peers.mark_ready(source, ready),
            Source::Socket(key) => return self.outward.sockets.mark_ready(key, ready),
            Source::Accept(index) => return self.accepts.mark_ready(index, ready),
            Source::Stream(key) => self
                .outward
                .streams
                .get_mut(key)
                .map(|stream| &mut stream.is_ready),
        };
        mark.is_some_and(|mark| std::mem::replace(mark, ready) != ready)
    }

    /// Lets everything that can be read have one turn; what has more comes again next round.
    fn serve_ready(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(source) = self.ready.pop_front() else {
                return;
            };
            let has_more = match source {
                Source::Commands => self.serve_commands(),
                Source::Socket(key @ SocketKey::Listener(_)) => self.serve_clients(key),
                Source::Socket(key) => self.serve_peers(key),
                Source::Accept(index) => self.accepts.serve(
                    index,
                    &mut self.outward,
                    self.poll.registry(),
                    self.now.mono,
                ),
                Source::Stream(key) => self.serve_stream(key),
                Source::PeerAccept(_) | Source::Peer(_) => self.serve_peer_connections(source),
                Source::Alarm => false,
            };
            if has_more {
                self.ready.push_back(source);
            } else {
                self.mark_ready(source, false);
            }
        }
    }

    fn serve_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => self.is_stopping = true,
                Command::Drain(until_empty) => {
                    self.relay.set_draining(true);
                    self.draining = Some(until_empty);
                }
                Command::Reload(new) => {
                    self.relay.set_config(self.now, new.relay);
                    self.peers.set_stalled(new.streams.stalled);
                    self.outward.streams.set_limits(new.streams);
                    let Outward {
                        sockets, counters, ..
                    } = &mut self.outward;
                    sockets.set_connected_limit(new.connected_sockets, counters);
                    self.counts_changed = true;
                }
                Command::Visit(visit) => {
                    visit(&mut self.relay, self.now);
                    self.counts_changed = true;
                }
            }
        }
        false
    }

    /// One read of a connection, and every whole frame in it.
    fn serve_stream(&mut self, key: usize) -> bool {
        let Self {
            relay,
            outward,
            peers,
            poll,
            buffers,
            reply,
            now,
            ..
        } = self;
        let Some(stream) = outward.streams.get_mut(key) else {
            return false;
        };
        if let Some(peer) = stream.carries {
            let mut lent = Lent {
                relay,
                streams: &mut outward.streams,
                counters: &outward.counters,
                registry: poll.registry(),
                now: *now,
            };
            return peers.serve_client(peer, key, buffers, &mut lent);
        }
        let len = match outward.streams.receive(key, buffers, &outward.counters) {
            Ok(Some(len)) => len,
            Ok(None) => return false,
            Err(end) => {
                outward.streams.doom(key, end);
                return false;
            }
        };
        let Some(stream) = outward.streams.get_mut(key) else {
            return false;
        };
        let (path, longest) = (stream.path(), stream.longest_frame());
        let mut deframer = std::mem::take(&mut stream.deframer);
        let mut input = buffers.received(len);
        let mut is_valid = false;
        let end = loop {
            let frame = match deframer.next(&mut input, longest) {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(_) => break Some(StreamEnd::Malformed),
            };
            outward.counters.traffic.received(Side::Client);
            let verdict = relay.handle_client(*now, path, frame, reply);
            is_valid |= !matches!(verdict, Verdict::Dropped(_));
            self.counts_changed |= !matches!(verdict, Verdict::Forward(_));
            outward.act_for_client(relay, *now, &verdict, frame, reply);
            if matches!(verdict, Verdict::Reply { .. }) && relay.carries_data(path) {
                // Behind a ConnectionBind come bytes for the peer (RFC 6062 §5.4).
                deframer = Deframer::default();
                if let Some(stream) = outward.streams.get_mut(key) {
                    stream.early.extend_from_slice(input);
                }
                break None;
            }
        };
        if let Some(stream) = outward.streams.get_mut(key) {
            stream.deframer = deframer;
            if is_valid {
                stream.note_valid(now.mono);
            }
        }
        // TLS may have something to say of its own.
        outward.streams.mark_dirty(key);
        if let Some(end) = end {
            outward.streams.doom(key, end);
        }
        end.is_none()
    }

    /// A relayed address that accepts, or a connection with a peer.
    fn serve_peer_connections(&mut self, source: Source) -> bool {
        let (peers, buffers, mut lent) = self.lend();
        let has_more = match source {
            Source::PeerAccept(key) => peers.serve_accept(key, &mut lent),
            Source::Peer(key) => peers.serve_peer(key, buffers, &mut lent),
            Source::Commands
            | Source::Socket(_)
            | Source::Accept(_)
            | Source::Stream(_)
            | Source::Alarm => false,
        };
        self.counts_changed = true;
        has_more
    }

    fn lend(&mut self) -> (&mut PeerConnections, &mut Buffers, Lent<'_>) {
        let lent = Lent {
            relay: &mut self.relay,
            streams: &mut self.outward.streams,
            counters: &self.outward.counters,
            registry: self.poll.registry(),
            now: self.now,
        };
        (&mut self.peers, &mut self.buffers, lent)
    }

    /// What has room again, or bandwidth, can be read.
    fn note_woken(&mut self) {
        for source in self.peers.take_woken() {
            if self.mark_ready(source, true) {
                self.ready.push_back(source);
            }
        }
    }

    fn serve_timers(&mut self) {
        let now = self.now;
        let (peers, _, mut lent) = self.lend();
        peers.handle_timeout(&mut lent);
        if self
            .relay
            .poll_timeout()
            .is_some_and(|(deadline, _)| deadline <= now.mono)
        {
            self.relay.handle_timeout(now);
            self.counts_changed = true;
        }
        self.outward.streams.handle_timeout(now.mono);
        self.ready.extend(self.accepts.handle_timeout(now.mono));
    }

    /// An allocation that waits for its socket counts: its client is told of it yet.
    fn tell_if_drained(&mut self) {
        if self.draining.is_some() {
            let levels = self.relay.gauges();
            if levels.allocations == 0 && levels.pending == 0 {
                self.draining = None;
            }
        }
    }

    /// What the machine wants and has to say, then everything goes out.
    fn finish_round(&mut self) {
        let Self {
            relay,
            outward,
            poll,
            ..
        } = self;
        while let Some(client) = outward
            .streams
            .take_doomed(poll.registry(), &outward.counters)
        {
            relay.handle_disconnect(self.now, client);
            self.counts_changed = true;
        }
        self.drain_events();
        while let Some(path) = self.relay.poll_transmit(&mut self.reply) {
            self.outward
                .send_to_client(path, &[&self.reply], Kind::Reply);
        }
        self.outward.sockets.flush(&self.outward.counters);
        self.outward.sockets.connect_wanted(
            self.poll.registry(),
            |key| Source::Socket(key).token(),
            &self.outward.counters,
        );
        self.outward.streams.flush();
        let (peers, _, mut lent) = self.lend();
        peers.flush(&mut lent);
        // Flushing may have shown that a connection is over.
        self.drain_events();
        self.note_woken();
        if std::mem::take(&mut self.counts_changed) {
            self.outward.counters.cells.publish(&self.relay);
            self.give_back_memory();
        }
    }

    /// After a rush.
    fn give_back_memory(&mut self) {
        let levels = self.relay.gauges();
        // A spare socket is as much in the way as one of an allocation.
        let allocations = levels.allocations + levels.pending + levels.spare_sockets;
        if self.reclaim.is_due(allocations) {
            let began = clock::mono();
            self.outward.sockets.shrink();
            self.ready.shrink_to_fit();
            if allocations == 0 {
                net_io::memory::give_all_back();
            } else {
                net_io::memory::give_back();
            }
            tracing::debug!(allocations, took = ?began.elapsed(), "memory given back");
        }
    }

    fn drain_events(&mut self) {
        let Self {
            relay,
            outward,
            peers,
            poll,
            now,
            ..
        } = self;
        while let Some(event) = relay.poll_event() {
            self.counts_changed = true;
            let counters = &outward.counters;
            match event {
                Event::SocketWanted { addr } => {
                    let token = |key| Source::Socket(key).token();
                    let outcome = outward.sockets.open(addr, poll.registry(), token, counters);
                    counters.relay_sockets.inc(outcome.into());
                    relay.handle_socket(*now, addr, outcome);
                }
                Event::AddressEnded { addr } => {
                    outward.sockets.disconnect(addr, counters);
                }
                Event::SocketFreed { addr } => {
                    outward.sockets.close(addr, counters);
                }
                Event::AllocationCreated { client, .. } => {
                    counters.allocations.created(client);
                    outward.streams.set_allocation(client, true, now.mono);
                }
                Event::AllocationEnded {
                    client,
                    relayed,
                    reason,
                    duration,
                    traffic,
                } => {
                    for addr in relayed.into_iter().flatten() {
                        outward.sockets.disconnect(addr, counters);
                    }
                    counters
                        .allocations
                        .ended(client, reason, duration, traffic);
                    outward.streams.set_allocation(client, false, now.mono);
                }
                Event::ListenWanted { .. }
                | Event::ListenFreed { .. }
                | Event::ConnectWanted { .. }
                | Event::ConnectionBound { .. }
                | Event::ConnectionEnded { .. } => {
                    let mut lent = Lent {
                        relay,
                        streams: &mut outward.streams,
                        counters,
                        registry: poll.registry(),
                        now: *now,
                    };
                    peers.act(&event, &mut lent);
                }
                // A kernel fast path would take these over.
                Event::ChannelBound { .. } | Event::ChannelFreed { .. } => {}
            }
        }
    }
}

fn read_clocks() -> Now {
    let (mono, unix) = clock::now();
    Now { mono, unix }
}
