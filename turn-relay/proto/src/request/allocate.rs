//! Allocate (RFC 8656 §7): a relayed transport address, or one of each family, or an even port with
//! its next held for later.
//!
//! The request is judged and counted at once. It may have a socket that an ended allocation has left
//! open; else it waits (`Pending`) until the shell has opened its sockets. A port that is in use
//! elsewhere is replaced by another a few times; then the client reads 508.

mod picks;

use std::time::Duration;

use rand::Rng as _;
use stun_wire::attribute::{
    AdditionalAddressFamily, AddressFamily, DontFragment, EvenPort, Lifetime, RequestedTransport,
    ReservationToken,
};
use stun_wire::{AttributeError, AttributeType, error_code};

use self::picks::{Picks, Want};
use crate::clock::Tick;
use crate::counters::{AuthFailure, QuotaKind};
use crate::ports::Parity;
use crate::quota::{Claim, UserId};
use crate::relay::{Due, Relay, Reservation};
use crate::request::Request;
use crate::request::refresh::granted;
use crate::respond::{Allocated, Answer, Envelope, Reject};
use crate::tables::{Allocation, AllocationId, Grant, Side};
use crate::verdict::{Event, Family, Path, Reason, RelayAddr, SocketOutcome};

/// How often a port that is in use elsewhere is replaced.
const MAX_BUSY_PORTS: usize = 8;
/// The shell answers for a socket in microseconds; after this it is not going to.
const SOCKET_PATIENCE: Duration = Duration::from_secs(10);

/// An allocation that waits for its sockets.
pub(crate) struct Pending {
    envelope: Envelope,
    picks: Picks,
    /// Counts against the user like an allocation, for the reserved port.
    reserve_holding: Option<UserId>,
}

pub(crate) fn handle(relay: &mut Relay, request: &Request<'_>) -> Result<Answer, Reject> {
    // RFC 8656 §7.4: 403, an administrative restriction; the client is not to try this server again.
    if relay.blocks.contains(request.user, request.tick) {
        relay.counters.count_auth_failure(AuthFailure::Blocked);
        return Err(Reject::bare(error_code::FORBIDDEN));
    }
    // RFC 8656 §7.2, check 2: a 5-tuple has one allocation. The same request again (§5: the response
    // was lost) gets the same answer.
    if let Some(id) = relay.tables.find_client(&request.path) {
        return repeat(relay, request, id);
    }
    let wish = Wish::read(relay, request)?;
    wish.check_families(relay)?;
    if relay.draining {
        let insufficient = Reject::bare(error_code::INSUFFICIENT_CAPACITY);
        // RFC 8489 §14.15: ALTERNATE-SERVER is of the family of the request's source.
        let is_v4 = request.path.remote.is_ipv4();
        let alternate = relay.config.alternate;
        return Err(alternate
            .filter(|server| server.is_ipv4() == is_v4)
            .map_or(insufficient, Reject::alternate));
    }
    match wish.token {
        Some(token) => redeem(relay, request, &wish, token),
        None => begin(relay, request, &wish),
    }
}

fn repeat(relay: &Relay, request: &Request<'_>, id: AllocationId) -> Result<Answer, Reject> {
    let mismatch = Reject::bare(error_code::ALLOCATION_MISMATCH);
    let allocation = relay.tables.get(id).ok_or(mismatch)?;
    if allocation.grant.transaction != request.message.transaction_id()
        || relay.holdings.name(allocation.user) != request.user
    {
        return Err(mismatch);
    }
    if allocation.pending.is_some() {
        return Ok(Answer::Later);
    }
    Ok(Answer::Allocated(allocated(relay, allocation)))
}

/// What the client asks for, checked in the order of RFC 8656 §7.2.
struct Wish {
    tcp: bool,
    lifetime: Option<u32>,
    /// The first must be had; of two, one is enough.
    families: [Option<Family>; 2],
    parity: Parity,
    token: Option<[u8; 8]>,
}

