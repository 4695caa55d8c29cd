//! STUN, TURN and signaling in one process, wired to each other: what `up` runs and `demo` plays on.
//!
//! The servers are the products' own libraries with their own defaults; only what development needs differs: a random
//! secret, one shard each, no bandwidth limit, loopback peers. Each has its metrics on a listener of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ops::Health;
use ops::admin::{Admin, AdminError};
use ops::config::{IpPrefix, ListenUrl, Scheme, Secret};
use ops::metrics::{BuildInfo, MetricError, Registry, register_process};

/// Names the secret in the credentials that signaling mints and the relay checks.
const SECRET_ID: &str = "up";
const SECRET_BYTES: usize = 32;

/// Where the services listen; port 0 is any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The address of all of them.
    pub ip: IpAddr,
    /// STUN, UDP and TCP.
    pub stun: u16,
    /// TURN, UDP and TCP.
    pub turn: u16,
    /// Signaling.
    pub signal: u16,
    /// Metrics of STUN, TURN and signaling.
    pub admin: [u16; 3],
}

impl Ports {
    /// Whatever is free on loopback.
    #[must_use]
    pub fn any_on_loopback() -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST.into(),
            stun: 0,
            turn: 0,
            signal: 0,
            admin: [0; 3],
        }
    }
}

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `rallypoint-stun`.
    Stun,
    /// `rallypoint-turn`.
    Turn,
    /// `rallypoint-signal`.
    Signal,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stun => "the STUN server",
            Self::Turn => "the relay",
            Self::Signal => "the signaling server",
        })
    }
}

