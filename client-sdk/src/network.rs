//! The seam between the SDK and the machine's network.
//!
//! Everything the SDK sends goes through a [`Network`]: the operating system's ([`SystemNetwork`]) in a game, an emulated
//! NAT in the demo, a virtual world in tests. The trait asks for as little as an ICE client needs: which addresses there
//! are, one datagram socket on each, and a TCP connection to a relay or to signaling.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

/// A byte stream to a relay or to the signaling server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What [`Network::connect_tcp`] answers: the stream and the local address it left from.
pub type Connecting =
    Pin<Box<dyn Future<Output = io::Result<(Box<dyn Stream>, SocketAddr)>> + Send>>;

/// Where the SDK's sockets come from.
///
/// Called only from inside the SDK's own runtime, so implementations may use tokio's sockets and tasks.
pub trait Network: Send + Sync + 'static {
    /// The addresses of this machine that datagrams can leave from, loopback included; the SDK drops loopback addresses
    /// itself unless signaling is on loopback.
    ///
    /// # Errors
    /// Whatever the operating system says when it cannot list its interfaces.
    fn addresses(&self) -> io::Result<Vec<IpAddr>>;

    /// The local address a datagram to `to` would leave from: picks the socket that talks to a STUN or TURN server.
    /// Sends nothing.
    ///
    /// # Errors
    /// When there is no route to `to`.
    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr>;

    /// Binds one datagram socket on `local`, port 0.
    ///
    /// # Errors
    /// When the address is not (or no longer) one of this machine's.
    fn bind_udp(&self, local: IpAddr) -> io::Result<Box<dyn DatagramSocket>>;

    /// Connects a TCP stream to `to`.
    fn connect_tcp(&self, to: SocketAddr) -> Connecting;
}

/// One datagram socket. Sends never wait: a full buffer is a lost datagram, as it is on the wire.
pub trait DatagramSocket: Send + Sync {
    /// The address and port this socket is bound to: the base of a host candidate.
    fn local_addr(&self) -> SocketAddr;

    /// Sends one datagram now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the buffer is full, else the operating system's error.
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Receives one datagram into `buffer`; registers the waker when there is none.
    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>>;
}

/// The operating system's network.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let usable = if_addrs::get_if_addrs()?
            .into_iter()
            .map(|interface| interface.ip())
            .filter(|address| !is_link_local(*address))
            .collect();
        Ok(usable)
    }

    fn source_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let unspecified: IpAddr = match to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connecting a datagram socket only looks up the route.
        let socket = StdUdpSocket::bind((unspecified, 0))?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    }

    fn bind_udp(&self, local: IpAddr) -> io::Result<Box<dyn DatagramSocket>> {
        let socket = StdUdpSocket::bind((local, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Box::new(SystemSocket {
            local_addr: socket.local_addr()?,
            sender: socket.try_clone()?,
            receiver: UdpSocket::from_std(socket)?,
        }))
    }

    fn connect_tcp(&self, to: SocketAddr) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let local = stream.local_addr()?;
            Ok((Box::new(stream) as Box<dyn Stream>, local))
        })
    }
}

/// Link-local addresses need a scope that a candidate cannot carry (RFC 8445 §5.1.1.1 leaves them out of most uses).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// One socket, held twice: the runtime believes a socket unwritable until it has looked once, which would lose the first
/// datagrams, so sending asks the operating system itself.
struct SystemSocket {
    receiver: UdpSocket,
    sender: StdUdpSocket,
    local_addr: SocketAddr,
}

impl DatagramSocket for SystemSocket {
    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.sender.send_to(bytes, to).map(drop)
    }

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        self.receiver.poll_recv_from(context, buffer)
    }
}