impl Wish {
    fn read(relay: &Relay, request: &Request<'_>) -> Result<Self, Reject> {
        let tcp = requested_tcp(relay, request)?;
        request.optional::<DontFragment>()?;
        // Checks 5 to 7: a token names a port, so nothing else can; one way to ask for families.
        let token = request.optional::<ReservationToken>()?.map(|token| token.0);
        let even = request.optional::<EvenPort>()?;
        let contains = |kind| request.message.contains(kind);
        let requested_family = contains(AttributeType::REQUESTED_ADDRESS_FAMILY);
        let additional_family = contains(AttributeType::ADDITIONAL_ADDRESS_FAMILY);
        if token.is_some() && (even.is_some() || requested_family || additional_family)
            || requested_family && additional_family
        {
            return Err(Reject::BAD_REQUEST);
        }
        let requested = request.requested_family(error_code::ADDRESS_FAMILY_NOT_SUPPORTED)?;
        let dual = additional(request)?;
        let parity = match even {
            None => Parity::Any,
            Some(EvenPort { reserve: false }) => Parity::Even,
            // Check 10: a token and two families do not go together.
            Some(EvenPort { reserve: true }) if dual => return Err(Reject::BAD_REQUEST),
            Some(EvenPort { reserve: true }) => Parity::EvenPair,
        };
        let lifetime = request.optional::<Lifetime>()?.map(|lifetime| lifetime.0);
        let first = requested.unwrap_or(Family::V4);
        Ok(Self {
            tcp,
            lifetime,
            families: [Some(first), dual.then_some(Family::V6)],
            parity,
            token,
        })
    }

    /// Check 8: 440 if no family asked for is to be had.
    fn check_families(&self, relay: &Relay) -> Result<(), Reject> {
        let any = self
            .families
            .iter()
            .flatten()
            .any(|family| relay.ports.has_family(*family));
        if self.token.is_some() || any {
            return Ok(());
        }
        Err(Reject::bare(error_code::ADDRESS_FAMILY_NOT_SUPPORTED))
    }
}

/// Check 3: REQUESTED-TRANSPORT is a must (400), and other transports than these are 442. TCP goes
/// with a control connection over TCP or TLS, and without what only makes sense for datagrams and
/// pairs of ports, else 400 (RFC 6062 §5.1).
fn requested_tcp(relay: &Relay, request: &Request<'_>) -> Result<bool, Reject> {
    const FOR_UDP: [AttributeType; 3] = [
        AttributeType::DONT_FRAGMENT,
        AttributeType::EVEN_PORT,
        AttributeType::RESERVATION_TOKEN,
    ];
    match request.required::<RequestedTransport>()? {
        RequestedTransport::UDP => Ok(false),
        RequestedTransport::TCP if relay.config.protocol.tcp_relaying => {
            let fits = request.path.transport.is_stream();
            let contains = |kind| request.message.contains(kind);
            if !fits || FOR_UDP.into_iter().any(contains) {
                return Err(Reject::BAD_REQUEST);
            }
            Ok(true)
        }
        _ => Err(Reject::bare(error_code::UNSUPPORTED_TRANSPORT_PROTOCOL)),
    }
}

/// Check 9: ADDITIONAL-ADDRESS-FAMILY may only ask for IPv6, which comes beside IPv4. The attribute
/// is comprehension-optional: a family that nobody has heard of is as good as none.
fn additional(request: &Request<'_>) -> Result<bool, Reject> {
    match request.message.attribute::<AdditionalAddressFamily>() {
        Ok(None) | Err(AttributeError::Family) => Ok(false),
        Ok(Some(AdditionalAddressFamily(AddressFamily::Ipv6))) => Ok(true),
        Ok(Some(AdditionalAddressFamily(AddressFamily::Ipv4))) | Err(_) => Err(Reject::BAD_REQUEST),
    }
}

/// Ports are picked, sockets asked for; the response comes later.
fn begin(relay: &mut Relay, request: &Request<'_>, wish: &Wish) -> Result<Answer, Reject> {
    let reserve = wish.parity == Parity::EvenPair;
    let claim = claim(relay, request, 1 + u32::from(reserve))?;
    let begun = begin_claimed(relay, request, wish);
    if begun.is_err() {
        relay.holdings.unclaim(claim);
    }
    begun
}

