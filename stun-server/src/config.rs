//! The configuration: what each key means, its default and its bounds.
//!
//! `deploy/config/rallypoint-stun.toml` is the same as [`Config::default`], with the reasons written
//! beside the keys; a test holds the two together.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ops::config::{
    self, AddrOrOff, FromRaw, IpPrefix, ListenUrl, Problems, ProxyListeners, Scheme, Section, Size,
};
use ops::logging::LogConfig;
use ops::tls::{self, TlsFiles};

use crate::alternate;

/// The commented default configuration.
pub const DEFAULT: &str = include_str!("../../deploy/config/rallypoint-stun.toml");

/// The protocol name of RFC 7443 for what a STUN server does.
pub(crate) const ALPN: &[&[u8]] = &[b"stun.nat-discovery"];

/// Listeners of one server: a series each in the metrics, so there is a bound.
const MOST_LISTENERS: usize = 32;
/// More shards than any machine this is meant for has cores.
const MOST_THREADS: usize = 256;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `listen`: where requests are answered; `udp`, `tcp`, `tls` and `tcp+tls`.
    pub listen: Vec<ListenUrl>,
    /// `[tls]`: certificate and key of the `tls` and `tcp+tls` listeners.
    pub tls: Option<TlsFiles>,
    /// `[proxy]`: which listeners stand behind a proxy that says who the client is.
    pub proxy: ProxyListeners,
    /// `alternate`: a second address and port, which turn RFC 5780 on.
    pub alternate: Option<SocketAddr>,
    /// `threads`: UDP shards; 0 for one per core.
    pub threads: usize,
    /// `receive-buffer`: the kernel's queue of each UDP socket.
    pub receive_buffer: Size,
    /// `[limits]`: what a source may have.
    pub limits: Limits,
    /// `[protocol]`: what is spoken beside RFC 8489.
    pub protocol: Protocol,
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
    /// `redirects-per-second`: answers to a source that leave from, or go, elsewhere than its request
    /// says; RFC 5780 only.
    pub redirects_per_second: u32,
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

