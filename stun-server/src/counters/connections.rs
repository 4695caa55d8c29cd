//! Metrics of connections, over TCP and TLS, and of how they begin.

use net_io::proxy::{Header, ProxyError};
use ops::metrics::{MetricError, Registry, Tallies};

use super::Transport;

ops::label! {
    /// The transports that have connections.
    enum StreamTransport: "transport" {
        Tcp = "tcp",
        Tls = "tls",
    }
}

ops::label! {
    /// Why a connection ended.
    pub(crate) enum Closed: "reason" {
        /// The client closed it.
        Client = "client",
        /// No valid message came in time.
        Silent = "silent",
        /// Nothing came for a while.
        Idle = "idle",
        /// The client did not read its answers.
        Slow = "slow",
        /// What came was no STUN.
        Malformed = "malformed",
        /// TLS failed.
        Tls = "tls",
        /// No PROXY header that could be used, where one is due.
        ProxyHeader = "proxy_header",
        /// Neither TLS nor STUN where both are spoken.
        Unknown = "unknown_protocol",
        /// Too many connections of this address.
        AddressLimit = "address_limit",
        /// Too many connections.
        ServerLimit = "server_limit",
        /// The server ended.
        Shutdown = "shutdown",
    }
}

ops::label! {
    /// What came of the PROXY header of a connection.
    pub(crate) enum ProxyHeader: "outcome" {
        /// It names a client.
        Proxied = "proxied",
        /// The proxy spoke for itself.
        Local = "local",
        /// The connection is not from a trusted address.
        Untrusted = "untrusted",
        /// Something else came.
        Missing = "missing",
        Version1 = "version_1",
        Malformed = "malformed",
        TooLong = "too_long",
        /// Of something that is not TCP over IP.
        Unsupported = "unsupported",
        /// A client at an address that nobody has.
        BadSource = "bad_source",
    }
}

/// The connections of one thread. One that is accepted is undecided, then open, then closed; or refused.
#[derive(Debug)]
pub(crate) struct ConnectionCounters {
    open: Tallies<StreamTransport>,
    undecided: Tallies<()>,
    closed: Tallies<Closed>,
    proxy_headers: Tallies<ProxyHeader>,
}

impl ConnectionCounters {
    pub(super) fn declare(registry: &Registry, threads: usize) -> Result<Vec<Self>, MetricError> {
        let mut open = registry
            .sharded_gauge(
                "rallypoint_stun_connections",
                "Open connections of clients.",
                threads,
            )?
            .into_iter();
        let mut undecided = registry
            .sharded_gauge(
                "rallypoint_stun_undecided_connections",
                "Connections that have not shown yet who they are of, or whether TLS is spoken.",
                threads,
            )?
            .into_iter();
        let mut closed = registry
            .sharded_counter(
                "rallypoint_stun_connections_closed_total",
                "Connections that ended, by the reason.",
                threads,
            )?
            .into_iter();
        let mut proxy_headers = registry
            .sharded_counter(
                "rallypoint_stun_proxy_headers_total",
                "PROXY headers taken, and refused together with their connections.",
                threads,
            )?
            .into_iter();
        let one_thread = || {
            Some(Self {
                open: open.next()?,
                undecided: undecided.next()?,
                closed: closed.next()?,
                proxy_headers: proxy_headers.next()?,
            })
        };
        Ok(std::iter::from_fn(one_thread).collect())
    }

    pub(crate) fn accepted(&self) {
        self.undecided.inc(());
    }

    pub(crate) fn decided(&self, transport: Transport) {
        self.undecided.sub((), 1);
        self.open.inc(stream_transport(transport));
    }

    /// Counts the end of a connection; without a transport it was undecided.
    pub(crate) fn closed(&self, transport: Option<Transport>, reason: Closed) {
        match transport {
            None => self.undecided.sub((), 1),
            Some(transport) => self.open.sub(stream_transport(transport), 1),
        }
        self.closed.inc(reason);
    }

    /// Counts a connection that was closed as soon as it was accepted.
    pub(crate) fn refused(&self, reason: Closed) {
        self.closed.inc(reason);
    }

    pub(crate) fn proxy_header(&self, outcome: ProxyHeader) {
        self.proxy_headers.inc(outcome);
    }
}

fn stream_transport(transport: Transport) -> StreamTransport {
    match transport {
        Transport::Tls => StreamTransport::Tls,
        Transport::Udp | Transport::Tcp => StreamTransport::Tcp,
    }
}

impl From<Header> for ProxyHeader {
    fn from(header: Header) -> Self {
        match header {
            Header::Proxied { .. } => Self::Proxied,
            Header::Local => Self::Local,
        }
    }
}

impl From<ProxyError> for ProxyHeader {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::Missing => Self::Missing,
            ProxyError::Version1 => Self::Version1,
            ProxyError::Malformed => Self::Malformed,
            ProxyError::TooLong => Self::TooLong,
            ProxyError::Unsupported => Self::Unsupported,
            ProxyError::BadSource => Self::BadSource,
        }
    }
}
