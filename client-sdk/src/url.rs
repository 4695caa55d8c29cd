//! The URL of a signaling server.

use std::fmt;
use std::net::IpAddr;

use crate::error::ConfigError;
use crate::ice_servers::split_port;

/// `ws://host[:port][/path]` or `wss://...`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignalUrl {
    text: String,
    host: String,
    port: u16,
    encrypted: bool,
}

impl SignalUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let fault = |reason| ConfigError::Url {
            url: text.to_owned(),
            reason,
        };
        let (encrypted, rest) = if let Some(rest) = text.strip_prefix("ws://") {
            (false, rest)
        } else if let Some(rest) = text.strip_prefix("wss://") {
            (true, rest)
        } else {
            return Err(fault("it starts with neither ws:// nor wss://"));
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(fault("it must not carry a user name"));
        }
        let (host, port) =
            split_port(authority).ok_or_else(|| fault("it has no valid host and port"))?;
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port: port.unwrap_or(if encrypted { 443 } else { 80 }),
            encrypted,
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the server is on this machine: only then are loopback addresses candidates.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for SignalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_host_port_and_encryption() {
        let url = SignalUrl::parse("ws://127.0.0.1:8765/v1/ws").unwrap();
        assert_eq!(
            (url.host(), url.port(), url.is_encrypted()),
            ("127.0.0.1", 8765, false)
        );
        assert!(url.is_loopback());
        let url = SignalUrl::parse("wss://[2001:db8::1]/v1/ws").unwrap();
        assert_eq!(
            (url.host(), url.port(), url.is_encrypted()),
            ("2001:db8::1", 443, true)
        );
        assert!(!url.is_loopback());
    }

    #[test]
    fn a_bad_url_is_named() {
        for text in [
            "http://x/",
            "ws://",
            "ws://:1/",
            "ws://user@host/",
            "ws://host:99999/",
        ] {
            let error = SignalUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
