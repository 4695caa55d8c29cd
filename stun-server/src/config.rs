//! The configuration: what each key means, its default and its bounds.
//!
//! `deploy/config/rallypoint-stun.toml` is the same as [`Config::default`], with the reasons written
//! beside the keys; a test holds the two together.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ops::config::{self, AddrOrOff, FromRaw, IpPrefix, ListenUrl, Problems, Scheme, Section, Size};
use ops::logging::LogConfig;

/// The commented default configuration.
pub const DEFAULT: &str = include_str!("../../deploy/config/rallypoint-stun.toml");

/// Listeners of one server: a series each in the metrics, so there is a bound.
const MOST_LISTENERS: usize = 32;
/// More shards than any machine this is meant for has cores.
const MOST_THREADS: usize = 256;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `listen`: where requests are answered; `udp` and `tcp`.
    pub listen: Vec<ListenUrl>,
    /// `threads`: UDP shards; 0 for one per core.
    pub threads: usize,
    /// `receive-buffer`: the kernel's queue of each UDP socket.
    pub receive_buffer: Size,
    /// `[limits]`: what a source may have.
    pub limits: Limits,
    /// `[admin] listen`: where `/metrics`, `/healthz` and `/readyz` are served; `"off"` for nowhere.
    pub admin: Option<SocketAddr>,
    /// `[log]`: format and level.
    pub log: LogConfig,
}

/// The `[limits]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `answers-per-second`: to one IPv4 address or IPv6 /64.
    pub answers_per_second: u32,
    /// `burst`: answers to such a source at once.
    pub burst: u32,
    /// `neighbourhood`: how many times as much an IPv4 /24 or IPv6 /48 may have.
    pub neighbourhood: u32,
    /// `answers-per-second-total`: to everybody.
    pub answers_per_second_total: u32,
    /// `exempt`: prefixes that are never limited.
    pub exempt: Vec<IpPrefix>,
    /// `connections`: open TCP connections.
    pub connections: usize,
    /// `connections-per-address`: of one IPv4 address or IPv6 /64.
    pub connections_per_address: usize,
    /// `first-message`: how long a connection may take to its first valid message.
    pub first_message: Duration,
    /// `idle`: how long it may be silent, or leave its answers unread, after that.
    pub idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let listen = |scheme, address| ListenUrl { scheme, address };
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 3478));
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 3478));
        Self {
            listen: vec![
                listen(Scheme::Udp, v4),
                listen(Scheme::Udp, v6),
                listen(Scheme::Tcp, v4),
                listen(Scheme::Tcp, v6),
            ],
            threads: 0,
            receive_buffer: Size(1 << 20),
            limits: Limits::default(),
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9478))),
            log: LogConfig::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            answers_per_second: 100,
            burst: 200,
            neighbourhood: 8,
            answers_per_second_total: 50_000,
            exempt: Vec::new(),
            connections: 4096,
            connections_per_address: 64,
            first_message: Duration::from_secs(10),
            idle: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Reads a configuration from its text.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        config::parse(text)
    }
}

impl FromRaw for Config {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = Self::default();
        let schemes = [Scheme::Udp, Scheme::Tcp];
        let listen = section
            .listen_urls("listen", &schemes)
            .unwrap_or(default.listen);
        if listen.is_empty() {
            section.problem("listen", "nothing to listen on");
        }
        if listen.len() > MOST_LISTENERS {
            section.problem("listen", &format!("more than {MOST_LISTENERS} listeners"));
        }
        Some(Self {
            listen,
            threads: section.ranged("threads", default.threads, 0..=MOST_THREADS),
            receive_buffer: section.checked("receive-buffer", default.receive_buffer, |size| {
                let sensible = Size(4 << 10)..=Size(256 << 20);
                if sensible.contains(size) {
                    Ok(())
                } else {
                    Err("expected 4KiB to 256MiB".into())
                }
            }),
            limits: section.section("limits")?,
            admin: section.section::<Admin>("admin")?.0,
            log: section.section("log")?,
        })
    }
}

