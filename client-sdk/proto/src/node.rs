//! The machine as a whole: one player's end of all connections in a room.
//!
//! It owns what the players share (sockets, STUN questions, relay allocations) and one [`Session`] for each of them, and
//! sends every datagram that arrives to the one part it belongs to.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Deserialize as _;
use serde_json::Value;
use signal_wire::{CandidateData, LobbyId, MemberId, SignalKind};
use stun_wire::{Class, Message, Method};

use crate::candidates::{Candidates, Reflexive};
use crate::channels::{RESERVED_CHANNEL, SendError};
use crate::identity::Identity;
use crate::paths::{DiaryEntry, DiaryEvent, PathDiary};
use crate::relays::{FromPeer, RelayEvent, RelayServer, Relays};
use crate::session::{LostReason, Session, SessionConfig, SessionEvent};
use crate::trust::{self, Addressees};
use crate::types::{
    CandidateInfo, CandidateKind, ChannelId, Mode, Now, PathInfo, PlayerId, SocketId, Stats,
    StreamId, StreamRequest, Transmit, Trust,
};

/// Players one node holds sessions with.
pub const MAX_PLAYERS: usize = 64;
/// Local candidates told to the others.
pub const MAX_LOCAL_CANDIDATES: usize = 32;
/// When gathering counts as over although a server is still silent.
const GATHERING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The player's key.
    pub identity: Identity,
    /// Tell and use relayed candidates only: no other player learns our address.
    pub relay_only: bool,
}

/// What happened.
#[derive(Debug)]
pub enum NodeEvent {
    /// A local candidate was found.
    CandidateGathered(CandidateInfo),
    /// All candidates are known.
    Gathered {
        /// How many there are.
        candidates: usize,
        /// Since gathering started.
        took: Duration,
    },
    /// A line in a player's diary.
    Diary {
        /// The player.
        player: PlayerId,
        /// The line.
        entry: DiaryEntry,
    },
    /// The encrypted session with a player is open.
    Connected {
        /// The player.
        player: PlayerId,
        /// The path in use.
        path: PathInfo,
        /// Who vouches for their key.
        trust: Trust,
        /// Since the player was known.
        took: Duration,
    },
    /// The session moved to another path.
    PathChanged {
        /// The player.
        player: PlayerId,
        /// The path left.
        from: PathInfo,
        /// The path taken.
        to: PathInfo,
        /// How long nothing had been received.
        gap: Duration,
    },
    /// A message arrived.
    Message {
        /// Who sent it.
        player: PlayerId,
        /// On which channel.
        channel: ChannelId,
        /// The bytes.
        data: Bytes,
    },
    /// The session with a player ended or never came about.
    Lost {
        /// The player.
        player: PlayerId,
        /// Why.
        reason: LostReason,
        /// What was tried.
        diary: PathDiary,
    },
}

/// A signal for the signaling server to pass on.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// To whom.
    pub to: PlayerId,
    /// What it is.
    pub kind: SignalKind,
    /// Which connection of ours it belongs to.
    pub conn: String,
    /// Its content.
    pub data: Value,
}

/// One player's end of all connections in a room.
pub struct Node {
    config: NodeConfig,
    rng: StdRng,
    room: LobbyId,
    you: PlayerId,
    candidates: Candidates,
    relays: Relays,
    sessions: BTreeMap<PlayerId, Session>,
    modes: BTreeMap<ChannelId, Mode>,
    local: Vec<CandidateInfo>,
    gathering: Gathering,
    unread: bool,
    transmits: VecDeque<Transmit>,
    signals: VecDeque<Signal>,
    requests: VecDeque<StreamRequest>,
    events: VecDeque<NodeEvent>,
}

#[derive(Debug, Clone, Copy)]
enum Gathering {
    Waiting,
    Since(Instant),
    Done,
}

