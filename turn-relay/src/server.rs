//! The relay as a library: opens everything it was configured with, then runs one thread a shard.

mod listening;
mod operator;
mod reload;
mod supervision;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Poll, Waker};
use net_io::{BindOptions, UdpSocket};
use ops::config::{ListenUrl, Scheme};
use ops::logging::OPERATOR;
use ops::metrics::{MetricError, Registry};
use ops::tls::{self, Serving, TlsError};
use turn_relay_proto::{Ledger, Relay};

use crate::config::{ALPN, Config, Shared, relay_config, split_ports};
use crate::connections::Connections;
use crate::counters::{self, ConfigGauges, ShardCounters};
use crate::external::{self, DiscoveryError, ExternalWatch};
use crate::peer_connections::PeerConnections;
use crate::shard::{Command, Parts, Shard};
use crate::shards::ShardHandle;
use crate::sockets::Sockets;
use crate::source::WAKER;
use crate::streams::Streams;

use listening::Listening;
pub use ops::reload::Reloaded;
pub use reload::ReloadError;
pub use supervision::ShardFailure;
use supervision::{Failures, Supervision};

/// A relay that serves until it is shut down or dropped.
pub struct Server {
    listeners: Vec<ListenUrl>,
    shards: Vec<Running>,
    setup: Setup,
    failures: Failures,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// A thread and the way to talk to it.
#[derive(Debug)]
struct Running {
    handle: Arc<ShardHandle>,
    thread: JoinHandle<()>,
    ports: RangeInclusive<u16>,
}

/// Why a relay cannot start; names the key, address or file at fault.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Nobody could be let in.
    #[error("credentials: no secret and no test user; nobody could be let in")]
    NoCredentials,
    /// Nothing could be relayed.
    #[error("relay-addresses: none given")]
    NoRelayAddress,
    /// Nobody could connect.
    #[error("listen: none given")]
    NoListener,
    /// A secret that would protect nothing.
    #[error("credentials: secret {name}: {source}")]
    Secret {
        /// Its id, or its place.
        name: String,
        /// What is wrong with it.
        source: credentials::SecretError,
    },
    /// Loopback peers with listeners that others reach.
    #[error("peers.allow-loopback-for-tests: {0} is not on loopback")]
    LoopbackPeers(ListenUrl),
    /// Proxies of listeners that are not there, or listeners without proxies.
    #[error("proxy: {0}")]
    Proxy(String),
    /// A listener that cannot be opened.
    #[error("listen: {url}: {source}")]
    Listen {
        /// The listener.
        url: ListenUrl,
        /// Why not.
        source: io::Error,
    },
    /// A relay address that nothing can be bound to.
    #[error("relay-addresses: {address}: {source}")]
    RelayAddress {
        /// The address.
        address: IpAddr,
        /// Why not.
        source: io::Error,
    },
    /// What peers see a relay address as could not be found out.
    #[error(transparent)]
    External(#[from] DiscoveryError),
    /// A certificate that cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The metrics are declared already.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// The system has no thread, descriptor or randomness for us.
    #[error("starting: {0}")]
    Start(io::Error),
}

impl Server {
    /// Opens every listener, checks every relay address and starts the shards.
    ///
    /// # Errors
    /// The first thing that is missing, in use or wrong. Nothing is left open.
    pub fn bind(config: Config, registry: &Registry) -> Result<Self, BindError> {
        check(&config)?;
        // Changes of a certificate are counted from the start, with or without one.
        let reloads = tls::declare(registry)?;
        let serving = Serving::of(&config.listen, config.tls.as_ref(), ALPN, reloads)?;
        let shards = config.shards();
        let (listeners, mut listening) = listening::open(&config, shards)?;
        check_relay_addresses(&config)?;
        let external = external::resolve(&config)?;
        warn_about_descriptors(&config);

        let udp: Vec<ListenUrl> = listeners
            .iter()
            .filter(|url| url.scheme == Scheme::Udp)
            .copied()
            .collect();
        let counters = counters::register(registry, shards, &udp)?;
        let gauges = ConfigGauges::declare(registry)?;
        gauges.taken_over(&config);
        let external_watch = ExternalWatch::start(&config, &external, registry)?;
        let mut own: Vec<SocketAddr> = listeners.iter().map(|url| url.address).collect();
        own.extend(config.admin);
        let slices = split_ports(config.relay_ports, shards);
        let ledger = Arc::new(Ledger::new(random().map_err(BindError::Start)?));
        let (supervision, failures) = supervision::watch();
        let mut server = Self {
            failures,
            listeners,
            shards: Vec::new(),
            setup: Setup {
                connections: Connections::new(config.streams.clone()),
                shared: Shared {
                    ledger: Some(Arc::clone(&ledger)),
                    ..Shared::new(&config, own, external)
                },
                ledger,
                config,
                serving,
                _external_watch: external_watch,
                gauges,
            },
        };
        for (index, ((ports, counters), listening)) in slices
            .into_iter()
            .zip(counters)
            .zip(listening.drain(..))
            .enumerate()
        {
            // On an error the server is dropped, which ends the shards that run already.
            let running =
                server
                    .setup
                    .start(index, ports, counters, listening, supervision.clone());
            server.shards.push(running.map_err(BindError::Start)?);
        }
        Ok(server)
    }

    /// Every listener as bound: port 0 has become a port.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<(Scheme, SocketAddr)> {
        self.listeners
            .iter()
            .map(|url| (url.scheme, url.address))
            .collect()
    }

    /// The next shard that ends by itself. The clients of that shard have lost their relay and the system goes on
    /// sending it a share of the new ones, so a process has to end and be started again.
    pub async fn failure(&mut self) -> ShardFailure {
        self.failures.next().await
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.setup.config
    }

