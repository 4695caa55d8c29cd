//! A player's home: the SDK's [`Network`] behind an emulated NAT, with real sockets on loopback.
//!
//! The host has a private address that exists nowhere; the NAT ([`nat_model::Nat`]) decides, and every external address it
//! hands out is a real socket on the home's loopback address, which here plays the internet. What arrives there passes the
//! NAT's filter before the SDK sees it. Datagrams to private addresses of other homes go nowhere, as on the internet.
//!
//! ```text
//!  SDK --192.168.1.11:50000--> Nat --127.0.0.11:23411--> (loopback) <-- 127.0.0.12:20077 <-- Nat <-- SDK
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use nat_model::{Behaviour, Kind, Nat, Remote};
use net_io::clock;
use rallypoint_client::network::{Connecting, DatagramSocket, Network, Stream};
use tokio::io::ReadBuf;
use tokio::net::{TcpSocket, UdpSocket};

/// Datagrams that the filter refuses in one poll before other tasks get their turn.
const REFUSED_PER_POLL: usize = 64;
/// Ports that turn out to be taken by others in one send before the datagram is given up.
const BUSY_PORTS_PER_SEND: usize = 16;
/// The first port of the host's own sockets.
const FIRST_INNER_PORT: u16 = 50_000;
/// External ports of each home: below the relay's and the operating system's, and apart from other homes' in case that
/// all must share one loopback address.
const PORTS_PER_HOME: u16 = 1_250;
const FIRST_OUTER_PORT: u16 = 12_000;
const HOMES: u8 = 16;

/// Where a home is on the emulated internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The host's address within the home.
    pub inner: IpAddr,
    /// The address the internet sees.
    pub outer: IpAddr,
    /// The ports of that address that are this home's.
    pub ports: RangeInclusive<u16>,
    /// Whether other homes have the same address.
    pub shared: bool,
}

impl Line {
    /// The line of the home with this number. Linux has all of 127/8; other systems only 127.0.0.1, shared by all homes.
    pub(crate) fn of_home(number: u8) -> Self {
        let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11 + number));
        let is_ours = StdUdpSocket::bind((own, 0)).is_ok();
        Self::new(
            number,
            if is_ours {
                own
            } else {
                Ipv4Addr::LOCALHOST.into()
            },
        )
    }

    fn new(number: u8, outer: IpAddr) -> Self {
        let first = FIRST_OUTER_PORT + u16::from(number % HOMES) * PORTS_PER_HOME;
        // Homes take turns at the two ranges that real ones have; some even have the same, as real ones do.
        let inner = if number % 4 == 3 {
            Ipv4Addr::new(10, 0, 0, 5 + number)
        } else {
            Ipv4Addr::new(192, 168, 1, 10 + number)
        };
        Self {
            inner: inner.into(),
            outer,
            ports: first..=first + (PORTS_PER_HOME - 1),
            shared: outer == IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

/// One home: a host, its NAT, and the sockets that stand for the NAT's external addresses.
#[derive(Clone)]
pub(crate) struct Home {
    line: Line,
    state: Arc<Mutex<State>>,
}

struct State {
    nat: Nat,
    outlets: BTreeMap<SocketAddr, Outlet>,
    /// Who sleeps on each of the host's sockets.
    sleepers: BTreeMap<SocketAddr, Waker>,
    next_port: u16,
}

/// The real socket of one external address.
struct Outlet {
    owner: SocketAddr,
    receiver: UdpSocket,
    /// The same socket: tokio's knows only after a turn of its loop that it can be written to, too late for a first check.
    sender: StdUdpSocket,
}

impl Home {
    /// A home behind a NAT of this kind.
    pub(crate) fn new(kind: Kind, line: Line, seed: [u8; 32]) -> Self {
        let behaviour = Behaviour {
            port_range: line.ports.clone(),
            ..kind.behaviour()
        };
        let state = State {
            nat: Nat::new(behaviour, line.outer, seed),
            outlets: BTreeMap::new(),
            sleepers: BTreeMap::new(),
            next_port: FIRST_INNER_PORT,
        };
        Self {
            line,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// From here on nothing passes between this home and `remote`. An address that servers share is cut by its port only.
    pub(crate) fn cut(&self, remote: SocketAddr) {
        let remote = if self.line.shared {
            Remote::Endpoint(remote)
        } else {
            Remote::Address(remote.ip())
        };
        self.lock().nat.cut(remote);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for Home {
    fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        Ok(vec![self.line.inner])
    }

    fn source_for(&self, _to: SocketAddr) -> io::Result<IpAddr> {
        Ok(self.line.inner)
    }

    fn bind_udp(&self, local: IpAddr) -> io::Result<Box<dyn DatagramSocket>> {
        if local != self.line.inner {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut state = self.lock();
        let port = state.next_port;
        state.next_port = port.checked_add(1).ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Box::new(InnerSocket {
            local: SocketAddr::new(local, port),
            home: self.clone(),
        }))
    }

    fn connect_tcp(&self, to: SocketAddr) -> Connecting {
        let outer = self.line.outer;
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(outer, 0))?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            let local = stream.local_addr()?;
            Ok((Box::new(stream) as Box<dyn Stream>, local))
        })
    }
}

/// A socket of the host, bound to its private address.
struct InnerSocket {
    local: SocketAddr,
    home: Home,
}

impl DatagramSocket for InnerSocket {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        // The internet of the demo is loopback; everything else has no route, and a datagram without a route is lost.
        if !to.ip().is_loopback() {
            return Ok(());
        }
        self.home.lock().send(self.local, to, bytes)
    }

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        self.home.lock().poll_receive(self.local, context, buffer)
    }
}

