//! The connection with one player: description, checks, encrypted session, path.
//!
//! Four phases, each with a time after which the player counts as lost: waiting for the description, checking paths,
//! proving keys, open. Calls go in with the time; datagrams, signals and events come out by `poll_*`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::channels::SendError;
use crate::ice::{Agent, AgentEvent, CandidateError};
use crate::identity::Identity;
use crate::link::{Link, LinkEnd, LinkEvent};
use crate::paths::{DiaryEntry, DiaryEvent, Liveness, PathDiary, rank};
use crate::relays::Relays;
use crate::trust::{DescriptionError, Verified};
use crate::types::{CandidateInfo, CandidateKind, ChannelId, Mode, PathInfo, PathKind, Stats};
use crate::types::{PlayerId, RelayTransport};

/// How long the other player's description may take.
const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first path may take.
const CHECKING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the proof of keys may take on a proven path.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Addresses that session bytes are taken from.
const MAX_VALIDATED: usize = 64;
/// Candidates kept that arrived before the description.
const MAX_EARLY: usize = 32;

/// Why the session with a player ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// They left the room or closed the session.
    Left,
    /// They never sent a description that could be taken.
    NoDescription(Option<DescriptionError>),
    /// No path to them worked.
    NoPath,
    /// They do not hold the key that their description names, or speak another protocol.
    Identity,
    /// Nothing was heard from them for half a minute.
    Silent,
    /// They broke the protocol.
    Protocol,
}

impl LostReason {
    /// A stable word for logs and bindings.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::NoDescription(_) => "no_description",
            Self::NoPath => "no_path",
            Self::Identity => "identity",
            Self::Silent => "silent",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("they left"),
            Self::NoDescription(None) => f.write_str("they never answered"),
            Self::NoDescription(Some(why)) => write!(f, "their description was refused: {why}"),
            Self::NoPath => f.write_str("no path to them works"),
            Self::Identity => f.write_str("they could not prove the key they named"),
            Self::Silent => f.write_str("nothing was heard for half a minute"),
            Self::Protocol => f.write_str("they broke the protocol"),
        }
    }
}

/// What a session tells its node.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    Diary(DiaryEntry),
    Connected {
        path: PathInfo,
        took: Duration,
    },
    PathChanged {
        from: PathInfo,
        to: PathInfo,
        gap: Duration,
    },
    Lost {
        reason: LostReason,
        diary: PathDiary,
    },
}

