//! Plain counts of what happened on the control path. The shell copies them into its metrics; what
//! happens to datagrams it counts itself, from the verdicts.

use stun_wire::Method;
use stun_wire::error_code as code;

use crate::verdict::Transport;

/// Requests this relay answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestMethod {
    /// RFC 8489.
    Binding,
    /// RFC 8656 §7.
    Allocate,
    /// RFC 8656 §8.
    Refresh,
    /// RFC 8656 §10.
    CreatePermission,
    /// RFC 8656 §12.
    ChannelBind,
    /// RFC 6062 §5.2.
    Connect,
    /// RFC 6062 §5.4.
    ConnectionBind,
}

impl RequestMethod {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Binding,
        Self::Allocate,
        Self::Refresh,
        Self::CreatePermission,
        Self::ChannelBind,
        Self::Connect,
        Self::ConnectionBind,
    ];

    /// The request of a STUN method, if this relay answers it.
    pub(crate) fn of(method: Method) -> Option<Self> {
        match method {
            Method::BINDING => Some(Self::Binding),
            Method::ALLOCATE => Some(Self::Allocate),
            Method::REFRESH => Some(Self::Refresh),
            Method::CREATE_PERMISSION => Some(Self::CreatePermission),
            Method::CHANNEL_BIND => Some(Self::ChannelBind),
            Method::CONNECT => Some(Self::Connect),
            Method::CONNECTION_BIND => Some(Self::ConnectionBind),
            _ => None,
        }
    }

    /// The STUN method of it.
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Binding => Method::BINDING,
            Self::Allocate => Method::ALLOCATE,
            Self::Refresh => Method::REFRESH,
            Self::CreatePermission => Method::CREATE_PERMISSION,
            Self::ChannelBind => Method::CHANNEL_BIND,
            Self::Connect => Method::CONNECT,
            Self::ConnectionBind => Method::CONNECTION_BIND,
        }
    }

    /// True for those of TCP allocations (RFC 6062), which are spoken where these are made.
    pub(crate) fn is_of_tcp_relaying(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectionBind)
    }

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Allocate => "allocate",
            Self::Refresh => "refresh",
            Self::CreatePermission => "create_permission",
            Self::ChannelBind => "channel_bind",
            Self::Connect => "connect",
            Self::ConnectionBind => "connection_bind",
        }
    }
}

/// Why a request was not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthFailure {
    /// It was not signed: the first request of every client.
    Missing,
    /// Signed, but with attributes missing, doubled or altered (400).
    Malformed,
    /// No such user, or a name of no known form.
    UnknownUser,
    /// The signature is wrong.
    BadIntegrity,
    /// The time in the user name has passed.
    Expired,
    /// The nonce is too old or not one of ours.
    StaleNonce,
    /// For another realm.
    WrongRealm,
    /// Right, but of a user whom the operator keeps out.
    Blocked,
}

impl AuthFailure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Missing,
        Self::Malformed,
        Self::UnknownUser,
        Self::BadIntegrity,
        Self::Expired,
        Self::StaleNonce,
        Self::WrongRealm,
        Self::Blocked,
    ];

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::UnknownUser => "unknown_user",
            Self::BadIntegrity => "bad_integrity",
            Self::Expired => "expired",
            Self::StaleNonce => "stale_nonce",
            Self::WrongRealm => "wrong_realm",
            Self::Blocked => "blocked",
        }
    }
}

/// Which bound refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaKind {
    /// Allocations of one user.
    User,
    /// Allocations of one client address.
    Address,
    /// Allocations or ports of the whole relay.
    Total,
    /// Permissions of one allocation.
    Permissions,
    /// Channels of one allocation.
    Channels,
    /// Bytes a second of an allocation or a user.
    Bandwidth,
    /// TCP connections with peers of one allocation.
    PeerConnections,
    /// Of these, connections that are being made or wait for their ConnectionBind.
    WaitingConnections,
    /// Connect requests a second of one allocation.
    Connects,
}

impl QuotaKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::User,
        Self::Address,
        Self::Total,
        Self::Permissions,
        Self::Channels,
        Self::Bandwidth,
        Self::PeerConnections,
        Self::WaitingConnections,
        Self::Connects,
    ];

    /// The name that metrics use.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Address => "ip",
            Self::Total => "total",
            Self::Permissions => "permissions",
            Self::Channels => "channels",
            Self::Bandwidth => "bandwidth",
            Self::PeerConnections => "peer_connections",
            Self::WaitingConnections => "waiting_connections",
            Self::Connects => "connects",
        }
    }
}

/// Error codes this relay sends.
const CODES: [u16; 15] = [
    code::TRY_ALTERNATE,
    code::BAD_REQUEST,
    code::UNAUTHENTICATED,
    code::FORBIDDEN,
    code::UNKNOWN_ATTRIBUTE,
    code::ALLOCATION_MISMATCH,
    code::STALE_NONCE,
    code::ADDRESS_FAMILY_NOT_SUPPORTED,
    code::WRONG_CREDENTIALS,
    code::UNSUPPORTED_TRANSPORT_PROTOCOL,
    code::PEER_ADDRESS_FAMILY_MISMATCH,
    code::CONNECTION_ALREADY_EXISTS,
    code::CONNECTION_TIMEOUT_OR_FAILURE,
    code::ALLOCATION_QUOTA_REACHED,
    code::INSUFFICIENT_CAPACITY,
];

