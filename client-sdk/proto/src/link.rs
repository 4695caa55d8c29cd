//! The encrypted session with one player: QUIC (RFC 9000) with DATAGRAM frames (RFC 9221) over whatever path ICE chose.
//!
//! QUIC sees one address that never changes; the path below it does. Neither side uses connection ids, because the ICE path
//! names the session, so an unreliable message costs 29 bytes beside its own.

mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, Event, Incoming, RandomConnectionIdGenerator, ServerConfig, StreamEvent,
    StreamId, TransportConfig, VarInt, WriteError,
};
use ring::hmac;

use crate::channels::{Inbox, MAX_RELIABLE_CHANNELS, Outbox, RESERVED_CHANNEL, SendError};
use crate::identity::{Identity, PublicKey};
use crate::types::ChannelId;

/// RFC 9000 §14.1: what every path carries; TURN's framing still fits IPv6's least MTU beside it.
const MTU: u16 = 1200;
/// Unreliable messages that wait for the congestion window: old game state is worthless, so little.
const DATAGRAM_SEND_BUFFER: usize = 16 * 1024;
/// Unreliable messages that wait for the game to poll; the oldest are dropped.
const DATAGRAM_RECEIVE_BUFFER: usize = 256 * 1024;
/// Bytes the other player may have in flight on one stream, and on all.
const STREAM_WINDOW: u32 = 1024 * 1024;
const SESSION_WINDOW: u32 = 4 * 1024 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(8);
/// The address QUIC believes the other player to be at.
const VIRTUAL_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);

/// The second byte of a control datagram.
const PROBE: u8 = 0;
const PROBE_ANSWER: u8 = 1;

/// Application error codes of the session's CONNECTION_CLOSE.
const CODE_LEFT: u32 = 0;
const CODE_FRAMING: u32 = 1;

/// What happened to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkEvent {
    /// Both sides have proved their keys; messages can be sent.
    Connected,
    /// The other side answered a probe.
    ProbeAnswered,
    /// It has ended.
    Ended(LinkEnd),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The other player closed it.
    Left,
    /// Nothing was heard for [`IDLE_TIMEOUT`].
    Silent,
    /// The other side does not hold the key its description names, or speaks another protocol.
    Handshake,
    /// The other player broke the protocol.
    Protocol,
}

