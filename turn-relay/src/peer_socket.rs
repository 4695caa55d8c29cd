//! One TCP connection with a peer (RFC 6062), and what waits to be sent to it. Never blocks.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use turn_relay_proto::PeerConnectionId;

/// The client is not read while so much waits for the peer; one read of it may come on top.
const PEER_QUEUE: usize = 64 * 1024;

/// What the system holds in each direction beside that. Before a client connection is bound nothing
/// is read, so that a peer who sends at once gets no further than this.
pub(crate) const SYSTEM_QUEUE: usize = 64 * 1024;

/// Memory of a queue that has emptied is kept up to this.
const QUEUE_KEPT: usize = 4096;

/// A connection with a peer.
pub(crate) struct PeerSocket {
    pub(crate) id: PeerConnectionId,
    socket: TcpStream,
    queue: Vec<u8>,
    /// Bytes of `queue` that have been sent.
    sent: usize,
    /// The peer has accepted, or has come by itself.
    pub(crate) is_connected: bool,
    /// The client's data connection, once there is one.
    pub(crate) stream: Option<usize>,
    /// The client has said its last; the peer is to hear of it when all is sent.
    pub(crate) client_finished: bool,
    /// The peer has said its last.
    pub(crate) peer_finished: bool,
    /// The peer has been told that nothing more comes.
    is_shut: bool,
    /// One end is not read until the other has taken what waits.
    pub(crate) client_paused: bool,
    pub(crate) peer_paused: bool,
    /// When bytes last moved.
    pub(crate) progress: Instant,
    /// Its entries among the deadlines: when it may have stalled, and when each end may be read again.
    pub(crate) watched: Option<Instant>,
    pub(crate) client_held: Option<Instant>,
    pub(crate) peer_held: Option<Instant>,
    pub(crate) is_ready: bool,
    pub(crate) is_dirty: bool,
}

impl PeerSocket {
    pub(crate) fn new(
        id: PeerConnectionId,
        socket: TcpStream,
        is_connected: bool,
        now: Instant,
    ) -> Self {
        Self {
            id,
            socket,
            queue: Vec::new(),
            sent: 0,
            is_connected,
            stream: None,
            client_finished: false,
            peer_finished: false,
            is_shut: false,
            client_paused: false,
            peer_paused: false,
            progress: now,
            watched: None,
            client_held: None,
            peer_held: None,
            is_ready: false,
            is_dirty: false,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.socket.set_nodelay(true)?;
        socket2::SockRef::from(&self.socket).set_send_buffer_size(SYSTEM_QUEUE)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.socket, token, both)
    }

    /// Whether the peer has accepted; `None`: it has not answered yet.
    pub(crate) fn outcome(&self) -> Option<bool> {
        if !matches!(self.socket.take_error(), Ok(None)) {
            return Some(false);
        }
        match self.socket.peer_addr() {
            Ok(_) => Some(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(_) => Some(false),
        }
    }

    /// Reads once. `None`: nothing is left for now.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.socket.read(into) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// So much waits that the client is not read.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting() >= PEER_QUEUE
    }

    /// Everything is sent, and the peer has been told so.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_shut
    }

    /// Queues bytes from the client.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.sent > 0 && self.queue.len() + bytes.len() > self.queue.capacity() {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        self.queue.extend_from_slice(bytes);
    }

    /// Sends what the socket takes of what waits, then the end if there is one. True if it took
    /// something.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let before = self.sent;
        let outcome = self.write_all();
        let progressed = self.sent > before;
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
            if self.queue.capacity() > QUEUE_KEPT {
                self.queue = Vec::new();
            }
        }
        outcome?;
        if self.client_finished && self.waiting() == 0 && !self.is_shut {
            self.socket.shutdown(Shutdown::Write)?;
            self.is_shut = true;
        }
        Ok(progressed)
    }

    fn write_all(&mut self) -> io::Result<()> {
        while let Some(rest) = self.queue.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets go of the socket, after a last try to send what waits.
    pub(crate) fn close(mut self, registry: &Registry) {
        if self.is_connected {
            // The peer may be gone: then there is nobody to send to.
            let _ = self.flush();
        }
        let _ = registry.deregister(&mut self.socket);
    }
}
