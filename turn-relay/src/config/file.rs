//! From TOML to a [`Config`]: every key under its name, every fault reported at once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ops::config::{
    AddrOrOff, FromRaw, FromValue, IpPrefix, ListenUrl, ProxyListeners, Scheme, Secret, Section,
    Size, Value,
};
use ops::tls::{self, TlsFiles};
use turn_relay_proto::{Lifetimes, Limits, Prefix, Protocol, Quota, Realm, StaticUser};

use super::{ALPN, Config, Drain, MAX_THREADS, NamedSecret, Peers, StreamLimits};

/// Each has a table of the ports open on it.
const MAX_RELAY_ADDRESSES: usize = 16;

const SCHEMES: [Scheme; 4] = [Scheme::Udp, Scheme::Tcp, Scheme::Tls, Scheme::TcpTls];
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Of each thread; each is a descriptor and some kilobytes of the system's.
const MAX_MORE_SOCKETS: usize = 4096;

impl FromRaw for Config {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let defaults = Self::default();
        let realm = read_realm(section, defaults.realm);
        let listen = section
            .listen_urls("listen", &SCHEMES)
            .unwrap_or(defaults.listen);
        if listen.is_empty() {
            section.problem(
                "listen",
                "nobody could connect: at least one listener is needed",
            );
        }
        let proxy = section.section::<ProxyListeners>("proxy")?;
        if let Some(fault) = proxy.fault(&listen) {
            section.problem("proxy", &fault);
        }
        let relay_ports = section.value("relay-ports", defaults.relay_ports);
        let relay_addresses = read_relay_addresses(section);
        let external_addresses = super::external::read(section, &relay_addresses);
        let threads = section.ranged("threads", 0, 0..=MAX_THREADS);
        let mut sockets = |key, default| section.ranged(key, default, 0..=MAX_MORE_SOCKETS);
        let spare_sockets = sockets("spare-sockets", defaults.spare_sockets);
        let connected_sockets = sockets("connected-sockets", defaults.connected_sockets);
        let tls = read_tls(section, &listen);
        let credentials = section.section::<Credentials>("credentials");
        let test_users = section.tables::<TestUser>("test-user");
        let none_listed = credentials.as_ref().is_some_and(|found| !found.any_listed);
        if none_listed && !section.has("test-user") {
            let reason = "no secret and no [[test-user]]: nobody could be let in, and letting in \
                          everybody is refused";
            section.problem("credentials", reason);
        }
        let peers = section.section::<Peers>("peers").unwrap_or_default();
        if peers.allow_loopback_for_tests
            && !listen.iter().all(|url| url.address.ip().is_loopback())
        {
            let reason = "allow-loopback-for-tests lets clients reach services of this host, so \
                          every listener must be on loopback";
            section.problem("peers", reason);
        }
        let admin = section.section::<Admin>("admin")?;
        Some(Self {
            realm,
            listen,
            proxy,
            relay_addresses,
            relay_ports,
            external_addresses,
            threads,
            io_uring: section.value("io-uring", true),
            spare_sockets,
            connected_sockets,
            tls,
            secrets: credentials.map(|found| found.secrets).unwrap_or_default(),
            test_users: test_users.into_iter().map(|user| user.0).collect(),
            peers,
            quota: section
                .section::<QuotaSection>("quota")
                .unwrap_or_default()
                .0,
            lifetime: section.section::<LifetimeSection>("lifetime")?.0,
            limits: section.section::<LimitsSection>("limits")?.0,
            streams: section.section::<StreamLimits>("streams")?,
            protocol: section.section::<ProtocolSection>("protocol")?.0,
            drain: section.section::<Drain>("drain")?,
            admin: admin.listen,
            admin_token: admin.token,
            log: section.section("log")?,
        })
    }
}

fn read_tls(section: &mut Section<'_>, listen: &[ListenUrl]) -> Option<TlsFiles> {
    let tls = section.optional_section::<TlsFiles>("tls");
    if let Some(Err(error)) = tls.as_ref().map(|files| tls::load(files, ALPN)) {
        section.problem("tls", &error.to_string());
    }
    if !section.has("tls") && listen.iter().any(|url| url.scheme.needs_certificate()) {
        section.problem(
            "tls",
            "missing: a tls:// or tcp+tls:// listener needs certificate and key",
        );
    }
    tls
}