/// The encrypted session with one player.
pub(crate) struct Link {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    connected: bool,
    ended: bool,
    events: Vec<LinkEvent>,
    /// Datagrams the QUIC endpoint answers without a connection.
    responses: Vec<Vec<u8>>,
    /// Unreliable messages that wait for the game to poll.
    datagrams: VecDeque<Bytes>,
    datagram_bytes: usize,
    outboxes: BTreeMap<ChannelId, (StreamId, Outbox)>,
    inboxes: BTreeMap<StreamId, (Inbox, bool)>,
    dropped_messages: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("connected", &self.connected)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Prepares the session. The QUIC client starts its handshake at once; call it when a path is proven.
    pub(crate) fn new(
        now: Instant,
        client: bool,
        identity: &Identity,
        expected: PublicKey,
        first_rtt: Option<Duration>,
        seed: [u8; 32],
    ) -> Self {
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &seed)));
        config
            .grease_quic_bit(false)
            .rng_seed(Some(seed))
            .cid_generator(|| Box::new(RandomConnectionIdGenerator::new(0)));
        let transport = Arc::new(transport(first_rtt));
        let server = (!client).then(|| {
            let mut server = ServerConfig::with_crypto(Arc::new(tls::server(identity, expected)));
            server
                .transport_config(Arc::clone(&transport))
                .migration(false)
                .max_incoming(1);
            Arc::new(server)
        });
        let mut endpoint = Endpoint::new(Arc::new(config), server, false, Some(seed));
        let connection = client.then(|| {
            let mut client = ClientConfig::new(Arc::new(tls::client(identity, expected)));
            client.transport_config(transport);
            endpoint
                .connect(now, client, VIRTUAL_ADDRESS, tls::SERVER_NAME)
                .expect("the address, the name and the configuration are constants")
        });
        Self {
            endpoint,
            connection,
            connected: false,
            ended: false,
            events: Vec::new(),
            responses: Vec::new(),
            datagrams: VecDeque::new(),
            datagram_bytes: 0,
            outboxes: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            dropped_messages: 0,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected && !self.ended
    }

    /// Takes a datagram from an address that ICE has validated.
    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let mut answer = Vec::new();
        let event = self.endpoint.handle(
            now,
            VIRTUAL_ADDRESS,
            None,
            None,
            BytesMut::from(bytes),
            &mut answer,
        );
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                answer.truncate(transmit.size);
                self.responses.push(answer);
            }
            None => {}
        }
        self.drive(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection
            && connection.poll_timeout().is_some_and(|due| due <= now)
        {
            connection.handle_timeout(now);
        }
        self.drive(now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.connection
            .as_mut()
            .and_then(|(_, connection)| connection.poll_timeout())
    }

    /// The next datagram to send.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(response) = self.responses.pop() {
            return Some(response);
        }
        let (_, connection) = self.connection.as_mut()?;
        let mut bytes = Vec::with_capacity(usize::from(MTU));
        let transmit = connection.poll_transmit(now, 1, &mut bytes)?;
        bytes.truncate(transmit.size);
        Some(bytes)
    }

    pub(crate) fn poll_event(&mut self) -> Option<LinkEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// The path below has changed: what QUIC learnt of the old one no longer holds.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        if let Some((_, connection)) = &mut self.connection
            && self.connected
        {
            connection.path_changed(now);
        }
    }

    pub(crate) fn send_unreliable(
        &mut self,
        channel: ChannelId,
        message: &[u8],
    ) -> Result<(), SendError> {
        let connection = self.open()?;
        let mut datagrams = connection.datagrams();
        let max = datagrams.max_size().unwrap_or(0).saturating_sub(1);
        if message.len() > max {
            return Err(SendError::TooLarge { max });
        }
        let crowded = datagrams.send_buffer_space() < message.len() + 1;
        let mut bytes = BytesMut::with_capacity(message.len() + 1);
        bytes.put_u8(channel);
        bytes.put_slice(message);
        // The oldest waiting message goes first when there is no room.
        let sent = datagrams.send(bytes.freeze(), true);
        if crowded {
            self.dropped_messages += 1;
        }
        sent.map_err(|_| SendError::TooLarge { max })
    }

    pub(crate) fn send_reliable(
        &mut self,
        channel: ChannelId,
        message: Bytes,
    ) -> Result<(), SendError> {
        if !self.outboxes.contains_key(&channel) {
            let stream = self
                .open()?
                .streams()
                .open(Dir::Uni)
                .ok_or(SendError::UnknownChannel)?;
            self.outboxes
                .insert(channel, (stream, Outbox::open(channel)));
        }
        self.open()?;
        let (stream, outbox) = self.outboxes.get_mut(&channel).expect("inserted above");
        let stream = *stream;
        outbox.push(message)?;
        self.flush(stream);
        Ok(())
    }

    /// Asks the other side to prove that the path carries both ways.
    pub(crate) fn send_probe(&mut self, number: u8) {
        self.send_control(&[RESERVED_CHANNEL, PROBE, number]);
    }

    /// The next message that has arrived. Of reliable ones nothing is read from the network ahead of it, so a game that does not poll holds
    /// the other player's reliable messages back instead of filling memory.
    pub(crate) fn poll_message(&mut self, now: Instant) -> Option<(ChannelId, Bytes)> {
        if let Some(mut datagram) = self.datagrams.pop_front() {
            self.datagram_bytes -= datagram.len();
            let channel = datagram.get_u8();
            return Some((channel, datagram));
        }
        self.poll_stream_message(now)
    }

    /// Says goodbye. What was sent before still leaves.
    pub(crate) fn close(&mut self, now: Instant) {
        self.close_with(now, CODE_LEFT);
    }

    /// Smoothed and least round-trip time.
    pub(crate) fn rtt(&self) -> Option<(Duration, Duration)> {
        self.connection
            .as_ref()
            .map(|(_, connection)| (connection.rtt(), connection.min_rtt()))
    }

    pub(crate) fn stats(&self) -> Option<quinn_proto::ConnectionStats> {
        self.connection
            .as_ref()
            .map(|(_, connection)| connection.stats())
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.outboxes
            .values()
            .map(|(_, outbox)| outbox.queued())
            .sum()
    }

    pub(crate) fn dropped_messages(&self) -> u64 {
        self.dropped_messages
    }

    fn open(&mut self) -> Result<&mut Connection, SendError> {
        if !self.connected || self.ended {
            return Err(SendError::NotConnected);
        }
        self.connection
            .as_mut()
            .map(|(_, connection)| connection)
            .ok_or(SendError::NotConnected)
    }

    fn accept(&mut self, now: Instant, incoming: Incoming) {
        let mut answer = Vec::new();
        if self.connection.is_some() {
            self.endpoint.ignore(incoming);
            return;
        }
        match self.endpoint.accept(incoming, now, &mut answer, None) {
            Ok(accepted) => self.connection = Some(accepted),
            Err(error) => {
                if let Some(transmit) = error.response {
                    answer.truncate(transmit.size);
                    self.responses.push(answer);
                }
            }
        }
    }

    /// The drain rule: after each input, hand the connection's words to the endpoint and collect what happened.
    fn drive(&mut self, now: Instant) {
        let mut happened = Vec::new();
        if let Some((handle, connection)) = &mut self.connection {
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while let Some(event) = connection.poll() {
                happened.push(event);
            }
        }
        for event in happened {
            self.handle_event(event, now);
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.events.push(LinkEvent::Connected);
            }
            Event::ConnectionLost { reason } => {
                if !self.ended {
                    self.ended = true;
                    self.events
                        .push(LinkEvent::Ended(end_of(&reason, self.connected)));
                }
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => self.accept_streams(now),
            Event::Stream(StreamEvent::Readable { id }) => {
                if let Some((_, readable)) = self.inboxes.get_mut(&id) {
                    *readable = true;
                }
            }
            Event::Stream(StreamEvent::Writable { id }) => self.flush(id),
            Event::DatagramReceived => self.take_datagrams(),
            Event::Stream(_) | Event::DatagramsUnblocked | Event::HandshakeDataReady => {}
        }
    }

    fn accept_streams(&mut self, now: Instant) {
        let Some((_, connection)) = &mut self.connection else {
            return;
        };
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            self.inboxes.insert(id, (Inbox::default(), true));
        }
        // Streams of players stay open as long as the session; the transport's limit bounds them too.
        if self.inboxes.len() > MAX_RELIABLE_CHANNELS {
            self.close_with(now, CODE_FRAMING);
        }
    }

    /// Probes are answered at once, whether the game polls or not; messages wait, the oldest dropped for want of room.
    fn take_datagrams(&mut self) {
        while let Some(datagram) = self
            .connection
            .as_mut()
            .and_then(|(_, connection)| connection.datagrams().recv())
        {
            match datagram.as_ref() {
                [RESERVED_CHANNEL, PROBE, number] => {
                    self.send_control(&[RESERVED_CHANNEL, PROBE_ANSWER, *number]);
                }
                [RESERVED_CHANNEL, PROBE_ANSWER, _] => self.events.push(LinkEvent::ProbeAnswered),
                [] | [RESERVED_CHANNEL, ..] => {}
                [..] => {
                    self.datagram_bytes += datagram.len();
                    self.datagrams.push_back(datagram);
                }
            }
        }
        while self.datagram_bytes > DATAGRAM_RECEIVE_BUFFER {
            let oldest = self.datagrams.pop_front();
            self.datagram_bytes -= oldest.map_or(self.datagram_bytes, |oldest| oldest.len());
            self.dropped_messages += 1;
        }
    }

    fn send_control(&mut self, bytes: &[u8]) {
        if let Some((_, connection)) = &mut self.connection {
            // Without room for three bytes the path is busy enough; the next probe will do.
            connection
                .datagrams()
                .send(Bytes::copy_from_slice(bytes), true)
                .ok();
        }
    }

    fn poll_stream_message(&mut self, now: Instant) -> Option<(ChannelId, Bytes)> {
        let (_, connection) = self.connection.as_mut()?;
        let mut broken = false;
        for (id, (inbox, readable)) in &mut self.inboxes {
            while *readable {
                match inbox.next() {
                    Ok(Some(message)) => return inbox.channel().map(|channel| (channel, message)),
                    Ok(None) => *readable = fill(connection, *id, inbox),
                    Err(_) => {
                        broken = true;
                        *readable = false;
                    }
                }
            }
        }
        if broken && !self.ended {
            self.close_with(now, CODE_FRAMING);
            self.events.push(LinkEvent::Ended(LinkEnd::Protocol));
        }
        None
    }

    fn flush(&mut self, stream: StreamId) {
        let Some((_, connection)) = &mut self.connection else {
            return;
        };
        let outbox = self.outboxes.values_mut().find(|(id, _)| *id == stream);
        let Some((_, outbox)) = outbox else { return };
        while let Some(front) = outbox.front() {
            match connection.send_stream(stream).write(front) {
                Ok(count) => outbox.written(count),
                Err(WriteError::Blocked | WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return;
                }
            }
        }
    }

    fn close_with(&mut self, now: Instant, code: u32) {
        self.ended = true;
        if let Some((_, connection)) = &mut self.connection {
            connection.close(now, VarInt::from_u32(code), Bytes::new());
        }
    }
}