/// Counts since the machine was made. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    requests: [[u64; 3]; RequestMethod::ALL.len()],
    successes: [u64; RequestMethod::ALL.len()],
    errors: [[u64; CODES.len()]; RequestMethod::ALL.len()],
    auth_failures: [u64; AuthFailure::ALL.len()],
    quota_rejections: [u64; QuotaKind::ALL.len()],
}

impl Counters {
    /// Well-formed requests received, by method and transport; each pair once, zeros included.
    pub fn requests(&self) -> impl Iterator<Item = (RequestMethod, Transport, u64)> + '_ {
        RequestMethod::ALL
            .iter()
            .zip(&self.requests)
            .flat_map(|(method, row)| {
                let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
                transports
                    .into_iter()
                    .zip(row)
                    .map(|(transport, n)| (*method, transport, *n))
            })
    }

    /// Responses made, by method and error code (`None`: success); each pair once.
    pub fn responses(&self) -> impl Iterator<Item = (RequestMethod, Option<u16>, u64)> + '_ {
        let successes = RequestMethod::ALL.iter().zip(&self.successes);
        let errors = RequestMethod::ALL.iter().zip(&self.errors);
        successes
            .map(|(method, n)| (*method, None, *n))
            .chain(errors.flat_map(|(method, row)| {
                CODES
                    .iter()
                    .zip(row)
                    .map(|(code, n)| (*method, Some(*code), *n))
            }))
    }

    /// Requests that were not authenticated, by reason; each once.
    pub fn auth_failures(&self) -> impl Iterator<Item = (AuthFailure, u64)> + '_ {
        AuthFailure::ALL.into_iter().zip(self.auth_failures)
    }

    /// Requests and datagrams refused by a bound; each once.
    pub fn quota_rejections(&self) -> impl Iterator<Item = (QuotaKind, u64)> + '_ {
        QuotaKind::ALL.into_iter().zip(self.quota_rejections)
    }

    pub(crate) fn count_request(&mut self, method: RequestMethod, transport: Transport) {
        if let Some(n) = self
            .requests
            .get_mut(method as usize)
            .and_then(|row| row.get_mut(transport as usize))
        {
            *n += 1;
        }
    }

    pub(crate) fn count_success(&mut self, method: RequestMethod) {
        if let Some(n) = self.successes.get_mut(method as usize) {
            *n += 1;
        }
    }

    pub(crate) fn count_error(&mut self, method: RequestMethod, code: u16) {
        let at = CODES.iter().position(|known| *known == code);
        debug_assert!(at.is_some(), "error code {code} is missing in CODES");
        let row = self.errors.get_mut(method as usize);
        if let Some(n) = row.zip(at).and_then(|(row, at)| row.get_mut(at)) {
            *n += 1;
        }
    }

    pub(crate) fn count_auth_failure(&mut self, failure: AuthFailure) {
        if let Some(n) = self.auth_failures.get_mut(failure as usize) {
            *n += 1;
        }
    }

    pub(crate) fn count_quota_rejection(&mut self, kind: QuotaKind) {
        if let Some(n) = self.quota_rejections.get_mut(kind as usize) {
            *n += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_moves_alone() {
        let mut counters = Counters::default();
        counters.count_request(RequestMethod::Refresh, Transport::Tcp);
        counters.count_success(RequestMethod::Allocate);
        counters.count_error(RequestMethod::ChannelBind, code::FORBIDDEN);
        counters.count_auth_failure(AuthFailure::WrongRealm);
        counters.count_quota_rejection(QuotaKind::Bandwidth);
        assert_eq!(
            counters
                .requests()
                .filter(|(_, _, n)| *n > 0)
                .collect::<Vec<_>>(),
            [(RequestMethod::Refresh, Transport::Tcp, 1)]
        );
        assert_eq!(
            counters
                .responses()
                .filter(|(_, _, n)| *n > 0)
                .collect::<Vec<_>>(),
            [
                (RequestMethod::Allocate, None, 1),
                (RequestMethod::ChannelBind, Some(code::FORBIDDEN), 1)
            ]
        );
        assert_eq!(
            counters
                .auth_failures()
                .filter(|(_, n)| *n > 0)
                .collect::<Vec<_>>(),
            [(AuthFailure::WrongRealm, 1)]
        );
        assert_eq!(
            counters
                .quota_rejections()
                .filter(|(_, n)| *n > 0)
                .collect::<Vec<_>>(),
            [(QuotaKind::Bandwidth, 1)]
        );
    }

    #[test]
    fn methods_map_both_ways() {
        for method in RequestMethod::ALL {
            assert_eq!(RequestMethod::of(method.method()), Some(method));
        }
        assert_eq!(RequestMethod::of(Method::SEND), None);
    }
}