impl Node {
    /// The player numbered `you` in `room`. `seed` is 32 secret random bytes, never used twice.
    #[must_use]
    pub fn new(now: Now, config: NodeConfig, room: LobbyId, you: PlayerId, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let for_candidates = StdRng::from_seed(random(&mut rng));
        Self {
            config,
            rng,
            room,
            you,
            candidates: Candidates::new(for_candidates),
            relays: Relays::new(now.mono),
            sessions: BTreeMap::new(),
            modes: BTreeMap::new(),
            local: Vec::new(),
            gathering: Gathering::Waiting,
            unread: false,
            transmits: VecDeque::new(),
            signals: VecDeque::new(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Adds one of the caller's sockets, bound to `address`: a host candidate.
    pub fn add_socket(&mut self, now: Now, id: SocketId, address: SocketAddr) {
        if self.candidates.add_socket(now.mono, id, address) {
            self.add_local_candidate(
                now.mono,
                CandidateInfo {
                    kind: CandidateKind::Host,
                    address,
                    base: address,
                    server: None,
                    transport: None,
                },
            );
        }
        self.flush(now.mono);
    }

    /// Asks a STUN server how it sees our sockets.
    pub fn add_stun_server(&mut self, now: Now, server: SocketAddr, url: Arc<str>) {
        if !self.config.relay_only {
            self.candidates.add_server(now.mono, server, url);
        }
        self.flush(now.mono);
    }

    /// Remembers a TURN server for [`Self::start_gathering`].
    pub fn add_relay_server(&mut self, server: RelayServer) {
        self.relays.add(server);
    }

    /// All sockets and servers known so far are in: allocate, and say when all is gathered.
    pub fn start_gathering(&mut self, now: Now) {
        self.gathering = Gathering::Since(now.mono);
        let sockets = self.candidates.sockets();
        self.relays.start(now.mono, &sockets);
        self.flush(now.mono);
    }

    /// Declares a channel below [`RESERVED_CHANNEL`](crate::RESERVED_CHANNEL); both players declare it with the same mode.
    pub fn declare_channel(&mut self, channel: ChannelId, mode: Mode) {
        if channel < RESERVED_CHANNEL {
            self.modes.insert(channel, mode);
        }
    }

    /// Another player is in the room: offer them a session.
    pub fn add_player(&mut self, now: Now, player: PlayerId) {
        if player == self.you
            || self.sessions.contains_key(&player)
            || self.sessions.len() >= MAX_PLAYERS
        {
            return;
        }
        let conn: [u8; 8] = random(&mut self.rng);
        let config = SessionConfig {
            player,
            conn: conn.iter().map(|byte| format!("{byte:02x}")).collect(),
            identity: self.config.identity.clone(),
            lower_member: self.you < player,
            relay_only: self.config.relay_only,
            seed: random(&mut self.rng),
        };
        let mut session = Session::new(now.mono, config);
        let to = Addressees {
            room: self.room,
            from: MemberId(self.you.0),
            to: MemberId(player.0),
        };
        let nonce = random(&mut self.rng);
        let offer = trust::sign(
            &self.config.identity,
            to,
            session.credentials(),
            nonce,
            now.unix,
        );
        self.signals
            .push_back(signal(&session, SignalKind::Offer, offer));
        for candidate in &self.local {
            if let Some(line) = session.add_local(now.mono, candidate) {
                self.signals.push_back(candidate_signal(&session, line));
            }
        }
        if matches!(self.gathering, Gathering::Done) {
            self.signals.push_back(end_of_candidates(&session));
        }
        self.sessions.insert(player, session);
        self.flush(now.mono);
    }

    /// A player has left the room: their session ends.
    pub fn remove_player(&mut self, now: Now, player: PlayerId) {
        if let Some(session) = self.sessions.get_mut(&player) {
            session.handle_left(now.mono);
        }
        self.flush(now.mono);
    }

    /// A signal from another player. What cannot be understood is ignored: anybody in the room may send anything.
    pub fn handle_signal(
        &mut self,
        now: Now,
        from: PlayerId,
        kind: SignalKind,
        conn: &str,
        data: &Value,
    ) {
        let expected = Addressees {
            room: self.room,
            from: MemberId(from.0),
            to: MemberId(self.you.0),
        };
        let Some(session) = self.sessions.get_mut(&from) else {
            return;
        };
        let mut learnt = Vec::new();
        match kind {
            SignalKind::Offer | SignalKind::Answer => {
                let checked = trust::check(data, expected, now.unix);
                learnt = session.handle_description(now.mono, conn, checked);
            }
            SignalKind::Candidate => {
                let line = CandidateData::deserialize(data).ok();
                let line = line.as_ref().and_then(|line| line.candidate().ok());
                learnt.extend(line.and_then(|line| session.handle_candidate(now.mono, conn, line)));
            }
            SignalKind::Bye => session.handle_left(now.mono),
            // Checks go on until they succeed or time is over, with or without more candidates. A restart is a new offer
            // of a later version of the protocol.
            SignalKind::CandidatesEnd | SignalKind::Restart => {}
        }
        for address in learnt {
            self.relays.permit(now.mono, address.ip());
        }
        self.flush(now.mono);
    }

    /// A datagram arrived on one of our sockets.
    pub fn handle_datagram(&mut self, now: Now, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let Some(local) = self.candidates.address_of(socket) else {
            return;
        };
        if stun_wire::is_stun(bytes) && self.handle_binding_response(now.mono, socket, from, bytes)
        {
            self.flush(now.mono);
            return;
        }
        if self.relays.owns(socket, from) {
            let brought = self.relays.handle_datagram(now.mono, socket, from, bytes);
            if let Some(FromPeer {
                relayed,
                peer,
                bytes,
            }) = brought
            {
                self.handle_payload(now.mono, relayed, peer, &bytes);
            }
        } else {
            self.handle_payload(now.mono, local, from, bytes);
        }
        self.flush(now.mono);
    }

    /// The stream asked for is open, from our address `local`.
    pub fn handle_stream_opened(&mut self, now: Now, stream: StreamId, local: SocketAddr) {
        self.relays.handle_stream_opened(now.mono, stream, local);
        self.flush(now.mono);
    }

    /// Bytes arrived on a stream.
    pub fn handle_stream_data(&mut self, now: Now, stream: StreamId, bytes: &[u8]) {
        for FromPeer {
            relayed,
            peer,
            bytes,
        } in self.relays.handle_stream_data(now.mono, stream, bytes)
        {
            self.handle_payload(now.mono, relayed, peer, &bytes);
        }
        self.flush(now.mono);
    }

    /// A stream could not be opened, or has ended.
    pub fn handle_stream_closed(&mut self, now: Now, stream: StreamId) {
        self.relays.handle_stream_closed(now.mono, stream);
        self.flush(now.mono);
    }

    /// Sends a message to a player.
    ///
    /// # Errors
    /// [`SendError`]: nothing was sent.
    pub fn send(
        &mut self,
        now: Now,
        player: PlayerId,
        channel: ChannelId,
        message: &[u8],
    ) -> Result<(), SendError> {
        let mode = *self.modes.get(&channel).ok_or(SendError::UnknownChannel)?;
        let session = self
            .sessions
            .get_mut(&player)
            .ok_or(SendError::NotConnected)?;
        session.send(now.mono, channel, mode, message)?;
        self.flush(now.mono);
        Ok(())
    }

    /// Says goodbye to everybody and gives the relay allocations back. Drain the transmits and signals afterwards.
    pub fn close(&mut self, now: Now) {
        for session in self.sessions.values_mut() {
            session.close(now.mono);
            self.signals.push_back(signal(
                session,
                SignalKind::Bye,
                Value::Object(<_>::default()),
            ));
        }
        self.flush(now.mono);
        self.relays.delete_all(now.mono);
        self.flush(now.mono);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.candidates.handle_timeout(now.mono);
        self.relays.drive(now.mono);
        for session in self.sessions.values_mut() {
            session.handle_timeout(now.mono, &self.relays);
        }
        self.flush(now.mono);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let sessions = self
            .sessions
            .values_mut()
            .filter_map(Session::poll_timeout)
            .min();
        let gathering = match self.gathering {
            Gathering::Since(start) => Some(start + GATHERING_TIMEOUT),
            Gathering::Waiting | Gathering::Done => None,
        };
        [
            self.candidates.poll_timeout(),
            self.relays.poll_timeout(),
            sessions,
            gathering,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next event. Messages are read from the sessions here, so stopping to poll holds senders back. Poll events before
    /// transmits: reading gives credit to the other side, which leaves as a datagram.
    pub fn poll_event(&mut self, now: Now) -> Option<NodeEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        for (player, session) in &mut self.sessions {
            if let Some((channel, data)) = session.poll_message(now.mono) {
                self.unread = true;
                return Some(NodeEvent::Message {
                    player: *player,
                    channel,
                    data,
                });
            }
        }
        if std::mem::take(&mut self.unread) {
            self.flush(now.mono);
        }
        self.events.pop_front()
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next signal for the signaling server.
    pub fn poll_signal(&mut self) -> Option<Signal> {
        self.signals.pop_front()
    }

    /// The next thing asked of the caller's streams.
    pub fn poll_stream(&mut self) -> Option<StreamRequest> {
        self.requests.pop_front()
    }

    /// Figures of the session with a player, once it is open.
    #[must_use]
    pub fn stats(&self, player: PlayerId) -> Option<Stats> {
        self.sessions.get(&player)?.stats()
    }

    /// What was tried on the way to a player.
    #[must_use]
    pub fn diary(&self, player: PlayerId) -> Option<&PathDiary> {
        self.sessions.get(&player).map(Session::diary)
    }

    /// True when the message answered one of our own questions to a STUN server.
    fn handle_binding_response(
        &mut self,
        now: Instant,
        socket: SocketId,
        from: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let Ok(message) = Message::parse(bytes) else {
            return false;
        };
        if message.method() != Method::BINDING
            || !matches!(message.class(), Class::Success | Class::Error)
        {
            return false;
        }
        let Some(told) = self.candidates.handle_response(now, socket, from, &message) else {
            return false;
        };
        if let Some(Reflexive { address, base, url }) = told {
            self.add_local_candidate(
                now,
                CandidateInfo {
                    kind: CandidateKind::ServerReflexive,
                    address,
                    base,
                    server: Some(url),
                    transport: None,
                },
            );
        }
        true
    }

    /// A datagram of a player (or a stranger) that arrived on our base `local`.
    fn handle_payload(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        // RFC 7983, RFC 9443: the first byte tells STUN from QUIC.
        if stun_wire::is_stun(bytes) {
            for session in self.sessions.values_mut() {
                if session.handle_stun(now, from, local, bytes) {
                    session.pump(now, &self.relays);
                    return;
                }
            }
            return;
        }
        let Some(64..) = bytes.first() else { return };
        for session in self.sessions.values_mut() {
            if session.is_validated(from) {
                session.handle_datagram(now, from, local, bytes);
                session.pump(now, &self.relays);
                return;
            }
        }
    }

    fn add_local_candidate(&mut self, now: Instant, candidate: CandidateInfo) {
        if self.config.relay_only && candidate.kind != CandidateKind::Relayed
            || self.local.len() >= MAX_LOCAL_CANDIDATES
        {
            return;
        }
        for session in self.sessions.values_mut() {
            if let Some(line) = session.add_local(now, &candidate) {
                self.signals.push_back(candidate_signal(session, line));
            }
        }
        self.events
            .push_back(NodeEvent::CandidateGathered(candidate.clone()));
        self.local.push(candidate);
    }

    /// The drain rule: after each input, move what the parts have to say to where it belongs.
    fn flush(&mut self, now: Instant) {
        while let Some(event) = self.relays.poll_event() {
            self.handle_relay_event(now, event);
        }
        self.finish_gathering(now);
        let players: Vec<_> = self.sessions.keys().copied().collect();
        for player in players {
            self.flush_session(now, player);
        }
        self.transmits.extend(self.candidates.take_transmits());
        self.transmits.extend(self.relays.take_transmits());
        self.requests.extend(self.relays.take_requests());
    }

    fn flush_session(&mut self, now: Instant, player: PlayerId) {
        let Some(session) = self.sessions.get_mut(&player) else {
            return;
        };
        if !session.is_ended() {
            session.pump(now, &self.relays);
        }
        while let Some(outgoing) = session.poll_outgoing() {
            if let Some(socket) = self.candidates.socket_at(outgoing.local) {
                self.transmits.push_back(Transmit::Datagram {
                    socket,
                    to: outgoing.remote,
                    bytes: outgoing.bytes,
                });
            } else {
                self.relays
                    .send(now, outgoing.local, outgoing.remote, &outgoing.bytes);
            }
        }
        let mut lost = false;
        while let Some(event) = session.poll_event() {
            let event = match event {
                SessionEvent::Diary(entry) => {
                    if let DiaryEvent::Chosen(path) = entry.what {
                        self.relays.bind_channel(now, path.local, path.remote);
                    }
                    NodeEvent::Diary { player, entry }
                }
                SessionEvent::Connected { path, took } => NodeEvent::Connected {
                    player,
                    path,
                    trust: Trust::Signaling,
                    took,
                },
                SessionEvent::PathChanged { from, to, gap } => NodeEvent::PathChanged {
                    player,
                    from,
                    to,
                    gap,
                },
                SessionEvent::Lost { reason, diary } => {
                    lost = true;
                    NodeEvent::Lost {
                        player,
                        reason,
                        diary,
                    }
                }
            };
            self.events.push_back(event);
        }
        if lost {
            self.sessions.remove(&player);
        }
    }

    fn handle_relay_event(&mut self, now: Instant, event: RelayEvent) {
        match event {
            RelayEvent::Allocated {
                relayed,
                base,
                url,
                transport,
            } => {
                let known: Vec<_> = self
                    .sessions
                    .values()
                    .flat_map(Session::remote_addresses)
                    .collect();
                self.add_local_candidate(
                    now,
                    CandidateInfo {
                        kind: CandidateKind::Relayed,
                        address: relayed,
                        base,
                        server: Some(url),
                        transport: Some(transport),
                    },
                );
                for address in known {
                    self.relays.permit(now, address.ip());
                }
            }
            RelayEvent::Failed { url, reason, lost } => {
                self.local
                    .retain(|candidate| !lost.contains(&candidate.address));
                for session in self.sessions.values_mut() {
                    let event = DiaryEvent::RelayFailed {
                        url: Arc::clone(&url),
                        reason,
                    };
                    session.relay_failed(now, event, &lost, &self.relays);
                }
            }
        }
    }

    fn finish_gathering(&mut self, now: Instant) {
        let Gathering::Since(start) = self.gathering else {
            return;
        };
        let settled = self.candidates.is_settled() && self.relays.is_settled();
        if settled || now >= start + GATHERING_TIMEOUT {
            self.gathering = Gathering::Done;
            for session in self.sessions.values() {
                self.signals.push_back(end_of_candidates(session));
            }
            let took = now.saturating_duration_since(start);
            self.events.push_back(NodeEvent::Gathered {
                candidates: self.local.len(),
                took,
            });
        }
    }
}

fn random<const N: usize>(rng: &mut StdRng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn signal(session: &Session, kind: SignalKind, data: Value) -> Signal {
    Signal {
        to: session.player(),
        kind,
        conn: session.conn().to_owned(),
        data,
    }
}

fn candidate_signal(session: &Session, line: String) -> Signal {
    let data = serde_json::to_value(CandidateData::new(line)).expect("a candidate is a string");
    signal(session, SignalKind::Candidate, data)
}

fn end_of_candidates(session: &Session) -> Signal {
    signal(
        session,
        SignalKind::CandidatesEnd,
        Value::Object(<_>::default()),
    )
}