fn read_realm(section: &mut Section<'_>, default: Realm) -> Realm {
    let Some(text) = section.optional::<String>("realm") else {
        return default;
    };
    match Realm::new(&text) {
        Ok(realm) => realm,
        Err(error) => {
            section.problem("realm", &format!("`{text}`: {error}"));
            default
        }
    }
}

fn read_relay_addresses(section: &mut Section<'_>) -> Vec<IpAddr> {
    let addresses: Vec<IpAddr> = section.list("relay-addresses").unwrap_or_default();
    if addresses.is_empty() {
        let reason = "missing: the addresses of this host that peers see, such as \
                      [\"203.0.113.10\", \"2001:db8::10\"]";
        section.problem("relay-addresses", reason);
    } else if addresses
        .iter()
        .any(|ip| ip.is_unspecified() || ip.is_multicast())
    {
        section.problem(
            "relay-addresses",
            "addresses that clients can be told are needed",
        );
    } else if addresses.len() > MAX_RELAY_ADDRESSES {
        let reason = format!("at most {MAX_RELAY_ADDRESSES} addresses");
        section.problem("relay-addresses", &reason);
    }
    addresses
}

/// `[credentials]`.
struct Credentials {
    secrets: Vec<NamedSecret>,
    /// One that is faulty is a fault of its own.
    any_listed: bool,
}

impl FromRaw for Credentials {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let listed = section.tables::<Listed>("secrets");
        let any_listed = !listed.is_empty();
        let mut secrets: Vec<NamedSecret> = listed.into_iter().filter_map(|one| one.0).collect();
        if let Some(secret) = section.secret_from_environment("RALLYPOINT_TURN_SECRET") {
            secrets.push(NamedSecret { id: None, secret });
        }
        let mut ids: Vec<&str> = secrets
            .iter()
            .filter_map(|secret| secret.id.as_deref())
            .collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair.first() == pair.last()) {
            section.problem("secrets", "two secrets have the same id");
        }
        let any_listed = any_listed || !secrets.is_empty();
        Some(Self {
            secrets,
            any_listed,
        })
    }
}

/// One of `secrets`; `None` if it is at fault.
struct Listed(Option<NamedSecret>);

impl FromRaw for Listed {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let id = section.optional::<String>("id");
        if id.as_deref().is_some_and(|id| !is_key_id(id)) {
            section.problem("id", "1 to 32 letters, digits, `-`, `_` or `.`");
        }
        let named = section
            .secret("file")
            .map(|secret| NamedSecret { id, secret });
        let checked = named.as_ref().map(|named| named.as_credentials().check());
        if let Some(Err(error)) = checked {
            section.problem("file", &error.to_string());
        }
        Some(Self(named))
    }
}

/// An id stands between colons in a username, and digits alone would look like an expiry.
fn is_key_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=32).contains(&id.len()) && id.chars().all(allowed)
}

/// `[[test-user]]`.
struct TestUser(StaticUser);

impl FromRaw for TestUser {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let name = section.required::<String>("name");
        let password = section.required::<String>("password");
        // RFC 8489 §14.3: USERNAME is less than 509 bytes.
        if name
            .as_ref()
            .is_some_and(|name| name.is_empty() || name.len() >= 509)
        {
            section.problem("name", "1 to 508 bytes");
        }
        if password.as_ref().is_some_and(String::is_empty) {
            section.problem("password", "must not be empty");
        }
        Some(Self(StaticUser {
            name: name?,
            password: password?,
        }))
    }
}

impl FromRaw for Peers {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let defaults = Self::default();
        Some(Self {
            allow: section.list("allow").unwrap_or_default(),
            allow_only: section.value("allow-only", false),
            allow_loopback_for_tests: section.value("allow-loopback-for-tests", false),
            min_port: section.ranged("min-port", defaults.min_port, 1..=u16::MAX),
        })
    }
}

