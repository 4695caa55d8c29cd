//! The sockets of a run, and waiting on all of them at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use net_io::{BindOptions, Datagram, RecvBatch, SendBatch, UdpSocket};

use super::LoadError;

/// Bytes a socket may have waiting; the system may give less.
const BUFFER: usize = 4 << 20;
/// A few datagrams: the least that the system gives is more.
const SMALL_BUFFER: usize = 1;
/// What ours are at most, with headers.
const MAX_PACKET: usize = 2048;
/// Errors that a socket may tell of in one turn before the others are looked at.
const MOST_ERRORS: usize = 8;

/// How sockets receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receive {
    /// Everything, one by one.
    Datagrams,
    /// Everything, trains as the system has them; bursts leave as trains too.
    Trains,
    /// A sample: what is not read soon is dropped, and counted, by the system.
    Sample,
}

/// Sockets, numbered in the order they were made.
#[derive(Debug)]
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    batch: RecvBatch,
    receive: Receive,
    sockets: Vec<UdpSocket>,
    /// What was read of each.
    read: Vec<u64>,
    out: SendBatch,
    /// The socket that `out` leaves from.
    out_of: usize,
    /// Datagrams the system would not send.
    unsent: u64,
}

impl Net {
    pub(crate) fn new() -> Result<Self, LoadError> {
        Self::receiving(Receive::Datagrams)
    }

    pub(crate) fn receiving(receive: Receive) -> Result<Self, LoadError> {
        let slot = if receive == Receive::Trains {
            net_io::MAX_DATAGRAM
        } else {
            MAX_PACKET
        };
        Ok(Self {
            poll: Poll::new().map_err(LoadError::Poll)?,
            events: Events::with_capacity(256),
            batch: RecvBatch::new(net_io::MAX_BATCH, slot),
            receive,
            sockets: Vec::new(),
            read: Vec::new(),
            out: SendBatch::new(),
            out_of: 0,
            unsent: 0,
        })
    }

    /// A socket at any free port of `ip`; its number.
    pub(crate) fn add(&mut self, ip: IpAddr) -> Result<usize, LoadError> {
        let number = self.sockets.len();
        let socket = self.bind(ip, number)?;
        self.sockets.push(socket);
        self.read.push(0);
        Ok(number)
    }

    /// Closes a socket and gives its number to one at another port.
    pub(crate) fn replace(&mut self, number: usize, ip: IpAddr) -> Result<(), LoadError> {
        let socket = self.bind(ip, number)?;
        if let Some(old) = self.sockets.get_mut(number) {
            *old = socket;
        }
        Ok(())
    }

    fn bind(&self, ip: IpAddr, number: usize) -> Result<UdpSocket, LoadError> {
        let address = SocketAddr::new(ip, 0);
        let is_sample = self.receive == Receive::Sample;
        let options = BindOptions {
            recv_buffer: Some(if is_sample { SMALL_BUFFER } else { BUFFER }),
            send_buffer: Some(BUFFER),
            receive_trains: self.receive == Receive::Trains,
            send_trains: self.receive == Receive::Trains,
            ..BindOptions::default()
        };
        let named = |error| LoadError::Bind { address, error };
        let mut socket = UdpSocket::bind(address, &options).map_err(named)?;
        self.poll
            .registry()
            .register(&mut socket, Token(number), Interest::READABLE)
            .map_err(LoadError::Poll)?;
        Ok(socket)
    }

    pub(crate) fn local_addr(&self, number: usize) -> Option<SocketAddr> {
        self.sockets.get(number).map(UdpSocket::local_addr)
    }

    /// Sends a datagram with the next [`Self::flush`], or sooner. One system call sends neighbours from the same socket.
    pub(crate) fn push(&mut self, number: usize, to: SocketAddr, parts: &[&[u8]]) {
        if number != self.out_of || self.out.is_full() {
            self.flush();
            self.out_of = number;
        }
        // Unspecified: the system chooses the address to send from.
        let pushed = self.out.push(to, unspecified(to.ip()), parts);
        debug_assert!(pushed, "it was flushed when full");
    }

