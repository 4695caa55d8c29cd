//! STUN over TCP (RFC 8489 section 6.2.2): one thread, every connection bounded in bytes and in time.
//!
//! ```text
//! accept ── within the limits? ── read ── whole frames → machine → output ── write
//!    └ no: closed, counted           └ nothing in time, no STUN, answers not read: closed, counted
//! ```
//!
//! A connection whose answers are not read is not read either, until its time is over.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use net_io::clock;
use slab::Slab;
use stun_server_proto::{DropReason, Responder, Verdict};
use stun_wire::stream::frame_length;

use crate::config::Limits;
use crate::counters::{Closed, Counters, Transport};
use crate::server::WAKE;
use crate::shard::MAX_MESSAGE;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How long accepting rests after it failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted, and reads of one connection, before the others have their turn.
const ACCEPTS: usize = 64;
const READS: usize = 8;
/// What the kernel keeps for a connection in each direction; a client needs a few messages' worth.
const KERNEL_BUFFER: usize = 16 * 1024;

/// The thread of all connections.
#[derive(Debug)]
pub(crate) struct Streams {
    poll: Poll,
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    /// Connections of each source; as many entries as connections at most.
    sources: HashMap<IpAddr, usize>,
    /// Connections that may have something to read or to write.
    ready: VecDeque<usize>,
    handler: Handler,
    limits: Limits,
    next_sweep: Instant,
    accepts_again_at: Option<Instant>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    is_ready: bool,
}

/// What one message needs.
#[derive(Debug)]
struct Handler {
    responder: Responder,
    counters: Counters,
    reply: Vec<u8>,
    /// How long a connection may be silent, or leave its answers unread.
    idle: Duration,
}

impl Streams {
    pub(crate) fn new(
        poll: Poll,
        sockets: Vec<TcpListener>,
        responder: Responder,
        counters: Counters,
        limits: Limits,
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (index, mut socket) in sockets.into_iter().enumerate() {
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)?;
            listeners.push(Listener {
                socket,
                is_ready: false,
            });
        }
        Ok(Self {
            poll,
            listeners,
            connections: Slab::new(),
            sources: HashMap::new(),
            ready: VecDeque::new(),
            handler: Handler {
                responder,
                counters,
                reply: Vec::new(),
                idle: limits.idle,
            },
            limits,
            next_sweep: clock::mono(),
            accepts_again_at: None,
        })
    }

    /// Serves until `stop` is set and the waker has been used.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        while !stop.load(Ordering::Acquire) {
            if let Err(error) = self.poll.poll(&mut events, self.patience(clock::mono())) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::debug!(%error, "poll");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                continue;
            }
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.note(event.token().0);
            }
            let now = clock::mono();
            // Connections first: a slot freed and taken anew must not see the event of the old one.
            for _ in 0..self.ready.len() {
                self.serve_next(now);
            }
            self.accept(now);
            self.sweep(now);
        }
        for (_, connection) in &self.connections {
            tracing::debug!(source = %connection.source, "closed by shutdown");
            self.handler.counters.connection_closed(Closed::Shutdown);
        }
    }

    /// How long the poll may wait.
    fn patience(&self, now: Instant) -> Option<Duration> {
        if !self.ready.is_empty() || self.can_accept(now) {
            return Some(Duration::ZERO);
        }
        let sweep = (!self.connections.is_empty()).then_some(self.next_sweep);
        let next = sweep.into_iter().chain(self.accepts_again_at).min()?;
        // A poll waits in whole milliseconds; one more keeps it from waking just before the time.
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn can_accept(&self, now: Instant) -> bool {
        let rests = self.accepts_again_at.is_some_and(|time| now < time);
        !rests && self.listeners.iter().any(|listener| listener.is_ready)
    }

    fn note(&mut self, token: usize) {
        if let Some(listener) = self.listeners.get_mut(token) {
            listener.is_ready = true;
            return;
        }
        let key = token - self.listeners.len();
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.ready.push_back(key);
        }
    }

    fn serve_next(&mut self, now: Instant) {
        let Some(key) = self.ready.pop_front() else {
            return;
        };
        // Closed by a sweep while it waited its turn.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.is_queued = false;
        match connection.serve(now, &mut self.handler) {
            Turn::Waits => {}
            Turn::HasMore => {
                connection.is_queued = true;
                self.ready.push_back(key);
            }
            Turn::Ends(reason) => self.close(key, reason),
        }
    }

    fn accept(&mut self, now: Instant) {
        if !self.can_accept(now) {
            return;
        }
        self.accepts_again_at = None;
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS {
                let Some(listener) = self.listeners.get_mut(index) else {
                    break;
                };
                match listener.socket.accept() {
                    Ok((stream, source)) => self.open(stream, source, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.is_ready = false;
                        break;
                    }
                    // A connection that was reset while it waited is no reason to rest.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::debug!(%error, "accept");
                        self.accepts_again_at = Some(now + ACCEPT_PAUSE);
                        break;
                    }
                }
            }
        }
    }

    fn open(&mut self, stream: TcpStream, source: SocketAddr, now: Instant) {
        let counted = source_of(source.ip());
        let of_this_source = self.sources.get(&counted).copied().unwrap_or(0);
        let is_exempt = self
            .limits
            .exempt
            .iter()
            .any(|prefix| prefix.contains(source.ip()));
        if of_this_source >= self.limits.connections_per_address && !is_exempt {
            self.handler
                .counters
                .connection_refused(Closed::AddressLimit);
            return;
        }
        if self.connections.len() >= self.limits.connections {
            self.handler
                .counters
                .connection_refused(Closed::ServerLimit);
            return;
        }
        let vacant = self.connections.vacant_entry();
        let token = Token(vacant.key() + self.listeners.len());
        let deadline = now + self.limits.first_message;
        match Connection::open(stream, source, deadline, self.poll.registry(), token) {
            Ok(connection) => {
                vacant.insert(connection);
                *self.sources.entry(counted).or_insert(0) += 1;
                self.handler.counters.connection_opened();
            }
            Err(error) => {
                tracing::debug!(%error, "connection gone before it was served");
                self.handler.counters.connection_refused(Closed::Client);
            }
        }
    }

    /// Closes what is over its time. All connections are looked at, once a second.
    fn sweep(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        let overdue = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline <= now);
        let overdue: Vec<_> = overdue
            .map(|(key, late)| (key, late.overdue_reason()))
            .collect();
        for (key, reason) in overdue {
            self.close(key, reason);
        }
    }

    fn close(&mut self, key: usize, reason: Closed) {
        let connection = self.connections.remove(key);
        let source = source_of(connection.source.ip());
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        self.handler.counters.connection_closed(reason);
    }
}