/// A number, or `"unlimited"` where somebody really wants none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ceiling(Option<u32>);

impl FromValue for Ceiling {
    const EXPECTED: &'static str = "a whole number from 1, or \"unlimited\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        if value.text() == Some("unlimited") {
            return Ok(Self(None));
        }
        let number = value
            .integer()
            .and_then(|number| u32::try_from(number).ok());
        match number {
            Some(number) if number > 0 => Ok(Self(Some(number))),
            _ => Err(format!("expected {}", Self::EXPECTED)),
        }
    }
}

/// Bytes a second, or `"unlimited"` where somebody really wants no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bandwidth(Option<u32>);

impl FromValue for Bandwidth {
    const EXPECTED: &'static str = "bytes a second such as \"250KiB\", or \"unlimited\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        if value.text() == Some("unlimited") {
            return Ok(Self(None));
        }
        let wrong = |_| format!("expected {}", Self::EXPECTED);
        let size = Size::from_value(value).map_err(wrong)?;
        match u32::try_from(size.bytes()) {
            Ok(bytes) if bytes >= 2048 => Ok(Self(Some(bytes))),
            _ => Err("from \"2KiB\" (one datagram a second) to \"4095MiB\"".to_owned()),
        }
    }
}

/// `[quota]`.
#[derive(Default)]
pub(super) struct QuotaSection(pub(super) Quota);

impl FromRaw for QuotaSection {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Quota::default();
        let bandwidth = Bandwidth(d.bandwidth_per_allocation);
        let user_bandwidth = Bandwidth(d.bandwidth_per_user);
        let silent = Ceiling(d.silent_peer_packets);
        let any = 1..=u32::MAX;
        Some(Self(Quota {
            allocations_per_user: section.ranged(
                "allocations-per-user",
                d.allocations_per_user,
                any.clone(),
            ),
            allocations_per_address: section.ranged(
                "allocations-per-address",
                d.allocations_per_address,
                any.clone(),
            ),
            allocations: section.ranged("allocations", d.allocations, any),
            reserved_percent: section.ranged("reserved-percent", d.reserved_percent, 0..=90),
            permissions_per_allocation: section.ranged(
                "permissions-per-allocation",
                d.permissions_per_allocation,
                1..=4096,
            ),
            channels_per_allocation: section.ranged(
                "channels-per-allocation",
                d.channels_per_allocation,
                1..=4096,
            ),
            peer_connections_per_allocation: section.ranged(
                "peer-connections-per-allocation",
                d.peer_connections_per_allocation,
                1..=4096,
            ),
            waiting_connections_per_allocation: section.ranged(
                "waiting-connections-per-allocation",
                d.waiting_connections_per_allocation,
                1..=4096,
            ),
            bandwidth_per_allocation: section.value("bandwidth-per-allocation", bandwidth).0,
            bandwidth_per_user: section.value("bandwidth-per-user", user_bandwidth).0,
            silent_peer_packets: section.value("silent-peer-packets", silent).0,
        }))
    }
}

/// `[lifetime]`.
struct LifetimeSection(Lifetimes);

impl FromRaw for LifetimeSection {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Lifetimes::default();
        Some(Self(Lifetimes {
            // RFC 8656 §7.2: never less than the default of ten minutes.
            allocation_default: d.allocation_default,
            allocation_max: span(
                section,
                "allocation-max",
                d.allocation_max,
                10 * MINUTE..=24 * HOUR,
            ),
            permission: span(section, "permission", d.permission, MINUTE..=HOUR),
            channel: span(section, "channel", d.channel, MINUTE..=HOUR),
            nonce: span(section, "nonce", d.nonce, MINUTE..=24 * HOUR),
            reservation: d.reservation,
            // RFC 6062 §5.2: 30 seconds each.
            connect: d.connect,
            unclaimed: d.unclaimed,
        }))
    }
}