fn begin_claimed(relay: &mut Relay, request: &Request<'_>, wish: &Wish) -> Result<Answer, Reject> {
    let mut picks = Picks::new(wish.tcp, wish.parity);
    let mut address_error = None;
    let mut first_error = None;
    for family in wish.families.into_iter().flatten() {
        let code = if !relay.ports.has_family(family) {
            error_code::ADDRESS_FAMILY_NOT_SUPPORTED
        } else if picks.pick(relay, family) {
            continue;
        } else {
            relay.counters.count_quota_rejection(QuotaKind::Total);
            error_code::INSUFFICIENT_CAPACITY
        };
        address_error = Some((family, code));
        first_error.get_or_insert(code);
    }
    if picks.is_empty() {
        let code = first_error.unwrap_or(error_code::INSUFFICIENT_CAPACITY);
        return Err(Reject::bare(code));
    }
    let reserve_holding =
        (wish.parity == Parity::EvenPair).then(|| relay.holdings.hold(request.user));
    let user = relay.holdings.hold(request.user);
    relay.holdings.hold_address(request.path.remote.ip());
    let grant = Grant {
        transaction: request.message.transaction_id(),
        lifetime_secs: granted(wish.lifetime, &relay.config.lifetime),
        token: None,
        address_error,
    };
    if picks.all_open() {
        return start(relay, request, user, grant, picks.addrs());
    }
    let pending = Pending {
        envelope: request.envelope.clone(),
        picks,
        reserve_holding,
    };
    let id = insert(relay, request, user, grant, Some(Box::new(pending)));
    if wish.tcp {
        relay.tcp.insert(id);
    }
    ask(relay, id);
    Ok(Answer::Later)
}

/// RFC 8656 §7.2, check 5: the token names a reserved port whose socket is open already; a token
/// that names none, or another user's, is 508.
fn redeem(
    relay: &mut Relay,
    request: &Request<'_>,
    wish: &Wish,
    token: [u8; 8],
) -> Result<Answer, Reject> {
    let known = relay.reservations.get(&token);
    if known.is_none_or(|held| relay.holdings.name(held.user) != request.user) {
        return Err(Reject::bare(error_code::INSUFFICIENT_CAPACITY));
    }
    let claim = claim(relay, request, 0)?; // the port is counted already
    let Some(held) = relay.reservations.remove(&token) else {
        relay.holdings.unclaim(claim);
        return Err(Reject::bare(error_code::INSUFFICIENT_CAPACITY));
    };
    relay.timers.remove(held.timer);
    relay.holdings.hold_address(request.path.remote.ip());
    let grant = Grant {
        transaction: request.message.transaction_id(),
        lifetime_secs: granted(wish.lifetime, &relay.config.lifetime),
        token: None,
        address_error: None,
    };
    let mut addrs = [None; 2];
    if let Some(addr) = addrs.get_mut(Family::of(held.addr.0.ip()) as usize) {
        *addr = Some(held.addr);
    }
    start(relay, request, held.user, grant, addrs)
}

/// All sockets are open as it is: the allocation lives at once.
fn start(
    relay: &mut Relay,
    request: &Request<'_>,
    user: UserId,
    grant: Grant,
    addrs: [Option<RelayAddr>; 2],
) -> Result<Answer, Reject> {
    let id = insert(relay, request, user, grant, None);
    go_live(relay, request.tick, id, addrs);
    let allocation = relay.tables.get(id).ok_or(Reject::BAD_REQUEST)?;
    Ok(Answer::Allocated(allocated(relay, allocation)))
}

/// Checks 11 and 12: 486 for what a user or an address may have, 508 for what there is. The last
/// ports are kept for users who have none.
fn claim<'a>(relay: &mut Relay, request: &Request<'a>, ports: u32) -> Result<Claim<'a>, Reject> {
    let quota = &relay.config.quota;
    let (limit, in_use) = (relay.ports.limit(), relay.ports.in_use());
    let few_left = (limit - in_use) * 100 < limit * usize::from(quota.reserved_percent);
    let claim = Claim {
        user: request.user,
        address: request.path.remote.ip(),
        ports,
        only_new: ports > 0 && few_left,
    };
    match relay.holdings.claim(quota, claim) {
        Ok(()) => Ok(claim),
        Err(kind) => {
            relay.counters.count_quota_rejection(kind);
            Err(Reject::bare(if kind == QuotaKind::Total {
                error_code::INSUFFICIENT_CAPACITY
            } else {
                error_code::ALLOCATION_QUOTA_REACHED
            }))
        }
    }
}

