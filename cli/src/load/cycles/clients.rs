//! Where the clients of allocation cycles are: at sockets of this host, or at addresses that nobody has.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use net_io::wire::{self, FrameBatch, Hop, WireReceiver, WireSocket};
use stun_wire::TransactionId;

use super::super::args::ClientNet;
use super::super::net::{Net, unspecified};
use super::super::session::{Session, User};
use super::super::wire::{four, source_towards};
use super::super::{LoadError, ask};

/// How long frames that come gather before they are looked at: nobody is woken up by them.
const ROUND: Duration = Duration::from_micros(100);
/// Bytes of them that may wait; the system may give less.
const BUFFER: usize = 4 << 20;
/// Frames taken in a row.
const MOST: usize = 1024;
/// Ports below are not for clients.
const FIRST_PORT: u16 = 1024;

/// Clients by number, each at an address and port of its own.
#[derive(Debug)]
pub(super) enum Clients {
    /// At sockets of this host.
    Sockets(Box<Net>, SocketAddr),
    /// At addresses that are nobody's.
    Frames(Frames),
}

/// Requests leave and answers arrive as frames; the system between has no socket for them.
#[derive(Debug)]
pub(super) struct Frames {
    server: SocketAddrV4,
    socket: WireSocket,
    receiver: WireReceiver,
    hop: Hop,
    waiting: FrameBatch,
    places: Places,
    at: Vec<SocketAddrV4>,
    numbers: HashMap<SocketAddrV4, usize>,
}

/// Addresses and ports of a network, one after the other.
#[derive(Debug)]
struct Places {
    net: ClientNet,
    next: u64,
}

impl Clients {
    pub(super) fn at_sockets(server: SocketAddr) -> Result<Self, LoadError> {
        Ok(Self::Sockets(Box::new(Net::new()?), server))
    }