/// The `[protocol]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protocol {
    /// `rfc3489`: whether clients of the STUN before 2008 are answered over UDP.
    pub rfc3489: bool,
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
            tls: None,
            proxy: ProxyListeners::default(),
            alternate: None,
            threads: 0,
            receive_buffer: Size(1 << 20),
            limits: Limits::default(),
            protocol: Protocol::default(),
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
            redirects_per_second: 5,
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
        let schemes = [Scheme::Udp, Scheme::Tcp, Scheme::Tls, Scheme::TcpTls];
        let urls = section.listen_urls("listen", &schemes);
        // Nothing can be said about how `alternate` fits to listeners that are all at fault.
        let are_known = urls.is_some() || !section.has("listen");
        let listen = urls.unwrap_or(default.listen);
        if listen.is_empty() {
            section.problem("listen", "nothing to listen on");
        }
        if listen.len() > MOST_LISTENERS {
            section.problem("listen", &format!("more than {MOST_LISTENERS} listeners"));
        }
        let tls = section.optional_section::<TlsFiles>("tls");
        if let Some(Err(error)) = tls.as_ref().map(|files| tls::load(files, ALPN)) {
            section.problem("tls", &error.to_string());
        }
        let needs_tls = listen.iter().any(|url| url.scheme.needs_certificate());
        if needs_tls && !section.has("tls") {
            section.problem(
                "tls",
                "missing: a tls:// or tcp+tls:// listener needs certificate and key",
            );
        }
        let proxy = section.section::<ProxyListeners>("proxy")?;
        if let Some(fault) = proxy.fault(&listen).filter(|_| are_known) {
            section.problem("proxy", &fault);
        }
        let alternate = section.optional("alternate");
        if let Some(alternate) = alternate.filter(|_| are_known) {
            for (key, reason) in alternate::faults(&listen, alternate) {
                section.problem(key, &reason);
            }
        }
        Some(Self {
            listen,
            tls,
            proxy,
            alternate,
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
            protocol: section.section("protocol")?,
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
            redirects_per_second: section.ranged(
                "redirects-per-second",
                default.redirects_per_second,
                1..=1_000,
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

impl FromRaw for Protocol {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        Some(Self {
            rfc3489: section.value("rfc3489", false),
        })
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
            "redirects-per-second",
            "rfc3489",
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
        let heading = "```toml\n# rallypoint-stun with a second address\n";
        let (_, block) = guide.split_once(heading).unwrap();
        let (text, _) = block.split_once("```").unwrap();
        assert!(Config::from_toml(text).unwrap().alternate.is_some());
    }

    #[test]
    fn there_has_to_be_something_to_listen_on() {
        let faults = Config::from_toml("listen = []").unwrap_err().to_string();
        assert_eq!(faults, "configuration:1: listen: nothing to listen on");
    }

    #[test]
    fn two_addresses_and_what_is_spoken_are_read() {
        let text = "listen = ['udp://203.0.113.10:3478', 'tcp://0.0.0.0:3478']\n\
                    alternate = '203.0.113.11:3479'\n[protocol]\nrfc3489 = true\n";
        let config = Config::from_toml(text).unwrap();
        let alternate = config.alternate.map(|address| address.to_string());
        assert_eq!(alternate.as_deref(), Some("203.0.113.11:3479"));
        assert!(config.protocol.rfc3489);
        assert_eq!(Config::default().protocol, Protocol { rfc3489: false });
    }

    #[test]
    fn every_fault_of_a_second_address_is_named() {
        let cases: [(&str, &[&str]); 7] = [
            (
                "listen = ['udp://0.0.0.0:3478', 'udp://[::]:3478']\nalternate = '203.0.113.11:3479'",
                &[
                    "configuration:1: listen: `udp://0.0.0.0:3478`: with `alternate` every UDP \
                     listener names one address, no wildcard or group",
                    "configuration:1: listen: `udp://[::]:3478`: with `alternate` every UDP \
                     listener names one address, no wildcard or group",
                ],
            ),
            // The default listens on wildcards.
            (
                "alternate = '203.0.113.11:3479'",
                &[
                    "configuration: listen: `udp://0.0.0.0:3478`: with",
                    "configuration: listen: `udp://[::]:3478`: with",
                ],
            ),
            (
                "listen = ['udp://203.0.113.10:3478']\nalternate = '203.0.113.10:3478'",
                &[
                    "configuration:2: alternate: `203.0.113.10:3478`: expected another address than \
                     `udp://203.0.113.10:3478` has",
                    "configuration:2: alternate: `203.0.113.10:3478`: expected another port than \
                     `udp://203.0.113.10:3478` has",
                ],
            ),
            (
                "listen = ['tcp://203.0.113.10:3478']\nalternate = '0.0.0.0:3479'",
                &[
                    "configuration:2: alternate: `0.0.0.0:3479`: expected an address of this host",
                    "configuration:2: alternate: needs exactly one IPv4 UDP listener beside it, \
                     `listen` has 0",
                ],
            ),
            (
                "listen = ['udp://203.0.113.10:1', 'udp://203.0.113.9:1']\nalternate = '203.0.113.11:2'",
                &[
                    "configuration:2: alternate: needs exactly one IPv4 UDP listener beside it, `listen` has 2",
                ],
            ),
            (
                "listen = ['udp://203.0.113.10:3478']\nalternate = '[2001:db8::1]:3479'",
                &[
                    "configuration:2: alternate: needs exactly one IPv6 UDP listener beside it, `listen` has 0",
                ],
            ),
            (
                "listen = ['upd://203.0.113.10:3478']\nalternate = '203.0.113.11'\n[protocol]\nrfc3489 = 1\nrfc5780 = true",
                &[
                    "configuration:1: listen[0]: ",
                    "configuration:2: alternate: ",
                    "configuration:4: protocol.rfc3489: ",
                    "configuration:5: protocol.rfc5780: ",
                ],
            ),
        ];
        for (text, expected) in cases {
            let said = Config::from_toml(text).unwrap_err().to_string();
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines.len(), expected.len(), "{said}");
            for (line, expected) in lines.iter().zip(expected) {
                assert!(line.starts_with(expected), "{expected}\nis not in\n{said}");
            }
        }
    }

    #[test]
    fn tls_and_proxies_are_read_and_their_faults_named() {
        let fault = |text: &str| Config::from_toml(text).unwrap_err().to_string();
        let said = fault("listen = ['tls://0.0.0.0:5349']");
        assert!(
            said.contains("tls: missing: a tls:// or tcp+tls://"),
            "{said}"
        );
        let said = fault("[tls]\ncertificate = '/nowhere/c.pem'\nkey = '/nowhere/k.pem'");
        assert!(
            said.contains("tls") && said.contains("/nowhere/c.pem"),
            "{said}"
        );
        let said = fault("[proxy]\nlisteners = ['tcp://0.0.0.0:1']\ntrusted = ['10.0.0.1']");
        assert!(
            said.contains("`tcp://0.0.0.0:1` is not in `listen`"),
            "{said}"
        );
        let listen = "listen = ['tcp://0.0.0.0:1']\n[proxy]\n";
        let said = fault(&format!("{listen}listeners = ['tcp://0.0.0.0:1']"));
        assert!(said.contains("proxy: trusted: missing"), "{said}");
        let said = fault(&format!("{listen}trusted = ['10.0.0.1']"));
        assert!(said.contains("proxy: listeners: missing"), "{said}");
        let text = "listeners = ['tcp://0.0.0.0:1']\ntrusted = ['10.0.0.0/8']";
        let config = Config::from_toml(&format!("{listen}{text}")).unwrap();
        assert!(config.proxy.covers(&config.listen[0]));
        assert!(config.proxy.trusts("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let text = "listen = ['http://0.0.0.0:5349', 'udp://localhost:3478']\nthreads = 1000\n\
                    receive-buffer = '1B'\n[limits]\nburst = 0\nredirects-per-second = 0\nexempt = ['10.9.0.1/16']\nanswers = 1\n\
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
            "limits.redirects-per-second",
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
