//! Requests: one file each. All but Binding arrive here authenticated; what they return is signed.

use std::net::{IpAddr, SocketAddr};

use stun_wire::attribute::{Attribute, RequestedAddressFamily};
use stun_wire::{AttributeError, AttributeType, Message, error_code};

use crate::auth::Proof;
use crate::clock::Tick;
use crate::config::Protocol;
use crate::peers::PeerPolicy;
use crate::relay::Relay;
use crate::respond::{Envelope, Reject};
use crate::tables::AllocationId;
use crate::verdict::{Family, Path};

pub(crate) mod allocate;
pub(crate) mod binding;
pub(crate) mod channel_bind;
pub(crate) mod connect;
pub(crate) mod connection_bind;
pub(crate) mod create_permission;
pub(crate) mod refresh;

/// An authenticated request.
pub(crate) struct Request<'a> {
    pub(crate) tick: Tick,
    pub(crate) path: Path,
    pub(crate) message: Message<'a>,
    /// Who asks; the key is in the envelope.
    pub(crate) user: &'a str,
    pub(crate) envelope: &'a Envelope,
}

impl<'a> Request<'a> {
    /// An attribute whose value, if it is there, must be one (RFC 8656: else 400).
    pub(crate) fn optional<A: Attribute<'a>>(&self) -> Result<Option<A>, Reject> {
        self.message.attribute().map_err(|_| Reject::BAD_REQUEST)
    }

    /// An attribute without which the request means nothing.
    pub(crate) fn required<A: Attribute<'a>>(&self) -> Result<A, Reject> {
        self.optional()?.ok_or(Reject::BAD_REQUEST)
    }

    /// REQUESTED-ADDRESS-FAMILY; `unknown` is the error for a family nobody has heard of.
    pub(crate) fn requested_family(&self, unknown: u16) -> Result<Option<Family>, Reject> {
        match self.message.attribute::<RequestedAddressFamily>() {
            Ok(family) => Ok(family.map(|family| family_of(family.0))),
            Err(AttributeError::Family) => Err(Reject::bare(unknown)),
            Err(_) => Err(Reject::BAD_REQUEST),
        }
    }

    /// The allocation the request is about (RFC 8656 §5): there must be one on its 5-tuple, else
    /// 437, and it must be this user's, else 441.
    pub(crate) fn allocation(&self, relay: &Relay) -> Result<AllocationId, Reject> {
        let mismatch = Reject::bare(error_code::ALLOCATION_MISMATCH);
        let id = relay.tables.find_client(&self.path).ok_or(mismatch)?;
        let allocation = relay
            .tables
            .get(id)
            .filter(|a| a.pending.is_none())
            .ok_or(mismatch)?;
        if relay.holdings.name(allocation.user) != self.user {
            return Err(Reject::bare(error_code::WRONG_CREDENTIALS));
        }
        Ok(id)
    }
}

/// Splits who asks from the key that signs the answer.
pub(crate) fn split_proof(proof: Proof, envelope: &mut Envelope) -> Box<str> {
    envelope.signer = Some(proof.signer);
    proof.user
}

pub(crate) fn family_of(family: stun_wire::attribute::AddressFamily) -> Family {
    match family {
        stun_wire::attribute::AddressFamily::Ipv4 => Family::V4,
        stun_wire::attribute::AddressFamily::Ipv6 => Family::V6,
    }
}

/// A peer's family must be one of the allocation's (RFC 8656 §10.2, §12.2: else 443), and its
/// address one that the policy allows (else 403).
pub(crate) fn check_peer(
    relay: &Relay,
    id: AllocationId,
    tick: Tick,
    ip: IpAddr,
) -> Result<(), Reject> {
    let allocation = relay.tables.get(id);
    if allocation.is_none_or(|allocation| allocation.side(Family::of(ip), tick).is_none()) {
        return Err(Reject::bare(error_code::PEER_ADDRESS_FAMILY_MISMATCH));
    }
    relay
        .policy
        .judge_ip(ip)
        .map_err(|_| Reject::bare(error_code::FORBIDDEN))
}

/// The same for an address that data will go to, with its port, under the policy of the protocol
/// that carries it: what ChannelBind and Connect have in common.
pub(crate) fn check_destination(
    relay: &Relay,
    id: AllocationId,
    tick: Tick,
    peer: SocketAddr,
    policy: &PeerPolicy,
) -> Result<(), Reject> {
    check_peer(relay, id, tick, peer.ip())?;
    policy
        .judge(peer)
        .map_err(|_| Reject::bare(error_code::FORBIDDEN))
}

/// Comprehension-required attributes that this relay understands, expected or not in a given
/// method; others are 420 (RFC 8489 §6.3.1).
pub(crate) fn known_attributes(protocol: &Protocol) -> &'static [AttributeType] {
    const KNOWN: [AttributeType; 20] = [
        AttributeType::DONT_FRAGMENT,
        AttributeType::MAPPED_ADDRESS,
        AttributeType::USERNAME,
        AttributeType::ERROR_CODE,
        AttributeType::UNKNOWN_ATTRIBUTES,
        AttributeType::CHANNEL_NUMBER,
        AttributeType::LIFETIME,
        AttributeType::XOR_PEER_ADDRESS,
        AttributeType::DATA,
        AttributeType::REALM,
        AttributeType::NONCE,
        AttributeType::XOR_RELAYED_ADDRESS,
        AttributeType::REQUESTED_ADDRESS_FAMILY,
        AttributeType::EVEN_PORT,
        AttributeType::REQUESTED_TRANSPORT,
        AttributeType::PASSWORD_ALGORITHM,
        AttributeType::USERHASH,
        AttributeType::XOR_MAPPED_ADDRESS,
        AttributeType::RESERVATION_TOKEN,
        AttributeType::CONNECTION_ID,
    ];
    // A shell that cannot set DF does not understand DONT-FRAGMENT (RFC 8656 §7.2).
    let first = usize::from(!protocol.dont_fragment);
    let end = KNOWN.len() - usize::from(!protocol.tcp_relaying);
    KNOWN.get(first..end).unwrap_or(&[])
}
