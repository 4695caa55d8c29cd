//! One client connection: STUN over TCP (RFC 8489 section 6.2.2), over TLS (section 6.2.3), or what does not
//! show yet which. Bounded in bytes: what is not read by the client is not added to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use net_io::opening::{Opened, Opening, OpeningError};
use net_io::proxy::Header;
use rustls::ServerConnection;
use stun_server_proto::{DropReason, Responder, Verdict};
use stun_wire::stream::frame_length;

use crate::counters::{Closed, Counters, Transport};
use crate::shard::MAX_MESSAGE;

/// Reads of one connection before the others have their turn.
const READS: usize = 8;
/// What the kernel keeps for a connection in each direction; a client needs a few messages' worth.
const KERNEL_BUFFER: usize = 16 * 1024;
/// What rustls may hold in ciphertext.
const TLS_QUEUE: usize = 16 * 1024;

/// Memory of a buffer that has emptied is kept up to this.
const BUFFER_KEPT: usize = 4 * 1024;
/// What a client may send until its TLS handshake is finished; a ClientHello is 2 KiB at most. rustls alone
/// would keep 64 KiB of one that never ends.
const HANDSHAKE: usize = 16 * 1024;

/// What one message needs.
#[derive(Debug)]
pub(crate) struct Handler {
    pub(crate) responder: Responder,
    pub(crate) counters: Counters,
    pub(crate) reply: Vec<u8>,
    /// How long a connection may be silent, or leave its answers unread.
    pub(crate) idle: Duration,
}

/// What is spoken on a connection.
#[derive(Debug)]
enum Carrier {
    Undecided(Opening),
    Tcp,
    Tls(Box<Tls>),
}

#[derive(Debug)]
struct Tls {
    connection: ServerConnection,
    /// Bytes of its handshake that have come.
    handshake: usize,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    carrier: Carrier,
    source: SocketAddr,
    local: SocketAddr,
    /// Whose share of the connections it is in; `None` while a proxy has not said it.
    pub(crate) counted_as: Option<IpAddr>,
    /// Received and not yet a whole message.
    input: Vec<u8>,
    /// Answers that the client has not taken: those to one read at most, 12 KiB, or to one TLS record and
    /// one read, 40 KiB.
    output: Vec<u8>,
    pub(crate) deadline: Instant,
    /// A valid message has come.
    is_known: bool,
    /// The client will send no more.
    is_finished: bool,
    pub(crate) is_queued: bool,
}

/// How a connection's turn ended.
pub(crate) enum Turn {
    /// Until the poll tells of it again.
    Waits,
    /// There may be more to read.
    HasMore,
    /// It shows whose it is and what is spoken; [`Connection::decide`] is next.
    Decided(Opened),
    /// It is to be closed.
    Ends(Closed),
}

