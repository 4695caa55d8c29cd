//! A non-blocking UDP socket that moves datagrams in batches and can be registered with mio.

#[cfg(target_os = "linux")]
pub(crate) mod linux;
mod portable;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::batch::{RecvBatch, SendBatch, SendReport};

/// How datagrams are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The best the system has: `recvmmsg` and `sendmmsg` on Linux, else the portable one.
    #[default]
    Native,
    /// One datagram per system call, with nothing but the standard library.
    Portable,
}

/// What a socket is bound with. IPv6 sockets are always IPv6 only.
#[derive(Debug, Clone, Default)]
pub struct BindOptions {
    /// Share the port between sockets of this user; the system keeps a 5-tuple on one of them.
    pub reuse_port: bool,
    /// Bytes of the receive queue asked for; the system may give less.
    pub recv_buffer: Option<usize>,
    /// Bytes of the send queue asked for; the system may give less.
    pub send_buffer: Option<usize>,
    /// Take trains from the system as it got them from the network, where it can (Linux). The
    /// slots of a [`RecvBatch`] must then have the size [`MAX_DATAGRAM`](crate::MAX_DATAGRAM), or
    /// trains are truncated.
    pub receive_trains: bool,
    /// Hand trains to the system as one, where it can (Linux).
    pub send_trains: bool,
    /// Leave out what matters only once datagrams come and go; most relay sockets never carry one. To
    /// be asked for later: [`UdpSocket::set_dont_fragment`], to be called before the first is sent, and
    /// [`UdpSocket::expect_queue`], when there is a queue: trains in, and the count of
    /// [drops](UdpSocket::overflow_drops).
    pub lazy: bool,
    /// How datagrams are moved.
    pub backend: Backend,
}

/// An ICMP or ICMPv6 error that came back for a datagram sent on a socket. Anybody can make one up
/// who knows or guesses both addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Where the datagram was to go.
    pub to: SocketAddr,
    /// The ICMP type; the family is that of `to`.
    pub icmp_type: u8,
    /// The ICMP code.
    pub code: u8,
    /// For "too big" the MTU of the link that is too small; else nothing of use.
    pub info: u32,
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    inner: mio::net::UdpSocket,
    local: SocketAddr,
    backend: Backend,
    /// All it sends goes to one peer, which the system knows.
    is_connected: bool,
    /// Until the system says that it cannot.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "offload is of Linux")
    )]
    send_trains: AtomicBool,
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "the queue of errors is of Linux")
    )]
    icmp_errors: AtomicBool,
    /// The system's own counter of datagrams it dropped for want of room, as last seen.
    overflow_seen: AtomicU32,
    overflow_total: AtomicU64,
}

impl UdpSocket {
    /// Binds to `addr`; port 0 lets the system choose.
    ///
    /// A wildcard address is answered from the address that each datagram was sent to (on Linux).
    pub fn bind(addr: SocketAddr, options: &BindOptions) -> io::Result<Self> {
        let socket = unbound(addr)?;
        #[cfg(unix)]
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(size) = options.recv_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        if let Some(size) = options.send_buffer {
            socket.set_send_buffer_size(size)?;
        }
        #[cfg(target_os = "linux")]
        if options.backend == Backend::Native {
            linux::prepare(&socket, addr, options)?;
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let inner = mio::net::UdpSocket::from_std(socket.into());
        let local = match addr.port() {
            0 => inner.local_addr()?,
            _ => addr,
        };
        Ok(Self {
            inner,
            local,
            backend: options.backend,
            is_connected: false,
            send_trains: AtomicBool::new(options.send_trains),
            icmp_errors: AtomicBool::new(false),
            overflow_seen: AtomicU32::new(0),
            overflow_total: AtomicU64::new(0),
        })
    }

    /// A second socket at the address of this one, for what is sent to `peer` and what comes from there: the system looks no
    /// route up for each datagram, and needs none to be told the address. Everything else goes on by this one. It takes trains,
    /// [keeps ICMP errors](Self::expect_errors), sends without Don't Fragment, and sends to nobody but the peer, whatever a
    /// batch says.
    ///
    /// Nobody else can bind the address before, after, or, but for a program that asks for just this in these microseconds
    /// (`SO_REUSEADDR`), meanwhile.
    ///
    /// # Errors
    /// When the system refuses, and where it is not Linux.
    pub fn connected(&self, peer: SocketAddr) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if self.backend == Backend::Native {
            let socket = linux::connected(&self.inner, self.local, peer)?;
            return Ok(Self {
                inner: mio::net::UdpSocket::from_std(socket.into()),
                local: self.local,
                backend: self.backend,
                is_connected: true,
                send_trains: AtomicBool::new(self.sends_trains()),
                icmp_errors: AtomicBool::new(true),
                overflow_seen: AtomicU32::new(0),
                overflow_total: AtomicU64::new(0),
            });
        }
        let _ = peer;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The address and port bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Of the `sockets` bound to this port with [`BindOptions::reuse_port`], has one receive everything from one
    /// IPv4 address or IPv6 /64. Call it on any of them when all are bound. Linux only; elsewhere nothing happens.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn steer_by_source(&self, sockets: u32) -> io::Result<()> {
        crate::steering::by_source(&self.inner, self.local.is_ipv6(), sockets)
    }

