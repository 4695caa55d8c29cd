//! ChannelBind (RFC 8656 §12): a number stands for a peer, and the peer gets a permission.

use stun_wire::attribute::{ChannelNumberAttribute, XorPeerAddress};
use stun_wire::channel_data::ChannelNumber;
use stun_wire::error_code;

use crate::counters::QuotaKind;
use crate::relay::Relay;
use crate::request::{Request, check_destination};
use crate::respond::{Answer, Reject};
use crate::verdict::{Event, Family};

pub(crate) fn handle(relay: &mut Relay, request: &Request<'_>) -> Result<Answer, Reject> {
    let id = request.allocation(relay)?;
    // RFC 6062: channels carry datagrams, and a TCP allocation has none.
    if relay.tcp.is_tcp(id) {
        return Err(Reject::bare(error_code::FORBIDDEN));
    }
    // RFC 8656 §12.2: both attributes, a number in range, and no binding that contradicts, else 400.
    let number = number(relay, request.required::<ChannelNumberAttribute>()?.0)?;
    let peer = relay
        .ports
        .public_peer(request.required::<XorPeerAddress>()?.0);
    let bindable = |relay: &Relay| {
        relay
            .tables
            .get(id)
            .is_some_and(|a| a.may_bind(number, peer, request.tick).is_ok())
    };
    if !bindable(relay) {
        return Err(Reject::BAD_REQUEST);
    }
    check_destination(relay, id, request.tick, peer, &relay.policy)?;
    check_bounds(relay, request, number)?;

    let lifetime = &relay.config.lifetime;
    let (permitted, bound) = (
        request.tick.after(lifetime.permission),
        request.tick.after(lifetime.channel),
    );
    relay.tables.permit(id, peer.ip(), permitted);
    if relay.tables.bind(id, number, peer, bound) {
        let relayed = relay
            .tables
            .get(id)
            .and_then(|a| a.side(Family::of(peer.ip()), request.tick));
        if let Some(relayed) = relayed.map(|side| side.relayed) {
            let client = request.path;
            relay.events.push_back(Event::ChannelBound {
                client,
                relayed,
                peer,
                channel: number,
            });
        }
    }
    relay.rearm(id);
    Ok(Answer::Done)
}

fn number(relay: &Relay, number: u16) -> Result<ChannelNumber, Reject> {
    let channel = if relay.config.protocol.rfc5766_channels {
        ChannelNumber::new_rfc5766(number)
    } else {
        ChannelNumber::new(number)
    };
    channel.ok_or(Reject::BAD_REQUEST)
}

/// A new binding, and the permission it brings, must fit.
fn check_bounds(
    relay: &mut Relay,
    request: &Request<'_>,
    number: ChannelNumber,
) -> Result<(), Reject> {
    let Some(allocation) = relay
        .tables
        .find_client(&request.path)
        .and_then(|id| relay.tables.get(id))
        .filter(|allocation| allocation.channel(number, request.tick).is_none())
    else {
        return Ok(());
    };
    let quota = &relay.config.quota;
    let peer = request.required::<XorPeerAddress>()?.0;
    let peer = relay.ports.public_peer(peer).ip();
    let full = if allocation.channels().len() >= usize::from(quota.channels_per_allocation) {
        Some(QuotaKind::Channels)
    } else if !allocation.has_peer(peer)
        && allocation.peer_entries() >= usize::from(quota.permissions_per_allocation)
    {
        Some(QuotaKind::Permissions)
    } else {
        None
    };
    full.map_or(Ok(()), |kind| {
        relay.counters.count_quota_rejection(kind);
        Err(Reject::bare(error_code::INSUFFICIENT_CAPACITY))
    })
}
