//! Refresh (RFC 8656 §8): an allocation lives on, or ends with lifetime 0 in this very tick: port,
//! quota and 5-tuple are free when the response leaves.

use std::time::Duration;

use stun_wire::attribute::Lifetime;
use stun_wire::error_code;

use crate::config::Lifetimes;
use crate::relay::Relay;
use crate::request::Request;
use crate::respond::{Answer, Reject};
use crate::verdict::{EndReason, Family};

pub(crate) fn handle(relay: &mut Relay, request: &Request<'_>) -> Result<Answer, Reject> {
    let id = request.allocation(relay)?;
    let mismatch = error_code::PEER_ADDRESS_FAMILY_MISMATCH;
    let asked = request.optional::<Lifetime>()?.map(|lifetime| lifetime.0);
    let sides = relay
        .tables
        .get(id)
        .map(|allocation| allocation.sides)
        .unwrap_or_default();
    let has = |family: Family| matches!(sides.get(family as usize), Some(Some(_)));
    // RFC 8656 §8.2: a family that the allocation does not have is 443. Of a dual allocation the
    // family picks the half that is meant (§8.1).
    let families = match request.requested_family(mismatch)? {
        Some(family) if has(family) => [Some(family), None],
        Some(_) => return Err(Reject::bare(mismatch)),
        None => [Family::V4, Family::V6].map(|family| has(family).then_some(family)),
    };
    let whole = [Family::V4, Family::V6]
        .into_iter()
        .all(|f| !has(f) || families.contains(&Some(f)));
    if asked == Some(0) {
        if whole {
            relay.end(id, request.tick, EndReason::Deleted);
        } else if let [Some(family), _] = families {
            relay.end_side(id, family);
        }
        return Ok(Answer::Refreshed(0));
    }
    let lifetime = granted(asked, &relay.config.lifetime);
    let expires = request.tick.after(Duration::from_secs(lifetime.into()));
    if let Some(allocation) = relay.tables.get_mut(id) {
        for family in families.into_iter().flatten() {
            if let Some(Some(side)) = allocation.sides.get_mut(family as usize) {
                side.expires = expires;
            }
        }
    }
    relay.rearm(id);
    Ok(Answer::Refreshed(lifetime))
}

/// RFC 8656 §7.2 and §8.2: what was asked for, within the default as a floor and the maximum.
pub(crate) fn granted(asked: Option<u32>, lifetimes: &Lifetimes) -> u32 {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    let floor = seconds(lifetimes.allocation_default);
    asked
        .unwrap_or(floor)
        .min(seconds(lifetimes.allocation_max))
        .max(floor)
}
