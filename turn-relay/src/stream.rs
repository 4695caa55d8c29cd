//! One client connection: TCP, or TLS on it, or what does not show yet which. Never blocks; what it may hold is bounded by name.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::ops::Range;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use net_io::opening::{Opened, Opening, OpeningError};
use rustls::ServerConnection;
use turn_relay_proto::Path;

use crate::config::StreamLimits;
use crate::connections::Place;
use crate::counters::{StreamEnd, UndecidedEnd};
use crate::frame::{Deframer, LONGEST_FRAME, LONGEST_OF_STRANGERS};

/// Relayed datagrams are dropped while so much waits to be read by the client.
const DATA_QUEUE: usize = 64 * 1024;

/// A client that lets so much wait, answers included, does not read at all: it is cut off.
const WHOLE_QUEUE: usize = 112 * 1024;

/// What rustls may hold in ciphertext beside that queue: 128 KiB together.
const TLS_QUEUE: usize = 16 * 1024;

/// What a client may send until its TLS handshake is finished; a ClientHello is 2 KiB at most. rustls alone
/// would keep 64 KiB of one that never ends.
const HANDSHAKE: usize = 16 * 1024;

/// Bytes taken from a socket at once.
pub(crate) const READ_SIZE: usize = 32 * 1024;

/// Memory of a queue that has emptied is kept up to this.
const QUEUE_KEPT: usize = 4096;

/// Where a shard reads connections into, one after the other.
#[derive(Debug)]
pub(crate) struct Buffers {
    raw: Vec<u8>,
    /// Holds the ciphertext of one read, decrypted, behind what rustls had kept of a record.
    plain: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Self {
            raw: vec![0; READ_SIZE],
            plain: vec![0; 2 * READ_SIZE],
        }
    }

    /// Room for one read of something that needs no decrypting.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.plain.get_mut(..READ_SIZE).unwrap_or_default()
    }

    /// The first bytes of what was received.
    pub(crate) fn received(&self, len: usize) -> &[u8] {
        self.plain.get(..len).unwrap_or_default()
    }
}

/// What is queued for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A relayed payload: may be dropped, as UDP would.
    Data,
    /// An answer the client waits for.
    Reply,
}

/// Whether the client is to hear that nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    No,
    /// As soon as everything is sent.
    Wanted,
    /// TLS has been told.
    Notified,
    Done,
}

/// What is spoken on a connection.
enum Carrier {
    /// That does not show yet; why it ends so, if it is known.
    Undecided(Opening, Option<UndecidedEnd>),
    Tcp,
    Tls(Box<Tls>),
}

struct Tls {
    connection: ServerConnection,
    /// Bytes of its handshake that have come.
    handshake: usize,
}

/// What the first bytes of a connection made it, and which of those read are behind them.
pub(crate) struct Beginning {
    pub(crate) opened: Opened,
    rest: Range<usize>,
}

/// A connection and what waits to be sent on it.
pub(crate) struct Stream {
    socket: TcpStream,
    carrier: Carrier,
    path: Path,
    pub(crate) deframer: Deframer,
    queue: Vec<u8>,
    /// Bytes of `queue` that have been sent.
    sent: usize,
    opened: Instant,
    last_valid: Option<Instant>,
    has_allocation: bool,
    /// The connection with a peer whose data this one carries (RFC 6062); it is no TURN any more.
    pub(crate) carries: Option<usize>,
    /// What came right behind the ConnectionBind request.
    pub(crate) early: Vec<u8>,
    finish: Finish,
    /// In the shard's list of what has more to read.
    pub(crate) is_ready: bool,
    /// In the table's list of what has something to send.
    pub(crate) is_dirty: bool,
    /// Its entry among the deadlines.
    pub(crate) deadline: Option<Instant>,
    pub(crate) place: Place,
}

