//! Second sockets of allocations that send most of what they send to one peer, connected to it: the system then looks no
//! route up for each datagram.
//!
//! Who gets one has sent that peer [`LEAD`] datagrams more than all others together. It lives no longer than the
//! allocation, and is the first to go when another one wants to be and there are as many as may be, unless it was used
//! meanwhile. Nothing depends on it: without it everything is sent and received by the relay socket alone.

use std::net::SocketAddr;

use mio::{Interest, Registry, Token};
use slab::Slab;
use turn_relay_proto::RelayAddr;

use super::{Outgoing, SocketKey, Sockets};
use crate::counters::{Operation, ShardCounters};

/// Datagrams to one peer, less those to all others, that are worth a socket. To open one takes the time that some hundred
/// sends by it save.
const LEAD: u16 = 128;

/// Sockets looked at for one that nobody has used lately, when there are as many as may be.
const LOOKED_AT: usize = 4;

/// What a relay socket has sent lately, as far as it tells who gets most of it (Boyer and Moore's majority vote).
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// Of the one that is ahead: two with one number are taken for one, which costs a socket that is of no use.
    favourite: u32,
    lead: u16,
}

impl Votes {
    /// One datagram to `peer`. True if that one is now far enough ahead; the vote begins again.
    fn cast(&mut self, peer: SocketAddr) -> bool {
        let number = number(peer);
        if self.lead == 0 {
            self.favourite = number;
        }
        if self.favourite == number {
            self.lead += 1;
        } else {
            self.lead -= 1;
        }
        let is_ahead = self.lead >= LEAD;
        if is_ahead {
            self.lead = 0;
        }
        is_ahead
    }
}

fn number(peer: SocketAddr) -> u32 {
    let ip = match peer.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_bits(),
        std::net::IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "all bits are folded in")]
            let folded = (bits ^ (bits >> 32) ^ (bits >> 64) ^ (bits >> 96)) as u32;
            folded
        }
    };
    (ip ^ u32::from(peer.port()).rotate_left(16)).wrapping_mul(0x9e37_79b1)
}

impl Sockets {
    /// The socket to send to a peer by: the second one, if it is his, or the relay socket itself.
    pub(super) fn way_to(&mut self, peer: SocketAddr, key: SocketKey) -> SocketKey {
        let SocketKey::Relay(relay) = key else {
            return key;
        };
        if let Some(index) = self.second(relay)
            && self.connected.leads_to(index, peer)
        {
            return SocketKey::Connected(index);
        }
        let outgoing = self.relays.get_mut(relay);
        if outgoing.is_some_and(|outgoing| outgoing.votes.cast(peer)) {
            self.connected.want(relay, peer);
        }
        key
    }

    /// Where the second socket of a relay socket is.
    pub(super) fn second(&self, relay: usize) -> Option<usize> {
        usize::try_from(self.relays.get(relay)?.connected?).ok()
    }

    /// Opens the connected sockets that are wanted. One that cannot be opened is not missed.
    pub(crate) fn connect_wanted(
        &mut self,
        registry: &Registry,
        token: impl Fn(SocketKey) -> Token,
        counters: &ShardCounters,
    ) {
        while let Some((relay, peer)) = self.connected.wanted.pop() {
            if let Some(index) = self.second(relay) {
                // Another peer has overtaken the one it was opened for.
                if !self.connected.is_idle(index) {
                    continue;
                }
                self.disconnect_one(index, counters);
            }
            match self.connected.room() {
                Room::Free => {}
                Room::For(index) => self.disconnect_one(index, counters),
                Room::None => continue,
            }
            let Some(outgoing) = self.relays.get_mut(relay) else {
                continue;
            };
            let place = self.connected.next_place();
            let opened = outgoing.socket.connected(peer).and_then(|mut socket| {
                let token = token(SocketKey::Connected(place));
                registry.register(&mut socket, token, Interest::READABLE)?;
                Ok(socket)
            });
            match opened {
                Ok(socket) => {
                    outgoing.connected = u32::try_from(place).ok();
                    let second = Outgoing::of_connected(socket);
                    self.connected.insert(second, relay, peer);
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "no socket connected to a peer");
                    counters.socket_errors.inc(Operation::Connect);
                }
            }
            counters.cells.connected_sockets(self.connected.len());
        }
    }

    /// The relay socket at this address serves its allocation no more: nothing of that stays with it.
    pub(crate) fn disconnect(&mut self, addr: RelayAddr, counters: &ShardCounters) {
        let Some(SocketKey::Relay(key)) = self.relay(addr.0) else {
            return;
        };
        self.connected.wanted.retain(|(relay, _)| *relay != key);
        if let Some(index) = self.second(key) {
            self.disconnect_one(index, counters);
        }
        if let Some(outgoing) = self.relays.get_mut(key) {
            outgoing.votes = Votes::default();
        }
    }

    /// How many connected sockets there may be from here on.
    pub(crate) fn set_connected_limit(&mut self, limit: usize, counters: &ShardCounters) {
        self.connected.limit = limit;
        self.disconnect_down_to(limit, counters);
    }

    /// Leaves no more of them than so many.
    pub(super) fn disconnect_down_to(&mut self, count: usize, counters: &ShardCounters) {
        while self.connected.len() > count
            && let Some(index) = self.connected.first()
        {
            self.disconnect_one(index, counters);
        }
    }

    /// What waits on it is sent first.
    fn disconnect_one(&mut self, index: usize, counters: &ShardCounters) {
        self.flush_one(SocketKey::Connected(index), counters);
        if let Some(gone) = self.connected.remove(index)
            && let Some(relay) = self.relays.get_mut(gone.relay)
        {
            relay.connected = None;
        }
        counters.cells.connected_sockets(self.connected.len());
    }
}

