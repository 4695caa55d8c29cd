//! How the configuration is read from a file, section by section.

use super::{Config, Doors, Limits, PassphraseConfig, Relay, Stun, prefix_of, rate};
use credentials::Secret;
use ops::config::{FromRaw, IpPrefix, Scheme, Section, Size};
use ops::tls::TlsFiles;
use signal_wire::limits as wire;
use signaling_lobby::{PassphraseFormat, Rate};
use std::net::SocketAddr;
use std::time::Duration;

/// Relays and STUN servers that a configuration may name; each is in every `lobby.joined`.
const ICE_SERVERS: usize = 32;
/// URLs of one of them.
const ICE_URLS: usize = 8;
/// The longest of these URLs.
const ICE_URL_BYTES: usize = 256;
/// What all of them may take of a frame, credentials not counted.
const ICE_BYTES: usize = wire::MESSAGE_BYTES / 4;

impl FromRaw for Config {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = Self::default();
        let listen = section.listen_urls("listen", &[Scheme::Http, Scheme::Https]);
        let listen = listen.unwrap_or(default.listen);
        if listen.is_empty() {
            section.problem("listen", "at least one listener is needed");
        }
        let tls = section.optional_section::<TlsFiles>("tls");
        if tls.is_none()
            && !section.has("tls")
            && listen.iter().any(|url| url.scheme == Scheme::Https)
        {
            section.problem("listen", "https needs [tls] with certificate and key");
        }
        let relays = section.tables::<Relay>("relay");
        let stun = section.tables::<Stun>("stun");
        check_ice_size(section, &relays, &stun);
        Some(Self {
            listen,
            allowed_origins: origins(section),
            trusted_proxies: section
                .list::<IpPrefix>("trusted-proxies")
                .unwrap_or_default(),
            tls,
            passphrase: section.section::<PassphraseConfig>("passphrase")?,
            relays,
            stun,
            credential_life: ranged(
                section,
                "credential-life",
                default.credential_life,
                Duration::from_secs(60)..=Duration::from_secs(7 * 86_400),
            ),
            doors: section.section::<Doors>("doors")?,
            limits: section.section::<Limits>("limits")?,
            admin: section.section::<Admin>("admin")?.0,
            log: section.section("log")?,
        })
    }
}

fn origins(section: &mut Section<'_>) -> Vec<String> {
    let origins = section
        .list::<String>("allowed-origins")
        .unwrap_or_default();
    for origin in &origins {
        let host = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://"));
        let good = host.is_some_and(|host| {
            !host.is_empty() && !host.contains('/') && *origin == origin.to_ascii_lowercase()
        });
        if origin != "*" && !good {
            let reason = format!("`{origin}`: expected \"https://game.example\" or \"*\"");
            section.problem("allowed-origins", &reason);
        }
    }
    origins
}

fn check_ice_size(section: &mut Section<'_>, relays: &[Relay], stun: &[Stun]) {
    if relays.len() > ICE_SERVERS {
        section.problem("relay", "at most 32 relays");
    }
    if stun.len() > ICE_SERVERS {
        section.problem("stun", "at most 32 STUN servers");
    }
    let of_relays = relays.iter().flat_map(|relay| &relay.urls);
    let all = of_relays.chain(stun.iter().flat_map(|stun| &stun.urls));
    if all.map(String::len).sum::<usize>() > ICE_BYTES {
        section.problem(
            "relay",
            "the URLs of relays and STUN servers are too long together",
        );
    }
}

impl FromRaw for PassphraseConfig {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = PassphraseFormat::default();
        let secret = if section.has("key-file") {
            section.secret("key-file")
        } else {
            section.secret_from_environment("RALLYPOINT_SIGNAL_PASSPHRASE_KEY")
        };
        let shortest = section.ranged("shortest", default.shortest, 1..=128);
        let longest = section.ranged("longest", default.longest, 1..=128);
        if shortest > longest {
            section.problem("shortest", "is more than `longest`");
        }
        let words = section.choice("format", default.words, &[("words", true), ("free", false)]);
        Some(Self {
            secret,
            format: PassphraseFormat {
                words,
                shortest,
                longest,
            },
        })
    }
}

impl FromRaw for Relay {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let region = section.checked("region", "default".to_owned(), |region| {
            let known = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte)
            };
            let good = (1..=32).contains(&region.len()) && region.bytes().all(known);
            if good {
                Ok(())
            } else {
                Err("expected 1 to 32 of a-z 0-9 - _".to_owned())
            }
        });
        let urls = urls(section, &["turn:", "turns:"]);
        if !section.has("secret") {
            section.problem(
                "secret",
                "missing, expected { id = \"k1\", file = \"...\" }",
            );
        }
        let secret = section.optional_section::<RelaySecret>("secret");
        Some(Self {
            region,
            urls,
            secret: secret?.0,
        })
    }
}

struct RelaySecret(Secret);

impl FromRaw for RelaySecret {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let id = section.optional::<String>("id");
        let file = section.secret("file")?;
        let secret = Secret {
            id,
            key: file.expose().to_vec(),
        };
        match secret.check() {
            Ok(()) => Some(Self(secret)),
            Err(error) => {
                section.problem("file", &error.to_string());
                None
            }
        }
    }
}

impl FromRaw for Stun {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            urls: urls(section, &["stun:"]),
        })
    }
}