    /// Takes only datagrams of these forms from here on; the system drops the others, as many as they are, before they
    /// cost anything, and counts them with [`overflow_drops`](Self::overflow_drops). Linux only; elsewhere nothing happens.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn admit_only(&self, forms: &[crate::Form]) -> io::Result<()> {
        crate::filter::attach(&self.inner, forms)
    }

    /// Receives up to a batch. 0: nothing is waiting.
    ///
    /// Fewer than [`RecvBatch::capacity`] means the queue was found empty, so an edge-triggered
    /// poll will tell of the next datagram. An error is one the system reports for the socket (an
    /// ICMP error, want of memory); the socket stays usable and the caller counts it.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.clear();
        let received = match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Native => linux::recv(self, batch),
            _ => portable::recv(self, batch),
        };
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }

    /// Sends everything in `batch` and leaves it empty; datagrams for one address in their order.
    /// Never blocks: what the socket's queue has no room for is dropped, and so is what the system
    /// refuses.
    pub fn send_batch(&self, batch: &mut SendBatch) -> SendReport {
        let report = match self.backend {
            #[cfg(target_os = "linux")]
            Backend::Native => linux::send(self, batch),
            _ => portable::send(self, batch),
        };
        batch.clear();
        report
    }

    /// Keeps the ICMP errors that come back for what is sent from here on, for
    /// [`next_icmp_error`](Self::next_icmp_error) (Linux; elsewhere there are none).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn expect_errors(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.backend == Backend::Native {
            linux::keep_icmp_errors(&self.inner, self.local)?;
            self.icmp_errors.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Of a [lazy](BindOptions::lazy) socket: takes trains, and counts drops, those of before too.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn expect_queue(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.backend == Backend::Native {
            linux::count_drops(&self.inner)?;
            linux::take_trains(&self.inner);
        }
        Ok(())
    }

    /// Takes the oldest ICMP error that waits, if the socket [keeps](Self::expect_errors) them. A poll tells of new
    /// ones as an error of the socket.
    pub fn next_icmp_error(&self) -> Option<IcmpError> {
        #[cfg(target_os = "linux")]
        return linux::error_queue::next(self);
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Datagrams that the system dropped because this socket's receive queue was full or they were of no form that it
    /// [admits](Self::admit_only) (`SO_RXQ_OVFL` has one count for both), as of the last datagram received. Always 0
    /// where the system does not tell.
    #[must_use]
    pub fn overflow_drops(&self) -> u64 {
        self.overflow_total.load(Ordering::Relaxed)
    }

    /// The same count as [`overflow_drops`](Self::overflow_drops), but as it is at this moment; it wraps. Every datagram for
    /// this socket is either received or counted here, so that one who only wants to know how many came need not
    /// receive them. Linux only.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn drops_now(&self) -> io::Result<u32> {
        #[cfg(target_os = "linux")]
        return linux::drops(&self.inner);
        #[cfg(not(target_os = "linux"))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    /// Whether datagrams leave with the Don't Fragment bit; path MTU discovery is off either way.
    ///
    /// Without it (as bound, unless [lazily](BindOptions::lazy)) the system and routers may fragment. With it a datagram longer than
    /// the interface takes is [too large](SendReport::too_large). RFC 8656 §14.
    pub fn set_dont_fragment(&self, dont_fragment: bool) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return linux::set_dont_fragment(&self.inner, self.local, dont_fragment);
        #[cfg(not(target_os = "linux"))]
        if dont_fragment {
            Err(io::ErrorKind::Unsupported.into())
        } else {
            Ok(())
        }
    }

    /// Bytes the receive queue really has (Linux counts its bookkeeping in and reports twice what
    /// was asked for).
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        socket2::SockRef::from(&self.inner).recv_buffer_size()
    }

    #[cfg(target_os = "linux")]
    fn keeps_icmp_errors(&self) -> bool {
        self.icmp_errors.load(Ordering::Relaxed)
    }

    #[cfg(target_os = "linux")]
    fn sends_trains(&self) -> bool {
        self.send_trains.load(Ordering::Relaxed)
    }

    /// Learns from the refusal of a train: EIO says that the device behind this socket computes no
    /// checksums, and the others that the system knows no trains. Any other reason is of this one.
    #[cfg(target_os = "linux")]
    fn note_train_refused(&self, error: &io::Error) {
        if let Some(libc::EIO | libc::EINVAL | libc::ENOPROTOOPT | libc::EOPNOTSUPP) =
            error.raw_os_error()
        {
            self.send_trains.store(false, Ordering::Relaxed);
        }
    }

    /// True if replies need to be told their source address.
    #[cfg(target_os = "linux")]
    fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    /// Our address for a datagram sent to `ip`.
    #[cfg(target_os = "linux")]
    fn local_for(&self, ip: Option<IpAddr>) -> SocketAddr {
        ip.map_or(self.local, |ip| SocketAddr::new(ip, self.local.port()))
    }

    #[cfg(target_os = "linux")]
    fn note_overflow(&self, counter: u32) {
        // The system's counter is 32 bits wide and wraps.
        let seen = self.overflow_seen.swap(counter, Ordering::Relaxed);
        let more = u64::from(counter.wrapping_sub(seen));
        self.overflow_total.fetch_add(more, Ordering::Relaxed);
    }
}