    /// Clients at the addresses of `net`, which the server must send to this host, as to a router.
    ///
    /// One request leaves by an ordinary socket before: the system then knows who is next on the way.
    pub(super) fn as_frames(
        server: SocketAddr,
        net: ClientNet,
        (user, id): (User<'_>, TransactionId),
    ) -> Result<Self, LoadError> {
        let to = four(server)?;
        let mut ordinary = Net::new()?;
        let number = ordinary.add(unspecified(server.ip()))?;
        let mut session = Session::new(server.ip());
        ask(&mut ordinary, number, server, (&mut session, user), id)?;
        let named = |error| LoadError::Wire { to: server, error };
        let own = source_towards(server).map_err(named)?;
        if net.contains(own) {
            return Err(LoadError::OwnClientNet { net, own });
        }
        let hop = wire::next_hop(*to.ip()).map_err(named)?;
        let refused = |error| LoadError::WireSocket {
            interface: hop.interface.clone(),
            error,
        };
        let mut seed = [0; 4];
        getrandom::fill(&mut seed).map_err(LoadError::Random)?;
        Ok(Self::Frames(Frames {
            server: to,
            socket: WireSocket::bind(&hop.interface).map_err(refused)?,
            receiver: WireReceiver::bind(&hop.interface, to, BUFFER).map_err(refused)?,
            hop,
            waiting: FrameBatch::default(),
            places: Places {
                net,
                next: u32::from_be_bytes(seed).into(),
            },
            at: Vec::new(),
            numbers: HashMap::new(),
        }))
    }

    /// One more client, whose number is that of those before.
    pub(super) fn add(&mut self) -> Result<(), LoadError> {
        match self {
            Self::Sockets(net, server) => net.add(unspecified(server.ip())).map(drop),
            Self::Frames(frames) => {
                let place = frames.places.next();
                frames.numbers.insert(place, frames.at.len());
                frames.at.push(place);
                Ok(())
            }
        }
    }

    /// Another client of this number, at another port.
    pub(super) fn replace(&mut self, number: usize) -> Result<(), LoadError> {
        match self {
            Self::Sockets(net, server) => net.replace(number, unspecified(server.ip())),
            Self::Frames(frames) => {
                let place = frames.places.next();
                if let Some(at) = frames.at.get_mut(number) {
                    frames.numbers.remove(at);
                    frames.numbers.insert(place, number);
                    *at = place;
                }
                Ok(())
            }
        }
    }

    /// Sends a request to the server with the next [`Self::flush`], or sooner.
    pub(super) fn push(&mut self, number: usize, request: &[u8]) {
        match self {
            Self::Sockets(net, server) => net.push(number, *server, &[request]),
            Self::Frames(frames) => frames.push(number, request),
        }
    }

    /// Sends what is waiting.
    pub(super) fn flush(&mut self) {
        match self {
            Self::Sockets(net, _) => net.flush(),
            Self::Frames(frames) => frames.flush(),
        }
    }

    /// Waits up to `timeout` and takes the server's answers: whose, and what.
    pub(super) fn receive(
        &mut self,
        timeout: Duration,
        mut take: impl FnMut(usize, &[u8]),
    ) -> Result<(), LoadError> {
        match self {
            Self::Sockets(net, server) => net.receive(timeout, |number, datagram| {
                if datagram.from == *server {
                    take(number, datagram.bytes);
                }
            }),
            Self::Frames(frames) => {
                std::thread::sleep(timeout.min(ROUND));
                let Frames {
                    receiver,
                    numbers,
                    server,
                    ..
                } = frames;
                let taken = receiver.receive(MOST, |arrival| {
                    if let Some(number) = numbers.get(&arrival.to) {
                        take(*number, arrival.bytes);
                    }
                });
                taken.map(drop).map_err(|error| LoadError::Wire {
                    to: SocketAddr::V4(*server),
                    error,
                })
            }
        }
    }
}

impl Frames {
    fn push(&mut self, number: usize, request: &[u8]) {
        let macs = (self.socket.mac(), self.hop.mac);
        let frame = self
            .at
            .get(number)
            .and_then(|from| wire::frame(macs, (*from, self.server), request));
        let pushed = frame.is_some_and(|frame| self.waiting.push(&frame, 0, &[]));
        debug_assert!(
            pushed,
            "a request fits into a frame, and a full batch is sent"
        );
        if self.waiting.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.waiting.is_empty() {
            // What the system refuses is as good as lost: it is asked again.
            let _ = self.socket.send(&mut self.waiting);
        }
    }
}

impl Places {
    /// Neighbours in time have different addresses, and all ports of all of them come before one comes again.
    fn next(&mut self) -> SocketAddrV4 {
        let ports = u64::from(u16::MAX - FIRST_PORT) + 1;
        let hosts = u64::from(self.net.hosts());
        let number = self.next;
        self.next = (number + 1) % (hosts * ports);
        let port = FIRST_PORT + u16::try_from(number / hosts % ports).unwrap_or(0);
        let host = u32::try_from(number % hosts).unwrap_or(0);
        SocketAddrV4::new(self.net.host(host), port)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn no_place_comes_twice_before_all_have() {
        let net: ClientNet = "198.18.3.0/30".parse().expect("a network");
        let mut places = Places { net, next: 5 };
        let all = 2 * 64_512;
        let first: Vec<_> = (0..all).map(|_| places.next()).collect();
        let different: HashSet<_> = first.iter().collect();
        assert_eq!(different.len(), all);
        for place in &first {
            assert!(net.contains(IpAddr::V4(*place.ip())), "{place}");
            assert!(place.port() >= FIRST_PORT, "{place}");
        }
        assert_eq!(places.next(), first[0], "round again");
        assert_ne!(first[0].ip(), first[1].ip());
    }

    #[test]
    fn the_widest_network_has_more_places_than_32_bits_count() {
        let net: ClientNet = "198.18.0.0/15".parse().expect("a network");
        let all = u64::from(net.hosts()) * 64_512;
        assert!(all > u32::MAX.into());
        let mut places = Places { net, next: all - 1 };
        let last = SocketAddrV4::new([198, 19, 255, 254].into(), u16::MAX);
        let first = SocketAddrV4::new([198, 18, 0, 1].into(), FIRST_PORT);
        assert_eq!([places.next(), places.next()], [last, first]);
    }
}