impl Connection {
    pub(crate) fn open(
        mut stream: TcpStream,
        source: SocketAddr,
        opening: Opening,
        deadline: Instant,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        let kernel = socket2::SockRef::from(&stream);
        kernel.set_send_buffer_size(KERNEL_BUFFER)?;
        kernel.set_recv_buffer_size(KERNEL_BUFFER)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            carrier: Carrier::Undecided(opening),
            source,
            local,
            counted_as: None,
            input: Vec::new(),
            output: Vec::new(),
            deadline,
            is_known: false,
            is_finished: false,
            is_queued: false,
        })
    }

    /// Whose it is: what a proxy said, or the other end of the socket.
    pub(crate) fn source(&self) -> SocketAddr {
        self.source
    }

    /// What is spoken; `None` while that does not show.
    pub(crate) fn transport(&self) -> Option<Transport> {
        match &self.carrier {
            Carrier::Undecided(_) => None,
            Carrier::Tcp => Some(Transport::Tcp),
            Carrier::Tls(_) => Some(Transport::Tls),
        }
    }

    /// What the proxy said of a connection that is not decided.
    pub(crate) fn undecided_header(&self) -> Option<Header> {
        match &self.carrier {
            Carrier::Undecided(opening) => opening.header(),
            Carrier::Tcp | Carrier::Tls(_) => None,
        }
    }

    /// It is known whose it is.
    pub(crate) fn name(&mut self, header: Option<Header>) {
        if let Some(Header::Proxied {
            source,
            destination,
        }) = header
        {
            (self.source, self.local) = (source, destination);
        }
    }

    /// It is known what is spoken; what was read behind the beginning is taken as that.
    pub(crate) fn decide(&mut self, tls: Option<ServerConnection>) -> Result<(), Closed> {
        let Some(mut connection) = tls else {
            self.carrier = Carrier::Tcp;
            return Ok(());
        };
        connection.set_buffer_limit(Some(TLS_QUEUE));
        let mut tls = Tls {
            connection,
            handshake: 0,
        };
        let raw = std::mem::take(&mut self.input);
        let outcome = decrypt(&mut tls, &raw, &mut self.input);
        // Even if it failed: the client is told why.
        self.carrier = Carrier::Tls(Box::new(tls));
        self.is_finished = outcome.map_err(|_| Closed::Tls)?;
        Ok(())
    }

    pub(crate) fn serve(&mut self, now: Instant, handler: &mut Handler) -> Turn {
        if let Carrier::Undecided(opening) = &mut self.carrier {
            return begin(&mut self.stream, opening, &mut self.input, handler);
        }
        for _ in 0..READS {
            if self.answer_messages(now, handler).is_err() {
                return Turn::Ends(Closed::Malformed);
            }
            match self.write_output(&handler.counters) {
                Ok(true) => {}
                Ok(false) => return Turn::Waits,
                Err(_) => return Turn::Ends(Closed::Client),
            }
            if self.is_finished {
                return Turn::Ends(Closed::Client);
            }
            match self.read_input() {
                Ok(is_finished) => self.is_finished = is_finished,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What rustls calls invalid: a socket never does.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Turn::Ends(Closed::Tls);
                }
                Err(_) => return Turn::Ends(Closed::Client),
            }
        }
        Turn::HasMore
    }

    /// True once nothing is left to write.
    fn write_output(&mut self, counters: &Counters) -> io::Result<bool> {
        let mut taken = 0;
        let outcome = loop {
            let rest = self.output.get(taken..).unwrap_or_default();
            let written = match &mut self.carrier {
                Carrier::Tls(tls) => write_tls(&mut self.stream, &mut tls.connection, rest),
                Carrier::Tcp if rest.is_empty() => Ok(0),
                Carrier::Tcp => self.stream.write(rest),
                Carrier::Undecided(_) => Ok(0),
            };
            match written {
                Ok(_) if rest.is_empty() => break Ok(true),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => taken += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if let Some(transport) = self.transport().filter(|_| taken > 0) {
            counters.written(transport, taken);
        }
        take_from(&mut self.output, taken);
        outcome
    }

    /// Reads once. True: the client will send no more.
    fn read_input(&mut self) -> io::Result<bool> {
        let mut chunk = [0; MAX_MESSAGE];
        let count = self.stream.read(&mut chunk)?;
        let read = chunk.get(..count).unwrap_or_default();
        match &mut self.carrier {
            _ if count == 0 => Ok(true),
            Carrier::Tls(tls) => decrypt(tls, read, &mut self.input),
            Carrier::Tcp | Carrier::Undecided(_) => {
                self.input.extend_from_slice(read);
                Ok(false)
            }
        }
    }

    /// Takes every whole message from the input; what cannot be read on as STUN is an error.
    ///
    /// The input never holds more than a message that is not whole and one read: two messages' length, or
    /// a message's and a TLS record's.
    fn answer_messages(&mut self, now: Instant, handler: &mut Handler) -> Result<(), ()> {
        let transport = self.transport().unwrap_or(Transport::Tcp);
        let mut taken = 0;
        let outcome = loop {
            let rest = self.input.get(taken..).unwrap_or_default();
            let length = match frame_length(rest) {
                Ok(Some(length)) if length <= MAX_MESSAGE => length,
                Ok(None) => break Ok(()),
                Ok(Some(_)) => {
                    handler.counters.too_long(1);
                    break Err(());
                }
                // Handed to the machine as it is, so that it is counted under its reason.
                Err(_) => rest.len(),
            };
            let Some(message) = rest.get(..length) else {
                break Ok(());
            };
            let verdict = handler.judge(now, transport, self.source, self.local, message);
            taken += length;
            match verdict {
                Verdict::Reply { .. } => self.output.extend_from_slice(&handler.reply),
                Verdict::Absorbed => {}
                Verdict::Dropped(reason) if ends_the_stream(reason) => break Err(()),
                Verdict::Dropped(_) => {}
            }
            self.is_known = true;
            self.deadline = now + handler.idle;
        };
        take_from(&mut self.input, taken);
        outcome
    }

    pub(crate) fn overdue_reason(&self) -> Closed {
        let is_unread = match &self.carrier {
            Carrier::Tls(tls) => tls.connection.wants_write() || !self.output.is_empty(),
            Carrier::Tcp | Carrier::Undecided(_) => !self.output.is_empty(),
        };
        match (self.is_known, is_unread) {
            (false, _) => Closed::Silent,
            (true, true) => Closed::Slow,
            (true, false) => Closed::Idle,
        }
    }

    /// Says good-bye as far as that needs no waiting.
    pub(crate) fn say_goodbye(&mut self) {
        if let Carrier::Tls(tls) = &mut self.carrier {
            tls.connection.send_close_notify();
            // The client may be gone: then there is nobody to tell.
            let _ = write_tls(&mut self.stream, &mut tls.connection, &[]);
        }
    }
}

/// Takes bytes from the start of a buffer, and gives its memory back when none are left.
fn take_from(buffer: &mut Vec<u8>, taken: usize) {
    buffer.drain(..taken);
    if buffer.is_empty() && buffer.capacity() > BUFFER_KEPT {
        *buffer = Vec::new();
    }
}

/// Reads the beginning, until it shows what the connection is.
fn begin(
    stream: &mut TcpStream,
    opening: &mut Opening,
    input: &mut Vec<u8>,
    handler: &Handler,
) -> Turn {
    let mut chunk = [0; MAX_MESSAGE];
    // Ends: a beginning is never longer than a PROXY header and a byte.
    loop {
        let count = match stream.read(&mut chunk) {
            Ok(0) => return Turn::Ends(Closed::Client),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Waits,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Turn::Ends(Closed::Client),
        };
        let mut rest = chunk.get(..count).unwrap_or_default();
        match opening.read(&mut rest) {
            Ok(None) => {}
            Ok(Some(opened)) => {
                input.extend_from_slice(rest);
                return Turn::Decided(opened);
            }
            Err(OpeningError::Proxy(error)) => {
                handler.counters.connections.proxy_header(error.into());
                return Turn::Ends(Closed::ProxyHeader);
            }
            Err(OpeningError::Unknown) => return Turn::Ends(Closed::Unknown),
        }
    }
}

/// Feeds ciphertext to rustls and adds what it decrypts to `into`. True: the client will send no more.
fn decrypt(tls: &mut Tls, mut raw: &[u8], into: &mut Vec<u8>) -> io::Result<bool> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let Tls {
        connection,
        handshake,
    } = tls;
    let mut is_finished = false;
    while !raw.is_empty() && !is_finished {
        let taken = connection.read_tls(&mut raw)?;
        let state = connection.process_new_packets().map_err(invalid)?;
        if connection.is_handshaking() {
            *handshake += taken;
            if *handshake > HANDSHAKE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        is_finished = state.peer_has_closed();
        let start = into.len();
        into.resize(start + state.plaintext_bytes_to_read(), 0);
        connection
            .reader()
            .read_exact(into.get_mut(start..).unwrap_or_default())?;
    }
    Ok(is_finished)
}

/// Sends what rustls has, then hands it some of `output` and sends that: how much it took.
fn write_tls(
    stream: &mut TcpStream,
    tls: &mut ServerConnection,
    output: &[u8],
) -> io::Result<usize> {
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    let taken = tls.writer().write(output)?;
    while tls.wants_write() {
        match tls.write_tls(stream) {
            // It holds what it took until the socket takes bytes again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            outcome => outcome?,
        };
    }
    Ok(taken)
}

impl Handler {
    fn judge(
        &mut self,
        now: Instant,
        transport: Transport,
        source: SocketAddr,
        local: SocketAddr,
        message: &[u8],
    ) -> Verdict {
        let verdict = self
            .responder
            .handle(now, source, local, message, &mut self.reply);
        self.counters
            .judged(transport, source, message.len(), verdict);
        verdict
    }
}

/// Whether what was dropped shows that the stream is out of step. What was a message, though an
/// unwelcome one, does not.
fn ends_the_stream(reason: DropReason) -> bool {
    match reason {
        DropReason::TooShort
        | DropReason::NotStun
        | DropReason::BadLength
        | DropReason::Malformed
        | DropReason::BadFingerprint
        | DropReason::BadIntegrity
        | DropReason::BadSource => true,
        DropReason::NotRequest | DropReason::Unsupported | DropReason::RateLimited(_) => false,
    }
}
