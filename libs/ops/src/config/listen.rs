//! Where a daemon listens: `udp://0.0.0.0:3478`, `https://[::]:443`.

use std::fmt;
use std::net::SocketAddr;

use super::section::in_words;

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Datagrams.
    Udp,
    /// A plain stream.
    Tcp,
    /// A stream under TLS.
    Tls,
    /// A plain stream or one under TLS, told apart by its first byte.
    TcpTls,
    /// HTTP/1.1 and WebSocket in the clear.
    Http,
    /// HTTP/1.1 and WebSocket under TLS.
    Https,
}

impl Scheme {
    /// The name in front of `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TcpTls => "tcp+tls",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A scheme and the address to bind; `[::]` is IPv6 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenUrl {
    /// What is spoken there.
    pub scheme: Scheme,
    /// The address to bind; port 0 lets the system choose.
    pub address: SocketAddr,
}

impl Scheme {
    /// Whether a certificate is needed.
    #[must_use]
    pub fn needs_certificate(self) -> bool {
        matches!(self, Self::Tls | Self::TcpTls | Self::Https)
    }
}

impl ListenUrl {
    /// Reads `scheme://address:port`, where the scheme is one of `allowed`.
    ///
    /// # Errors
    /// What is wrong, in words that follow the text itself.
    pub fn parse(text: &str, allowed: &[Scheme]) -> Result<Self, String> {
        let names: Vec<&str> = allowed.iter().map(|scheme| scheme.as_str()).collect();
        let Some((name, rest)) = text.split_once("://") else {
            return Err(format!(
                "expected a URL like {}://0.0.0.0:3478",
                in_words(&names)
            ));
        };
        let Some(scheme) = allowed.iter().find(|scheme| scheme.as_str() == name) else {
            return Err(format!(
                "unknown scheme `{name}`, expected {}",
                in_words(&names)
            ));
        };
        let address = rest.strip_suffix('/').unwrap_or(rest);
        match address.parse() {
            Ok(address) => Ok(Self {
                scheme: *scheme,
                address,
            }),
            Err(_) => Err(format!(
                "`{address}` is no address and port; names are not looked up, IPv6 goes in [ ]"
            )),
        }
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.address)
    }
}