/// A datagram for the other player: from our base, to their address.
pub(crate) struct Outgoing {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// What a session is made of.
pub(crate) struct SessionConfig {
    pub(crate) player: PlayerId,
    /// Names this connection in signals.
    pub(crate) conn: String,
    pub(crate) identity: Identity,
    /// Breaks the tie when both players hold the same key.
    pub(crate) lower_member: bool,
    pub(crate) relay_only: bool,
    pub(crate) seed: [u8; 32],
}

/// The connection with one player.
pub(crate) struct Session {
    config: SessionConfig,
    started: Instant,
    deadline: Option<Instant>,
    agent: Agent,
    remote: Option<Verified>,
    refused: Option<DescriptionError>,
    their_conn: Option<String>,
    early: Vec<String>,
    link: Option<Link>,
    /// Addresses that have proved to be the other player's (RFC 8445 checks).
    validated: BTreeSet<SocketAddr>,
    /// Pairs whose checks were answered, and when last.
    answered: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    nominated: Option<(SocketAddr, SocketAddr)>,
    path: Option<PathInfo>,
    path_changes: u32,
    died_at: Option<Instant>,
    liveness: Liveness,
    diary: PathDiary,
    connected: bool,
    ended: bool,
    outgoing: VecDeque<Outgoing>,
    events: VecDeque<SessionEvent>,
}

impl Session {
    pub(crate) fn new(now: Instant, config: SessionConfig) -> Self {
        Self {
            agent: Agent::new(config.lower_member),
            config,
            started: now,
            deadline: Some(now + DESCRIPTION_TIMEOUT),
            remote: None,
            refused: None,
            their_conn: None,
            early: Vec::new(),
            link: None,
            validated: BTreeSet::new(),
            answered: BTreeMap::new(),
            nominated: None,
            path: None,
            path_changes: 0,
            died_at: None,
            liveness: Liveness::default(),
            diary: PathDiary::default(),
            connected: false,
            ended: false,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn player(&self) -> PlayerId {
        self.config.player
    }

    pub(crate) fn conn(&self) -> &str {
        &self.config.conn
    }

    pub(crate) fn credentials(&self) -> (&str, &str) {
        self.agent.credentials()
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn diary(&self) -> &PathDiary {
        &self.diary
    }

    /// Their description, or why it could not be taken.
    pub(crate) fn handle_description(
        &mut self,
        now: Instant,
        conn: &str,
        checked: Result<Verified, DescriptionError>,
    ) -> Vec<SocketAddr> {
        if self.remote.is_some() || self.ended {
            return Vec::new();
        }
        let verified = match checked {
            Ok(verified) => verified,
            Err(why) => {
                self.refused = Some(why);
                self.note(now, DiaryEvent::DescriptionRefused(why));
                return Vec::new();
            }
        };
        self.note(now, DiaryEvent::DescriptionTaken);
        let own = self.config.identity.public_key();
        // The lower key is ICE controlling and QUIC client.
        let controlling = match own.cmp(&verified.key) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => self.config.lower_member,
        };
        self.agent.set_controlling(controlling);
        self.agent
            .set_remote_credentials(&verified.ufrag, &verified.pwd);
        if !controlling {
            // The first bytes of the other side's handshake may come before our own checks are through.
            self.link = Some(self.new_link(now, false, &verified));
        }
        self.remote = Some(verified);
        self.their_conn = Some(conn.to_owned());
        self.deadline = Some(now + CHECKING_TIMEOUT);
        let early = std::mem::take(&mut self.early);
        early
            .iter()
            .filter_map(|line| self.handle_candidate(now, conn, line))
            .collect()
    }

    /// One of their candidates; the answer is an address our relays should let through.
    pub(crate) fn handle_candidate(
        &mut self,
        now: Instant,
        conn: &str,
        line: &str,
    ) -> Option<SocketAddr> {
        match &self.their_conn {
            None => {
                if self.early.len() < MAX_EARLY {
                    self.early.push(line.to_owned());
                }
                return None;
            }
            Some(known) if known != conn => return None,
            Some(_) => {}
        }
        let learnt = self.agent.add_remote(line);
        let (kind, address) = match learnt {
            Ok(learnt) => learnt,
            Err(CandidateError::Malformed | CandidateError::TooMany) => return None,
        };
        self.note(now, DiaryEvent::RemoteCandidate { kind, address });
        Some(address)
    }

    /// The other player's addresses known so far, for a relay that is new.
    pub(crate) fn remote_addresses(&self) -> Vec<SocketAddr> {
        self.agent.remote_addresses()
    }

    /// One of our candidates; the answer is the line to tell the other player.
    pub(crate) fn add_local(&mut self, now: Instant, candidate: &CandidateInfo) -> Option<String> {
        if self.config.relay_only && candidate.kind != CandidateKind::Relayed {
            return None;
        }
        let line = self
            .agent
            .add_local(candidate.kind, candidate.address, candidate.base)?;
        self.note(now, DiaryEvent::LocalCandidate(candidate.clone()));
        Some(line)
    }

    /// A relay will not help, or no longer does: what led over its addresses is left at once.
    pub(crate) fn relay_failed(
        &mut self,
        now: Instant,
        event: DiaryEvent,
        lost: &[SocketAddr],
        relays: &Relays,
    ) {
        self.note(now, event);
        self.answered.retain(|(local, _), _| !lost.contains(local));
        for local in lost {
            self.agent.give_up_local(*local);
        }
        if self.path.is_some_and(|path| lost.contains(&path.local)) {
            self.leave_path(now, relays);
        }
    }

    /// A STUN message that arrived on our base `to`. False when it is not for this session.
    pub(crate) fn handle_stun(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        !self.ended && self.agent.handle_packet(now, from, to, bytes)
    }

    /// Whether session bytes from this address are this player's.
    pub(crate) fn is_validated(&self, from: SocketAddr) -> bool {
        self.validated.contains(&from)
    }

    /// Session bytes from a validated address.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let Some(link) = &mut self.link else { return };
        link.handle_datagram(now, bytes);
        let here = self
            .path
            .is_some_and(|path| (path.local, path.remote) == (to, from));
        self.liveness.heard(now, here);
        if self.nominated.is_none() && self.path.is_none() {
            // The other side has nominated already; answer where it was heard until our own check is through.
            self.nominated = Some((to, from));
            self.answered.entry((to, from)).or_insert(now);
        }
    }

    pub(crate) fn send(
        &mut self,
        now: Instant,
        channel: ChannelId,
        mode: Mode,
        message: &[u8],
    ) -> Result<(), SendError> {
        let link = self
            .link
            .as_mut()
            .filter(|_| !self.ended)
            .ok_or(SendError::NotConnected)?;
        if link.is_connected() {
            self.liveness.sent();
            if let Some(number) = self.liveness.probe(now) {
                // First, so that both leave in one datagram.
                link.send_probe(number);
            }
        }
        match mode {
            Mode::Unreliable => link.send_unreliable(channel, message)?,
            Mode::ReliableOrdered => {
                link.send_reliable(channel, Bytes::copy_from_slice(message))?;
            }
        }
        self.pump_link(now);
        Ok(())
    }

    /// Says goodbye and ends.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.close(now);
        }
        self.pump_link(now);
        self.ended = true;
    }

