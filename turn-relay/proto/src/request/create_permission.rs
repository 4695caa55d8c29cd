//! CreatePermission (RFC 8656 §10): peers may be talked with for a while. All of them or none.

use std::net::IpAddr;

use stun_wire::attribute::{Attribute as _, XorPeerAddress};
use stun_wire::error_code;

use crate::counters::QuotaKind;
use crate::relay::Relay;
use crate::request::{Request, check_peer};
use crate::respond::{Answer, Reject};

pub(crate) fn handle(relay: &mut Relay, request: &Request<'_>) -> Result<Answer, Reject> {
    let id = request.allocation(relay)?;
    let peers = peers(relay, request)?;
    for ip in &peers {
        check_peer(relay, id, request.tick, *ip)?;
    }
    let allocation = relay.tables.get(id);
    let held = allocation.map_or(0, |allocation| allocation.peer_entries());
    let new = |ip: &&IpAddr| allocation.is_some_and(|allocation| !allocation.has_peer(**ip));
    let wanted = held + peers.iter().filter(new).count();
    if wanted > usize::from(relay.config.quota.permissions_per_allocation) {
        relay.counters.count_quota_rejection(QuotaKind::Permissions);
        return Err(Reject::bare(error_code::INSUFFICIENT_CAPACITY)); // RFC 8656 §10.2
    }
    let until = request.tick.after(relay.config.lifetime.permission);
    for ip in peers {
        relay.tables.permit(id, ip, until);
    }
    relay.rearm(id);
    Ok(Answer::Done)
}

/// RFC 8656 §10.2: at least one XOR-PEER-ADDRESS, each well-formed, else 400. Ports do not count.
fn peers(relay: &Relay, request: &Request<'_>) -> Result<Vec<IpAddr>, Reject> {
    let transaction = request.message.transaction_id();
    let mut peers = Vec::new();
    for attribute in request
        .message
        .attributes()
        .filter(|a| a.kind == XorPeerAddress::TYPE)
    {
        let peer = XorPeerAddress::parse(attribute.value, &transaction)
            .map_err(|_| Reject::BAD_REQUEST)?;
        peers.push(relay.ports.public_peer(peer.0).ip());
    }
    peers.sort_unstable();
    peers.dedup();
    if peers.is_empty() {
        Err(Reject::BAD_REQUEST)
    } else {
        Ok(peers)
    }
}
