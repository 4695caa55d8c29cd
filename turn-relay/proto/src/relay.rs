//! The relay machine: calls in, results out, dispatch only. What a request does stands in
//! `request/`, what a payload does in `data`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stun_wire::attribute::Icmp;
use stun_wire::{AttributeType, Class, Message, Method, error_code};

use crate::auth::{Authenticator, Circumstances, Refusal};
use crate::clock::{Clock, Tick};
use crate::config::RelayConfig;
use crate::counters::{Counters, RequestMethod};
use crate::data;
use crate::demux::{Kind, classify};
use crate::hash::HashKey;
use crate::limits::{Limiter, Unproven};
use crate::peers::PeerPolicy;
use crate::ports::Ports;
use crate::quota::{Holdings, UserId};
use crate::request::{
    Request, allocate, binding, channel_bind, create_permission, known_attributes, refresh,
    split_proof,
};
use crate::respond::{Answer, Challenge, Envelope, Reject};
use crate::tables::{AllocationId, Channel, Tables};
use crate::timers::{TimerId, Timers};
use crate::verdict::{
    DropReason, EndReason, Event, Family, Forward, Now, Path, Reason, RelayAddr, SocketOutcome,
    Traffic, Verdict,
};

/// One TURN relay (of a shard): see the crate's front page for the contract.
pub struct Relay {
    pub(crate) config: RelayConfig,
    clock: Clock,
    pub(crate) rng: StdRng,
    auth: Authenticator,
    pub(crate) limiter: Limiter,
    pub(crate) policy: PeerPolicy,
    pub(crate) ports: Ports,
    pub(crate) holdings: Holdings,
    pub(crate) tables: Tables,
    pub(crate) reservations: BTreeMap<[u8; 8], Reservation>,
    /// Sockets asked for and not answered for, and who waits; nobody waits any more for some.
    pub(crate) wanted: BTreeMap<RelayAddr, Option<AllocationId>>,
    pub(crate) timers: Timers<Due>,
    pub(crate) events: VecDeque<Event>,
    outbox: VecDeque<(Path, Vec<u8>)>,
    pub(crate) counters: Counters,
    pub(crate) draining: bool,
    /// Where the header of a Data indication is written before it is copied out.
    pub(crate) scratch: Vec<u8>,
}

/// What a deadline is about.
#[derive(Clone, Copy)]
pub(crate) enum Due {
    Allocation(AllocationId),
    Reservation([u8; 8]),
}

/// An open relay socket that waits for its RESERVATION-TOKEN.
pub(crate) struct Reservation {
    pub(crate) addr: RelayAddr,
    pub(crate) user: UserId,
    pub(crate) timer: TimerId,
}

/// Levels at this moment; each is kept, none is counted out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Allocations that exist.
    pub allocations: usize,
    /// Allocations that wait for a socket.
    pub pending: usize,
    /// Ports held for a RESERVATION-TOKEN.
    pub reservations: usize,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
    /// Users with an allocation.
    pub users: usize,
    /// Relay ports in use.
    pub ports_in_use: usize,
    /// Relay ports there are.
    pub ports_limit: usize,
}

/// One allocation, for lists and dashboards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationView<'a> {
    /// The client's 5-tuple.
    pub client: Path,
    /// Who owns it: the subject of the credential.
    pub user: &'a str,
    /// Bound relay addresses.
    pub relayed: [Option<RelayAddr>; 2],
    /// When it was made.
    pub created: Instant,
    /// When it ends unless refreshed.
    pub expires: Instant,
    /// What it carried.
    pub traffic: Traffic,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
}