#[cfg(unix)]
impl std::os::fd::AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.inner.as_raw_fd()
    }
}

impl Source for UdpSocket {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.inner.register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.inner.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.inner.deregister(registry)
    }
}

/// A socket that can be bound to `addr`. On Linux it does not block.
fn unbound(addr: SocketAddr) -> io::Result<Socket> {
    // Where the system makes a socket non-blocking with the call that makes it, that is one call less.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kind = Type::DGRAM.nonblocking();
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let kind = Type::DGRAM;
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether an error says that the process, or the system, has no descriptors or memory left: fewer sockets would help.
#[must_use]
pub fn is_out_of_resources(error: &io::Error) -> bool {
    #[cfg(unix)]
    if matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS)
    ) {
        return true;
    }
    error.kind() == io::ErrorKind::OutOfMemory
}

/// Sorts one refused datagram into the report.
fn note_refusal(report: &mut SendReport, error: &io::Error) {
    if is_queue_full(error) {
        report.queue_full += 1;
    } else if is_too_large(error) {
        report.too_large += 1;
    } else {
        report.refused += 1;
    }
}

fn is_queue_full(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::ENOBUFS) {
        return true;
    }
    error.kind() == io::ErrorKind::WouldBlock
}

fn is_too_large(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::EMSGSIZE);
    #[cfg(not(unix))]
    return error.raw_os_error() == Some(10_040); // WSAEMSGSIZE
}

#[cfg(test)]
mod tests;
