//! The server as a library: bind everything, start the threads, end them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use mio::net::TcpListener;
use mio::{Poll, Token, Waker};
use net_io::opening::{Door, Spoken};
use net_io::{BindOptions, Form, UdpSocket, clock, tcp};
use ops::config::{ListenUrl, Scheme};
use ops::metrics::{MetricError, Registry};
use ops::reload::ReloadGauges;
use ops::tls::{self, Serving, TlsError};
use stun_server_proto::{Endpoints, LimitConfig, Prefix, Responder, SourceLimits};
use stun_wire::MAGIC_COOKIE;

use crate::alternate;
use crate::config::{ALPN, Config, Limits};
use crate::counters::{Counters, QueueDrops};
use crate::shard::{Listener, Shard};
use crate::stream::{Parts, Streams};
use crate::{shard, stream};

mod reload;

pub use ops::reload::Reloaded;
pub use reload::ReloadError;

/// The token of a thread's waker; no listener or connection has it.
pub(crate) const WAKE: Token = Token(usize::MAX);
/// How often another port is tried where the system may choose it and somebody else was quicker.
const PORT_ATTEMPTS: usize = 8;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A listener could not be bound.
    #[error("cannot listen on {url}: {source}")]
    Listen {
        /// The listener.
        url: ListenUrl,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration, made by a program, has a fault that a file's would have been refused for.
    #[error("{key}: {reason}")]
    Config {
        /// The key at fault.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate that cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its metrics could not be declared.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// A thread, its poll or random bytes could not be had.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct Server {
    config: Config,
    local_addrs: Vec<(Scheme, SocketAddr)>,
    limits: Arc<SourceLimits>,
    endpoints: Option<Endpoints>,
    shards: Vec<Worker<shard::Change>>,
    /// The thread of all connections.
    streams: Option<Worker<stream::Change>>,
    serving: Option<Serving>,
    gauges: ReloadGauges,
}

impl Server {
    /// Binds every listener, then starts the threads: one per UDP shard, one for all connections.
    ///
    /// # Errors
    /// A listener cannot be bound (which one is said), or the system has no more threads.
    pub fn bind(config: Config, registry: &Registry) -> Result<Self, BindError> {
        let shards = shard_count(config.threads);
        if let Some(reason) = config.proxy.fault(&config.listen) {
            return Err(BindError::Config {
                key: "proxy",
                reason,
            });
        }
        // Changes of a certificate are counted from the start, with or without one.
        let reloads = tls::declare(registry)?;
        let serving = Serving::of(&config.listen, config.tls.as_ref(), ALPN, reloads)?;
        let mut sockets = Sockets::bind(&config, shards)?;
        let mut counters = Counters::declare(registry, shards + 1)?.into_iter();
        QueueDrops::declare(std::mem::take(&mut sockets.queue_drops), registry)?;
        let gauges = ReloadGauges::declare(registry)?;
        gauges.taken_over(clock::unix());
        let mut server = Self {
            local_addrs: sockets.local_addrs,
            limits: Arc::new(source_limits(&config.limits)?),
            endpoints: sockets.endpoints,
            shards: Vec::new(),
            streams: None,
            serving,
            gauges,
            config,
        };
        for (index, (listeners, counters)) in
            sockets.udp.into_iter().zip(counters.by_ref()).enumerate()
        {
            let (mut worker, poll) = Worker::prepare()?;
            let shard = Shard::new(poll, listeners, server.datagram_responder(), counters)?;
            worker.start(format!("udp-{index}"), move |inbox| shard.run(inbox))?;
            server.shards.push(worker);
        }
        let (mut worker, poll) = Worker::prepare()?;
        if let Some(counters) = counters.next() {
            let certificates = server.serving.as_ref().map(|it| it.certificates().clone());
            let streams = Streams::new(Parts {
                poll,
                sockets: sockets.tcp,
                responder: server.responder(),
                counters,
                limits: server.config.limits.clone(),
                certificates,
                proxies: server.config.proxy.trusted.clone(),
            })?;
            worker.start("tcp".to_owned(), move |inbox| streams.run(inbox))?;
            server.streams = Some(worker);
        }
        Ok(server)
    }

    /// What answers on connections.
    fn responder(&self) -> Responder {
        Responder::new(Arc::clone(&self.limits))
    }

    /// What answers datagrams.
    fn datagram_responder(&self) -> Responder {
        let answers = match self.endpoints {
            Some(endpoints) => self.responder().with_endpoints(endpoints),
            None => self.responder(),
        };
        if self.config.protocol.rfc3489 {
            answers.with_rfc3489()
        } else {
            answers
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where it listens, in the order of the configuration, with the ports that the system chose; behind
    /// them the three endpoints that `alternate` adds.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<(Scheme, SocketAddr)> {
        self.local_addrs.clone()
    }

    /// Ends every thread and waits for them.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shards.iter().for_each(Worker::stop);
        self.streams.iter().for_each(Worker::stop);
        self.shards.iter_mut().for_each(Worker::join);
        self.streams.iter_mut().for_each(Worker::join);
    }
}

/// One thread, and how it is told to end or to go on otherwise.
#[derive(Debug)]
struct Worker<C> {
    inbox: Arc<Inbox<C>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What a thread is told. It looks when its waker has been used.
#[derive(Debug)]
pub(crate) struct Inbox<C> {
    stop: AtomicBool,
    /// The newest change; one that was not taken yet is out of date.
    change: Mutex<Option<C>>,
}

impl<C> Inbox<C> {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn take_change(&self) -> Option<C> {
        let mut change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        change.take()
    }
}

impl<C: Send + 'static> Worker<C> {
    fn prepare() -> io::Result<(Self, Poll)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let inbox = Arc::new(Inbox {
            stop: AtomicBool::new(false),
            change: Mutex::new(None),
        });
        let worker = Self {
            inbox,
            waker,
            thread: None,
        };
        Ok((worker, poll))
    }

    fn start(
        &mut self,
        name: String,
        run: impl FnOnce(&Inbox<C>) + Send + 'static,
    ) -> io::Result<()> {
        let inbox = Arc::clone(&self.inbox);
        let thread = std::thread::Builder::new().name(name);
        self.thread = Some(thread.spawn(move || run(&inbox))?);
        Ok(())
    }

    fn tell(&self, change: C) {
        let mut next = self
            .inbox
            .change
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *next = Some(change);
        drop(next);
        let _ = self.waker.wake();
    }

    fn stop(&self) {
        self.inbox.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }

    fn join(&mut self) {
        // A thread that panicked has been reported by the panic hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn shard_count(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn source_limits(limits: &Limits) -> io::Result<SourceLimits> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let config = LimitConfig {
        per_source: limits.answers_per_second,
        burst: limits.burst,
        neighbourhood: limits.neighbourhood,
        server: limits.answers_per_second_total,
        redirects: limits.redirects_per_second,
        exempt: limits
            .exempt
            .iter()
            .map(|p| Prefix::new(p.address(), p.length()))
            .collect(),
    };
    Ok(SourceLimits::new(&config, seed, clock::mono()))
}

