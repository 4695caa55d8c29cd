//! TURN allocations, shared by all players of the room, over the crate `turn-client-proto`: the only file that names it.
//!
//! Order of play: every relay reached by UDP is asked at once (at most [`MAX_RELAYS`]); when none of them has said a word
//! within [`STREAM_FALLBACK`], or all have failed, those reached by TCP or TLS are asked too. A permission is asked for each
//! address of the other players as soon as it is known, one per request, so that a relay's refusal costs that pair alone.
//! What the ICE agent wants sent before its permission is granted waits for it, a little.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use turn_client_proto::api::{TurnClientApi as _, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::DelayedTransmitBuild as _;
use turn_client_proto::stun::Instant as TurnInstant;
use turn_client_proto::stun::agent::Transmit as TurnTransmit;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::types::{RelayTransport, SocketId, StreamId, StreamRequest, Transmit};

turn_client_proto::impl_client!(Client, (Udp, TurnClientUdp), (Tcp, TurnClientTcp));

/// Relays used at the same time.
pub const MAX_RELAYS: usize = 2;
/// Relay servers remembered; more are ignored.
pub const MAX_RELAY_SERVERS: usize = 16;
/// How long UDP may stay silent before relays are tried over TCP.
pub const STREAM_FALLBACK: Duration = Duration::from_millis(700);
/// Peer addresses a relay is asked to permit.
const MAX_PERMISSIONS: usize = 128;
/// Channels bound on one relay.
const MAX_CHANNELS: usize = 32;
/// A relay on the internet is asked about private addresses only this long after it gave its own: it hardly ever lets them
/// through, and the client library asks one question each 50 ms.
const PRIVATE_LAST: Duration = Duration::from_millis(400);
/// Datagrams that wait for one permission.
const MAX_HELD: usize = 4;
/// Rounds of the TURN client's own state machine in one call.
const MAX_ROUNDS: usize = 32;

/// A TURN server as signaling named it, its address resolved.
#[derive(Debug, Clone)]
pub struct RelayServer {
    /// The URL, for events and diaries.
    pub url: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is reached.
    pub transport: RelayTransport,
    /// The name in its certificate, when reached by TLS.
    pub tls_name: Option<String>,
    /// The credential's user name.
    pub username: String,
    /// The credential's password.
    pub password: String,
    /// The local address datagrams to it leave from, when the caller knows.
    pub source: Option<IpAddr>,
}

/// What happened to a relay.
#[derive(Debug)]
pub(crate) enum RelayEvent {
    /// It gave us an address.
    Allocated {
        relayed: SocketAddr,
        base: SocketAddr,
        url: Arc<str>,
        transport: RelayTransport,
    },
    /// It will not, or it is gone. `lost` are the addresses that ended with it.
    Failed {
        url: Arc<str>,
        reason: &'static str,
        lost: Vec<SocketAddr>,
    },
}

/// A datagram that a relay brought.
pub(crate) struct FromPeer {
    /// Our address on the relay.
    pub(crate) relayed: SocketAddr,
    /// Who sent it.
    pub(crate) peer: SocketAddr,
    /// The payload.
    pub(crate) bytes: Vec<u8>,
}

/// The pool of allocations.
#[derive(Debug)]
pub(crate) struct Relays {
    base: Instant,
    relays: Vec<Relay>,
    started: Option<Instant>,
    streams_started: bool,
    next_stream: u32,
    events: Vec<RelayEvent>,
    transmits: Vec<Transmit>,
    requests: Vec<StreamRequest>,
}

#[derive(Debug)]
struct Relay {
    server: RelayServer,
    state: State,
    relayed: Vec<SocketAddr>,
    permissions: BTreeMap<IpAddr, Permission>,
    channels: Vec<SocketAddr>,
    /// Whether the server has said anything at all.
    heard: bool,
    allocated: Option<TurnInstant>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Idle,
    Connecting(StreamId),
    Running(Carrier, Box<Client>),
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    Socket(SocketId),
    Stream(StreamId),
}

#[derive(Debug)]
enum Permission {
    Asked { held: Vec<(SocketAddr, Vec<u8>)> },
    Granted,
    Refused,
}