/// What connections are counted by: an IPv4 address, an IPv6 /64.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

/// One client.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    source: SocketAddr,
    local: SocketAddr,
    /// Received and not yet a whole message.
    input: Vec<u8>,
    /// Answers that the client has not taken: those to one read at most, 12 KiB.
    output: Vec<u8>,
    deadline: Instant,
    /// A valid message has come.
    is_known: bool,
    /// The client will send no more.
    is_finished: bool,
    is_queued: bool,
}

/// How a connection's turn ended.
enum Turn {
    /// Until the poll tells of it again.
    Waits,
    /// There may be more to read.
    HasMore,
    /// It is to be closed.
    Ends(Closed),
}

impl Connection {
    fn open(
        mut stream: TcpStream,
        source: SocketAddr,
        deadline: Instant,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        let kernel = socket2::SockRef::from(&stream);
        kernel.set_send_buffer_size(KERNEL_BUFFER)?;
        kernel.set_recv_buffer_size(KERNEL_BUFFER)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            source,
            local,
            input: Vec::new(),
            output: Vec::new(),
            deadline,
            is_known: false,
            is_finished: false,
            is_queued: false,
        })
    }

    fn serve(&mut self, now: Instant, handler: &mut Handler) -> Turn {
        for _ in 0..READS {
            match self.write_output(&handler.counters) {
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
                Err(_) => return Turn::Ends(Closed::Client),
            }
            if self.is_finished {
                return Turn::Ends(Closed::Client);
            }
            match self.read_input() {
                Ok(0) => self.is_finished = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Turn::Ends(Closed::Client),
            }
            if self.answer_messages(now, handler).is_err() {
                return Turn::Ends(Closed::Malformed);
            }
        }
        Turn::HasMore
    }

    /// True once nothing is left to write.
    fn write_output(&mut self, counters: &Counters) -> io::Result<bool> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    counters.written(written);
                    self.output.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn read_input(&mut self) -> io::Result<usize> {
        let mut chunk = [0; MAX_MESSAGE];
        let count = self.stream.read(&mut chunk)?;
        self.input
            .extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Takes every whole message from the input; what cannot be read on as STUN is an error.
    ///
    /// The input never holds more than a message that is not whole and one read: two messages' length.
    fn answer_messages(&mut self, now: Instant, handler: &mut Handler) -> Result<(), ()> {
        let mut taken = 0;
        let outcome = loop {
            let rest = self.input.get(taken..).unwrap_or_default();
            let length = match frame_length(rest) {
                Ok(Some(length)) if length <= MAX_MESSAGE => length,
                Ok(None) => break Ok(()),
                Ok(Some(_)) => {
                    handler.counters.too_long(1);
                    break Err(());
                }
                // Handed to the machine as it is, so that it is counted under its reason.
                Err(_) => rest.len(),
            };
            let Some(message) = rest.get(..length) else {
                break Ok(());
            };
            let verdict = handler.judge(now, self.source, self.local, message);
            taken += length;
            match verdict {
                Verdict::Reply { .. } => self.output.extend_from_slice(&handler.reply),
                Verdict::Absorbed => {}
                Verdict::Dropped(reason) if ends_the_stream(reason) => break Err(()),
                Verdict::Dropped(_) => {}
            }
            self.is_known = true;
            self.deadline = now + handler.idle;
        };
        self.input.drain(..taken);
        outcome
    }

    fn overdue_reason(&self) -> Closed {
        if !self.output.is_empty() {
            Closed::Slow
        } else if self.is_known {
            Closed::Idle
        } else {
            Closed::Silent
        }
    }
}

impl Handler {
    fn judge(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local: SocketAddr,
        message: &[u8],
    ) -> Verdict {
        let verdict = self
            .responder
            .handle(now, source, local, message, &mut self.reply);
        self.counters
            .judged(Transport::Tcp, source, message.len(), verdict);
        verdict
    }
}

/// Whether what was dropped shows that the stream is out of step. What was a message, though an
/// unwelcome one, does not.
fn ends_the_stream(reason: DropReason) -> bool {
    match reason {
        DropReason::TooShort
        | DropReason::NotStun
        | DropReason::BadLength
        | DropReason::Malformed
        | DropReason::BadFingerprint
        | DropReason::BadIntegrity
        | DropReason::BadSource => true,
        DropReason::NotRequest | DropReason::Unsupported | DropReason::RateLimited(_) => false,
    }
}
