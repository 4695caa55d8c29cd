//! Packets as ready-made frames, each with the addresses and ports of the socket it would have left from.
//!
//! A frame is built once for each route; only its stamp changes.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};

use net_io::wire::{self, FrameBatch, HEADERS, WireSocket};

use super::LoadError;
use super::packet::Stamp;

/// The frames of a run, numbered as its routes are.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    links: Vec<Link>,
    outgoing: Vec<Outgoing>,
    unsent: u64,
}

/// An interface, and what waits to leave by it.
#[derive(Debug)]
struct Link {
    interface: String,
    socket: WireSocket,
    batch: FrameBatch,
}

/// The frame of one route.
#[derive(Debug)]
struct Outgoing {
    link: usize,
    frame: Vec<u8>,
    /// Where in it the stamp is.
    stamp: usize,
}

impl Wire {
    /// The next route's frame: from the port of `from` to `to`, with this datagram in it, which has its stamp at `stamp`.
    ///
    /// The neighbour must be known: something was sent there, or came from there, before.
    pub(crate) fn add(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        (datagram, stamp): (&[u8], usize),
    ) -> Result<(), LoadError> {
        let named = |error| LoadError::Wire { to, error };
        let target = four(to)?;
        let hop = wire::next_hop(*target.ip()).map_err(named)?;
        let ip = if from.ip().is_unspecified() {
            source_towards(to).map_err(named)?
        } else {
            from.ip()
        };
        let source = four(SocketAddr::new(ip, from.port()))?;
        let link = self.link(hop.interface)?;
        let own = self.links.get(link).map(|link| link.socket.mac());
        let macs = (own.unwrap_or_default(), hop.mac);
        let frame = wire::frame(macs, (source, target), datagram).ok_or_else(|| {
            LoadError::WireSize(u16::try_from(datagram.len()).unwrap_or(u16::MAX))
        })?;
        self.outgoing.push(Outgoing {
            link,
            frame,
            stamp: HEADERS + stamp,
        });
        Ok(())
    }

    /// One socket for each interface, however many routes lead through it.
    fn link(&mut self, interface: String) -> Result<usize, LoadError> {
        let known = self
            .links
            .iter()
            .position(|link| link.interface == interface);
        if let Some(number) = known {
            return Ok(number);
        }
        let socket = match WireSocket::bind(&interface) {
            Ok(socket) => socket,
            Err(error) => return Err(LoadError::WireSocket { interface, error }),
        };
        self.links.push(Link {
            interface,
            socket,
            batch: FrameBatch::default(),
        });
        Ok(self.links.len() - 1)
    }

    /// Sends a packet of that route with the next [`Self::flush`], or sooner.
    pub(crate) fn push(&mut self, route: usize, stamp: &Stamp) {
        let Some(outgoing) = self.outgoing.get(route) else {
            return;
        };
        let Some(link) = self.links.get_mut(outgoing.link) else {
            return;
        };
        let pushed = link
            .batch
            .push(&outgoing.frame, outgoing.stamp, &stamp.bytes());
        debug_assert!(pushed, "it is sent when full");
        if link.batch.is_full() {
            self.unsent += link.send();
        }
    }

    /// Sends what is waiting.
    pub(crate) fn flush(&mut self) {
        for link in &mut self.links {
            if !link.batch.is_empty() {
                self.unsent += link.send();
            }
        }
    }

    /// Frames that the system would not send.
    pub(crate) fn unsent(&self) -> u64 {
        self.unsent
    }
}

impl Link {
    fn send(&mut self) -> u64 {
        u64::try_from(self.socket.send(&mut self.batch)).unwrap_or(u64::MAX)
    }
}

/// The address that the system would send from.
pub(super) fn source_towards(to: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((super::net::unspecified(to.ip()), 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// Frames are made of IPv4 alone.
pub(super) fn four(address: SocketAddr) -> Result<SocketAddrV4, LoadError> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => Err(LoadError::WireFamily(IpAddr::V6(*address.ip()))),
    }
}