fn insert(
    relay: &mut Relay,
    request: &Request<'_>,
    user: UserId,
    grant: Grant,
    pending: Option<Box<Pending>>,
) -> AllocationId {
    let overdue = request.tick.after(SOCKET_PATIENCE);
    let owner = Due::Allocation(relay.tables.next_id());
    let timer = relay.timers.insert(overdue, Reason::SocketOverdue, owner);
    let mut allocation = Allocation::new(request.path, user, request.tick, timer, grant);
    allocation.pending = pending;
    relay.tables.insert(allocation)
}

impl Pending {
    /// It asks for two ports on behalf of its user.
    pub(crate) fn is_pair(&self) -> bool {
        self.reserve_holding.is_some()
    }

    /// Sockets that are open while others are waited for.
    pub(crate) fn open(&self) -> usize {
        self.picks.iter().filter(|want| want.open).count()
    }
}

/// Asks the shell for every socket that was not asked for yet.
fn ask(relay: &mut Relay, id: AllocationId) {
    let Some(pending) = relay.tables.get_mut(id).and_then(|a| a.pending.as_mut()) else {
        return;
    };
    let tcp = pending.picks.tcp;
    for want in pending.picks.iter_mut().filter(|want| !want.open) {
        if relay.wanted.insert(want.addr, Some(id)).is_some() {
            continue;
        }
        let addr = want.addr;
        relay.events.push_back(if tcp {
            relay.tcp.listen(addr);
            Event::ListenWanted { addr }
        } else {
            Event::SocketWanted { addr }
        });
    }
}

/// The shell's answer for a socket that a pending allocation waits for.
pub(crate) fn handle_socket(
    relay: &mut Relay,
    tick: Tick,
    id: AllocationId,
    addr: RelayAddr,
    outcome: SocketOutcome,
) {
    let Some(pending) = relay.tables.get_mut(id).and_then(|a| a.pending.as_mut()) else {
        return;
    };
    match outcome {
        SocketOutcome::Opened => {
            for want in pending.picks.iter_mut().filter(|want| want.addr == addr) {
                want.open = true;
            }
        }
        SocketOutcome::InUse | SocketOutcome::Failed => {
            let family = Family::of(addr.0.ip());
            let busy = &mut pending.picks.busy;
            busy.push(addr);
            let again = outcome == SocketOutcome::InUse && busy.len() <= MAX_BUSY_PORTS;
            if outcome == SocketOutcome::Failed {
                // What they hold may be what was wanting.
                relay.close_spares();
            }
            replace(relay, id, addr, family, again);
        }
    }
    conclude(relay, tick, id);
}

/// Gives up the port that could not be opened, with its partner, and picks another if `again`.
fn replace(relay: &mut Relay, id: AllocationId, addr: RelayAddr, family: Family, again: bool) {
    let Some(mut pending) = relay.tables.get_mut(id).and_then(|a| a.pending.take()) else {
        return;
    };
    relay.forget_socket(addr);
    let picks = &mut pending.picks;
    for want in picks.take(family).filter(|want| want.addr != addr) {
        drop_want(relay, want);
    }
    let found = again && picks.pick(relay, family);
    if let Some(allocation) = relay.tables.get_mut(id) {
        if !found {
            allocation.grant.address_error = Some((family, error_code::INSUFFICIENT_CAPACITY));
        }
        allocation.pending = Some(pending);
    }
    ask(relay, id);
}

