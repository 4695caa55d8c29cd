//! Second sockets of allocations that send most of what they send to one peer, connected to it: the system then looks no
//! route up for each datagram.
//!
//! Who gets one has sent that peer [`LEAD`] datagrams more than all others together. It lives no longer than the
//! allocation, and is the first to go when another one wants to be and there are as many as may be, unless it was used
//! meanwhile. Nothing depends on it: without it everything is sent and received by the relay socket alone.

use std::net::SocketAddr;

use slab::Slab;

use super::Outgoing;

/// Datagrams to one peer, less those to all others, that are worth a socket. To open one takes the time that some hundred
/// sends by it save.
pub(crate) const LEAD: u16 = 128;

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
    pub(super) fn cast(&mut self, peer: SocketAddr) -> bool {
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

/// The connected sockets of a shard.
pub(super) struct ConnectedSockets {
    sockets: Slab<Connected>,
    limit: usize,
    /// Relay sockets that are to have one, and for whom.
    pub(super) wanted: Vec<(usize, SocketAddr)>,
    /// Where the search for one that can go begins.
    hand: usize,
}

/// One of them.
pub(super) struct Connected {
    pub(super) outgoing: Outgoing,
    /// Whose second socket it is.
    pub(super) relay: usize,
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

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
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
    pub(super) fn leads_to(&mut self, index: usize, peer: SocketAddr) -> bool {
        let found = self.sockets.get_mut(index).filter(|it| it.peer == peer);
        found.map(|it| it.is_used = true).is_some()
    }

    /// Notes that a relay socket is to have one, if there may be any.
    pub(super) fn want(&mut self, relay: usize, peer: SocketAddr) {
        if self.wanted.len() < self.limit {
            self.wanted.push((relay, peer));
        }
    }

    /// The place of the next one, which knows its token by it.
    pub(super) fn next_place(&self) -> usize {
        self.sockets.vacant_key()
    }

    pub(super) fn insert(&mut self, outgoing: Outgoing, relay: usize, peer: SocketAddr) -> usize {
        self.sockets.insert(Connected {
            outgoing,
            relay,
            peer,
            is_used: true,
        })
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Connected> {
        self.sockets.try_remove(index)
    }

    /// Whether this one has not been used since the last such question.
    pub(super) fn is_idle(&mut self, index: usize) -> bool {
        let found = self.sockets.get_mut(index);
        found.is_none_or(|it| !std::mem::replace(&mut it.is_used, false))
    }

    /// Whether there is room for another, and else one that may go for it.
    pub(super) fn room(&mut self) -> Room {
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

    /// One of them, if there are more than may be.
    pub(super) fn surplus(&self) -> Option<usize> {
        let first = self.sockets.iter().next().map(|(index, _)| index);
        first.filter(|_| self.sockets.len() > self.limit)
    }

    /// The places of all of them.
    pub(super) fn all(&self) -> Vec<usize> {
        self.sockets.iter().map(|(index, _)| index).collect()
    }

    pub(super) fn shrink(&mut self) {
        self.sockets.shrink_to_fit();
        self.wanted.shrink_to_fit();
    }
}

/// Whether another socket may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
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
