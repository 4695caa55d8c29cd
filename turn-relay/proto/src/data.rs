//! The hot path: channel data and Send indications from clients, datagrams from peers. One hash
//! lookup finds the allocation, one search in its short sorted list the channel or permission;
//! nothing is allocated, nothing is copied.
//!
//! ```text
//! client → peer   channel data  4..4+len      → payload alone
//!                 Send          value of DATA → payload alone
//! peer → client   whole datagram → ChannelData header, 4 ++ payload   (++ padding on a stream)
//!                 whole datagram → Data indication, 36 or 48 ++ payload ++ padding
//! ```

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use stun_wire::attribute::{Data, DontFragment, Icmp, XorPeerAddress};
use stun_wire::channel_data::ChannelData;
use stun_wire::{AttributeType, Class, Message, MessageWriter, Method, TransactionId};

use rand::Rng as _;

use crate::clock::Tick;
use crate::counters::QuotaKind;
use crate::quota::admit_bytes;
use crate::relay::Relay;
use crate::request::known_attributes;
use crate::tables::AllocationId;
use crate::verdict::{
    Direction, DropReason, Family, Forward, Framing, Header, Path, RelayAddr, Transport,
};

/// How much of a rate may go at once: one second's worth, in nanoseconds.
const BURST: u64 = 1_000_000_000;

/// Channel data from a client (RFC 8656 §12.6).
pub(crate) fn from_channel(
    relay: &mut Relay,
    tick: Tick,
    path: &Path,
    input: &[u8],
) -> Result<Forward, DropReason> {
    let data = ChannelData::parse(input).map_err(|_| DropReason::Malformed)?;
    let id = relay
        .tables
        .find_client(path)
        .ok_or(DropReason::NoAllocation)?;
    let allocation = relay.tables.get(id).ok_or(DropReason::NoAllocation)?;
    let peer = allocation
        .channel(data.channel, tick)
        .ok_or(DropReason::NoChannel)?
        .peer;
    let parcel = Parcel {
        peer,
        payload: data.payload,
        dont_fragment: false,
        framing: Framing::Channel,
    };
    to_peer(relay, tick, id, parcel)
}

/// A Send indication (RFC 8656 §11.2): without peer or data, or with a required attribute that is
/// not known, it is silently discarded.
pub(crate) fn from_indication(
    relay: &mut Relay,
    tick: Tick,
    path: &Path,
    message: &Message<'_>,
) -> Result<Forward, DropReason> {
    let id = relay
        .tables
        .find_client(path)
        .ok_or(DropReason::NoAllocation)?;
    let bad = DropReason::BadIndication;
    // RFC 6062: a TCP allocation has connections; nothing is sent with indications.
    if path.transport.is_stream() && relay.tcp.is_tcp(id) {
        return Err(bad);
    }
    if !message
        .unknown_required(known_attributes(&relay.config.protocol))
        .is_empty()
    {
        return Err(bad);
    }
    let named = message
        .attribute::<XorPeerAddress>()
        .ok()
        .flatten()
        .ok_or(bad)?
        .0;
    let data = message.attribute::<Data<'_>>().ok().flatten().ok_or(bad)?.0;
    let dont_fragment = message
        .attribute::<DontFragment>()
        .map_err(|_| bad)?
        .is_some();
    let payload = range_of(data, message.as_bytes()).ok_or(bad)?;
    let peer = relay.ports.public_peer(named);
    let allocation = relay.tables.get_mut(id).ok_or(DropReason::NoAllocation)?;
    if allocation.side(Family::of(peer.ip()), tick).is_none() {
        return Err(DropReason::WrongFamily);
    }
    // RFC 8656 §11.2: a Send indication neither makes nor refreshes a permission, it needs one.
    allocation
        .permitted_mut(peer.ip(), tick)
        .ok_or(DropReason::NoPermission)?;
    let parcel = Parcel {
        peer,
        payload,
        dont_fragment,
        framing: Framing::Indication,
    };
    to_peer(relay, tick, id, parcel)
}

/// A payload on its way to a peer.
struct Parcel {
    peer: SocketAddr,
    payload: Range<usize>,
    dont_fragment: bool,
    framing: Framing,
}

