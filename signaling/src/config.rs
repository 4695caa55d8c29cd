//! The configuration: TOML in kebab-case, every fault named at once, defaults in `Default`.

mod file;
#[cfg(test)]
mod tests;

use credentials::Secret;
use ops::config::{IpPrefix, ListenUrl, Problems, Scheme};
use ops::logging::LogConfig;
use ops::tls::TlsFiles;
use signaling_lobby::{PassphraseFormat, Prefix, Rate};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The commented example of `deploy/config/`, whose values are the defaults.
pub const DEFAULT_CONFIG: &str = include_str!("../../deploy/config/rallypoint-signal.toml");

/// What is spoken under TLS.
pub(crate) const ALPN: &[&[u8]] = &[b"http/1.1"];

/// What a signaling server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen: `http` or `https`.
    pub listen: Vec<ListenUrl>,
    /// Web pages that may connect beside those of this server, e.g. `https://game.example`; `*`
    /// allows all.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpPrefix>,
    /// The certificate of `https` listeners.
    pub tls: Option<TlsFiles>,
    /// How passphrases are formed and hashed.
    pub passphrase: PassphraseConfig,
    /// TURN relays that members are told of.
    pub relays: Vec<Relay>,
    /// STUN servers that members are told of.
    pub stun: Vec<Stun>,
    /// How long TURN credentials hold.
    pub credential_life: Duration,
    /// Which other protocols are spoken.
    pub doors: Doors,
    /// Every bound.
    pub limits: Limits,
    /// Where `/metrics`, `/healthz` and `/readyz` are; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// What is logged and how.
    pub log: LogConfig,
}

/// How passphrases are formed and hashed.
#[derive(Clone, Debug, Default)]
pub struct PassphraseConfig {
    /// Secret of the keyed hash; `None`: random for each start.
    pub secret: Option<ops::config::Secret>,
    /// The form asked for.
    pub format: PassphraseFormat,
}

/// A TURN relay.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Where it stands, for people and metrics.
    pub region: String,
    /// `turn:` and `turns:` URLs (RFC 7065).
    pub urls: Vec<String>,
    /// Shared with the relay.
    pub secret: Secret,
}

/// A STUN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stun {
    /// `stun:` URLs (RFC 7064).
    pub urls: Vec<String>,
}

/// Which other protocols are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// The passphrase door of the tank game, on upgrade at `/`.
    pub tank: bool,
}

/// Every bound: those of the machine, and those of sockets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The bounds of rooms and rates.
    pub lobby: signaling_lobby::Config,
    /// Bytes waiting for one connection before it is cut off.
    pub outbox_bytes: usize,
    /// How long TLS, the head of a request and the upgrade may take, each.
    pub handshake_timeout: Duration,
    /// How long connections may take to close when the server goes down.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let any = [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ];
        let http = |ip| ListenUrl {
            scheme: Scheme::Http,
            address: SocketAddr::new(ip, 8765),
        };
        Self {
            listen: any.map(http).to_vec(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            passphrase: PassphraseConfig::default(),
            relays: Vec::new(),
            stun: Vec::new(),
            credential_life: Duration::from_secs(credentials::DEFAULT_LIFE),
            doors: Doors { tank: true },
            limits: Limits::default(),
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9480))),
            log: LogConfig::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lobby: signaling_lobby::Config::default(),
            outbox_bytes: 256 * 1024,
            handshake_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Reads TOML that is in no file.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        ops::config::parse(text)
    }

    /// The machine's share.
    pub(crate) fn lobby(&self) -> signaling_lobby::Config {
        signaling_lobby::Config {
            passphrase: self.passphrase.format,
            ..self.limits.lobby.clone()
        }
    }

    /// Listeners whose traffic strangers could read and change on its way.
    pub(crate) fn plain_public_listeners(&self) -> impl Iterator<Item = &ListenUrl> {
        self.listen
            .iter()
            .filter(|url| url.scheme == Scheme::Http && is_public(url.address.ip()))
    }
}

/// Whether an address to listen on is reached from the internet, as far as its form tells.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_private() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}

fn prefix_of(prefix: &IpPrefix) -> Option<Prefix> {
    Prefix::new(prefix.address(), prefix.length())
}

/// The rate of two keys, one sustained and one at once.
fn rate(per_second: u32, burst: u32) -> Rate {
    Rate::per_second(per_second, burst)
}
