//! ConnectionBind (RFC 6062 §5.4): a fresh client connection carries the data of a connection with a
//! peer. What is wrong with it is 400, and an id of somebody else is as unknown as one of nobody.

use stun_wire::attribute::ConnectionId;

use crate::peer_connections::State;
use crate::relay::Relay;
use crate::request::Request;
use crate::respond::{Answer, Reject};
use crate::verdict::{Event, PeerConnectionId};

pub(crate) fn handle(relay: &mut Relay, request: &Request<'_>) -> Result<Answer, Reject> {
    let client = request.path;
    // A control connection carries messages; it cannot carry data beside them.
    if !client.transport.is_stream() || relay.tables.find_client(&client).is_some() {
        return Err(Reject::BAD_REQUEST);
    }
    let connection = PeerConnectionId(request.required::<ConnectionId>()?.0);
    let known = relay.tcp.get(connection).ok_or(Reject::BAD_REQUEST)?;
    let owner = relay
        .tables
        .get(known.allocation)
        .map(|allocation| allocation.user);
    let is_theirs = owner.is_some_and(|owner| relay.holdings.name(owner) == request.user);
    if !is_theirs || !matches!(known.state, State::Waiting { .. }) {
        return Err(Reject::BAD_REQUEST);
    }
    let timer = relay.tcp.bind(connection, client);
    relay.timers.remove(timer.ok_or(Reject::BAD_REQUEST)?);
    relay
        .events
        .push_back(Event::ConnectionBound { connection, client });
    Ok(Answer::Done)
}