/// What channel data and Send have in common: the policy judges every datagram, then the bounds.
fn to_peer(
    relay: &mut Relay,
    tick: Tick,
    id: AllocationId,
    parcel: Parcel,
) -> Result<Forward, DropReason> {
    let Parcel {
        peer,
        payload,
        dont_fragment,
        framing,
    } = parcel;
    relay
        .policy
        .judge(peer)
        .map_err(|_| DropReason::PeerDenied)?;
    let allocation = relay.tables.get(id).ok_or(DropReason::NoAllocation)?;
    let local = allocation
        .side(Family::of(peer.ip()), tick)
        .ok_or(DropReason::WrongFamily)?;
    let local = local.relayed.0;
    // A relay socket of ours is reached by the address it is bound to, not through a NAT.
    let own = relay.policy.live_relay(peer);
    // Behind it stands a player with permissions of his own: nobody is scanned or flooded there.
    if own.is_none() {
        admit_unanswered(relay, tick, id, peer.ip())?;
    }
    count(relay, tick, id, Direction::ToPeer, payload.len())?;
    Ok(Forward {
        path: Path {
            transport: Transport::Udp,
            local,
            remote: own.unwrap_or(peer),
        },
        header: Header::EMPTY,
        payload,
        padding: 0,
        dont_fragment,
        hairpin: own.is_some(),
        direction: Direction::ToPeer,
        framing,
    })
}

/// A datagram from a peer (RFC 8656 §11.3, §12.7): it needs a permission; a channel to exactly this
/// peer makes it channel data.
pub(crate) fn from_peer(
    relay: &mut Relay,
    tick: Tick,
    relayed: RelayAddr,
    peer: SocketAddr,
    input: &[u8],
) -> Result<Forward, DropReason> {
    let (id, peer) = permitted(relay, tick, relayed, peer)?;
    let allocation = relay.tables.get_mut(id).ok_or(DropReason::UnknownRelay)?;
    let client = allocation.client;
    if let Some(entry) = allocation.peer_mut(peer.ip()) {
        entry.has_sent = true;
    }
    let channel = allocation.channel_to(peer, tick);
    let (header, framing) = match channel {
        Some(channel) => {
            let header = ChannelData::header(channel, input.len()).ok_or(DropReason::TooLarge)?;
            (Header::new(&header), Framing::Channel)
        }
        None => (
            data_indication(relay, peer, input.len())?,
            Framing::Indication,
        ),
    };
    // RFC 8656 §12.5: channel data is padded on streams only; a STUN attribute always.
    let padded = framing == Framing::Indication || client.transport.is_stream();
    let padding = if padded {
        ChannelData::stream_padding(input.len()).len()
    } else {
        0
    };
    count(relay, tick, id, Direction::ToClient, input.len())?;
    Ok(Forward {
        path: client,
        header,
        payload: 0..input.len(),
        padding: u8::try_from(padding).unwrap_or(0),
        dont_fragment: false,
        hairpin: false,
        direction: Direction::ToClient,
        framing,
    })
}

/// An ICMP error for what a client sent to a peer (RFC 8656 §11.5): a Data indication with the ICMP
/// attribute and no data, if the peer has a permission and the error is one of delivery.
pub(crate) fn peer_error(
    relay: &mut Relay,
    tick: Tick,
    relayed: RelayAddr,
    peer: SocketAddr,
    icmp: Icmp,
    reply: &mut Vec<u8>,
) -> Result<Path, DropReason> {
    let is_told = match Family::of(relayed.0.ip()) {
        Family::V4 => matches!(icmp.icmp_type, 3 | 11), // unreachable, time exceeded
        Family::V6 => matches!(icmp.icmp_type, 1..=3),  // unreachable, too big, time exceeded
    };
    if !is_told {
        return Err(DropReason::Malformed);
    }
    let (id, peer) = permitted(relay, tick, relayed, peer)?;
    let client = relay.tables.get(id).ok_or(DropReason::UnknownRelay)?.client;
    let transaction = random_transaction(relay);
    let mut writer = MessageWriter::new(reply, Class::Indication, Method::DATA, transaction);
    writer.attribute(&XorPeerAddress(peer)).attribute(&icmp);
    writer.finish();
    Ok(client)
}

/// The allocation that owns a relay address, and the peer as it is known there, if it has a
/// permission.
fn permitted(
    relay: &mut Relay,
    tick: Tick,
    relayed: RelayAddr,
    peer: SocketAddr,
) -> Result<(AllocationId, SocketAddr), DropReason> {
    let id = relay
        .tables
        .find_relayed(relayed)
        .ok_or(DropReason::UnknownRelay)?;
    let peer = relay.ports.public_peer(peer);
    let allocation = relay.tables.get_mut(id).ok_or(DropReason::UnknownRelay)?;
    if allocation.client.transport.is_stream() && relay.tcp.is_tcp(id) {
        return Err(DropReason::UnknownRelay); // it has no socket for datagrams
    }
    allocation
        .side(Family::of(relayed.0.ip()), tick)
        .ok_or(DropReason::UnknownRelay)?;
    allocation
        .permitted_mut(peer.ip(), tick)
        .ok_or(DropReason::NoPermission)?;
    Ok((id, peer))
}