/// The connected sockets of a shard.
pub(super) struct ConnectedSockets {
    sockets: Slab<Connected>,
    limit: usize,
    /// Relay sockets that are to have one, and for whom.
    wanted: Vec<(usize, SocketAddr)>,
    /// Where the search for one that can go begins.
    hand: usize,
}

/// One of them.
pub(super) struct Connected {
    pub(super) outgoing: Outgoing,
    /// Whose second socket it is.
    relay: usize,
    peer: SocketAddr,
    /// Since it was last looked at as one that could go.
    is_used: bool,
}

impl ConnectedSockets {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            sockets: Slab::new(),
            limit,
            wanted: Vec::new(),
            hand: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Connected> {
        self.sockets.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Connected> {
        self.sockets.get_mut(index)
    }

    /// Whether this one leads to `peer`. If so, it is about to be used.
    fn leads_to(&mut self, index: usize, peer: SocketAddr) -> bool {
        let found = self.sockets.get_mut(index).filter(|it| it.peer == peer);
        found.map(|it| it.is_used = true).is_some()
    }

    /// Notes that a relay socket is to have one, if there may be any.
    fn want(&mut self, relay: usize, peer: SocketAddr) {
        if self.wanted.len() < self.limit {
            self.wanted.push((relay, peer));
        }
    }

    /// The place of the next one, which knows its token by it.
    fn next_place(&self) -> usize {
        self.sockets.vacant_key()
    }

    fn insert(&mut self, outgoing: Outgoing, relay: usize, peer: SocketAddr) -> usize {
        self.sockets.insert(Connected {
            outgoing,
            relay,
            peer,
            is_used: true,
        })
    }

    fn remove(&mut self, index: usize) -> Option<Connected> {
        self.sockets.try_remove(index)
    }

    /// Whether this one has not been used since the last such question.
    fn is_idle(&mut self, index: usize) -> bool {
        let found = self.sockets.get_mut(index);
        found.is_none_or(|it| !std::mem::replace(&mut it.is_used, false))
    }

    /// Whether there is room for another, and else one that may go for it.
    fn room(&mut self) -> Room {
        if self.sockets.len() < self.limit {
            return Room::Free;
        }
        for _ in 0..LOOKED_AT {
            self.hand = if self.hand < self.sockets.capacity() {
                self.hand + 1
            } else {
                0
            };
            let place = self.hand;
            if self.sockets.contains(place) && self.is_idle(place) {
                return Room::For(place);
            }
        }
        Room::None
    }

    /// The place of one of them.
    fn first(&self) -> Option<usize> {
        self.sockets.iter().next().map(|(index, _)| index)
    }

    pub(super) fn shrink(&mut self) {
        self.sockets.shrink_to_fit();
        self.wanted.shrink_to_fit();
    }
}

/// Whether another socket may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Free,
    /// If this one goes.
    For(usize),
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 7], 1000 + number))
    }

    #[test]
    fn who_is_far_enough_ahead_of_all_others_wins() {
        let mut votes = Votes::default();
        for _ in 1..LEAD {
            assert!(!votes.cast(peer(1)));
        }
        assert!(votes.cast(peer(1)));
        // And again, from the beginning.
        for _ in 1..LEAD {
            assert!(!votes.cast(peer(1)));
        }
        // Two thirds are enough, in the end.
        let mut votes = Votes::default();
        let casts = (0..).map(|round| votes.cast(peer(u16::from(round % 3 == 0))));
        assert_eq!(
            casts.take_while(|won| !won).count() / 3,
            usize::from(LEAD) - 1
        );
    }

    #[test]
    fn nobody_wins_who_has_no_more_than_the_others() {
        let mut votes = Votes::default();
        for round in 0..10_000 {
            assert!(!votes.cast(peer(round % 2)), "{round}");
            assert!(!votes.cast(peer(round % 2 + 7)), "{round}");
        }
    }

    #[test]
    fn neighbours_have_numbers_of_their_own() {
        let addresses = ["198.51.100.7", "198.51.100.8", "2001:db8::7", "2001:db8::8"];
        let peers = addresses.iter().flat_map(|ip| {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            (49_152..=65_535).map(move |port| number(SocketAddr::new(ip, port)))
        });
        let mut numbers: Vec<u32> = peers.collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(
            numbers.len() > count * 9 / 10,
            "{} of {count}",
            numbers.len()
        );
    }
}