impl Stream {
    pub(crate) fn new(
        socket: TcpStream,
        opening: Opening,
        path: Path,
        place: Place,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            carrier: Carrier::Undecided(opening, None),
            path,
            deframer: Deframer::default(),
            queue: Vec::new(),
            sent: 0,
            opened: now,
            last_valid: None,
            has_allocation: false,
            carries: None,
            early: Vec::new(),
            finish: Finish::No,
            is_ready: false,
            is_dirty: false,
            deadline: None,
            place,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // A game's datagrams are small and late ones are useless: nothing waits for company.
        self.socket.set_nodelay(true)?;
        // What the system holds for a deaf client must not outgrow what we hold.
        socket2::SockRef::from(&self.socket).set_send_buffer_size(WHOLE_QUEUE)?;
        registry.register(
            &mut self.socket,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// The client's 5-tuple; of an undecided connection that of the socket.
    pub(crate) fn path(&self) -> Path {
        self.path
    }

    /// It is known whose it is and what is spoken.
    pub(crate) fn decide(&mut self, path: Path, tls: Option<ServerConnection>) {
        self.path = path;
        self.carrier = tls.map_or(Carrier::Tcp, |mut connection| {
            connection.set_buffer_limit(Some(TLS_QUEUE));
            Carrier::Tls(Box::new(Tls {
                connection,
                handshake: 0,
            }))
        });
    }

    pub(crate) fn is_undecided(&self) -> bool {
        matches!(self.carrier, Carrier::Undecided(..))
    }

    /// How it began, and why it ends if that is known already, while it is undecided.
    pub(crate) fn undecided(&self) -> Option<(&Opening, Option<UndecidedEnd>)> {
        match &self.carrier {
            Carrier::Undecided(opening, end) => Some((opening, *end)),
            Carrier::Tcp | Carrier::Tls(_) => None,
        }
    }

    /// An undecided connection ends for this reason.
    pub(crate) fn note_undecided_end(&mut self, reason: UndecidedEnd) {
        if let Carrier::Undecided(_, end) = &mut self.carrier {
            *end = Some(reason);
        }
    }

    /// A message the machine made sense of.
    pub(crate) fn note_valid(&mut self, now: Instant) {
        self.last_valid = Some(now);
    }

    /// Whether the client owns an allocation: then its life is the allocation's.
    pub(crate) fn set_allocation(&mut self, owns: bool, now: Instant) {
        self.has_allocation = owns;
        self.last_valid = Some(now);
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Nothing more comes: the client hears of it when all that waits is sent.
    pub(crate) fn finish(&mut self) {
        if self.finish == Finish::No {
            self.finish = Finish::Wanted;
        }
    }

    /// Everything is sent, and the client has been told so.
    pub(crate) fn is_finished(&self) -> bool {
        self.finish == Finish::Done
    }

    /// Queues bytes from a peer, whose connection is not read while [`DATA_QUEUE`] bytes wait.
    pub(crate) fn push_carried(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.queue.extend_from_slice(bytes);
    }

    /// So much waits that the peer is not read.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting() >= DATA_QUEUE
    }

    /// The longest frame this client may send.
    pub(crate) fn longest_frame(&self) -> usize {
        if self.has_allocation {
            LONGEST_FRAME
        } else {
            LONGEST_OF_STRANGERS
        }
    }

    /// When the connection ends unless something happens, and as what.
    pub(crate) fn due(&self, limits: &StreamLimits) -> Option<(Instant, StreamEnd)> {
        if self.has_allocation || self.carries.is_some() {
            return None;
        }
        Some(match self.last_valid {
            None => (self.opened + limits.first_message, StreamEnd::Slow),
            Some(last) => (last + limits.idle, StreamEnd::Idle),
        })
    }

    /// Reads once into `buffers`: the number of bytes in [`Buffers::received`] (0 while TLS shakes
    /// hands), or `None` when nothing is left to read.
    pub(crate) fn receive(&mut self, buffers: &mut Buffers) -> Result<Option<usize>, StreamEnd> {
        let into = match self.carrier {
            Carrier::Tls(_) => &mut buffers.raw,
            Carrier::Tcp | Carrier::Undecided(..) => &mut buffers.plain,
        };
        let Some(read) = read_once(&mut self.socket, into)? else {
            return Ok(None);
        };
        match &mut self.carrier {
            Carrier::Tcp | Carrier::Undecided(..) => Ok(Some(read)),
            Carrier::Tls(tls) => decrypt(
                tls,
                buffers.raw.get(..read).unwrap_or_default(),
                &mut buffers.plain,
            )
            .map(Some),
        }
    }

    /// Reads once on an undecided connection. `Some(Ok(None))`: it still is.
    pub(crate) fn receive_beginning(
        &mut self,
        buffers: &mut Buffers,
    ) -> Result<Option<Result<Option<Beginning>, OpeningError>>, StreamEnd> {
        let Some(read) = read_once(&mut self.socket, &mut buffers.raw)? else {
            return Ok(None);
        };
        let Carrier::Undecided(opening, _) = &mut self.carrier else {
            return Ok(None);
        };
        let mut input = buffers.raw.get(..read).unwrap_or_default();
        let opened = opening.read(&mut input);
        let rest = read - input.len()..read;
        Ok(Some(opened.map(|opened| {
            opened.map(|opened| Beginning { opened, rest })
        })))
    }

    /// Takes what was read behind the beginning, as [`receive`](Self::receive) would.
    pub(crate) fn receive_rest(
        &mut self,
        beginning: &Beginning,
        buffers: &mut Buffers,
    ) -> Result<usize, StreamEnd> {
        let rest = buffers.raw.get(beginning.rest.clone()).unwrap_or_default();
        if let Carrier::Tls(tls) = &mut self.carrier {
            return decrypt(tls, rest, &mut buffers.plain);
        }
        if let Some(plain) = buffers.plain.get_mut(..rest.len()) {
            plain.copy_from_slice(rest);
        }
        Ok(rest.len())
    }

    /// Queues a message made of `parts`. False: dropped, the queue is full.
    pub(crate) fn push(&mut self, parts: &[&[u8]], kind: Kind) -> Result<bool, StreamEnd> {
        let more: usize = parts.iter().map(|part| part.len()).sum();
        let waiting = self.waiting();
        match kind {
            Kind::Data if waiting + more > DATA_QUEUE => return Ok(false),
            Kind::Reply if waiting + more > WHOLE_QUEUE => return Err(StreamEnd::Deaf),
            Kind::Data | Kind::Reply => {}
        }
        self.make_room(more);
        for part in parts {
            self.queue.extend_from_slice(part);
        }
        Ok(true)
    }

    /// Grows the queue twofold as a vector does, but past its bound only as far as it must.
    fn make_room(&mut self, more: usize) {
        if self.sent > 0 && self.queue.len() + more > self.queue.capacity() {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        let wanted = self.queue.len() + more;
        if wanted > self.queue.capacity() {
            let doubled = self.queue.capacity().saturating_mul(2);
            let room = doubled.min(WHOLE_QUEUE).max(wanted);
            self.queue.reserve_exact(room - self.queue.len());
        }
    }

    /// Sends what the socket takes of what waits.
    pub(crate) fn flush(&mut self) -> Result<(), StreamEnd> {
        let outcome = match &mut self.carrier {
            Carrier::Tcp | Carrier::Undecided(..) => {
                write_plain(&mut self.socket, &self.queue, &mut self.sent)
            }
            Carrier::Tls(tls) => write_tls(
                &mut self.socket,
                &mut tls.connection,
                &self.queue,
                &mut self.sent,
            ),
        };
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
            if self.queue.capacity() > QUEUE_KEPT {
                self.queue = Vec::new();
            }
        }
        match outcome.and_then(|()| self.send_finish()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(StreamEnd::Reset),
        }
    }

    /// Half of the connection ends, in TLS and under it; the client may go on sending.
    fn send_finish(&mut self) -> io::Result<()> {
        if matches!(self.finish, Finish::No | Finish::Done) || self.waiting() > 0 {
            return Ok(());
        }
        if let Carrier::Tls(tls) = &mut self.carrier {
            if self.finish == Finish::Wanted {
                tls.connection.send_close_notify();
                self.finish = Finish::Notified;
            }
            while tls.connection.wants_write() {
                retry(|| tls.connection.write_tls(&mut self.socket))?;
            }
        }
        self.socket.shutdown(Shutdown::Write)?;
        self.finish = Finish::Done;
        Ok(())
    }

    /// Says good-bye as far as that needs no waiting, and lets go of the socket.
    pub(crate) fn close(mut self, registry: &Registry) {
        if let Carrier::Tls(tls) = &mut self.carrier {
            tls.connection.send_close_notify();
        }
        // The client may be gone: then there is nobody to tell.
        let _ = self.flush();
        let _ = registry.deregister(&mut self.socket);
    }
}

/// Reads what there is, once; `None`: nothing is.
fn read_once(socket: &mut TcpStream, into: &mut [u8]) -> Result<Option<usize>, StreamEnd> {
    let into = into.get_mut(..READ_SIZE).unwrap_or_default();
    loop {
        match socket.read(into) {
            Ok(0) => return Err(StreamEnd::Closed),
            Ok(read) => return Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(_) => return Err(StreamEnd::Reset),
        }
    }
}

/// Feeds ciphertext to rustls and collects what it decrypts at the start of `plain`.
fn decrypt(tls: &mut Tls, mut raw: &[u8], plain: &mut [u8]) -> Result<usize, StreamEnd> {
    let mut len = 0;
    while !raw.is_empty() {
        // Fails only when decrypted bytes were left unread, which the loop below does not do.
        let Tls {
            connection,
            handshake,
        } = tls;
        let taken = connection.read_tls(&mut raw).map_err(|_| StreamEnd::Tls)?;
        let state = connection
            .process_new_packets()
            .map_err(|_| StreamEnd::Tls)?;
        if connection.is_handshaking() {
            *handshake += taken;
            if *handshake > HANDSHAKE {
                return Err(StreamEnd::Tls);
            }
        }
        let decrypted = state.plaintext_bytes_to_read();
        let into = plain.get_mut(len..len + decrypted).ok_or(StreamEnd::Tls)?;
        connection
            .reader()
            .read_exact(into)
            .map_err(|_| StreamEnd::Tls)?;
        len += decrypted;
        if state.peer_has_closed() && len == 0 {
            return Err(StreamEnd::Closed);
        }
    }
    Ok(len)
}

fn write_plain(socket: &mut TcpStream, queue: &[u8], sent: &mut usize) -> io::Result<()> {
    while let Some(rest) = queue.get(*sent..).filter(|rest| !rest.is_empty()) {
        *sent += retry(|| socket.write(rest))?;
    }
    Ok(())
}

fn write_tls(
    socket: &mut TcpStream,
    tls: &mut ServerConnection,
    queue: &[u8],
    sent: &mut usize,
) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            retry(|| tls.write_tls(socket))?;
        }
        let Some(rest) = queue.get(*sent..).filter(|rest| !rest.is_empty()) else {
            return Ok(());
        };
        // 0 while hands are shaken and the little that may wait for that is full.
        let taken = tls.writer().write(rest)?;
        if taken == 0 {
            return Ok(());
        }
        *sent += taken;
    }
}

