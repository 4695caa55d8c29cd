//! Connect (RFC 6062 §5.2): a TCP connection from the relayed address to a peer. The request is
//! judged and counted at once, then waits until the peer has answered.

use stun_wire::attribute::XorPeerAddress;
use stun_wire::error_code;

use crate::counters::QuotaKind;
use crate::peer_connections::State;
use crate::relay::Relay;
use crate::request::{Request, check_destination};
use crate::respond::{Answer, Reject};
use crate::tables::AllocationId;
use crate::verdict::{Event, Family, RelayAddr};

/// The depth of the bucket that Connect requests are taken from.
const SECOND: u64 = 1_000_000_000;

pub(crate) fn handle(relay: &mut Relay, request: &Request<'_>) -> Result<Answer, Reject> {
    // RFC 6062 §5.2: 437 without an allocation; one for datagrams is as good as none.
    let id = request.allocation(relay)?;
    if !relay.tcp.is_tcp(id) {
        return Err(Reject::bare(error_code::ALLOCATION_MISMATCH));
    }
    let peer = request.required::<XorPeerAddress>()?.0;
    let peer = relay.ports.public_peer(peer);
    // RFC 6062 §5.2: one connection with a peer, whether it is being made, pending or active.
    if relay.tcp.has_peer(id, peer) {
        return Err(Reject::bare(error_code::CONNECTION_ALREADY_EXISTS));
    }
    check_destination(relay, id, request.tick, peer, &relay.tcp_policy)?;
    check_bounds(relay, request, id)?;
    let relayed: RelayAddr = relay
        .tables
        .get(id)
        .and_then(|allocation| allocation.side(Family::of(peer.ip()), request.tick))
        .ok_or(Reject::bare(error_code::PEER_ADDRESS_FAMILY_MISMATCH))?
        .relayed;
    let until = request.tick.after(relay.config.lifetime.connect);
    let envelope = Box::new(request.envelope.clone());
    let connection = relay.add_connection(id, peer, until, |timer| State::Connecting {
        envelope,
        timer,
    });
    // A relayed address of ours is reached by the address it is bound to, not through a NAT.
    let peer = relay.tcp_policy.live_relay(peer).unwrap_or(peer);
    relay.events.push_back(Event::ConnectWanted {
        connection,
        relayed,
        peer,
    });
    Ok(Answer::Later)
}

/// There is room for another connection, and it is not one too many for this second: a relay is no
/// scanner.
fn check_bounds(relay: &mut Relay, request: &Request<'_>, id: AllocationId) -> Result<(), Reject> {
    let refuse = |relay: &mut Relay, kind| {
        relay.counters.count_quota_rejection(kind);
        Err(Reject::bare(error_code::INSUFFICIENT_CAPACITY))
    };
    if let Some(kind) = relay.full_of_connections(id) {
        return refuse(relay, kind);
    }
    let rate = relay.config.quota.silent_peer_packets;
    let (Some(rate), Some(connects)) = (rate, relay.tcp.connects_mut(id)) else {
        return Ok(());
    };
    if rate == 0 || !connects.has_room(request.tick, SECOND) {
        return refuse(relay, QuotaKind::Connects);
    }
    connects.take(request.tick, SECOND / u64::from(rate));
    Ok(())
}