    /// Sends what is waiting.
    pub(crate) fn flush(&mut self) {
        let Some(socket) = self
            .sockets
            .get(self.out_of)
            .filter(|_| !self.out.is_empty())
        else {
            return;
        };
        let report = socket.send_batch(&mut self.out);
        self.unsent += u64::try_from(report.dropped()).unwrap_or(u64::MAX);
    }

    pub(crate) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Takes the few datagrams that wait on one socket; how many they were.
    pub(crate) fn sample(
        &mut self,
        number: usize,
        mut take: impl FnMut(usize, Datagram<'_>),
    ) -> usize {
        let Some(socket) = self.sockets.get(number) else {
            return 0;
        };
        // An error is an ICMP error of something sent before: nothing was taken.
        let received = socket.recv_batch(&mut self.batch).unwrap_or(0);
        if received > 0 {
            self.batch
                .iter()
                .for_each(|datagram| take(number, datagram));
        }
        count(&mut self.read, number, received);
        received
    }

    /// Datagrams that ever came to these sockets, read or dropped by the system for want of room. Not to be asked of trains,
    /// which the system drops as one.
    pub(crate) fn arrived(&self, sockets: Range<usize>) -> Result<u64, LoadError> {
        let mut sum = self
            .read
            .get(sockets.clone())
            .unwrap_or_default()
            .iter()
            .sum();
        for socket in self.sockets.get(sockets).unwrap_or_default() {
            // The count wraps at 2^32, which no run reaches.
            sum += u64::from(socket.drops_now().map_err(LoadError::Drops)?);
        }
        Ok(sum)
    }

    /// Waits up to `timeout` and takes all that has come in.
    pub(crate) fn receive(
        &mut self,
        timeout: Duration,
        mut take: impl FnMut(usize, Datagram<'_>),
    ) -> Result<(), LoadError> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(LoadError::Poll(error));
            }
            _ => {}
        }
        for event in &self.events {
            let Token(number) = event.token();
            let Some(socket) = self.sockets.get(number) else {
                continue;
            };
            let mut errors = 0;
            loop {
                match socket.recv_batch(&mut self.batch) {
                    Ok(received) => {
                        self.batch
                            .iter()
                            .for_each(|datagram| take(number, datagram));
                        count(&mut self.read, number, received);
                        if received < self.batch.capacity() {
                            break;
                        }
                    }
                    // An ICMP error of something sent before: nobody listens there. It shows as loss.
                    Err(_) if errors < MOST_ERRORS => errors += 1,
                    Err(_) => break,
                }
            }
        }
        Ok(())
    }
}

fn count(read: &mut [u64], number: usize, received: usize) {
    if let Some(read) = read.get_mut(number) {
        *read += u64::try_from(received).unwrap_or(u64::MAX);
    }
}

/// Any address of that one's family.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn what_is_not_read_is_counted_all_the_same() {
        let mut net = Net::receiving(Receive::Sample).expect("a poll");
        let (from, to) = (net.add(HOST).expect("bound"), net.add(HOST).expect("bound"));
        let address = net.local_addr(to).expect("bound");
        for round in 1..=2 {
            for number in 0..100_u8 {
                net.push(from, address, &[&[number; 100]]);
            }
            net.flush();
            let mut taken = Vec::new();
            let read = net.sample(to, |at, datagram| taken.push((at, datagram.bytes[0])));
            assert!((1..50).contains(&read), "a small queue: {read}");
            let first = (0..).map(|number| (to, number)).take(read);
            assert_eq!(taken, first.collect::<Vec<_>>(), "those that came first");
            assert_eq!(net.arrived(to..to + 1).expect("counts"), round * 100);
        }
        assert_eq!(
            (net.unsent(), net.arrived(from..to).expect("counts")),
            (0, 0)
        );
        assert_eq!(net.sample(to, |_, _| panic!("nothing waits")), 0);
        assert_eq!(net.sample(7, |_, _| panic!("no such socket")), 0);
    }
}