impl Relay {
    /// A relay without allocations. The seed is 32 bytes of the operating system's generator.
    #[must_use]
    pub fn new(config: RelayConfig, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let mut nonce_key = [0; 32];
        rng.fill_bytes(&mut nonce_key);
        let key = HashKey::random(&mut rng);
        let ports = Ports::new(&config);
        let policy = PeerPolicy::with_live_ports(&config, ports.live().clone());
        Self {
            clock: Clock::default(),
            auth: Authenticator::new(&config, nonce_key),
            limiter: Limiter::new(config.limits.clone(), key),
            policy,
            ports,
            holdings: Holdings::new(key),
            tables: Tables::new(key),
            reservations: BTreeMap::new(),
            wanted: BTreeMap::new(),
            timers: Timers::new(),
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            counters: Counters::default(),
            draining: false,
            scratch: Vec::with_capacity(64),
            rng,
            config,
        }
    }

    /// A new configuration, between two calls. Relay addresses, ports and live ports stay as they
    /// were at the start; permissions and channels towards peers that are refused by it end.
    pub fn set_config(&mut self, now: Now, config: RelayConfig) {
        let tick = self.clock.tick(now.mono);
        self.end_due(tick);
        let started = std::mem::replace(&mut self.config, config);
        self.config.relay_addresses = started.relay_addresses;
        self.config.ports = started.ports;
        self.config.live_ports = started.live_ports;
        self.auth.set_config(&self.config);
        self.limiter.set_config(self.config.limits.clone());
        self.policy = PeerPolicy::with_live_ports(&self.config, self.ports.live().clone());
        let ids: Vec<AllocationId> = self.tables.iter().map(|(id, _)| id).collect();
        for id in ids {
            let policy = &self.policy;
            let freed = self.tables.retain(id, |ip| policy.judge_ip(ip).is_ok());
            self.report_freed(id, freed);
            self.rearm(id);
        }
    }

    /// While draining, new allocations are refused (508, or 300 with an alternate server) and the
    /// existing ones live on.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// A datagram, or a frame of a stream, from a client.
    pub fn handle_client(
        &mut self,
        now: Now,
        path: Path,
        input: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        let tick = self.clock.tick(now.mono);
        match classify(input, self.config.protocol.rfc5766_channels) {
            Kind::ChannelData => forward(data::from_channel(self, tick, &path, input)),
            Kind::Stun => self.handle_stun(now, tick, path, input, reply),
            Kind::Other => Verdict::Dropped(DropReason::NotTurn),
        }
    }