/// All sockets open: the allocation lives. None left to wait for: it never will.
fn conclude(relay: &mut Relay, tick: Tick, id: AllocationId) {
    let Some(allocation) = relay.tables.get_mut(id) else {
        return;
    };
    let Some(pending) = allocation.pending.as_mut() else {
        return;
    };
    if pending.picks.is_empty() {
        abandon(
            relay,
            id,
            Some(Reject::bare(error_code::INSUFFICIENT_CAPACITY)),
        );
        return;
    }
    if !pending.picks.all_open() {
        return;
    }
    let addrs = pending.picks.addrs();
    let reserved = pending
        .picks
        .next_addr()
        .zip(pending.reserve_holding.take());
    let (envelope, client) = (pending.envelope.clone(), allocation.client);
    if let Some((addr, user)) = reserved {
        let token = reserve(relay, tick, addr, user);
        if let Some(allocation) = relay.tables.get_mut(id) {
            allocation.grant.token = Some(token);
        }
    }
    go_live(relay, tick, id, addrs);
    if let Some(allocation) = relay.tables.get(id) {
        let answer = Answer::Allocated(allocated(relay, allocation));
        relay.respond_later(client, &envelope, Ok(answer));
    }
}

/// Holds the odd port for whoever of this user brings the token.
fn reserve(relay: &mut Relay, tick: Tick, addr: RelayAddr, user: UserId) -> [u8; 8] {
    let mut token = [0; 8];
    relay.rng.fill_bytes(&mut token);
    let until = tick.after(relay.config.lifetime.reservation);
    let timer = relay
        .timers
        .insert(until, Reason::Reservation, Due::Reservation(token));
    relay
        .reservations
        .insert(token, Reservation { addr, user, timer });
    token
}

/// From here on the allocation relays.
fn go_live(relay: &mut Relay, tick: Tick, id: AllocationId, addrs: [Option<RelayAddr>; 2]) {
    let Some(allocation) = relay.tables.get_mut(id) else {
        return;
    };
    allocation.created = tick;
    let lifetime = Duration::from_secs(allocation.grant.lifetime_secs.into());
    let expires = tick.after(lifetime);
    let client: Path = allocation.client;
    let sides = addrs.map(|addr| addr.map(|relayed| Side { relayed, expires }));
    relay.tables.go_live(id, sides);
    for addr in addrs.into_iter().flatten() {
        if relay.tcp.is_tcp(id) {
            relay.ports.opened_tcp(addr);
        } else {
            relay.ports.opened(addr);
        }
    }
    relay.events.push_back(Event::AllocationCreated {
        client,
        relayed: addrs,
    });
    relay.rearm(id);
}

/// Ends an allocation that never lived, with an error response or without a word.
pub(crate) fn abandon(relay: &mut Relay, id: AllocationId, reject: Option<Reject>) {
    let Some(mut allocation) = relay.tables.remove(id) else {
        return;
    };
    relay.tcp.remove(id);
    relay.timers.remove(allocation.timer);
    relay.holdings.release(allocation.user);
    relay
        .holdings
        .release_address(allocation.client.remote.ip());
    let Some(mut pending) = allocation.pending.take() else {
        return;
    };
    if let Some(user) = pending.reserve_holding {
        relay.holdings.release(user);
    }
    for want in pending.picks.iter_mut() {
        drop_want(relay, *want);
    }
    if let Some(reject) = reject {
        if reject.code == error_code::INSUFFICIENT_CAPACITY {
            relay.counters.count_quota_rejection(QuotaKind::Total);
        }
        relay.respond_later(allocation.client, &pending.envelope, Err(reject));
    }
}

/// A socket that is not needed any more: closed if it is open, else as soon as it is answered for.
fn drop_want(relay: &mut Relay, want: Want) {
    if want.open {
        relay.free_socket(want.addr);
    } else {
        relay.wanted.insert(want.addr, None);
    }
}

/// What the response to the request that made this allocation says, whenever it is said.
fn allocated(relay: &Relay, allocation: &Allocation) -> Allocated {
    Allocated {
        relayed: allocation
            .relayed()
            .map(|addr| addr.map(|addr| relay.ports.public(addr))),
        mapped: allocation.client.remote,
        lifetime_secs: allocation.grant.lifetime_secs,
        token: allocation.grant.token,
        address_error: allocation.grant.address_error,
    }
}
