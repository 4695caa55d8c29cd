//! `alternate`: a second address and port, and with them the four UDP endpoints of RFC 5780.
//!
//! The one UDP listener of its family is the first of the four; the other three follow from the two.

use std::io;
use std::net::SocketAddr;

use net_io::UdpSocket;
use ops::config::{ListenUrl, Scheme};
use stun_server_proto::Endpoints;

use crate::server::{BindError, bind_group};

/// How often other ports are tried where the system may choose and somebody else has them on the other
/// address.
const PORT_ATTEMPTS: usize = 16;

/// What is wrong with a configuration, and under which key.
pub(crate) type Fault = (&'static str, String);

/// Every reason why these listeners and this second address do not make four endpoints.
pub(crate) fn faults(listen: &[ListenUrl], alternate: SocketAddr) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |key, reason| faults.push((key, reason));
    if is_no_single_address(alternate) {
        fault(
            "alternate",
            format!("`{alternate}`: expected an address of this host, no wildcard or group"),
        );
    }
    let udp = listen.iter().filter(|url| url.scheme == Scheme::Udp);
    for url in udp.filter(|url| is_no_single_address(url.address)) {
        fault(
            "listen",
            format!(
                "`{url}`: with `alternate` every UDP listener names one address, no wildcard or group"
            ),
        );
    }
    let family: Vec<_> = of_its_family(listen, alternate).collect();
    let [first] = family.as_slice() else {
        let name = if alternate.is_ipv4() { "IPv4" } else { "IPv6" };
        let count = family.len();
        fault(
            "alternate",
            format!("needs exactly one {name} UDP listener beside it, `listen` has {count}"),
        );
        return faults;
    };
    if first.address.ip() == alternate.ip() {
        fault(
            "alternate",
            format!("`{alternate}`: expected another address than `{first}` has"),
        );
    }
    if first.address.port() == alternate.port() && alternate.port() != 0 {
        fault(
            "alternate",
            format!("`{alternate}`: expected another port than `{first}` has"),
        );
    }
    faults
}

fn is_no_single_address(address: SocketAddr) -> bool {
    address.ip().is_unspecified() || address.ip().is_multicast()
}

/// The UDP listeners of the family of `alternate`.
pub(crate) fn of_its_family(
    listen: &[ListenUrl],
    alternate: SocketAddr,
) -> impl Iterator<Item = &ListenUrl> {
    listen.iter().filter(move |url| {
        url.scheme == Scheme::Udp && url.address.is_ipv4() == alternate.is_ipv4()
    })
}

/// The sockets of every shard at each of the four endpoints.
pub(crate) struct Bound {
    pub(crate) endpoints: Endpoints,
    /// In the order of [`Endpoints::all`].
    pub(crate) groups: [Vec<UdpSocket>; 4],
}

/// Binds all four, on ports that are free on both addresses.
pub(crate) fn bind(
    primary: SocketAddr,
    alternate: SocketAddr,
    shards: usize,
    size: usize,
) -> Result<Bound, BindError> {
    let system_chooses = primary.port() == 0 || alternate.port() == 0;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match bind_once(primary, alternate, shards, size) {
            Err(BindError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse
                    && system_chooses
                    && attempts < PORT_ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

fn bind_once(
    primary: SocketAddr,
    alternate: SocketAddr,
    shards: usize,
    size: usize,
) -> Result<Bound, BindError> {
    let group = |address| {
        bind_group(address, shards, size).map_err(|source| BindError::Listen {
            url: url(address),
            source,
        })
    };
    let first = group(primary)?;
    let last = group(alternate)?;
    let chosen =
        |sockets: &[UdpSocket], asked| sockets.first().map_or(asked, UdpSocket::local_addr);
    let (primary, alternate) = (chosen(&first, primary), chosen(&last, alternate));
    // The system may have chosen the same port on both.
    let endpoints = Endpoints::new(primary, alternate).ok_or_else(|| BindError::Listen {
        url: url(alternate),
        source: io::ErrorKind::AddrInUse.into(),
    })?;
    let [_, first_with_other_port, other_with_first_port, _] = endpoints.all();
    let groups = [
        first,
        group(first_with_other_port)?,
        group(other_with_first_port)?,
        last,
    ];
    Ok(Bound { endpoints, groups })
}

fn url(address: SocketAddr) -> ListenUrl {
    ListenUrl {
        scheme: Scheme::Udp,
        address,
    }
}