pub(super) fn span(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Duration {
    section.checked(key, default, |value| {
        if range.contains(value) {
            return Ok(());
        }
        let (from, to) = (range.start().as_secs(), range.end().as_secs());
        Err(format!(
            "{}s is out of range, expected {from}s to {to}s",
            value.as_secs()
        ))
    })
}

/// `[limits]`.
struct LimitsSection(Limits);

impl FromRaw for LimitsSection {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Limits::default();
        let mut rate = |key, default| section.ranged(key, default, 1..=10_000_000_u32);
        Some(Self(Limits {
            bindings_per_second: rate("bindings-per-second", d.bindings_per_second),
            bindings_burst: rate("bindings-burst", d.bindings_burst),
            bindings_ceiling: rate("bindings-ceiling", d.bindings_ceiling),
            challenges_per_second: rate("challenges-per-second", d.challenges_per_second),
            challenges_burst: rate("challenges-burst", d.challenges_burst),
            challenges_ceiling: rate("challenges-ceiling", d.challenges_ceiling),
            failed_signatures: rate("failed-signatures", d.failed_signatures),
            exempt: section
                .list::<IpPrefix>("exempt")
                .unwrap_or_default()
                .into_iter()
                .filter_map(prefix)
                .collect(),
        }))
    }
}

/// The machine's own type of the same thing; both refuse bits beyond the length.
pub(super) fn prefix(prefix: IpPrefix) -> Option<Prefix> {
    Prefix::new(prefix.address(), prefix.length()).ok()
}

impl FromRaw for StreamLimits {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Self::default();
        let second = Duration::from_secs(1);
        Some(Self {
            connections: section.ranged("connections", d.connections, 1..=1_000_000),
            connections_per_address: section.ranged(
                "connections-per-address",
                d.connections_per_address,
                1..=1_000_000,
            ),
            first_message: span(
                section,
                "first-message",
                d.first_message,
                second..=5 * MINUTE,
            ),
            idle: span(section, "idle", d.idle, second..=HOUR),
            stalled: span(section, "stalled", d.stalled, second..=HOUR),
        })
    }
}

/// `[protocol]`.
struct ProtocolSection(Protocol);

impl FromRaw for ProtocolSection {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Protocol::default();
        Some(Self(Protocol {
            rfc5766_channels: section.value("rfc5766-channels", d.rfc5766_channels),
            sha1_integrity: section.value("sha1-integrity", d.sha1_integrity),
            dont_fragment: super::machine::DONT_FRAGMENT,
            tcp_relaying: section.value("tcp-relaying", d.tcp_relaying),
        }))
    }
}

impl FromRaw for Drain {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Self::default();
        let alternate = section.optional::<SocketAddr>("alternate");
        let is_reachable = |addr: &SocketAddr| {
            let ip = addr.ip();
            addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
        };
        if alternate.is_some_and(|addr| !is_reachable(&addr)) {
            section.problem("alternate", "an address and port that clients can reach");
        }
        Some(Self {
            deadline: span(section, "deadline", d.deadline, Duration::ZERO..=24 * HOUR),
            alternate,
        })
    }
}

/// `[admin]`.
struct Admin {
    listen: Option<SocketAddr>,
    token: Option<Secret>,
}

impl FromRaw for Admin {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = AddrOrOff(Config::default().admin);
        let listen = section.value("listen", default).0;
        let in_file = section.optional_section::<AdminToken>("token");
        let in_environment = section.secret_from_environment("RALLYPOINT_TURN_ADMIN_TOKEN");
        if in_file.is_some() && in_environment.is_some() {
            let reason = "given here and by RALLYPOINT_TURN_ADMIN_TOKEN_FILE: which one is it?";
            section.problem("token", reason);
        }
        let token = in_file.and_then(|found| found.0).or(in_environment);
        // RFC 6750 section 2.1: what a header can carry.
        let is_sendable = |byte: &u8| byte.is_ascii_graphic();
        if token
            .as_ref()
            .is_some_and(|token| !token.expose().iter().all(is_sendable))
        {
            let reason = "letters, digits and signs only; try: openssl rand -hex 32";
            section.problem("token", reason);
        }
        Some(Self { listen, token })
    }
}

/// `token`; `None` if it is at fault.
struct AdminToken(Option<Secret>);

impl FromRaw for AdminToken {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        Some(Self(section.secret("file")))
    }
}
