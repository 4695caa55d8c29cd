//! Who is calling: which web page, and from which address.

use crate::config::Config;
use hyper::HeaderMap;
use hyper::header::{HOST, HeaderName, ORIGIN};
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether the page that a browser is on may connect (RFC 6455 §10.2). Native clients send no
/// Origin; a page of this server itself needs no listing.
pub(crate) fn is_allowed(config: &Config, headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if origins.next().is_some() {
        return false;
    }
    let origin = origin.to_ascii_lowercase();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let page_host = origin
        .strip_prefix("https://")
        .or_else(|| origin.strip_prefix("http://"));
    let own = host.is_some_and(|host| page_host == Some(&*host.to_ascii_lowercase()));
    own || config
        .allowed_origins
        .iter()
        .any(|allowed| allowed == "*" || *allowed == origin)
}

/// The caller's address: the peer's, or behind trusted proxies the nearest one that is not theirs.
pub(crate) fn address(config: &Config, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let trusted = |address: IpAddr| {
        config
            .trusted_proxies
            .iter()
            .any(|prefix| prefix.contains(address.to_canonical()))
    };
    let mut address = peer.ip().to_canonical();
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    // The last entry is the one that the nearest proxy wrote; what stands before may be invented.
    let entries = lines.iter().rev().filter_map(|line| line.to_str().ok());
    for entry in entries.flat_map(|line| line.rsplit(',')) {
        if !trusted(address) {
            break;
        }
        match entry.trim().parse::<IpAddr>() {
            Ok(next) => address = next.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(HeaderName, &'static str)| {
            (name.clone(), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn native_clients_own_pages_and_listed_pages_may_connect() {
        let config = Config::from_toml("allowed-origins = [\"https://game.example\"]").unwrap();
        let allowed = |lines: &[_]| is_allowed(&config, &headers(lines));
        assert!(allowed(&[(HOST, "play.example:8765")]));
        assert!(allowed(&[
            (HOST, "play.example:8765"),
            (ORIGIN, "http://Play.example:8765")
        ]));
        assert!(allowed(&[
            (HOST, "play.example"),
            (ORIGIN, "https://game.example")
        ]));
        assert!(!allowed(&[
            (HOST, "play.example"),
            (ORIGIN, "https://evil.example")
        ]));
        assert!(!allowed(&[
            (HOST, "play.example"),
            (ORIGIN, "https://game.example.evil")
        ]));
        assert!(!allowed(&[(HOST, "play.example"), (ORIGIN, "null")]));
        assert!(!allowed(&[(ORIGIN, "https://evil.example")]));

        let open = Config::from_toml("allowed-origins = [\"*\"]").unwrap();
        assert!(is_allowed(
            &open,
            &headers(&[(ORIGIN, "https://any.example")])
        ));
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_alone() {
        let config = Config::from_toml("trusted-proxies = [\"10.0.0.0/8\"]").unwrap();
        let from = |peer: &str, forwarded: &'static str| {
            let peer = SocketAddr::new(peer.parse().unwrap(), 1);
            address(&config, peer, &headers(&[(FORWARDED_FOR, forwarded)])).to_string()
        };
        assert_eq!(from("203.0.113.9", "198.51.100.1"), "203.0.113.9");
        assert_eq!(from("10.0.0.1", "198.51.100.1"), "198.51.100.1");
        assert_eq!(from("10.0.0.1", "192.0.2.66, 198.51.100.1"), "198.51.100.1");
        assert_eq!(from("10.0.0.1", "198.51.100.1, 10.0.0.2"), "198.51.100.1");
        assert_eq!(from("::ffff:10.0.0.1", "2001:db8::1"), "2001:db8::1");
        assert_eq!(from("10.0.0.1", "nonsense"), "10.0.0.1");
    }
}
