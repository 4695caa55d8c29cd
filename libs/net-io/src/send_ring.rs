//! Single datagrams of many sockets, sent by one system call: io_uring, on Linux 6.1 and later where it is allowed.
//!
//! `sendmmsg` batches what one socket sends. A relay sends from a socket for each player, mostly one datagram at a time,
//! and pays a call for each; here they share one. What is more than a single datagram, or is to leave from an address of
//! its own, is sent as ever.
//!
//! Nothing is ever left to the system for later: each send is told not to wait, and all have ended when
//! [`SendRing::submit`] returns.

#[cfg(target_os = "linux")]
mod linux;

use std::io;

use crate::batch::SendBatch;
use crate::udp::UdpSocket;

/// Batches that wait to be sent together at most.
pub const MAX_RING: usize = 512;

/// Sockets' batches of one datagram each, with a tag of the caller's for each socket.
#[derive(Debug)]
pub struct SendRing<T> {
    #[cfg(target_os = "linux")]
    inner: linux::Ring<T>,
    #[cfg(not(target_os = "linux"))]
    never: (std::convert::Infallible, std::marker::PhantomData<T>),
}

/// A batch that [`SendRing::submit`] has dealt with.
#[derive(Debug)]
pub struct Departed<T> {
    /// Whose it is.
    pub tag: T,
    /// Empty, or as it was given if the system refused it: that may be worth another try.
    pub batch: Box<SendBatch>,
    /// What the system said to its datagram.
    pub outcome: io::Result<()>,
}

impl<T> SendRing<T> {
    /// A ring with room for [`MAX_RING`] batches.
    ///
    /// # Errors
    /// This system has no io_uring that sends to an address (Linux 6.1), or does not allow it (`kernel.io_uring_disabled`,
    /// seccomp).
    pub fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        return Ok(Self {
            inner: linux::Ring::new()?,
        });
        #[cfg(not(target_os = "linux"))]
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes a batch of `socket`'s to be sent with the next [`submit`](Self::submit). The socket must not be closed before.
    ///
    /// # Errors
    /// The batch itself, which this is not for: it is no single datagram, or there are [`MAX_RING`] already.
    pub fn push(
        &mut self,
        tag: T,
        socket: &UdpSocket,
        batch: Box<SendBatch>,
    ) -> Result<(), Box<SendBatch>> {
        #[cfg(target_os = "linux")]
        return self.inner.push(tag, socket, batch);
        #[cfg(not(target_os = "linux"))]
        match self.never.0 {}
    }

    /// Sends what was pushed, and gives every batch back with what came of it.
    ///
    /// # Errors
    /// The system is out of something. What it has not dealt with waits for the next call.
    pub fn submit(&mut self, take: impl FnMut(Departed<T>)) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return self.inner.submit(take);
        #[cfg(not(target_os = "linux"))]
        match self.never.0 {}
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
