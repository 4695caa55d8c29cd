//! Binding (RFC 8489 §3, §12): where does this request come from? Answered without a question, with
//! the mapped address alone, and limited per source.

use stun_wire::{Message, UnknownAttributes};

use crate::clock::Tick;
use crate::counters::RequestMethod;
use crate::limits::Unproven;
use crate::relay::Relay;
use crate::request::known_attributes;
use crate::respond::{Answer, Envelope, Reject};
use crate::verdict::{DropReason, Path, Verdict};

pub(crate) fn handle(
    relay: &mut Relay,
    tick: Tick,
    path: Path,
    message: &Message<'_>,
    reply: &mut Vec<u8>,
) -> Verdict {
    if !path.transport.is_stream()
        && !relay
            .limiter
            .admit(tick, Unproven::Binding, path.remote.ip())
    {
        return Verdict::Dropped(DropReason::AnswerLimited);
    }
    let envelope = Envelope {
        method: RequestMethod::Binding,
        transaction: message.transaction_id(),
        signer: None,
        fingerprint: message.has_fingerprint(),
    };
    // RFC 8489 §6.3.1; CHANGE-REQUEST is one of them where RFC 5780 is not spoken.
    let unknown: UnknownAttributes =
        message.unknown_required(known_attributes(&relay.config.protocol));
    let result = if unknown.is_empty() {
        Ok(Answer::Mapped(path.remote))
    } else {
        Err(Reject::unknown(unknown))
    };
    relay.respond(path, &envelope, result, reply)
}