/// Why the services did not start; names the service and the address.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The STUN server did not start.
    #[error("the STUN server: {0}")]
    Stun(#[from] stun_server::BindError),
    /// The relay did not start.
    #[error("the relay: {0}")]
    Turn(#[from] turn_relay::BindError),
    /// The signaling server did not start.
    #[error("the signaling server: {0}")]
    Signal(#[from] signaling::BindError),
    /// An admin listener did not start.
    #[error("metrics of {0}: {1}")]
    Admin(Service, AdminError),
    /// The metrics could not be declared.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// The system has no randomness for a secret.
    #[error("no random secret: {0}")]
    Random(getrandom::Error),
}

/// The running services.
#[derive(Debug)]
pub struct Services {
    stun: stun_server::Server,
    turn: turn_relay::Server,
    signal: signaling::Server,
    admins: [Watched; 3],
    signal_addr: SocketAddr,
}

/// A service's metrics.
#[derive(Debug)]
struct Watched {
    admin: Admin,
    health: Health,
}

impl Services {
    /// Starts all three and their admin listeners.
    ///
    /// # Errors
    /// The first that cannot start, and why.
    pub async fn start(ports: Ports) -> Result<Self, ServicesError> {
        let secret = random_secret()?;
        let registries: [Registry; 3] = std::array::from_fn(|_| Registry::new());
        let [stun_metrics, turn_metrics, signal_metrics] = &registries;
        let stun = stun_server::Server::bind(stun_config(ports), stun_metrics)?;
        let turn = turn_relay::Server::bind(turn_config(ports, &secret), turn_metrics)?;
        let urls = (stun_urls(&stun), turn_urls(&turn));
        let signal_config = signal_config(ports, &secret, urls);
        let signal = signaling::Server::bind(signal_config, signal_metrics).await?;
        let signal_addr = only(&signal.local_addrs());
        let [stun_admin, turn_admin, signal_admin] = ports.admin;
        let admins = [
            watch(Service::Stun, stun_metrics, ports.ip, stun_admin).await?,
            watch(Service::Turn, turn_metrics, ports.ip, turn_admin).await?,
            watch(Service::Signal, signal_metrics, ports.ip, signal_admin).await?,
        ];
        Ok(Self {
            stun,
            turn,
            signal,
            admins,
            signal_addr,
        })
    }

    /// Where players connect to.
    #[must_use]
    pub fn signal_url(&self) -> String {
        format!("ws://{}/v1/ws", self.signal_addr)
    }

    /// The page for people.
    #[must_use]
    pub fn health_page(&self) -> String {
        format!("http://{}/", self.signal_addr)
    }

    /// The STUN server's URLs (RFC 7064).
    #[must_use]
    pub fn stun_urls(&self) -> Vec<String> {
        stun_urls(&self.stun)
    }

    /// The relay's URLs (RFC 7065).
    #[must_use]
    pub fn turn_urls(&self) -> Vec<String> {
        turn_urls(&self.turn)
    }

    /// `/metrics` of STUN, TURN and signaling.
    #[must_use]
    pub fn metrics_urls(&self) -> [String; 3] {
        self.admins
            .each_ref()
            .map(|watched| format!("http://{}/metrics", watched.admin.local_addr()))
    }

    /// Ends everything in the order that loses least: signaling first, so that nobody is sent to a relay that goes.
    pub async fn shutdown(self) {
        for watched in &self.admins {
            watched.health.set_stopping();
        }
        self.signal.shutdown().await;
        // The other two join their threads; the runtime's must not wait for that.
        let (stun, turn) = (self.stun, self.turn);
        let joined = tokio::task::spawn_blocking(move || {
            stun.shutdown();
            turn.shutdown();
        });
        let _ = joined.await;
        for watched in self.admins {
            watched.admin.shutdown().await;
        }
    }
}

async fn watch(
    service: Service,
    registry: &Registry,
    ip: IpAddr,
    port: u16,
) -> Result<Watched, ServicesError> {
    let revision = option_env!("RALLYPOINT_REVISION").unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    register_process(registry, BuildInfo { version, revision })?;
    let health = Health::new(registry)?;
    let address = SocketAddr::new(ip, port);
    let admin = Admin::bind(address, registry.clone(), health.clone())
        .await
        .map_err(|error| ServicesError::Admin(service, error))?;
    health.set_ready(true);
    Ok(Watched { admin, health })
}

fn stun_config(ports: Ports) -> stun_server::Config {
    stun_server::Config {
        listen: listen(ports.ip, ports.stun, &[Scheme::Udp, Scheme::Tcp]),
        threads: 1,
        ..stun_server::Config::default()
    }
}

fn turn_config(ports: Ports, secret: &Secret) -> turn_relay::Config {
    turn_relay::Config {
        listen: listen(ports.ip, ports.turn, &[Scheme::Udp, Scheme::Tcp]),
        relay_addresses: vec![ports.ip],
        threads: 1,
        secrets: vec![turn_relay::NamedSecret {
            id: Some(SECRET_ID.to_owned()),
            secret: secret.clone(),
        }],
        peers: peers(ports.ip),
        quota: turn_relay::Quota {
            bandwidth_per_allocation: None,
            bandwidth_per_user: None,
            ..turn_relay::Quota::default()
        },
        ..turn_relay::Config::default()
    }
}

/// Players of a development relay are on this machine, or in the private network that it is exposed to.
fn peers(ip: IpAddr) -> turn_relay::Peers {
    if ip.is_loopback() {
        return turn_relay::Peers {
            allow_loopback_for_tests: true,
            ..turn_relay::Peers::default()
        };
    }
    let private = [
        (Ipv4Addr::new(10, 0, 0, 0).into(), 8),
        (Ipv4Addr::new(172, 16, 0, 0).into(), 12),
        (Ipv4Addr::new(192, 168, 0, 0).into(), 16),
        (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0).into(), 7),
    ];
    turn_relay::Peers {
        // Those on this machine too, whose address no relay reaches unless it is named.
        allow: private
            .into_iter()
            .chain([(ip, if ip.is_ipv4() { 32 } else { 128 })])
            .filter_map(|(network, length)| IpPrefix::new(network, length))
            .collect(),
        ..turn_relay::Peers::default()
    }
}

fn signal_config(
    ports: Ports,
    secret: &Secret,
    (stun, turn): (Vec<String>, Vec<String>),
) -> signaling::Config {
    signaling::Config {
        listen: listen(ports.ip, ports.signal, &[Scheme::Http]),
        stun: vec![signaling::Stun { urls: stun }],
        relays: vec![signaling::Relay {
            region: "local".to_owned(),
            urls: turn,
            secret: credentials::Secret {
                id: Some(SECRET_ID.to_owned()),
                key: secret.expose().to_vec(),
            },
        }],
        ..signaling::Config::default()
    }
}

fn listen(ip: IpAddr, port: u16, schemes: &[Scheme]) -> Vec<ListenUrl> {
    let address = SocketAddr::new(ip, port);
    schemes
        .iter()
        .map(|scheme| ListenUrl {
            scheme: *scheme,
            address,
        })
        .collect()
}

fn stun_urls(server: &stun_server::Server) -> Vec<String> {
    server
        .local_addrs()
        .into_iter()
        .filter(|(scheme, _)| *scheme == Scheme::Udp)
        .map(|(_, address)| format!("stun:{address}"))
        .collect()
}

fn turn_urls(server: &turn_relay::Server) -> Vec<String> {
    server
        .local_addrs()
        .into_iter()
        .map(|(scheme, address)| format!("turn:{address}?transport={}", scheme.as_str()))
        .collect()
}

fn only(addresses: &[(Scheme, SocketAddr)]) -> SocketAddr {
    let (_, address) = addresses.first().expect("it was given one listener");
    *address
}

fn random_secret() -> Result<Secret, ServicesError> {
    let mut bytes = vec![0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(ServicesError::Random)?;
    Ok(Secret::new(bytes))
}