/// Reads what one stream has. False when there is nothing more for now.
fn fill(connection: &mut Connection, id: StreamId, inbox: &mut Inbox) -> bool {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else {
        return false;
    };
    let read = match chunks.next(usize::from(u16::MAX)) {
        Ok(Some(chunk)) => {
            inbox.push(&chunk.bytes);
            true
        }
        Ok(None) | Err(_) => false,
    };
    // Credit for the other side, if any, leaves with the next datagram.
    let _ = chunks.finalize();
    read
}

fn transport(first_rtt: Option<Duration>) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IDLE_TIMEOUT
        .try_into()
        .expect("30 s fit a QUIC idle timeout");
    config
        .initial_mtu(MTU)
        .min_mtu(MTU)
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(first_rtt.unwrap_or(Duration::from_millis(100)))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(SESSION_WINDOW))
        .send_window(u64::from(SESSION_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(
            u32::try_from(MAX_RELIABLE_CHANNELS).expect("a small constant"),
        ))
        .enable_segmentation_offload(false);
    config
}

fn end_of(reason: &ConnectionError, connected: bool) -> LinkEnd {
    match reason {
        ConnectionError::ApplicationClosed(close)
            if close.error_code == VarInt::from_u32(CODE_LEFT) =>
        {
            LinkEnd::Left
        }
        ConnectionError::TimedOut | ConnectionError::Reset => LinkEnd::Silent,
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => {
            if connected {
                LinkEnd::Protocol
            } else {
                LinkEnd::Handshake
            }
        }
    }
}
