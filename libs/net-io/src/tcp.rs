//! TCP listeners with the same rules as the UDP sockets: non-blocking, IPv6 means IPv6 only.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
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

/// Listens on `addr`, which nobody else may have, so that connections can be made from it too, with
/// [`connect_from`]. What is accepted has a receive queue of `receive_queue` bytes.
pub fn listen_and_connect(
    addr: SocketAddr,
    backlog: i32,
    receive_queue: usize,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(receive_queue)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    // After the bind, which found the port free: from here on our own connections may share it.
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.listen(backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Begins to connect to `peer` from `local`, where a listener made by [`listen_and_connect`] may be.
/// Where the system does not know shared ports (Windows) that fails.
pub fn connect_from(
    local: SocketAddr,
    peer: SocketAddr,
    receive_queue: usize,
) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(local),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
    }
    socket.set_recv_buffer_size(receive_queue)?;
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

#[cfg(unix)]
fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(not(unix))]
fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
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
    fn connections_leave_from_a_port_that_listens_and_that_nobody_else_gets() {
        use std::io::Read as _;

        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = listen_and_connect("127.0.0.1:0".parse().unwrap(), 8, 65_536).unwrap();
        let addr = listener.local_addr().unwrap();
        for peer in [&server, &other] {
            let socket = connect_from(addr, peer.local_addr().unwrap(), 65_536).unwrap();
            let (mut accepted, from) = peer.accept().unwrap();
            assert_eq!(from, addr);
            drop(socket);
            assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
        }
        let error = listen_and_connect(addr, 8, 65_536).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn both_families_listen_on_one_port() {
        let six = listen("[::]:0".parse().unwrap(), false).unwrap();
        let port = six.local_addr().unwrap().port();
        listen(SocketAddr::new("0.0.0.0".parse().unwrap(), port), false).unwrap();
    }
}