/// A Data indication up to the value of DATA (RFC 8656 §11.3).
fn data_indication(relay: &mut Relay, peer: SocketAddr, len: usize) -> Result<Header, DropReason> {
    let transaction = random_transaction(relay);
    relay.scratch.clear();
    let mut writer = MessageWriter::new(
        &mut relay.scratch,
        Class::Indication,
        Method::DATA,
        transaction,
    );
    writer.attribute(&XorPeerAddress(peer));
    if writer.finish_before_value(AttributeType::DATA, len) == 0 {
        return Err(DropReason::TooLarge);
    }
    Ok(Header::new(&relay.scratch))
}

/// RFC 8489 §5: chosen at random, also for indications.
pub(crate) fn random_transaction(relay: &mut Relay) -> TransactionId {
    let mut bytes = [0; 12];
    relay.rng.fill_bytes(&mut bytes);
    TransactionId(bytes)
}

/// Until a peer has sent something, little is sent to it: a relay is no scanner.
fn admit_unanswered(
    relay: &mut Relay,
    tick: Tick,
    id: AllocationId,
    ip: IpAddr,
) -> Result<(), DropReason> {
    const SECOND: u64 = 1_000_000_000;
    let Some(rate) = relay.config.quota.silent_peer_packets else {
        return Ok(());
    };
    let Some(peer) = relay.tables.get_mut(id).and_then(|a| a.peer_mut(ip)) else {
        return Ok(());
    };
    if peer.has_sent {
        return Ok(());
    }
    if rate == 0 || !peer.unanswered.has_room(tick, SECOND) {
        return Err(DropReason::SilentPeer);
    }
    peer.unanswered.take(tick, SECOND / u64::from(rate));
    Ok(())
}

/// Takes the payload from the bandwidth and adds it to what was carried.
fn count(
    relay: &mut Relay,
    tick: Tick,
    id: AllocationId,
    direction: Direction,
    len: usize,
) -> Result<(), DropReason> {
    let quota = &relay.config.quota;
    let (own_rate, user_rate) = (quota.bandwidth_per_allocation, quota.bandwidth_per_user);
    let allocation = relay.tables.get_mut(id).ok_or(DropReason::NoAllocation)?;
    let user = user_rate.and_then(|_| relay.holdings.bandwidth(allocation.user, direction));
    if let Some(own) = allocation.bandwidth.get_mut(direction as usize)
        && !admit_bytes(tick, len, (own, own_rate), (user, user_rate))
    {
        relay.counters.count_quota_rejection(QuotaKind::Bandwidth);
        return Err(DropReason::Bandwidth);
    }
    let traffic = &mut allocation.traffic;
    match direction {
        Direction::ToPeer => {
            traffic.to_peer_packets += 1;
            traffic.to_peer_bytes += len as u64;
        }
        Direction::ToClient => {
            traffic.to_client_packets += 1;
            traffic.to_client_bytes += len as u64;
        }
    }
    Ok(())
}

/// From when on an allocation and its user have room for more bytes that way; `None`: no bound.
pub(crate) fn bandwidth_room_at(
    relay: &Relay,
    id: AllocationId,
    direction: Direction,
) -> Option<Tick> {
    let quota = &relay.config.quota;
    let allocation = relay.tables.get(id)?;
    let own = allocation.bandwidth.get(direction as usize);
    let own = own.filter(|_| quota.bandwidth_per_allocation.is_some());
    let user = relay.holdings.bandwidth_of(allocation.user, direction);
    let user = user.filter(|_| quota.bandwidth_per_user.is_some());
    let buckets = own.into_iter().chain(user);
    buckets.map(|bucket| bucket.room_at(BURST)).max()
}

/// Bytes that a connection has carried: taken from the bandwidth, which the next bytes then wait
/// for, and added to what was carried.
pub(crate) fn count_stream(
    relay: &mut Relay,
    tick: Tick,
    id: AllocationId,
    direction: Direction,
    len: usize,
) {
    let quota = &relay.config.quota;
    let (own_rate, user_rate) = (quota.bandwidth_per_allocation, quota.bandwidth_per_user);
    let Some(allocation) = relay.tables.get_mut(id) else {
        return;
    };
    let user = relay.holdings.bandwidth(allocation.user, direction);
    let own = allocation.bandwidth.get_mut(direction as usize);
    for (bucket, rate) in [(own, own_rate), (user, user_rate)] {
        if let Some((bucket, rate)) = bucket.zip(rate) {
            bucket.take(tick, BURST / u64::from(rate.max(1)) * len as u64);
        }
    }
    let traffic = &mut allocation.traffic;
    match direction {
        Direction::ToPeer => traffic.to_peer_bytes += len as u64,
        Direction::ToClient => traffic.to_client_bytes += len as u64,
    }
}

/// Where `part`, which was cut out of `whole`, lies in it.
fn range_of(part: &[u8], whole: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}
