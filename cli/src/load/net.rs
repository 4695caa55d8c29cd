//! The sockets of a run, and waiting on all of them at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use net_io::{BindOptions, Datagram, RecvBatch, SendBatch, UdpSocket};

use super::LoadError;

/// Datagrams a socket may have waiting; the system may give less.
const BUFFER: usize = 4 << 20;
/// What ours are at most, with headers.
const MAX_PACKET: usize = 2048;
/// Errors that a socket may tell of in one turn before the others are looked at.
const MOST_ERRORS: usize = 8;

/// Sockets, numbered in the order they were made.
#[derive(Debug)]
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    batch: RecvBatch,
    sockets: Vec<UdpSocket>,
    out: SendBatch,
    /// The socket that `out` leaves from.
    out_of: usize,
    /// Datagrams the system would not send.
    unsent: u64,
}

impl Net {
    pub(crate) fn new() -> Result<Self, LoadError> {
        Ok(Self {
            poll: Poll::new().map_err(LoadError::Poll)?,
            events: Events::with_capacity(256),
            batch: RecvBatch::new(net_io::MAX_BATCH, MAX_PACKET),
            sockets: Vec::new(),
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
        let options = BindOptions {
            recv_buffer: Some(BUFFER),
            send_buffer: Some(BUFFER),
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

/// Any address of that one's family.
pub(crate) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