impl FromRaw for Limits {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = Self::default();
        let per_second = 1..=1_000_000;
        let limits = Self {
            answers_per_second: section.ranged(
                "answers-per-second",
                default.answers_per_second,
                per_second.clone(),
            ),
            burst: section.ranged("burst", default.burst, 1..=1_000_000),
            neighbourhood: section.ranged("neighbourhood", default.neighbourhood, 1..=65_536),
            answers_per_second_total: section.ranged(
                "answers-per-second-total",
                default.answers_per_second_total,
                per_second,
            ),
            exempt: section.list("exempt").unwrap_or(default.exempt),
            connections: section.ranged("connections", default.connections, 1..=1_000_000),
            connections_per_address: section.ranged(
                "connections-per-address",
                default.connections_per_address,
                1..=1_000_000,
            ),
            first_message: section.checked("first-message", default.first_message, at_most_an_hour),
            idle: section.checked("idle", default.idle, at_most_an_hour),
        };
        if limits.answers_per_second_total < limits.answers_per_second {
            section.problem(
                "answers-per-second-total",
                "is less than one source may have",
            );
        }
        Some(limits)
    }
}

fn at_most_an_hour(duration: &Duration) -> Result<(), String> {
    let sensible = Duration::from_millis(1)..=Duration::from_secs(3_600);
    if sensible.contains(duration) {
        Ok(())
    } else {
        Err("expected 1ms to 1h".to_owned())
    }
}

/// The `[admin]` section.
struct Admin(Option<SocketAddr>);

impl FromRaw for Admin {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let default = AddrOrOff(Config::default().admin);
        Some(Self(section.value("listen", default).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_deploy_is_the_default() {
        assert_eq!(Config::from_toml(DEFAULT), Ok(Config::default()));
        assert_eq!(Config::from_toml(""), Ok(Config::default()));
    }

    #[test]
    fn every_default_is_written_in_the_file() {
        // Each key once more with another value is a duplicate, unless the file left it out.
        for line in ["listen = []", "threads = 1", "receive-buffer = '1KiB'"] {
            assert!(
                Config::from_toml(&format!("{line}\n{DEFAULT}")).is_err(),
                "{line}"
            );
        }
        let keys = [
            "answers-per-second",
            "burst",
            "neighbourhood",
            "answers-per-second-total",
        ];
        let more = [
            "exempt",
            "connections",
            "connections-per-address",
            "format",
            "level",
        ];
        for key in keys.iter().chain(&more) {
            assert!(DEFAULT.contains(&format!("\n{key} = ")), "{key}");
        }
    }

    #[test]
    fn the_example_in_the_deploy_guide_is_right() {
        let guide = include_str!("../../deploy/README.md");
        let (_, block) = guide.split_once("```toml\n# rallypoint-stun\n").unwrap();
        let (text, _) = block.split_once("```").unwrap();
        assert_eq!(Config::from_toml(text), Ok(Config::default()));
    }

    #[test]
    fn there_has_to_be_something_to_listen_on() {
        let faults = Config::from_toml("listen = []").unwrap_err().to_string();
        assert_eq!(faults, "configuration:1: listen: nothing to listen on");
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let text = "listen = ['tls://0.0.0.0:5349', 'udp://localhost:3478']\nthreads = 1000\n\
                    receive-buffer = '1B'\n[limits]\nburst = 0\nexempt = ['10.9.0.1/16']\nanswers = 1\n\
                    answers-per-second-total = 50\n[admin]\nlisten = '9478'\n[log]\nformat = 'xml'\n\
                    level = 'loud'\n";
        let faults = Config::from_toml(text).unwrap_err();
        let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
        let expected = [
            "listen[0]",
            "listen[1]",
            "threads",
            "receive-buffer",
            "limits.burst",
            "limits.exempt[0]",
            "limits.answers",
            "limits.answers-per-second-total",
            "admin.listen",
            "log.format",
            "log.level",
        ];
        assert_eq!(keys, expected, "{faults}");
    }
}
