//! The STUN and TURN servers that signaling names (RFC 7064, RFC 7065), with their names resolved.

use std::net::SocketAddr;
use std::sync::Arc;

use client_sdk_proto::{RelayServer, RelayTransport};
use signal_wire::IceServer;
use tokio::net::lookup_host;

use crate::network::Network;

/// URLs looked at in one answer of the signaling server.
const MAX_URLS: usize = 32;

/// A server the node can use.
pub(crate) enum Server {
    Stun { url: Arc<str>, address: SocketAddr },
    Relay(RelayServer),
}

/// Resolves every URL; what does not parse or resolve is left out and logged.
pub(crate) async fn resolve(servers: &[IceServer], network: &dyn Network) -> Vec<Server> {
    let mut resolved = Vec::new();
    let urls: Vec<(&IceServer, &String)> = servers
        .iter()
        .flat_map(|server| server.urls.iter().map(move |url| (server, url)))
        .take(MAX_URLS)
        .collect();
    for (server, url) in urls {
        let Some(parsed) = Url::parse(url) else {
            tracing::warn!(
                url,
                "the signaling server named a URL that is not STUN's or TURN's"
            );
            continue;
        };
        let addresses: Vec<_> = match lookup_host((parsed.host, parsed.port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                tracing::warn!(url, %error, "cannot resolve");
                continue;
            }
        };
        // One address of each family: a name with many is a pool, and any of it will do.
        let first = |v4: bool| {
            addresses
                .iter()
                .copied()
                .find(|found| found.is_ipv4() == v4)
        };
        let url: Arc<str> = Arc::from(url.as_str());
        for address in [first(true), first(false)].into_iter().flatten() {
            resolved.push(parsed.server(&url, address, server, network));
        }
    }
    resolved
}

#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    kind: Kind,
    host: &'a str,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stun,
    Turn(RelayTransport),
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let (kind, default_port) = match (scheme, query) {
            ("stun", None) => (Kind::Stun, 3478),
            ("turn", None | Some("transport=udp")) => (Kind::Turn(RelayTransport::Udp), 3478),
            ("turn", Some("transport=tcp")) => (Kind::Turn(RelayTransport::Tcp), 3478),
            ("turns", None | Some("transport=tcp")) => (Kind::Turn(RelayTransport::Tls), 5349),
            _ => return None,
        };
        let (host, port) = split_port(authority)?;
        Some(Self {
            kind,
            host,
            port: port.unwrap_or(default_port),
        })
    }

    fn server(
        &self,
        url: &Arc<str>,
        address: SocketAddr,
        server: &IceServer,
        network: &dyn Network,
    ) -> Server {
        let url = Arc::clone(url);
        match self.kind {
            Kind::Stun => Server::Stun { url, address },
            Kind::Turn(transport) => Server::Relay(RelayServer {
                url,
                address,
                transport,
                tls_name: (transport == RelayTransport::Tls).then(|| self.host.to_owned()),
                username: server.username.clone().unwrap_or_default(),
                password: server.credential.clone().unwrap_or_default(),
                source: network.source_for(address).ok(),
            }),
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        (
            host,
            if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':')?)
            },
        )
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return None;
    }
    match port {
        None => Some((host, None)),
        Some(port) => Some((host, Some(port.parse().ok().filter(|port| *port != 0)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_rfcs_are_read() {
        let read = |url| Url::parse(url).map(|url| (url.kind, url.host.to_owned(), url.port));
        let (udp, tcp, tls) = (
            RelayTransport::Udp,
            RelayTransport::Tcp,
            RelayTransport::Tls,
        );
        for (url, expected) in [
            (
                "stun:stun.example.org",
                (Kind::Stun, "stun.example.org", 3478),
            ),
            ("stun:203.0.113.10:3479", (Kind::Stun, "203.0.113.10", 3479)),
            (
                "turn:[2001:db8::1]:3478?transport=udp",
                (Kind::Turn(udp), "2001:db8::1", 3478),
            ),
            (
                "turn:r.example?transport=tcp",
                (Kind::Turn(tcp), "r.example", 3478),
            ),
            ("turns:r.example", (Kind::Turn(tls), "r.example", 5349)),
        ] {
            let (kind, host, port) = expected;
            assert_eq!(read(url), Some((kind, host.to_owned(), port)), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "http:x",
            "stun:",
            "turn:a:0",
            "turn:a:port",
            "turn:a?transport=sctp",
            "[",
            "turn:[::1",
            "turn:[::1]x",
        ] {
            assert_eq!(Url::parse(url), None, "{url}");
        }
    }
}
