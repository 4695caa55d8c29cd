//! `[proxy]`: the listeners that stand behind a load balancer, and who that may be.

use std::net::IpAddr;

use super::{FromRaw, IpPrefix, ListenUrl, Scheme, Section};

const STREAMS: [Scheme; 3] = [Scheme::Tcp, Scheme::Tls, Scheme::TcpTls];

/// Where each connection begins with a header of the PROXY protocol, version 2, and whose are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyListeners {
    /// `listeners`: some of those in `listen`, written the same.
    pub listeners: Vec<ListenUrl>,
    /// `trusted`: the addresses of the proxies; others are cut off.
    pub trusted: Vec<IpPrefix>,
}

impl ProxyListeners {
    /// What is wrong with it beside these listeners, if anything is.
    #[must_use]
    pub fn fault(&self, listen: &[ListenUrl]) -> Option<String> {
        let stranger = self.listeners.iter().find(|url| !listen.contains(url));
        if let Some(url) = stranger {
            return Some(format!("listeners: `{url}` is not in `listen`"));
        }
        match (self.listeners.is_empty(), self.trusted.is_empty()) {
            (false, true) => Some("trusted: missing, so that nobody could connect".to_owned()),
            (true, false) => {
                Some("listeners: missing, so that nobody is asked who it is".to_owned())
            }
            _ => None,
        }
    }

    /// Whether connections of this listener begin with a header.
    #[must_use]
    pub fn covers(&self, url: &ListenUrl) -> bool {
        self.listeners.contains(url)
    }

    /// Whether a header from this address is believed.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(address))
    }
}

impl FromRaw for ProxyListeners {
    fn from_raw(section: &mut Section<'_>) -> Option<Self> {
        let listeners = section.listen_urls("listeners", &STREAMS);
        Some(Self {
            listeners: listeners.unwrap_or_default(),
            trusted: section.list("trusted").unwrap_or_default(),
        })
    }
}