    /// Refuses new allocations (508, or 300 towards an alternate server), lets the existing ones live
    /// until they end or `deadline` has passed, and then ends as [`shutdown`](Self::shutdown) does.
    ///
    /// Blocks until then. Returns true if every allocation ended by itself.
    pub fn drain(mut self, deadline: Duration) -> bool {
        let (until_empty, drained) = mpsc::channel();
        for shard in &self.shards {
            // A shard that is gone has no allocations.
            shard.handle.tell(Command::Drain(until_empty.clone()));
        }
        drop(until_empty);
        // Shards end together: one that closes its listeners alone would have the system send the
        // packets of running flows to others.
        let waited = drained.recv_timeout(deadline);
        self.stop();
        matches!(waited, Err(RecvTimeoutError::Disconnected))
    }

    /// Ends every allocation and connection, and waits for the threads.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        for shard in &self.shards {
            // A shard that is gone already needs no telling.
            shard.handle.tell(Command::Stop);
        }
        for shard in self.shards.drain(..) {
            if shard.thread.join().is_err() {
                tracing::error!("a shard ended by a fault of its own");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Bytes of the operating system's generator.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// What a file cannot get wrong, a program can.
fn check(config: &Config) -> Result<(), BindError> {
    if config.secrets.is_empty() && config.test_users.is_empty() {
        return Err(BindError::NoCredentials);
    }
    if config.relay_addresses.is_empty() {
        return Err(BindError::NoRelayAddress);
    }
    if config.listen.is_empty() {
        return Err(BindError::NoListener);
    }
    if let Some(fault) = config.proxy.fault(&config.listen) {
        return Err(BindError::Proxy(fault));
    }
    for (index, named) in config.secrets.iter().enumerate() {
        let name = named
            .id
            .clone()
            .unwrap_or_else(|| format!("number {}", index + 1));
        named
            .as_credentials()
            .check()
            .map_err(|source| BindError::Secret { name, source })?;
    }
    if config.peers.allow_loopback_for_tests {
        let is_public = |url: &&ListenUrl| !url.address.ip().is_loopback();
        if let Some(url) = config.listen.iter().find(is_public) {
            return Err(BindError::LoopbackPeers(*url));
        }
    }
    for user in &config.test_users {
        tracing::warn!(
            name: OPERATOR,
            user = user.name,
            "a [[test-user]] can allocate for ever: not for production"
        );
    }
    Ok(())
}

/// A relay address that is not on this host would fail every allocation: better now.
fn check_relay_addresses(config: &Config) -> Result<(), BindError> {
    for address in &config.relay_addresses {
        UdpSocket::bind(SocketAddr::new(*address, 0), &BindOptions::default()).map_err(
            |source| BindError::RelayAddress {
                address: *address,
                source,
            },
        )?;
    }
    Ok(())
}

/// Each allocation is a descriptor: too few of them are an operator's surprise later.
#[cfg(target_os = "linux")]
fn warn_about_descriptors(config: &Config) {
    let ports = usize::try_from(config.relay_ports.count()).unwrap_or(usize::MAX);
    let relays = ports.saturating_mul(config.relay_addresses.len());
    let allocations = usize::try_from(config.quota.allocations).unwrap_or(usize::MAX);
    let connections = usize::try_from(config.streams.connections).unwrap_or(usize::MAX);
    // Where TCP is relayed, behind each data connection is one with a peer.
    let peers = if config.protocol.tcp_relaying {
        connections
    } else {
        0
    };
    let wanted = relays.min(allocations).saturating_add(connections);
    let second = config.connected_sockets.saturating_mul(config.shards());
    let wanted = wanted.saturating_add(peers).saturating_add(second);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    if let Some(limit) = limit.filter(|limit| *limit < wanted) {
        tracing::warn!(
            limit,
            wanted,
            "fewer file descriptors than allocations and connections may need: raise LimitNOFILE"
        );
    }
}

#[cfg(not(target_os = "linux"))]
fn warn_about_descriptors(_: &Config) {}

/// What the shards run with, and what tells of it.
struct Setup {
    config: Config,
    shared: Shared,
    ledger: Arc<Ledger>,
    connections: Connections,
    serving: Option<Serving>,
    _external_watch: Option<ExternalWatch>,
    gauges: ConfigGauges,
}

impl Setup {
    fn start(
        &self,
        index: usize,
        ports: RangeInclusive<u16>,
        counters: ShardCounters,
        listening: Listening,
        supervision: Supervision,
    ) -> io::Result<Running> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, commands) = mpsc::channel();
        let seed = random()?;
        let relays = &self.config.relay_addresses;
        let sockets = Sockets::new(listening.udp, relays, &ports, self.config.connected_sockets);
        let relay = relay_config(&self.config, &self.shared, ports.clone());
        let shard = Shard::new(Parts {
            poll,
            commands,
            relay: Relay::new(relay, seed),
            sockets,
            peers: PeerConnections::new(self.config.streams.stalled),
            streams: Streams::new(
                self.config.streams.clone(),
                self.connections.clone(),
                self.serving.as_ref().map(Serving::certificates).cloned(),
                self.config.proxy.trusted.clone(),
            ),
            tcp: listening.tcp,
            counters,
            io_uring: self.config.io_uring,
        })?;
        let thread = thread::Builder::new()
            .name(format!("turn-{index}"))
            .spawn(move || supervision.run(index, || shard.run()))?;
        Ok(Running {
            handle: Arc::new(ShardHandle::new(sender, waker)),
            thread,
            ports,
        })
    }
}
