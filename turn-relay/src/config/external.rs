//! What peers see the relay addresses as: listed one by one, or asked of STUN servers at start.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ops::config::{FromRaw, FromValue, Section, Value};

use super::file::span;

/// The port of RFC 8489 §18.6, for servers that are named without one.
const STUN_PORT: u16 = 3478;

/// More servers add no certainty, only traffic.
const MAX_SERVERS: usize = 8;

/// Relay addresses behind a 1:1 NAT, and what they are seen as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternalAddresses {
    /// The address inside and the one outside; a relay address that is not listed is seen as itself.
    Listed(Vec<(IpAddr, IpAddr)>),
    /// Found out at start.
    Auto(Discovery),
}

impl Default for ExternalAddresses {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// `[external]`: how external addresses are found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Servers that must all say the same, at least two.
    pub stun: Vec<StunServer>,
    /// Ask from IPv6 relay addresses too; without it they are seen as themselves.
    pub ipv6: bool,
    /// How often it is looked whether the answers are still the same.
    pub recheck: Duration,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            ipv6: false,
            recheck: Duration::from_secs(300),
        }
    }
}

/// A STUN server by name or address; names are resolved each time it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunServer {
    host: String,
    port: u16,
}

impl StunServer {
    /// Name or address, and port.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl From<SocketAddr> for StunServer {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromValue for StunServer {
    const EXPECTED: &'static str = "a STUN server such as \"stun.example.org\", \"203.0.113.9:3478\" or \"[2001:db8::9]:3478\"";

    fn from_value(value: &Value<'_>) -> Result<Self, String> {
        let text = value
            .text()
            .ok_or_else(|| format!("expected {}", Self::EXPECTED))?;
        parse(text).ok_or_else(|| format!("`{text}`: expected {}", Self::EXPECTED))
    }
}

fn parse(text: &str) -> Option<StunServer> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| address.into());
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, STUN_PORT).into());
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, STUN_PORT),
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // Digits and dots alone are an address that is wrong, not a name.
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic());
    (is_name && host.len() <= 253 && host.chars().all(is_plain)).then(|| StunServer {
        host: host.to_owned(),
        port,
    })
}

/// `external-addresses` and, with `"auto"`, `[external]`.
pub(super) fn read(section: &mut Section<'_>, relay_addresses: &[IpAddr]) -> ExternalAddresses {
    match section.word("external-addresses") {
        Some("auto") => {
            ExternalAddresses::Auto(section.section::<Discovery>("external").unwrap_or_default())
        }
        Some(_) => {
            let reason = "\"auto\", or a table such as { \"10.0.0.5\" = \"203.0.113.10\" }";
            section.problem("external-addresses", reason);
            ExternalAddresses::default()
        }
        None => {
            if section.has("external") {
                let reason = "nobody is asked without external-addresses = \"auto\"";
                section.problem("external", reason);
                // Its own faults are told too.
                let _ = section.section::<Discovery>("external");
            }
            ExternalAddresses::Listed(read_listed(section, relay_addresses))
        }
    }
}

fn read_listed(section: &mut Section<'_>, relay_addresses: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let pairs: Vec<(IpAddr, IpAddr)> = section.map("external-addresses").unwrap_or_default();
    for (inside, outside) in &pairs {
        if !relay_addresses.contains(inside) {
            let reason = format!("{inside} is not one of relay-addresses");
            section.problem("external-addresses", &reason);
        }
        if inside.is_ipv4() != outside.is_ipv4() {
            let reason = format!("{inside} and {outside} are of different families");
            section.problem("external-addresses", &reason);
        }
    }
    pairs
}

impl FromRaw for Discovery {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let d = Self::default();
        let stun: Vec<StunServer> = section.list("stun").unwrap_or_default();
        let has_twin = |server: &StunServer| stun.iter().filter(|other| *other == server).count();
        if !(2..=MAX_SERVERS).contains(&stun.len()) {
            let reason = format!(
                "two servers of different operators, and at most {MAX_SERVERS}: one alone would be believed"
            );
            section.problem("stun", &reason);
        } else if stun.iter().any(|server| has_twin(server) > 1) {
            section.problem("stun", "a server is named twice");
        }
        Some(Self {
            stun,
            ipv6: section.value("ipv6", d.ipv6),
            recheck: span(
                section,
                "recheck",
                d.recheck,
                Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_host_or_address() {
        for (text, shown) in [
            ("stun.example.org", "stun.example.org:3478"),
            ("stun.example.org:19302", "stun.example.org:19302"),
            ("203.0.113.9", "203.0.113.9:3478"),
            ("203.0.113.9:5000", "203.0.113.9:5000"),
            ("[2001:db8::9]:5000", "[2001:db8::9]:5000"),
            ("2001:db8::9", "[2001:db8::9]:3478"),
        ] {
            assert_eq!(
                parse(text).map(|server| server.to_string()).as_deref(),
                Some(shown)
            );
        }
        for text in [
            "",
            ":3478",
            "a:0",
            "a:b",
            "203.0.113.400",
            "stun://a",
            "a b",
            "203.0.113.9:0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
