//! Allocations with their permissions and channels. Insert and remove keep every index true: an
//! allocation is found by its client's 5-tuple and, once it lives, by its relay addresses; inside
//! it, permissions are sorted by address and channels by number, both short.

use hashbrown::HashTable;
use slab::Slab;
use stun_wire::TransactionId;
use stun_wire::channel_data::ChannelNumber;

use std::net::{IpAddr, SocketAddr};

use crate::clock::{Bucket, Tick};
use crate::hash::HashKey;
use crate::quota::UserId;
use crate::request::allocate::Pending;
use crate::room::{Room, is_too_large};
use crate::timers::TimerId;
use crate::verdict::{Family, Path, Reason, RelayAddr, Traffic};

/// Names an allocation while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AllocationId(u32);

impl AllocationId {
    /// Whatever is in that place, if anything is.
    pub(crate) fn at(place: u32) -> Self {
        Self(place)
    }

    pub(crate) fn place(self) -> u32 {
        self.0
    }

    fn slot(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What a client has on the relay.
pub(crate) struct Allocation {
    pub(crate) client: Path,
    pub(crate) user: UserId,
    pub(crate) created: Tick,
    /// By family; one of them or both.
    pub(crate) sides: [Option<Side>; 2],
    peers: Vec<Peer>,
    channels: Vec<Channel>,
    pub(crate) traffic: Traffic,
    /// By direction.
    pub(crate) bandwidth: [Bucket; 2],
    pub(crate) timer: TimerId,
    /// The request that made it, for its retransmissions.
    pub(crate) grant: Grant,
    /// It waits for sockets and cannot be used yet.
    pub(crate) pending: Option<Box<Pending>>,
}

/// One relayed transport address.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub(crate) relayed: RelayAddr,
    pub(crate) expires: Tick,
}

/// What the response to Allocate said beside the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) transaction: TransactionId,
    pub(crate) lifetime_secs: u32,
    pub(crate) token: Option<[u8; 8]>,
    /// The additional family that could not be had, and why.
    pub(crate) address_error: Option<(Family, u16)>,
}

/// A peer address: it has a permission, or a channel leads there.
pub(crate) struct Peer {
    ip: IpAddr,
    /// Until when it may be talked with; in the past if only a channel keeps the entry.
    permitted: Tick,
    /// It has sent something under a permission: it is not being scanned or flooded.
    pub(crate) has_sent: bool,
    /// What was sent to it before that.
    pub(crate) unanswered: Bucket,
}

/// A channel binding.
pub(crate) struct Channel {
    pub(crate) number: ChannelNumber,
    pub(crate) peer: SocketAddr,
    pub(crate) expires: Tick,
}

/// Why a channel cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindError {
    /// The number leads to another peer.
    NumberTaken,
    /// Another number leads to the peer.
    PeerTaken,
}

impl Allocation {
    pub(crate) fn new(client: Path, user: UserId, now: Tick, timer: TimerId, grant: Grant) -> Self {
        Self {
            client,
            user,
            created: now,
            sides: [None; 2],
            peers: Vec::new(),
            channels: Vec::new(),
            traffic: Traffic::default(),
            bandwidth: [Bucket::default(); 2],
            timer,
            grant,
            pending: None,
        }
    }

    /// The relayed address of that family, if it has one that has not expired.
    #[inline]
    pub(crate) fn side(&self, family: Family, now: Tick) -> Option<&Side> {
        self.sides
            .get(family as usize)?
            .as_ref()
            .filter(|side| side.expires > now)
    }

    pub(crate) fn relayed(&self) -> [Option<RelayAddr>; 2] {
        self.sides.map(|side| side.map(|side| side.relayed))
    }

    pub(crate) fn expires(&self) -> Tick {
        self.sides
            .iter()
            .flatten()
            .map(|side| side.expires)
            .max()
            .unwrap_or_default()
    }

    /// The entry of an address, permitted or not.
    #[inline]
    pub(crate) fn peer_mut(&mut self, ip: IpAddr) -> Option<&mut Peer> {
        let at = self.peers.binary_search_by(|peer| peer.ip.cmp(&ip)).ok()?;
        self.peers.get_mut(at)
    }

    /// The entry of an address with a permission.
    #[inline]
    pub(crate) fn permitted_mut(&mut self, ip: IpAddr, now: Tick) -> Option<&mut Peer> {
        self.peer_mut(ip).filter(|peer| peer.permitted > now)
    }