fn retry(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use net_io::opening::{Door, Spoken};
    use turn_relay_proto::Transport;

    use super::*;
    use crate::connections::Connections;
    use crate::frame::MOST_KEPT_OF_STRANGERS;

    /// A connection to a listener that nobody reads from.
    fn deaf() -> (Stream, std::net::TcpListener) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let socket = std::net::TcpStream::connect(addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        let path = Path {
            transport: Transport::Tcp,
            local: socket.local_addr().unwrap(),
            remote: addr,
        };
        let door = Door {
            spoken: Spoken::Plain,
            is_proxied: false,
        };
        let place = Connections::new(StreamLimits::default()).enter(None);
        let mut stream = Stream::new(
            TcpStream::from_std(socket),
            Opening::new(door),
            path,
            place.unwrap(),
            net_io::clock::mono(),
        );
        stream.decide(path, None);
        (stream, listener)
    }

    /// Goal D2 of the project, without TLS: what rustls needs for its handshake comes on top.
    #[test]
    fn a_connection_holds_at_most_8_kib_before_its_first_valid_message() {
        assert!(size_of::<Stream>() + MOST_KEPT_OF_STRANGERS <= 8 * 1024);
    }

    /// Goal D4.
    #[test]
    fn at_most_128_kib_are_held_for_a_deaf_reader() {
        for size in [20, 333, 4000, 60_000] {
            let (mut stream, _listener) = deaf();
            // What the system takes is bounded by the system: here nothing is flushed.
            let message = vec![0; size];
            while stream.push(&[&message], Kind::Data).unwrap() {}
            assert!(stream.queue.len() <= DATA_QUEUE);
            let end = loop {
                if let Err(end) = stream.push(&[&message], Kind::Reply) {
                    break end;
                }
            };
            assert_eq!(end, StreamEnd::Deaf);
            assert!(stream.queue.capacity() + TLS_QUEUE <= 128 * 1024, "{size}");
        }
    }
}