impl Relays {
    pub(crate) fn new(base: Instant) -> Self {
        Self {
            base,
            relays: Vec::new(),
            started: None,
            streams_started: false,
            next_stream: 0,
            events: Vec::new(),
            transmits: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Remembers a server; [`Self::start`] uses it.
    pub(crate) fn add(&mut self, server: RelayServer) {
        let known = self.relays.iter().any(|relay| {
            relay.server.address == server.address
                && relay.server.transport == server.transport
                && !matches!(relay.state, State::Failed)
        });
        if !known && self.relays.len() < MAX_RELAY_SERVERS {
            self.relays.push(Relay {
                server,
                state: State::Idle,
                relayed: Vec::new(),
                permissions: BTreeMap::new(),
                channels: Vec::new(),
                heard: false,
                allocated: None,
                deadline: None,
            });
        }
    }

    /// Starts allocating on the servers known so far. `sockets` are ours, the best first.
    pub(crate) fn start(&mut self, now: Instant, sockets: &[(SocketId, SocketAddr)]) {
        self.started = Some(now);
        self.streams_started = false;
        for index in 0..self.relays.len() {
            if self.running() < MAX_RELAYS {
                self.start_udp(index, sockets);
            }
        }
        self.drive(now);
    }

    /// Whether every server has either given an address, failed, or is not needed.
    pub(crate) fn is_settled(&self) -> bool {
        let undecided = self.relays.iter().any(|relay| match relay.state {
            State::Connecting(_) => true,
            State::Running(..) => relay.relayed.is_empty(),
            State::Idle | State::Failed => false,
        });
        !undecided && (self.streams_started || !self.streams_wanted())
    }

    /// The next time [`Self::drive`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let fallback = self
            .started
            .filter(|_| !self.streams_started && self.streams_wanted())
            .map(|started| started + STREAM_FALLBACK);
        let running = self.relays.iter().filter_map(|relay| relay.deadline);
        running.chain(fallback).min()
    }

    pub(crate) fn poll_event(&mut self) -> Option<RelayEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    pub(crate) fn take_transmits(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.transmits)
    }

    pub(crate) fn take_requests(&mut self) -> Vec<StreamRequest> {
        std::mem::take(&mut self.requests)
    }

    /// How `local`, an address on one of our relays, is reached. `None`: it is not ours.
    pub(crate) fn transport_of(&self, local: SocketAddr) -> Option<RelayTransport> {
        self.relay_of(local).map(|relay| relay.server.transport)
    }

    /// Asks every relay of the address's family to let `peer` through.
    pub(crate) fn permit(&mut self, now: Instant, peer: IpAddr) {
        let time = self.time(now);
        for relay in &mut self.relays {
            relay.permit(time, peer);
        }
        self.drive(now);
    }

    /// Binds a channel from our relayed address to `peer`: 4 bytes of framing instead of 36.
    pub(crate) fn bind_channel(&mut self, now: Instant, local: SocketAddr, peer: SocketAddr) {
        let time = self.time(now);
        let Some(relay) = self
            .relays
            .iter_mut()
            .find(|relay| relay.relayed.contains(&local))
        else {
            return;
        };
        if relay.channels.len() < MAX_CHANNELS
            && !relay.channels.contains(&peer)
            // Not over streams: turn-client-proto neither pads ChannelData there (RFC 8656 §12.5) nor skips the padding.
            && let State::Running(Carrier::Socket(_), client) = &mut relay.state
            // An existing or recently expired channel is no fault: indications carry the data meanwhile.
            && client.bind_channel(TransportType::Udp, peer, time).is_ok()
        {
            relay.channels.push(peer);
        }
        self.drive(now);
    }

    /// Sends from our relayed address `local` to `peer`; waits for the permission when it is still being asked for.
    pub(crate) fn send(&mut self, now: Instant, local: SocketAddr, peer: SocketAddr, bytes: &[u8]) {
        let time = self.time(now);
        let Some(relay) = self
            .relays
            .iter_mut()
            .find(|relay| relay.relayed.contains(&local))
        else {
            return;
        };
        match relay.permissions.get_mut(&peer.ip()) {
            Some(Permission::Granted) => {
                self.transmits.extend(relay.wrap(time, peer, bytes));
            }
            Some(Permission::Asked { held }) => {
                if held.len() < MAX_HELD {
                    held.push((peer, bytes.to_vec()));
                }
            }
            Some(Permission::Refused) => {}
            None => {
                relay.permit(time, peer.ip());
                if let Some(Permission::Asked { held }) = relay.permissions.get_mut(&peer.ip()) {
                    held.push((peer, bytes.to_vec()));
                }
                self.drive(now);
            }
        }
    }