    /// They have left the room.
    pub(crate) fn handle_left(&mut self, now: Instant) {
        self.close(now);
        self.events.push_back(SessionEvent::Lost {
            reason: LostReason::Left,
            diary: self.diary.clone(),
        });
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, relays: &Relays) {
        if self.ended {
            return;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let reason = match (&self.remote, &self.path) {
                (None, _) => LostReason::NoDescription(self.refused),
                (Some(_), None) => LostReason::NoPath,
                (Some(_), Some(_)) => LostReason::Identity,
            };
            self.lose(reason);
            return;
        }
        self.agent.handle_timeout(now);
        if let Some(link) = &mut self.link {
            link.handle_timeout(now);
            if link.is_connected()
                && let Some(number) = self.liveness.probe(now)
            {
                link.send_probe(number);
            }
        }
        if self.death().is_some_and(|death| death <= now) {
            self.leave_path(now, relays);
        }
        while let Some((local, remote)) = self.liveness.rested(now) {
            self.agent.try_again(local, remote);
            self.note(now, DiaryEvent::TriedAgain { remote });
        }
        self.pump(now, relays);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let link = self.link.as_mut().and_then(Link::poll_timeout);
        let agent = self
            .remote
            .as_ref()
            .and_then(|_| self.agent.poll_timeout().or(Some(self.started)));
        [
            self.deadline,
            link,
            agent,
            self.death(),
            self.liveness
                .next_probe(self.started)
                .filter(|_| self.connected),
            self.liveness.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn poll_outgoing(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_message(&mut self, now: Instant) -> Option<(ChannelId, Bytes)> {
        if self.ended {
            return None;
        }
        self.link.as_mut()?.poll_message(now)
    }

    pub(crate) fn stats(&self) -> Option<Stats> {
        let link = self.link.as_ref().filter(|link| link.is_connected())?;
        let stats = link.stats()?;
        let (rtt, rtt_min) = link.rtt()?;
        let sent = stats.path.sent_packets;
        #[expect(clippy::cast_precision_loss, reason = "a share of packet counts")]
        let loss = if sent == 0 {
            0.0
        } else {
            stats.path.lost_packets as f64 / sent as f64
        };
        Some(Stats {
            path: self.path?,
            rtt,
            rtt_min,
            loss,
            sent_datagrams: stats.udp_tx.datagrams,
            received_datagrams: stats.udp_rx.datagrams,
            lost_datagrams: stats.path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            queued_bytes: link.queued_bytes(),
            dropped_messages: link.dropped_messages(),
            path_changes: self.path_changes,
        })
    }

    /// Lets agent and link speak until both have nothing more to say.
    pub(crate) fn pump(&mut self, now: Instant, relays: &Relays) {
        while let Some((local, remote, bytes)) = self.agent.poll_transmit() {
            self.outgoing.push_back(Outgoing {
                local,
                remote,
                bytes,
            });
        }
        while let Some(event) = self.agent.poll_event() {
            self.handle_agent_event(now, event);
        }
        self.refresh_path_kind(now, relays);
        self.consider_nomination(now, relays);
        self.pump_link(now);
    }

    fn handle_agent_event(&mut self, now: Instant, event: AgentEvent) {
        match event {
            AgentEvent::Validated(address) => {
                if self.validated.len() < MAX_VALIDATED {
                    self.validated.insert(address);
                }
            }
            AgentEvent::Nominated { local, remote } => self.nominated = Some((local, remote)),
            AgentEvent::CheckSent { local, remote } => {
                self.note(now, DiaryEvent::CheckSent { local, remote });
            }
            AgentEvent::CheckAnswered {
                local,
                remote,
                first,
            } => {
                self.answered.insert((local, remote), now);
                if first {
                    self.note(now, DiaryEvent::CheckAnswered { local, remote });
                }
            }
        }
    }

    /// Takes the path the agent nominated, unless it has not proved itself since the last one died.
    fn consider_nomination(&mut self, now: Instant, relays: &Relays) {
        let Some((local, remote)) = self.nominated else {
            return;
        };
        if self
            .path
            .is_some_and(|path| (path.local, path.remote) == (local, remote))
        {
            return;
        }
        let answered = self.answered.get(&(local, remote)).copied();
        let proven = match self.died_at {
            Some(died) => answered.is_some_and(|answered| answered > died),
            None => true,
        };
        if proven && !self.liveness.is_resting(local, remote) {
            let path = self.describe(relays, local, remote);
            self.take_path(now, path);
        }
    }

    fn take_path(&mut self, now: Instant, path: PathInfo) {
        let before = self.path.replace(path);
        let gap = self.liveness.silent_for(now);
        self.liveness.new_path();
        self.note(now, DiaryEvent::Chosen(path));
        match (before, &self.remote) {
            (None, Some(remote)) => {
                self.deadline = Some(now + HANDSHAKE_TIMEOUT);
                if self.link.is_none() {
                    self.link = Some(self.new_link(now, true, remote));
                }
            }
            (Some(from), _) => {
                if let Some(link) = &mut self.link {
                    link.path_changed(now);
                }
                if self.connected {
                    self.path_changes += 1;
                    self.events.push_back(SessionEvent::PathChanged {
                        from,
                        to: path,
                        gap,
                    });
                }
            }
            (None, None) => {}
        }
    }

    /// The path in use died: take the best other pair that has answered, of the other kind first, and have the agent give the
    /// dead one up. Without another pair the path is kept; it may come back.
    fn leave_path(&mut self, now: Instant, relays: &Relays) {
        let Some(dead) = self.path else { return };
        let silent = self.liveness.silent_for(now);
        self.liveness.new_path();
        let dead_is_direct = dead.kind == PathKind::Direct;
        let best = self
            .answered
            .keys()
            .filter(|(local, remote)| (*local, *remote) != (dead.local, dead.remote))
            .filter(|(local, remote)| !self.liveness.is_resting(*local, *remote))
            .map(|(local, remote)| self.describe(relays, *local, *remote))
            .max_by_key(|path| {
                let other_kind = (path.kind == PathKind::Direct) != dead_is_direct;
                let by = relays.transport_of(path.local);
                (other_kind, rank(path.local_kind, path.remote_kind, by))
            });
        let Some(next) = best else { return };
        self.note(now, DiaryEvent::Died { path: dead, silent });
        self.died_at = Some(now);
        self.nominated = None;
        self.liveness.rest(now, dead.local, dead.remote);
        if next.remote == dead.remote {
            self.agent.give_up_local(dead.local);
        } else {
            self.agent.give_up_remote(dead.remote);
        }
        self.take_path(now, next);
    }

    /// A candidate learnt late may tell that the other end is a relay after all.
    fn refresh_path_kind(&mut self, now: Instant, relays: &Relays) {
        let Some(path) = self.path else { return };
        let fresh = self.describe(relays, path.local, path.remote);
        if fresh.remote_kind != path.remote_kind && path.remote_kind == CandidateKind::PeerReflexive
        {
            self.path = Some(fresh);
            if self.connected && fresh.kind != path.kind {
                let gap = self.liveness.silent_for(now);
                self.events.push_back(SessionEvent::PathChanged {
                    from: path,
                    to: fresh,
                    gap,
                });
            }
        }
    }

    fn describe(&self, relays: &Relays, local: SocketAddr, remote: SocketAddr) -> PathInfo {
        let ours = relays.transport_of(local);
        let remote_kind = self.agent.remote_kind(remote);
        let kind = match ours {
            Some(transport) => PathKind::Relayed { transport },
            None if remote_kind == CandidateKind::Relayed => PathKind::Relayed {
                transport: RelayTransport::Udp,
            },
            None => PathKind::Direct,
        };
        let local_kind = if ours.is_some() {
            CandidateKind::Relayed
        } else {
            CandidateKind::Host
        };
        PathInfo {
            kind,
            local,
            remote,
            local_kind,
            remote_kind,
        }
    }

    fn pump_link(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if let Some(path) = &self.path {
            while let Some(bytes) = link.poll_transmit(now) {
                let (local, remote) = (path.local, path.remote);
                self.outgoing.push_back(Outgoing {
                    local,
                    remote,
                    bytes,
                });
            }
        }
        while let Some(event) = self.link.as_mut().and_then(Link::poll_event) {
            self.handle_link_event(now, event);
        }
    }

    fn handle_link_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Connected => {
                self.deadline = None;
                self.connected = true;
                self.note(now, DiaryEvent::Connected);
                if let Some(path) = self.path {
                    let took = now.saturating_duration_since(self.started);
                    self.events
                        .push_back(SessionEvent::Connected { path, took });
                }
            }
            LinkEvent::ProbeAnswered => self.liveness.answered(),
            LinkEvent::Ended(end) => self.lose(match end {
                LinkEnd::Left => LostReason::Left,
                LinkEnd::Silent => LostReason::Silent,
                LinkEnd::Handshake => LostReason::Identity,
                LinkEnd::Protocol => LostReason::Protocol,
            }),
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if !self.ended {
            self.ended = true;
            let diary = self.diary.clone();
            self.events.push_back(SessionEvent::Lost { reason, diary });
        }
    }

    /// When the path in use counts as dead.
    fn death(&self) -> Option<Instant> {
        let link = self.link.as_ref().filter(|link| link.is_connected())?;
        let (rtt, _) = link.rtt()?;
        self.liveness.deadline(rtt)
    }

    fn new_link(&self, now: Instant, client: bool, remote: &Verified) -> Link {
        let rtt = self
            .agent
            .rtt()
            .map(|rtt| rtt.max(Duration::from_millis(20)));
        Link::new(
            now,
            client,
            &self.config.identity,
            remote.key,
            rtt,
            self.config.seed,
        )
    }

    fn note(&mut self, now: Instant, what: DiaryEvent) {
        let at = now.saturating_duration_since(self.started);
        let entry = self.diary.write(at, what);
        self.events.extend(entry.map(SessionEvent::Diary));
    }
}
