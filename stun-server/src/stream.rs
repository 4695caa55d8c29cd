//! STUN over TCP and TLS: one thread, every connection bounded in bytes and in time.
//!
//! ```text
//! accept ── within the limits? ── (PROXY header, TLS or not) ── read ── whole frames → machine → output ── write
//!    └ no: closed, counted             └ nothing in time, no STUN, answers not read: closed, counted
//! ```
//!
//! A connection whose answers are not read is not read either, until its time is over.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use net_io::clock;
use net_io::opening::{Door, Opened, Opening};
use ops::config::IpPrefix;
use ops::tls::Certificates;
use rustls::ServerConnection;
use slab::Slab;
use stun_server_proto::Responder;

use crate::config::Limits;
use crate::connection::{Connection, Handler, Turn};
use crate::counters::{Closed, Counters, ProxyHeader};
use crate::server::{Inbox, WAKE};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How long accepting rests after it failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before the others have their turn.
const ACCEPTS: usize = 64;

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
    certificates: Option<Certificates>,
    proxies: Vec<IpPrefix>,
    next_sweep: Instant,
    accepts_again_at: Option<Instant>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    door: Door,
    is_ready: bool,
}

/// What the thread goes on with after a reload.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) responder: Responder,
    pub(crate) limits: Limits,
    /// Whose PROXY headers are believed.
    pub(crate) proxies: Vec<IpPrefix>,
}

/// What the thread is made of.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) sockets: Vec<(TcpListener, Door)>,
    pub(crate) responder: Responder,
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    pub(crate) certificates: Option<Certificates>,
    /// Whose PROXY headers are believed.
    pub(crate) proxies: Vec<IpPrefix>,
}

impl Streams {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            poll,
            sockets,
            responder,
            counters,
            limits,
            certificates,
            proxies,
        } = parts;
        let mut listeners = Vec::new();
        for (index, (mut socket, door)) in sockets.into_iter().enumerate() {
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)?;
            listeners.push(Listener {
                socket,
                door,
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
            certificates,
            proxies,
            next_sweep: clock::mono(),
            accepts_again_at: None,
        })
    }

    /// Serves until it is told to stop.
    pub(crate) fn run(mut self, inbox: &Inbox<Change>) {
        let mut events = Events::with_capacity(256);
        while !inbox.is_stopping() {
            if let Err(error) = self.poll.poll(&mut events, self.patience(clock::mono())) {
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::debug!(%error, "poll");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
                continue;
            }
            for event in &events {
                if event.token() == WAKE {
                    self.go_on_with(inbox.take_change());
                } else {
                    self.note(event.token().0);
                }
            }
            let now = clock::mono();
            // Connections first: a slot freed and taken anew must not see the event of the old one.
            for _ in 0..self.ready.len() {
                self.serve_next(now);
            }
            self.accept(now);
            self.sweep(now);
        }
        let open: Vec<_> = self.connections.iter().map(|(key, _)| key).collect();
        for key in open {
            self.close(key, Closed::Shutdown);
        }
    }

    /// Connections that are open stay, whatever the new limits are.
    fn go_on_with(&mut self, change: Option<Change>) {
        let Some(Change {
            responder,
            limits,
            proxies,
        }) = change
        else {
            return;
        };
        self.handler.responder = responder;
        self.handler.idle = limits.idle;
        self.limits = limits;
        self.proxies = proxies;
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
        self.queue(token - self.listeners.len());
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
            Turn::HasMore => self.queue(key),
            Turn::Decided(opened) => match self.decide(key, opened) {
                Ok(()) => self.queue(key),
                Err(reason) => self.close(key, reason),
            },
            Turn::Ends(reason) => self.close(key, reason),
        }
    }

    fn queue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.ready.push_back(key);
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
                    Ok((stream, source)) => {
                        let door = listener.door;
                        self.open(stream, source, door, now);
                    }
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

    fn open(&mut self, stream: TcpStream, source: SocketAddr, door: Door, now: Instant) {
        let is_trusted = self.proxies.iter().any(|proxy| proxy.contains(source.ip()));
        if door.is_proxied && !is_trusted {
            self.handler
                .counters
                .connections
                .proxy_header(ProxyHeader::Untrusted);
            self.handler
                .counters
                .connections
                .refused(Closed::ProxyHeader);
            return;
        }
        if !door.is_proxied && !self.has_room_for(source.ip()) {
            self.handler
                .counters
                .connections
                .refused(Closed::AddressLimit);
            return;
        }
        if self.connections.len() >= self.limits.connections {
            self.handler
                .counters
                .connections
                .refused(Closed::ServerLimit);
            return;
        }
        let vacant = self.connections.vacant_entry();
        let key = vacant.key();
        let token = Token(key + self.listeners.len());
        let deadline = now + self.limits.first_message;
        let (opening, registry) = (Opening::new(door), self.poll.registry());
        match Connection::open(stream, source, opening, deadline, registry, token) {
            Ok(connection) => {
                vacant.insert(connection);
                self.handler.counters.connections.accepted();
                if !door.is_proxied {
                    self.count(key);
                }
                if let Some(opened) = door.known_at_once()
                    && let Err(reason) = self.decide(key, opened)
                {
                    self.close(key, reason);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "connection gone before it was served");
                self.handler.counters.connections.refused(Closed::Client);
            }
        }
    }

    /// It shows whose a connection is and what is spoken on it.
    fn decide(&mut self, key: usize, opened: Opened) -> Result<(), Closed> {
        let connection = self.connections.get_mut(key).ok_or(Closed::Client)?;
        connection.name(opened.header);
        let source = connection.source().ip();
        if opened.header.is_some() {
            if !self.has_room_for(source) {
                return Err(Closed::AddressLimit);
            }
            self.count(key);
        }
        let tls = match (&self.certificates, opened.is_tls) {
            (_, false) => None,
            (Some(certificates), true) => {
                let tls = ServerConnection::new(certificates.current());
                Some(tls.map_err(|_| Closed::Tls)?)
            }
            (None, true) => return Err(Closed::Tls),
        };
        let connection = self.connections.get_mut(key).ok_or(Closed::Client)?;
        let outcome = connection.decide(tls);
        if let Some(transport) = connection.transport() {
            self.handler.counters.connections.decided(transport);
        }
        if let Some(header) = opened.header {
            self.handler
                .counters
                .connections
                .proxy_header(header.into());
        }
        outcome
    }

    fn has_room_for(&self, source: IpAddr) -> bool {
        let has = self.sources.get(&source_of(source)).copied().unwrap_or(0);
        let mut exempt = self.limits.exempt.iter();
        has < self.limits.connections_per_address || exempt.any(|prefix| prefix.contains(source))
    }

    fn count(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            let source = source_of(connection.source().ip());
            connection.counted_as = Some(source);
            *self.sources.entry(source).or_insert(0) += 1;
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
        let mut connection = self.connections.remove(key);
        connection.say_goodbye();
        if let Some(source) = connection.counted_as
            && let Some(count) = self.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        if let Some(header) = connection.undecided_header() {
            self.handler
                .counters
                .connections
                .proxy_header(header.into());
        }
        self.handler
            .counters
            .connections
            .closed(connection.transport(), reason);
    }
}

/// What connections are counted by: an IPv4 address, an IPv6 /64.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}