fn urls(section: &mut Section<'_>, schemes: &[&str]) -> Vec<String> {
    let Some(urls) = section
        .list::<String>("urls")
        .filter(|urls| !urls.is_empty())
    else {
        section.problem(
            "urls",
            &format!("missing, expected URLs of {}", schemes.join(" or ")),
        );
        return Vec::new();
    };
    if urls.len() > ICE_URLS {
        section.problem("urls", "at most 8 URLs");
    }
    for url in &urls {
        let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
        let good = rest.is_some_and(|rest| {
            !rest.is_empty()
                && !rest.starts_with('/')
                && url.len() <= ICE_URL_BYTES
                && url
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'"')
        });
        if !good {
            let example = schemes.first().unwrap_or(&"");
            let reason = format!("`{url}`: expected a URL like {example}203.0.113.10:3478");
            section.problem("urls", &reason);
        }
    }
    urls
}

impl FromRaw for Doors {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            tank: section.value("tank", true),
        })
    }
}

struct Admin(Option<SocketAddr>);

impl FromRaw for Admin {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        if section.optional::<String>("listen").as_deref() == Some("off") {
            return Some(Self(None));
        }
        let listen = section.optional::<SocketAddr>("listen");
        Some(Self(listen.or_else(|| Config::default().admin)))
    }
}

impl FromRaw for Limits {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = Self::default();
        Some(Self {
            lobby: machine(section),
            outbox_bytes: size(section, "outbox", default.outbox_bytes),
            handshake_timeout: time(section, "handshake-timeout", default.handshake_timeout),
            drain_timeout: time(section, "drain-timeout", default.drain_timeout),
        })
    }
}

fn machine(section: &mut Section<'_>) -> signaling_lobby::Config {
    let default = signaling_lobby::Config::default();
    let many = 1..=10_000_000;
    let exempt = section.list::<IpPrefix>("exempt").unwrap_or_default();
    signaling_lobby::Config {
        passphrase: default.passphrase,
        connections: section.ranged("connections", default.connections, many.clone()),
        connections_per_address: section.ranged(
            "connections-per-address",
            default.connections_per_address,
            1..=1_000_000,
        ),
        connect_rate: rates(section, ("connects-per-second", "connects-burst"), (10, 40)),
        addresses: section.ranged("addresses", default.addresses, many.clone()),
        exempt: exempt.iter().filter_map(prefix_of).collect(),
        sessions: section.ranged("sessions", default.sessions, many.clone()),
        lobbies: section.ranged("lobbies", default.lobbies, many),
        lobby_members: section.ranged(
            "lobby-members",
            default.lobby_members,
            wire::LOBBY_MEMBERS_MIN..=wire::LOBBY_MEMBERS_MAX,
        ),
        message_rate: rates(
            section,
            ("messages-per-second", "messages-burst"),
            (50, 100),
        ),
        relay_rate: rates(section, ("relayed-per-second", "relayed-burst"), (60, 120)),
        byte_rate: rates(
            section,
            ("bytes-per-second", "bytes-burst"),
            (65_536, 262_144),
        ),
        join_rate: rates(section, ("joins-per-second", "joins-burst"), (2, 5)),
        guess_rate: minutely(section, "wrong-passphrases-per-minute", 10),
        total_guess_rate: minutely(section, "wrong-passphrases-per-minute-in-all", 1_000),
        open_rate: minutely(section, "lobbies-per-minute", 20),
        bad_frames: section.ranged("bad-frames", default.bad_frames, 1..=255),
        hello_timeout: time(section, "hello-timeout", default.hello_timeout),
        grace: time(section, "grace", default.grace),
        replay_events: section.ranged("replay-events", default.replay_events, 0..=65_536),
        replay_bytes: size(section, "replay-bytes", default.replay_bytes),
        replay_age: time(section, "replay-age", default.replay_age),
        lobby_idle: time(section, "lobby-idle", default.lobby_idle),
        drain_spread: time(section, "drain-spread", default.drain_spread),
        ping_interval: ranged(
            section,
            "ping-interval",
            default.ping_interval,
            Duration::from_millis(100)..=Duration::from_secs(300),
        ),
    }
}

fn rates(
    section: &mut Section<'_>,
    (sustained, burst): (&'static str, &'static str),
    (default, default_burst): (u32, u32),
) -> Rate {
    let sustained = section.ranged(sustained, default, 1..=100_000_000);
    let burst = section.ranged(burst, default_burst, 1..=1_000_000_000);
    rate(sustained, burst)
}

/// So many a minute, and as many at once up to ten.
fn minutely(section: &mut Section<'_>, key: &'static str, default: u32) -> Rate {
    let count = section.ranged(key, default, 1..=1_000_000);
    Rate::per_minute(
        count,
        if key.ends_with("-in-all") {
            count
        } else {
            count.min(10)
        },
    )
}

fn size(section: &mut Section<'_>, key: &'static str, default: usize) -> usize {
    let smallest = u64::try_from(wire::MESSAGE_BYTES).unwrap_or(u64::MAX);
    let fallback = Size(u64::try_from(default).unwrap_or(u64::MAX));
    let size = section.checked(key, fallback, |size| {
        let good = (smallest..=1 << 30).contains(&size.bytes());
        if good {
            Ok(())
        } else {
            Err("expected 16KiB to 1GiB".to_owned())
        }
    });
    usize::try_from(size.bytes()).unwrap_or(default)
}

fn time(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    ranged(
        section,
        key,
        default,
        Duration::ZERO..=Duration::from_secs(30 * 86_400),
    )
}

fn ranged(
    section: &mut Section<'_>,
    key: &'static str,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Duration {
    section.checked(key, default, |value| {
        if range.contains(value) {
            return Ok(());
        }
        Err(format!(
            "out of range, expected {:?} to {:?}",
            range.start(),
            range.end()
        ))
    })
}
