//! TCP listeners with the same rules as the UDP sockets: non-blocking, IPv6 means IPv6 only.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections the system queues before they are accepted.
const BACKLOG: i32 = 1024;

/// Listens on `addr`. With `reuse_port` several listeners share the port (where the system knows
/// that) and each connection goes to one of them.
pub fn listen(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the last run in TIME_WAIT must not keep a restart from listening. Elsewhere
    // than on Unix the option means that a stranger may take the port over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(unix))]
    let _ = reuse_port;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Of the `listeners` that share a port, has one accept every connection of one IPv4 address or IPv6 /64. Call it on any of
/// them when all listen. Linux only; elsewhere nothing happens.
///
/// # Errors
/// When the system refuses.
pub fn steer_by_source(listener: &TcpListener, listeners: u32) -> io::Result<()> {
    let is_ipv6 = listener.local_addr()?.is_ipv6();
    crate::steering::by_source(listener, is_ipv6, listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_and_shared_ports_are_not() {
        let first = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let addr = first.local_addr().unwrap();
        let error = listen(addr, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

        let first = listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        listen(first.local_addr().unwrap(), true).unwrap();
    }

    #[test]
    fn both_families_listen_on_one_port() {
        let six = listen("[::]:0".parse().unwrap(), false).unwrap();
        let port = six.local_addr().unwrap().port();
        listen(SocketAddr::new("0.0.0.0".parse().unwrap(), port), false).unwrap();
    }
}