    /// Whether datagrams from `from` on `socket` belong to a relay.
    pub(crate) fn owns(&self, socket: SocketId, from: SocketAddr) -> bool {
        self.relays
            .iter()
            .any(|relay| relay.is_reached_by(socket, from))
    }

    /// Takes a datagram from a relay's address. The answer is what a peer sent through it, if that is what it was.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<FromPeer> {
        let time = self.time(now);
        let relay = self
            .relays
            .iter_mut()
            .find(|relay| relay.is_reached_by(socket, from))?;
        relay.heard = true;
        let mut brought = relay.receive(time, TransportType::Udp, bytes);
        self.drive(now);
        brought.pop()
    }

    /// The stream asked for is open.
    pub(crate) fn handle_stream_opened(
        &mut self,
        now: Instant,
        stream: StreamId,
        local: SocketAddr,
    ) {
        for relay in &mut self.relays {
            if matches!(relay.state, State::Connecting(own) if own == stream) {
                let client = TurnClientTcp::allocate(local, relay.server.address, relay.config());
                relay.state =
                    State::Running(Carrier::Stream(stream), Box::new(Client::Tcp(client)));
            }
        }
        self.drive(now);
    }

    /// Bytes arrived on a stream.
    pub(crate) fn handle_stream_data(
        &mut self,
        now: Instant,
        stream: StreamId,
        bytes: &[u8],
    ) -> Vec<FromPeer> {
        let time = self.time(now);
        let Some(relay) = self.relays.iter_mut().find(
            |relay| matches!(relay.state, State::Running(Carrier::Stream(own), _) if own == stream),
        ) else {
            return Vec::new();
        };
        relay.heard = true;
        let brought = relay.receive(time, TransportType::Tcp, bytes);
        self.drive(now);
        brought
    }

    /// A stream could not be opened, or has ended.
    pub(crate) fn handle_stream_closed(&mut self, now: Instant, stream: StreamId) {
        for relay in &mut self.relays {
            let ended = match &relay.state {
                State::Connecting(own) | State::Running(Carrier::Stream(own), _) => *own == stream,
                State::Running(Carrier::Socket(_), _) | State::Idle | State::Failed => false,
            };
            if ended {
                self.events.push(relay.fail("the connection to it ended"));
            }
        }
        self.drive(now);
    }

    /// Gives the allocations back.
    pub(crate) fn delete_all(&mut self, now: Instant) {
        let time = self.time(now);
        for relay in &mut self.relays {
            if let State::Running(_, client) = &mut relay.state {
                // Without an allocation there is nothing to give back.
                client.delete(time).ok();
            }
        }
        self.drive(now);
    }

    /// Lets every client act: retransmissions, refreshes, answers to what came in.
    pub(crate) fn drive(&mut self, now: Instant) {
        let time = self.time(now);
        for relay in &mut self.relays {
            relay.drive(self.base, time, &mut self.transmits, &mut self.events);
        }
        let due = self
            .started
            .is_some_and(|started| now >= started + STREAM_FALLBACK);
        if !self.streams_started && self.streams_wanted() && (due || !self.udp_may_answer()) {
            self.start_streams();
        }
    }

    fn start_udp(&mut self, index: usize, sockets: &[(SocketId, SocketAddr)]) {
        let relay = &mut self.relays[index];
        if relay.server.transport != RelayTransport::Udp || !matches!(relay.state, State::Idle) {
            return;
        }
        let server = relay.server.address;
        let usable = || {
            sockets
                .iter()
                .filter(|(_, local)| local.is_ipv4() == server.is_ipv4())
        };
        let routed = usable().find(|(_, local)| Some(local.ip()) == relay.server.source);
        let Some(&(socket, local)) = routed.or_else(|| usable().next()) else {
            self.events
                .push(relay.fail("no local address of its family"));
            return;
        };
        let client = TurnClientUdp::allocate(local, server, relay.config());
        relay.state = State::Running(Carrier::Socket(socket), Box::new(Client::Udp(client)));
    }

    fn start_streams(&mut self) {
        self.streams_started = true;
        for relay in &mut self.relays {
            if relay.server.transport == RelayTransport::Udp || !matches!(relay.state, State::Idle)
            {
                continue;
            }
            let stream = StreamId(self.next_stream);
            self.next_stream += 1;
            relay.state = State::Connecting(stream);
            self.requests.push(StreamRequest::Open {
                stream,
                to: relay.server.address,
                tls: relay.server.tls_name.clone(),
            });
            // One by stream is enough: it is the way out of a network that blocks UDP.
            break;
        }
    }

    /// A relay by stream is known and no relay has answered over UDP.
    fn streams_wanted(&self) -> bool {
        let known = self.relays.iter().any(|relay| {
            relay.server.transport != RelayTransport::Udp && matches!(relay.state, State::Idle)
        });
        known
            && !self
                .relays
                .iter()
                .any(|relay| relay.heard && !matches!(relay.state, State::Failed))
    }

    fn udp_may_answer(&self) -> bool {
        self.relays
            .iter()
            .any(|relay| matches!(relay.state, State::Running(Carrier::Socket(_), _)))
    }

    fn running(&self) -> usize {
        self.relays
            .iter()
            .filter(|relay| matches!(relay.state, State::Running(..)))
            .count()
    }

    fn relay_of(&self, local: SocketAddr) -> Option<&Relay> {
        self.relays
            .iter()
            .find(|relay| relay.relayed.contains(&local))
    }

    fn time(&self, now: Instant) -> TurnInstant {
        let since = now.saturating_duration_since(self.base);
        TurnInstant::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Relay {
    /// Whether we talk to this server, at that address, on that socket.
    fn is_reached_by(&self, socket: SocketId, server: SocketAddr) -> bool {
        self.server.address == server
            && matches!(self.state, State::Running(Carrier::Socket(own), _) if own == socket)
    }

    fn config(&self) -> TurnConfig {
        let credentials = TurnCredentials::new(&self.server.username, &self.server.password);
        let mut config = TurnConfig::new(credentials);
        config.add_supported_integrity(IntegrityAlgorithm::Sha256);
        config.add_address_family(AddressFamily::IPV6);
        config.set_request_retransmits(
            Duration::from_millis(200),
            Duration::from_millis(1600),
            6,
            Duration::from_millis(1600),
        );
        config
    }

    fn permit(&mut self, time: TurnInstant, peer: IpAddr) {
        let State::Running(_, client) = &mut self.state else {
            return;
        };
        let same_family = |relayed: &&SocketAddr| relayed.is_ipv4() == peer.is_ipv4();
        let Some(own) = self.relayed.iter().find(same_family) else {
            return;
        };
        let rested = self
            .allocated
            .is_some_and(|allocated| time.duration_since(allocated) >= PRIVATE_LAST);
        let too_early = is_private(peer) && !is_private(own.ip()) && !rested;
        if too_early
            || self.permissions.contains_key(&peer)
            || self.permissions.len() >= MAX_PERMISSIONS
        {
            return;
        }
        if client
            .create_permission(TransportType::Udp, peer, time)
            .is_ok()
        {
            self.permissions
                .insert(peer, Permission::Asked { held: Vec::new() });
        }
    }

    /// Frames a datagram for a peer: as ChannelData where a channel is bound, else as a Send indication.
    fn wrap(&mut self, time: TurnInstant, peer: SocketAddr, bytes: &[u8]) -> Option<Transmit> {
        let State::Running(carrier, client) = &mut self.state else {
            return None;
        };
        let framed = client
            .send_to(TransportType::Udp, peer, bytes, time)
            .ok()??;
        Some(carrier.transmit(self.server.address, framed.data.build()))
    }

    fn receive(
        &mut self,
        time: TurnInstant,
        transport: TransportType,
        bytes: &[u8],
    ) -> Vec<FromPeer> {
        let State::Running(_, client) = &mut self.state else {
            return Vec::new();
        };
        let transmit =
            TurnTransmit::new(bytes, transport, client.remote_addr(), client.local_addr());
        let mut brought = Vec::new();
        if let TurnRecvRet::PeerData(data) = client.recv(transmit, time) {
            brought.push((data.peer, data.data().to_vec()));
        }
        while let Some(data) = client.poll_recv(time) {
            brought.push((data.peer, data.data().to_vec()));
        }
        // A peer reaches the address of its own family.
        brought
            .into_iter()
            .filter_map(|(peer, bytes)| {
                let relayed = *self
                    .relayed
                    .iter()
                    .find(|own| own.is_ipv4() == peer.is_ipv4())?;
                Some(FromPeer {
                    relayed,
                    peer,
                    bytes,
                })
            })
            .collect()
    }

    fn drive(
        &mut self,
        base: Instant,
        time: TurnInstant,
        transmits: &mut Vec<Transmit>,
        events: &mut Vec<RelayEvent>,
    ) {
        self.deadline = None;
        for _ in 0..MAX_ROUNDS {
            let State::Running(carrier, client) = &mut self.state else {
                return;
            };
            let carrier = *carrier;
            let polled = client.poll(time);
            while let Some(transmit) = client.poll_transmit(time) {
                transmits.push(carrier.transmit(self.server.address, transmit.data.to_vec()));
            }
            let mut told = Vec::new();
            while let Some(event) = client.poll_event() {
                told.push(event);
            }
            let quiet = told.is_empty();
            for event in told {
                self.handle_event(time, event, transmits, events);
            }
            match polled {
                TurnPollRet::WaitUntil(until) if until > time => {
                    if quiet {
                        let nanos = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
                        self.deadline = Some(base + Duration::from_nanos(nanos));
                        return;
                    }
                }
                TurnPollRet::Closed => {
                    let reason = if self.relayed.is_empty() {
                        "it gave no address: no answer, or the credential was refused"
                    } else {
                        "it ended the allocation"
                    };
                    events.push(self.fail(reason));
                    return;
                }
                TurnPollRet::WaitUntil(_)
                | TurnPollRet::AllocateTcpSocket { .. }
                | TurnPollRet::TcpClose { .. } => {}
            }
        }
    }

    fn handle_event(
        &mut self,
        time: TurnInstant,
        event: TurnEvent,
        transmits: &mut Vec<Transmit>,
        events: &mut Vec<RelayEvent>,
    ) {
        match event {
            TurnEvent::AllocationCreated(_, relayed) => {
                let State::Running(_, client) = &self.state else {
                    return;
                };
                self.relayed.push(relayed);
                self.allocated.get_or_insert(time);
                events.push(RelayEvent::Allocated {
                    relayed,
                    base: client.local_addr(),
                    url: Arc::clone(&self.server.url),
                    transport: self.server.transport,
                });
            }
            TurnEvent::PermissionCreated(_, peer) => {
                let before = self.permissions.insert(peer, Permission::Granted);
                if let Some(Permission::Asked { held }) = before {
                    for (to, bytes) in held {
                        transmits.extend(self.wrap(time, to, &bytes));
                    }
                }
            }
            TurnEvent::PermissionCreateFailed(_, peer) => {
                self.permissions.insert(peer, Permission::Refused);
            }
            TurnEvent::ChannelCreateFailed(_, peer) => self.channels.retain(|own| *own != peer),
            // One family refused is usual (the relay has no IPv6); none at all ends in Closed.
            TurnEvent::AllocationCreateFailed(_)
            | TurnEvent::ChannelCreated(..)
            | TurnEvent::TcpConnected(_)
            | TurnEvent::TcpConnectFailed(_) => {}
        }
    }

    fn fail(&mut self, reason: &'static str) -> RelayEvent {
        self.state = State::Failed;
        self.deadline = None;
        self.permissions.clear();
        self.channels.clear();
        RelayEvent::Failed {
            url: Arc::clone(&self.server.url),
            reason,
            lost: std::mem::take(&mut self.relayed),
        }
    }
}

/// Addresses that only a relay in the same network could reach.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // RFC 6598: carriers' own addresses.
            let carrier = first == 100 && second & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || carrier
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl Carrier {
    fn transmit(self, to: SocketAddr, bytes: Vec<u8>) -> Transmit {
        match self {
            Self::Socket(socket) => Transmit::Datagram { socket, to, bytes },
            Self::Stream(stream) => Transmit::Stream { stream, bytes },
        }
    }
}