impl Drop for InnerSocket {
    fn drop(&mut self) {
        let mut state = self.home.lock();
        state.sleepers.remove(&self.local);
        let local = self.local;
        state.outlets.retain(|_, outlet| outlet.owner != local);
    }
}

impl State {
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        for _ in 0..BUSY_PORTS_PER_SEND {
            let verdict = self.nat.outbound(clock::mono(), from, to);
            self.close_ended();
            let Ok(outbound) = verdict else {
                return Ok(()); // A NAT drops without a word.
            };
            let outer = outbound.from();
            if !self.outlets.contains_key(&outer) && self.open(outer, from).is_err() {
                self.nat.reserve_port(outer.port());
                continue;
            }
            let Some(outlet) = self.outlets.get(&outer) else {
                break;
            };
            return outlet.sender.send_to(bytes, to).map(drop);
        }
        Ok(())
    }

    fn open(&mut self, outer: SocketAddr, owner: SocketAddr) -> io::Result<()> {
        let sender = StdUdpSocket::bind(outer)?;
        sender.set_nonblocking(true)?;
        let receiver = UdpSocket::from_std(sender.try_clone()?)?;
        let outlet = Outlet {
            owner,
            receiver,
            sender,
        };
        self.outlets.insert(outer, outlet);
        // The owner may sleep on its other sockets only.
        if let Some(sleeper) = self.sleepers.remove(&owner) {
            sleeper.wake();
        }
        Ok(())
    }

    fn close_ended(&mut self) {
        while let Some(ended) = self.nat.poll_closed() {
            self.outlets.remove(&ended);
        }
    }

    fn poll_receive(
        &mut self,
        owner: SocketAddr,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        self.sleepers.insert(owner, context.waker().clone());
        let before = buffer.filled().len();
        let mut refused = 0;
        for (outer, outlet) in &self.outlets {
            if outlet.owner != owner {
                continue;
            }
            while let Poll::Ready(received) = outlet.receiver.poll_recv_from(context, buffer) {
                // An error here is a stranger's "port unreachable": no datagram, and nothing of ours.
                if let Ok(from) = received
                    && self.nat.inbound(clock::mono(), *outer, from) == Ok(owner)
                {
                    return Poll::Ready(Ok(from));
                }
                buffer.set_filled(before);
                refused += 1;
                if refused >= REFUSED_PER_POLL {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[path = "home/tests.rs"]
mod tests;