    /// The binding of a number.
    #[inline]
    pub(crate) fn channel(&self, number: ChannelNumber, now: Tick) -> Option<&Channel> {
        let at = self
            .channels
            .binary_search_by(|channel| channel.number.cmp(&number))
            .ok()?;
        self.channels
            .get(at)
            .filter(|channel| channel.expires > now)
    }

    /// The number that leads to a peer.
    #[inline]
    pub(crate) fn channel_to(&self, peer: SocketAddr, now: Tick) -> Option<ChannelNumber> {
        let channel = self.channels.iter().find(|channel| channel.peer == peer)?;
        (channel.expires > now).then_some(channel.number)
    }

    pub(crate) fn permissions(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_counted()).count()
    }

    pub(crate) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Entries for addresses, permitted or kept by a channel: what the bound is about.
    pub(crate) fn peer_entries(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn has_peer(&self, ip: IpAddr) -> bool {
        self.peers.binary_search_by(|peer| peer.ip.cmp(&ip)).is_ok()
    }

    /// RFC 8656 §12.2: a number leads to one peer, and one number leads to a peer.
    pub(crate) fn may_bind(
        &self,
        number: ChannelNumber,
        peer: SocketAddr,
        now: Tick,
    ) -> Result<(), BindError> {
        if self
            .channel(number, now)
            .is_some_and(|channel| channel.peer != peer)
        {
            return Err(BindError::NumberTaken);
        }
        match self.channel_to(peer, now) {
            Some(other) if other != number => Err(BindError::PeerTaken),
            Some(_) | None => Ok(()),
        }
    }

    /// What ends next, and what it is.
    fn deadline(&self) -> Option<(Tick, Reason)> {
        let sides = self
            .sides
            .iter()
            .flatten()
            .map(|side| (side.expires, Reason::Allocation));
        let peers = self
            .peers
            .iter()
            .filter(|peer| peer.permitted > Tick::default())
            .map(|peer| (peer.permitted, Reason::Permission));
        let channels = self
            .channels
            .iter()
            .map(|channel| (channel.expires, Reason::Channel));
        sides.chain(peers).chain(channels).min()
    }
}

/// All allocations.
pub(crate) struct Tables {
    key: HashKey,
    slots: Slab<Allocation>,
    by_client: HashTable<AllocationId>,
    by_relayed: HashTable<(RelayAddr, AllocationId)>,
    room: Room,
    permissions: usize,
    channels: usize,
    pending: usize,
}

impl Tables {
    pub(crate) fn new(key: HashKey) -> Self {
        Self {
            key,
            slots: Slab::new(),
            by_client: HashTable::new(),
            by_relayed: HashTable::new(),
            room: Room::default(),
            permissions: 0,
            channels: 0,
            pending: 0,
        }
    }

    /// Allocations, those that wait for sockets included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    pub(crate) fn permissions(&self) -> usize {
        self.permissions
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    #[inline]
    pub(crate) fn find_client(&self, client: &Path) -> Option<AllocationId> {
        let same = |id: &AllocationId| {
            self.slots
                .get(id.slot())
                .is_some_and(|allocation| allocation.client == *client)
        };
        self.by_client.find(self.key.path(client), same).copied()
    }

    #[inline]
    pub(crate) fn find_relayed(&self, addr: RelayAddr) -> Option<AllocationId> {
        let found = self
            .by_relayed
            .find(self.key.socket(addr.0), |(known, _)| *known == addr);
        found.map(|(_, id)| *id)
    }