/// Everything bound, before any thread runs.
struct Sockets {
    local_addrs: Vec<(Scheme, SocketAddr)>,
    udp: Vec<Vec<Listener>>,
    tcp: Vec<(TcpListener, Door)>,
    queue_drops: Vec<QueueDrops>,
    /// Those of RFC 5780, if it is on.
    endpoints: Option<Endpoints>,
    /// What a listener takes at all.
    form: Form,
}

impl Sockets {
    fn bind(config: &Config, shards: usize) -> Result<Self, BindError> {
        let mut sockets = Self {
            local_addrs: Vec::new(),
            udp: std::iter::repeat_with(Vec::new).take(shards).collect(),
            tcp: Vec::new(),
            queue_drops: Vec::new(),
            endpoints: None,
            form: form(config.protocol.rfc3489),
        };
        if let Some(alternate) = config.alternate {
            let faults = alternate::faults(&config.listen, alternate);
            if let Some((key, reason)) = faults.into_iter().next() {
                return Err(BindError::Config { key, reason });
            }
        }
        let mut others = Vec::new();
        for url in &config.listen {
            let failed = |source| BindError::Listen { url: *url, source };
            let address = match (url.scheme, config.alternate) {
                (Scheme::Udp, Some(other)) if other.is_ipv4() == url.address.is_ipv4() => {
                    let [first, rest @ ..] = sockets.add_endpoints(url.address, other, config)?;
                    others.extend(rest.map(|address| (Scheme::Udp, address)));
                    first
                }
                (Scheme::Udp, _) => sockets.add_udp(url.address, config).map_err(failed)?,
                (scheme, _) => {
                    let is_proxied = config.proxy.covers(url);
                    let spoken = spoken_on(scheme).map_err(failed)?;
                    let door = Door { spoken, is_proxied };
                    sockets.add_tcp(url.address, door).map_err(failed)?
                }
            };
            sockets.local_addrs.push((url.scheme, address));
        }
        sockets.local_addrs.append(&mut others);
        Ok(sockets)
    }