    /// A datagram from a peer on a relay socket.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
        input: &[u8],
    ) -> Verdict {
        let tick = self.clock.tick(now.mono);
        forward(data::from_peer(self, tick, relayed, peer, input))
    }

    /// An ICMP error for a datagram that left a relay socket towards `peer` (RFC 8656 §11.5), for
    /// the client who sent it; `icmp.data` is the MTU of "too big" and 0 otherwise.
    pub fn handle_peer_error(
        &mut self,
        now: Now,
        relayed: RelayAddr,
        peer: SocketAddr,
        icmp: Icmp,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        reply.clear();
        let tick = self.clock.tick(now.mono);
        match data::peer_error(self, tick, relayed, peer, icmp, reply) {
            Ok(path) => Verdict::Reply { path },
            Err(reason) => Verdict::Dropped(reason),
        }
    }

    /// The answer to [`Event::SocketWanted`]. One that was not asked for is ignored.
    pub fn handle_socket(&mut self, now: Now, addr: RelayAddr, outcome: SocketOutcome) {
        let tick = self.clock.tick(now.mono);
        match self.wanted.remove(&addr) {
            Some(Some(id)) => allocate::handle_socket(self, tick, id, addr, outcome),
            Some(None) => {
                self.ports.give_back(addr);
                if outcome == SocketOutcome::Opened {
                    self.events.push_back(Event::SocketFreed { addr });
                }
            }
            None => {}
        }
    }

    /// The TCP or TLS connection of a client ended: so does its allocation (RFC 8656 §3.1).
    pub fn handle_disconnect(&mut self, now: Now, client: Path) {
        let tick = self.clock.tick(now.mono);
        if let Some(id) = self.tables.find_client(&client) {
            self.end(id, tick, EndReason::Disconnected);
        }
    }

    /// What a kernel fast path carried for a client since the last report.
    pub fn handle_usage(&mut self, client: Path, carried: Traffic) {
        let id = self.tables.find_client(&client);
        if let Some(allocation) = id.and_then(|id| self.tables.get_mut(id)) {
            let traffic = &mut allocation.traffic;
            traffic.to_peer_packets += carried.to_peer_packets;
            traffic.to_peer_bytes += carried.to_peer_bytes;
            traffic.to_client_packets += carried.to_client_packets;
            traffic.to_client_bytes += carried.to_client_bytes;
        }
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let tick = self.clock.tick(now.mono);
        self.end_due(tick);
    }

    /// Ends all allocations of a user (a credential's subject, or a static user's name). Returns how
    /// many.
    pub fn kick_user(&mut self, now: Now, user: &str) -> usize {
        let tick = self.clock.tick(now.mono);
        let Some(user) = self.holdings.find(user) else {
            return 0;
        };
        let theirs = self
            .tables
            .iter()
            .filter(|(_, allocation)| allocation.user == user);
        let ids: Vec<AllocationId> = theirs.map(|(id, _)| id).collect();
        for id in &ids {
            self.end(*id, tick, EndReason::Kicked);
        }
        ids.len()
    }

    /// Ends the allocation of a client. False if there was none.
    pub fn kick_client(&mut self, now: Now, client: Path) -> bool {
        let tick = self.clock.tick(now.mono);
        let Some(id) = self.tables.find_client(&client) else {
            return false;
        };
        self.end(id, tick, EndReason::Kicked);
        true
    }

    /// Ends everything: the relay stops. The sockets come back as [`Event::SocketFreed`].
    pub fn end_all(&mut self, now: Now) {
        let tick = self.clock.tick(now.mono);
        let ids: Vec<AllocationId> = self.tables.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.end(id, tick, EndReason::Drained);
        }
        let tokens: Vec<[u8; 8]> = self.reservations.keys().copied().collect();
        for token in tokens {
            self.end_reservation(token);
        }
    }

    /// A response that had to wait, written into `reply` (cleared first); send it on the path.
    pub fn poll_transmit(&mut self, reply: &mut Vec<u8>) -> Option<Path> {
        reply.clear();
        let (path, bytes) = self.outbox.pop_front()?;
        reply.extend_from_slice(&bytes);
        Some(path)
    }

    /// What the shell has to do or to know, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is due, and why. O(1), and never earlier than something ends.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Reason)> {
        let (tick, reason) = self.timers.next()?;
        Some((self.clock.instant(tick)?, reason))
    }

    /// True if this machine relays on that address.
    #[must_use]
    pub fn owns(&self, addr: RelayAddr) -> bool {
        self.tables.find_relayed(addr).is_some()
    }

    /// Allocations one by one, in no particular order.
    pub fn allocations(&self) -> impl Iterator<Item = AllocationView<'_>> {
        let live = self
            .tables
            .iter()
            .filter(|(_, allocation)| allocation.pending.is_none());
        live.filter_map(|(_, allocation)| {
            Some(AllocationView {
                client: allocation.client,
                user: self.holdings.name(allocation.user),
                relayed: allocation.relayed(),
                created: self.clock.instant(allocation.created)?,
                expires: self.clock.instant(allocation.expires())?,
                traffic: allocation.traffic,
                permissions: allocation.permissions(),
                channels: allocation.channels().len(),
            })
        })
    }

    /// Levels at this moment.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            allocations: self.tables.len() - self.tables.pending(),
            pending: self.tables.pending(),
            reservations: self.reservations.len(),
            permissions: self.tables.permissions(),
            channels: self.tables.channels(),
            users: self.holdings.users(),
            ports_in_use: self.ports.in_use(),
            ports_limit: self.ports.limit(),
        }
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Checks every invariant between tables, quotas, ports and timers. Linear: for tests and
    /// fuzzing.
    ///
    /// # Panics
    ///
    /// If one does not hold.
    pub fn assert_consistent(&self) {
        self.tables.assert_consistent();
        let pairs = self
            .tables
            .iter()
            .filter(|(_, a)| a.pending.as_ref().is_some_and(|p| p.is_pair()));
        let holdings = self.tables.len() + self.reservations.len() + pairs.count();
        assert_eq!(self.holdings.total(), holdings, "what users hold");
        assert_eq!(
            self.holdings.addresses_total(),
            self.tables.len(),
            "what addresses hold"
        );
        assert_eq!(
            self.timers.len(),
            self.tables.len() + self.reservations.len(),
            "timers"
        );
        let live = self
            .tables
            .iter()
            .flat_map(|(_, a)| a.relayed())
            .flatten()
            .count();
        let open_wants = self.tables.iter().filter_map(|(_, a)| a.pending.as_ref());
        let open_wants: usize = open_wants.map(|pending| pending.open()).sum();
        let used = live + open_wants + self.reservations.len() + self.wanted.len();
        assert_eq!(self.ports.in_use(), used, "ports");
    }

    fn handle_stun(
        &mut self,
        now: Now,
        tick: Tick,
        path: Path,
        input: &[u8],
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let Ok(message) = Message::parse(input) else {
            return Verdict::Dropped(DropReason::Malformed);
        };
        match (message.class(), message.method()) {
            (Class::Request, _) => self.handle_request(now, tick, path, &message, reply),
            (Class::Indication, Method::SEND) => {
                forward(data::from_indication(self, tick, &path, &message))
            }
            (Class::Indication, Method::BINDING) => Verdict::Absorbed, // a keepalive
            // Answers are never answered: no loop between two servers can start.
            (Class::Indication | Class::Success | Class::Error, _) => {
                Verdict::Dropped(DropReason::NotARequest)
            }
        }
    }

    fn handle_request(
        &mut self,
        now: Now,
        tick: Tick,
        path: Path,
        message: &Message<'_>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        // RFC 8489 §6.3: a method that is not known is silently discarded.
        let Some(method) = RequestMethod::of(message.method()) else {
            return Verdict::Dropped(DropReason::UnknownMethod);
        };
        self.counters.count_request(method, path.transport);
        self.end_due(tick);
        if method == RequestMethod::Binding {
            return binding::handle(self, tick, path, message, reply);
        }
        let mut envelope = Envelope {
            method,
            transaction: message.transaction_id(),
            signer: None,
            fingerprint: message.has_fingerprint(),
        };
        let circumstances = Circumstances {
            now,
            tick,
            path: &path,
            owns_allocation: self.tables.find_client(&path).is_some(),
            expiry_counts: expiry_counts(method, message),
        };
        match self
            .auth
            .authenticate(&circumstances, message, &mut self.limiter)
        {
            Ok(proof) => {
                let user = split_proof(proof, &mut envelope);
                let request = Request {
                    tick,
                    path,
                    message: *message,
                    user: &user,
                    envelope: &envelope,
                };
                let result = self.act(&request);
                self.respond(path, &envelope, result, reply)
            }
            Err(Refusal::Drop(reason)) => Verdict::Dropped(reason),
            Err(Refusal::Say { code, why, signer }) => {
                self.counters.count_auth_failure(why);
                envelope.signer = signer;
                self.refuse(&circumstances, message, &mut envelope, code, reply)
            }
        }
    }

    /// The authenticated part. RFC 8489 §6.3: unknown attributes are looked for after
    /// authentication, so the 420 is signed.
    fn act(&mut self, request: &Request<'_>) -> Result<Answer, Reject> {
        let unknown = request
            .message
            .unknown_required(known_attributes(&self.config.protocol));
        if !unknown.is_empty() {
            return Err(Reject::unknown(unknown));
        }
        match request.envelope.method {
            RequestMethod::Binding => Ok(Answer::Mapped(request.path.remote)),
            RequestMethod::Allocate => allocate::handle(self, request),
            RequestMethod::Refresh => refresh::handle(self, request),
            RequestMethod::CreatePermission => create_permission::handle(self, request),
            RequestMethod::ChannelBind => channel_bind::handle(self, request),
        }
    }

    /// Answers an unproven request: within its rate, and within three times its length.
    fn refuse(
        &mut self,
        at: &Circumstances<'_>,
        message: &Message<'_>,
        envelope: &mut Envelope,
        code: u16,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        let path = *at.path;
        // A handshake or an allocation has proven that the source is there.
        let proven = path.transport.is_stream() || at.owns_allocation || envelope.signer.is_some();
        if !proven
            && !self
                .limiter
                .admit(at.tick, Unproven::Challenge, path.remote.ip())
        {
            return Verdict::Dropped(DropReason::AnswerLimited);
        }
        if code == error_code::BAD_REQUEST {
            return self.respond(path, envelope, Err(Reject::bare(code)), reply);
        }
        let room = if proven {
            usize::MAX
        } else {
            message.as_bytes().len() * 3
        };
        let list = Some(self.auth.algorithms());
        let list = list.filter(|_| Challenge::len(self.auth.realm(), list) <= room);
        let len = Challenge::len(self.auth.realm(), list);
        if len > room {
            // Too short to be challenged: what else is wrong with it is true as well.
            let bare = match envelope.method {
                RequestMethod::Allocate | RequestMethod::Binding => error_code::BAD_REQUEST,
                RequestMethod::Refresh
                | RequestMethod::CreatePermission
                | RequestMethod::ChannelBind => error_code::ALLOCATION_MISMATCH,
            };
            envelope.fingerprint = false;
            return self.respond(path, envelope, Err(Reject::bare(bare)), reply);
        }
        envelope.fingerprint &= len.saturating_add(Envelope::FINGERPRINT_LEN) <= room;
        let nonce = self.auth.nonce(at.tick, &path, list.is_some());
        let realm = self.auth.realm();
        let challenge = Challenge {
            code,
            realm,
            nonce: &nonce,
            algorithms: list,
        };
        envelope.challenge(reply, &challenge);
        self.counters.count_error(envelope.method, code);
        Verdict::Reply { path }
    }

    /// Writes and counts a response.
    pub(crate) fn respond(
        &mut self,
        path: Path,
        envelope: &Envelope,
        result: Result<Answer, Reject>,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        match result {
            Ok(Answer::Later) => return Verdict::Absorbed,
            Ok(answer) => {
                envelope.success(reply, &answer);
                self.counters.count_success(envelope.method);
            }
            Err(reject) => {
                envelope.reject(reply, &reject);
                self.counters.count_error(envelope.method, reject.code);
            }
        }
        Verdict::Reply { path }
    }

    /// Writes and counts a response that leaves by `poll_transmit`. There are as many as pending
    /// allocations at most.
    pub(crate) fn respond_later(
        &mut self,
        path: Path,
        envelope: &Envelope,
        result: Result<Answer, Reject>,
    ) {
        let mut bytes = Vec::new();
        if let Verdict::Reply { path } = self.respond(path, envelope, result, &mut bytes) {
            self.outbox.push_back((path, bytes));
        }
    }

    /// Ends everything whose time has come.
    fn end_due(&mut self, tick: Tick) {
        while let Some(due) = self.timers.due(tick) {
            match due {
                Due::Reservation(token) => self.end_reservation(token),
                Due::Allocation(id) => self.end_due_of(id, tick),
            }
        }
    }

    fn end_due_of(&mut self, id: AllocationId, tick: Tick) {
        let Some(allocation) = self.tables.get(id) else {
            return;
        };
        if allocation.pending.is_some() {
            allocate::abandon(
                self,
                id,
                Some(Reject::bare(error_code::INSUFFICIENT_CAPACITY)),
            );
            return;
        }
        if allocation.expires() <= tick {
            self.end(id, tick, EndReason::Expired);
            return;
        }
        for family in [Family::V4, Family::V6] {
            let side = self
                .tables
                .get(id)
                .and_then(|a| *a.sides.get(family as usize)?);
            if side.is_some_and(|side| side.expires <= tick) {
                self.end_side(id, family);
            }
        }
        let freed = self.tables.expire(id, tick);
        self.report_freed(id, freed);
        self.rearm(id);
    }

    fn end_reservation(&mut self, token: [u8; 8]) {
        let Some(held) = self.reservations.remove(&token) else {
            return;
        };
        self.timers.remove(held.timer);
        self.holdings.release(held.user);
        self.free_socket(held.addr);
    }

    /// Ends an allocation with all it has: nothing of it is left when this returns.
    pub(crate) fn end(&mut self, id: AllocationId, tick: Tick, reason: EndReason) {
        if self
            .tables
            .get(id)
            .is_some_and(|allocation| allocation.pending.is_some())
        {
            allocate::abandon(self, id, None);
            return;
        }
        let freed = self.tables.retain(id, |_| false);
        self.report_freed(id, freed);
        let Some(allocation) = self.tables.remove(id) else {
            return;
        };
        self.timers.remove(allocation.timer);
        self.holdings.release(allocation.user);
        self.holdings.release_address(allocation.client.remote.ip());
        let relayed = allocation.relayed();
        for addr in relayed.into_iter().flatten() {
            self.free_socket(addr);
        }
        self.events.push_back(Event::AllocationEnded {
            client: allocation.client,
            relayed,
            reason,
            duration: tick.since(allocation.created),
            traffic: allocation.traffic,
        });
    }

    /// Ends one family of a dual allocation; the other lives on.
    pub(crate) fn end_side(&mut self, id: AllocationId, family: Family) {
        let Some(client) = self.tables.get(id).map(|allocation| allocation.client) else {
            return;
        };
        let Some((side, freed)) = self.tables.remove_side(id, family) else {
            return;
        };
        for channel in freed {
            self.events
                .push_back(channel_freed(client, side.relayed, &channel));
        }
        self.free_socket(side.relayed);
        self.rearm(id);
    }

    fn free_socket(&mut self, addr: RelayAddr) {
        self.ports.give_back(addr);
        self.events.push_back(Event::SocketFreed { addr });
    }

    fn report_freed(&mut self, id: AllocationId, freed: Vec<Channel>) {
        let Some(allocation) = self.tables.get(id) else {
            return;
        };
        let (client, relayed) = (allocation.client, allocation.relayed());
        for channel in freed {
            let side = relayed.get(Family::of(channel.peer.ip()) as usize);
            if let Some(Some(relayed)) = side {
                self.events
                    .push_back(channel_freed(client, *relayed, &channel));
            }
        }
    }

    /// Moves an allocation's deadline to what ends next in it.
    pub(crate) fn rearm(&mut self, id: AllocationId) {
        let deadline = self.tables.deadline(id);
        if let Some((allocation, (at, reason))) = self.tables.get(id).zip(deadline) {
            self.timers.set(allocation.timer, at, reason);
        }
    }
}

fn forward(result: Result<Forward, DropReason>) -> Verdict {
    match result {
        Ok(forward) => Verdict::Forward(forward),
        Err(reason) => Verdict::Dropped(reason),
    }
}

fn channel_freed(client: Path, relayed: RelayAddr, channel: &Channel) -> Event {
    Event::ChannelFreed {
        client,
        relayed,
        peer: channel.peer,
        channel: channel.number,
    }
}

/// An expired credential makes nothing and prolongs nothing; what lives may still be used, and ended
/// by Refresh with lifetime 0.
fn expiry_counts(method: RequestMethod, message: &Message<'_>) -> bool {
    match method {
        RequestMethod::Allocate => true,
        RequestMethod::Refresh => message.raw(AttributeType::LIFETIME) != Some(&[0; 4]),
        RequestMethod::Binding | RequestMethod::CreatePermission | RequestMethod::ChannelBind => {
            false
        }
    }
}