    #[inline]
    pub(crate) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        self.slots.get(id.slot())
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.slots.get_mut(id.slot())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AllocationId, &Allocation)> {
        self.slots
            .iter()
            .map(|(slot, allocation)| (id_of(slot), allocation))
    }

    /// The name that the next `insert` will give.
    pub(crate) fn next_id(&self) -> AllocationId {
        id_of(self.slots.vacant_key())
    }

    /// A new allocation; its client has none. It is not found by relay address until it is live.
    pub(crate) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        debug_assert!(self.find_client(&allocation.client).is_none());
        self.pending += usize::from(allocation.pending.is_some());
        let hash = self.key.path(&allocation.client);
        let id = id_of(self.slots.insert(allocation));
        let (key, slots) = (self.key, &self.slots);
        self.by_client.insert_unique(hash, id, |id| {
            slots
                .get(id.slot())
                .map_or(0, |allocation| key.path(&allocation.client))
        });
        id
    }

    /// All its sockets are open: it can be used from here on.
    pub(crate) fn go_live(
        &mut self,
        id: AllocationId,
        sides: [Option<Side>; 2],
    ) -> Option<Box<Pending>> {
        let allocation = self.slots.get_mut(id.slot())?;
        let pending = allocation.pending.take();
        self.pending -= usize::from(pending.is_some());
        allocation.sides = sides;
        let key = self.key;
        for side in sides.iter().flatten() {
            let entry = (side.relayed, id);
            self.by_relayed
                .insert_unique(key.socket(side.relayed.0), entry, |(addr, _)| {
                    key.socket(addr.0)
                });
        }
        pending
    }

    /// Out of every index.
    pub(crate) fn remove(&mut self, id: AllocationId) -> Option<Allocation> {
        let allocation = self.slots.try_remove(id.slot())?;
        if let Ok(entry) = self
            .by_client
            .find_entry(self.key.path(&allocation.client), |known| *known == id)
        {
            entry.remove();
        }
        for side in allocation.sides.iter().flatten() {
            self.forget_relayed(side.relayed);
        }
        self.pending -= usize::from(allocation.pending.is_some());
        self.permissions -= allocation
            .peers
            .iter()
            .filter(|peer| peer.is_counted())
            .count();
        self.channels -= allocation.channels.len();
        if self.slots.is_empty() {
            self.slots.shrink_to_fit();
            self.by_client = HashTable::new();
            self.by_relayed = HashTable::new();
        } else if self
            .room
            .is_too_large(self.slots.len(), self.slots.capacity())
        {
            self.shrink();
        }
        Some(allocation)
    }

    /// Places behind the last allocation go, and the free ones are filled from the front from here on: as those that live
    /// end, more can go. Ids stay what they are.
    fn shrink(&mut self) {
        let (key, slots) = (self.key, &mut self.slots);
        slots.shrink_to_fit();
        let len = slots.len();
        if is_too_large(len, self.by_client.capacity()) {
            self.by_client.shrink_to(2 * len, |id| {
                slots
                    .get(id.slot())
                    .map_or(0, |allocation| key.path(&allocation.client))
            });
        }
        let len = self.by_relayed.len();
        if is_too_large(len, self.by_relayed.capacity()) {
            self.by_relayed
                .shrink_to(2 * len, |(addr, _)| key.socket(addr.0));
        }
    }

    /// One family of a dual allocation ends with its permissions and channels (RFC 8656 §8.1); the
    /// other lives on.
    pub(crate) fn remove_side(
        &mut self,
        id: AllocationId,
        family: Family,
    ) -> Option<(Side, Vec<Channel>)> {
        let side = self
            .slots
            .get_mut(id.slot())?
            .sides
            .get_mut(family as usize)?
            .take()?;
        self.forget_relayed(side.relayed);
        let freed = self.retain(id, |ip| Family::of(ip) != family);
        Some((side, freed))
    }

    /// Installs or refreshes a permission (RFC 8656 §10.2).
    pub(crate) fn permit(&mut self, id: AllocationId, ip: IpAddr, until: Tick) {
        let Some(allocation) = self.slots.get_mut(id.slot()) else {
            return;
        };
        match allocation.peers.binary_search_by(|peer| peer.ip.cmp(&ip)) {
            Ok(at) => {
                if let Some(peer) = allocation.peers.get_mut(at) {
                    self.permissions += usize::from(!peer.is_counted());
                    peer.permitted = until;
                }
            }
            Err(at) => {
                make_room(&mut allocation.peers);
                let (has_sent, unanswered) = (false, Bucket::default());
                allocation.peers.insert(
                    at,
                    Peer {
                        ip,
                        permitted: until,
                        has_sent,
                        unanswered,
                    },
                );
                self.permissions += 1;
            }
        }
    }

    /// Binds or refreshes a channel that `may_bind`. True if it is new.
    pub(crate) fn bind(
        &mut self,
        id: AllocationId,
        number: ChannelNumber,
        peer: SocketAddr,
        until: Tick,
    ) -> bool {
        let Some(allocation) = self.slots.get_mut(id.slot()) else {
            return false;
        };
        match allocation
            .channels
            .binary_search_by(|channel| channel.number.cmp(&number))
        {
            Ok(at) => {
                if let Some(channel) = allocation.channels.get_mut(at) {
                    channel.expires = until;
                }
                false
            }
            Err(at) => {
                make_room(&mut allocation.channels);
                allocation.channels.insert(
                    at,
                    Channel {
                        number,
                        peer,
                        expires: until,
                    },
                );
                self.channels += 1;
                true
            }
        }
    }

    /// Takes out the permissions and channels that have ended; the channels are returned.
    pub(crate) fn expire(&mut self, id: AllocationId, now: Tick) -> Vec<Channel> {
        let Some(allocation) = self.slots.get_mut(id.slot()) else {
            return Vec::new();
        };
        let freed: Vec<_> = allocation
            .channels
            .extract_if(.., |channel| channel.expires <= now)
            .collect();
        self.channels -= freed.len();
        let (peers, channels) = (&mut allocation.peers, &allocation.channels);
        let counted = &mut self.permissions;
        peers.retain_mut(|peer| {
            if peer.permitted > now {
                return true;
            }
            *counted -= usize::from(peer.is_counted());
            peer.permitted = Tick::default();
            channels.iter().any(|channel| channel.peer.ip() == peer.ip)
        });
        freed
    }

    /// Takes out the permissions and channels of addresses that are not to be kept.
    pub(crate) fn retain(
        &mut self,
        id: AllocationId,
        keep: impl Fn(IpAddr) -> bool,
    ) -> Vec<Channel> {
        let Some(allocation) = self.slots.get_mut(id.slot()) else {
            return Vec::new();
        };
        let counted = &mut self.permissions;
        allocation.peers.retain(|peer| {
            let keep = keep(peer.ip);
            *counted -= usize::from(!keep && peer.is_counted());
            keep
        });
        let freed: Vec<_> = allocation
            .channels
            .extract_if(.., |channel| !keep(channel.peer.ip()))
            .collect();
        self.channels -= freed.len();
        freed
    }

    /// What ends next in an allocation that lives.
    pub(crate) fn deadline(&self, id: AllocationId) -> Option<(Tick, Reason)> {
        self.get(id)?.deadline()
    }

    fn forget_relayed(&mut self, addr: RelayAddr) {
        if let Ok(entry) = self
            .by_relayed
            .find_entry(self.key.socket(addr.0), |(known, _)| *known == addr)
        {
            entry.remove();
        }
    }

    /// Every index says what the others say. For tests; linear.
    pub(crate) fn assert_consistent(&self) {
        let mut permissions = 0;
        let mut channels = 0;
        let mut relayed = 0;
        for (id, allocation) in self.iter() {
            assert_eq!(
                self.find_client(&allocation.client),
                Some(id),
                "client index"
            );
            for side in allocation.sides.iter().flatten() {
                assert_eq!(
                    self.find_relayed(side.relayed),
                    Some(id),
                    "relay address index"
                );
                relayed += 1;
            }
            assert!(
                allocation.peers.is_sorted_by(|a, b| a.ip < b.ip),
                "permissions sorted"
            );
            assert!(
                allocation.channels.is_sorted_by(|a, b| a.number < b.number),
                "channels sorted"
            );
            for channel in &allocation.channels {
                assert!(
                    allocation.has_peer(channel.peer.ip()),
                    "a channel keeps its peer"
                );
            }
            permissions += allocation
                .peers
                .iter()
                .filter(|peer| peer.is_counted())
                .count();
            channels += allocation.channels.len();
        }
        assert_eq!(self.by_client.len(), self.slots.len(), "one entry a client");
        assert_eq!(self.by_relayed.len(), relayed, "one entry a relay address");
        assert_eq!(
            (self.permissions, self.channels),
            (permissions, channels),
            "gauges"
        );
        let pending = self
            .slots
            .iter()
            .filter(|(_, a)| a.pending.is_some())
            .count();
        assert_eq!(self.pending, pending, "pending");
    }
}

impl Peer {
    /// It has a permission that was not yet taken out.
    fn is_counted(&self) -> bool {
        self.permitted > Tick::default()
    }
}

/// Most allocations have one peer or a few: room grows from one and by half, not from four.
fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 2);
    }
}

fn id_of(slot: usize) -> AllocationId {
    // Allocations are bounded by relay ports; 2^32 of them do not exist.
    AllocationId(u32::try_from(slot).unwrap_or(u32::MAX))
}