    fn add_udp(&mut self, address: SocketAddr, config: &Config) -> io::Result<SocketAddr> {
        let group = bind_group(address, self.udp.len(), receive_buffer(config))?;
        let local = group.first().map_or(address, UdpSocket::local_addr);
        self.add_group(local, group);
        Ok(local)
    }

    /// The four endpoints of RFC 5780, the one at `primary` first.
    fn add_endpoints(
        &mut self,
        primary: SocketAddr,
        other: SocketAddr,
        config: &Config,
    ) -> Result<[SocketAddr; 4], BindError> {
        let bound = alternate::bind(primary, other, self.udp.len(), receive_buffer(config))?;
        let addresses = bound.endpoints.all();
        for (local, group) in addresses.into_iter().zip(bound.groups) {
            self.add_group(local, group);
        }
        self.endpoints = Some(bound.endpoints);
        Ok(addresses)
    }

    /// Gives each shard its socket of a group.
    fn add_group(&mut self, local: SocketAddr, group: Vec<UdpSocket>) {
        let url = ListenUrl {
            scheme: Scheme::Udp,
            address: local,
        };
        let mut drops = QueueDrops::new(url.to_string());
        for (shard, socket) in self.udp.iter_mut().zip(group) {
            shard::admit_only(&socket, &self.form);
            shard.push(Listener::new(socket, drops.shard()));
        }
        self.queue_drops.push(drops);
    }

    fn add_tcp(&mut self, address: SocketAddr, door: Door) -> io::Result<SocketAddr> {
        let listener = tcp::listen(address, false)?;
        let local = listener.local_addr()?;
        self.tcp.push((listener, door));
        Ok(local)
    }
}

/// What is spoken on connections of a scheme.
fn spoken_on(scheme: Scheme) -> io::Result<Spoken> {
    match scheme {
        Scheme::Tcp => Ok(Spoken::Plain),
        Scheme::Tls => Ok(Spoken::Tls),
        // RFC 7983 section 7: STUN begins with 0 to 3.
        Scheme::TcpTls => Ok(Spoken::Either(|first| first <= 3)),
        Scheme::Udp | Scheme::Http | Scheme::Https => {
            let what = "rallypoint-stun listens on udp, tcp, tls and tcp+tls";
            Err(io::Error::new(io::ErrorKind::Unsupported, what))
        }
    }
}

/// Keeps what is no STUN out of the queue that everybody's datagrams share (RFC 8489 §5: a length in whole words, and
/// the cookie, which clients of RFC 3489 know nothing of).
fn form(rfc3489: bool) -> Form {
    Form {
        first_byte: 0x00..=0x3F,
        min_len: 20,
        word: (!rfc3489).then_some((4, MAGIC_COOKIE)),
        clear: Some((3, 0b11)),
    }
}

fn receive_buffer(config: &Config) -> usize {
    usize::try_from(config.receive_buffer.bytes()).unwrap_or(usize::MAX)
}

/// One socket per shard on the same address, among which the kernel spreads the sources.
pub(crate) fn bind_group(
    address: SocketAddr,
    shards: usize,
    size: usize,
) -> io::Result<Vec<UdpSocket>> {
    let options = |reuse_port| BindOptions {
        reuse_port,
        recv_buffer: Some(size),
        ..BindOptions::default()
    };
    if shards == 1 {
        return Ok(vec![UdpSocket::bind(address, &options(false))?]);
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        // Sharing a port succeeds even beside another process of the same user, which would then
        // answer a part of the sources. A first socket that does not share finds that out; it also
        // finds a port where the system chooses.
        let probe = UdpSocket::bind(address, &options(false))?;
        let local = probe.local_addr();
        drop(probe);
        let group: io::Result<Vec<_>> = (0..shards)
            .map(|_| UdpSocket::bind(local, &options(true)))
            .collect();
        match group {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && address.port() == 0
                    && attempts < PORT_ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}
