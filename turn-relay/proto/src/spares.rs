//! Relay sockets whose allocation has ended, kept open for the next one: making, binding and closing a socket is a fifth of
//! the work of a short allocation. RFC 8656 §7.2 knows servers that hold ports ready; the pick among them is as random as
//! any other.
//!
//! A spare is nobody's: its port is not in use, and no player of this relay reaches it. One that hears anything is closed,
//! so that whoever goes on sending to an allocation that has ended meets a closed port and not the next allocation; and so
//! are those that were not needed for a while.

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::verdict::{Family, RelayAddr};

/// Open sockets of nobody's.
#[derive(Default)]
pub(crate) struct Spares {
    open: Vec<RelayAddr>,
    /// The fewest there have been since the last [`surplus`](Self::surplus).
    fewest: usize,
}

impl Spares {
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn add(&mut self, addr: RelayAddr) {
        self.open.push(addr);
    }

    /// One at random.
    pub(crate) fn take(&mut self, rng: &mut StdRng, family: Family) -> Option<RelayAddr> {
        if self.open.is_empty() {
            return None;
        }
        let (before, from_here) = self.open.split_at(rng.random_range(0..self.open.len()));
        let mut from_there = from_here.iter().chain(before);
        let addr = *from_there.find(|addr| Family::of(addr.0.ip()) == family)?;
        self.remove(addr);
        Some(addr)
    }

    /// True if it was there.
    pub(crate) fn remove(&mut self, addr: RelayAddr) -> bool {
        let Some(place) = self.open.iter().position(|spare| *spare == addr) else {
            return false;
        };
        self.open.swap_remove(place);
        self.fewest = self.fewest.min(self.open.len());
        true
    }

    /// As many as nobody needed since the last time.
    pub(crate) fn surplus(&mut self) -> Vec<RelayAddr> {
        let surplus = self.open.drain(..self.fewest).collect();
        self.fewest = self.open.len();
        surplus
    }

    /// All of them.
    pub(crate) fn take_all(&mut self) -> Vec<RelayAddr> {
        self.fewest = 0;
        std::mem::take(&mut self.open)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn addr(port: u16) -> RelayAddr {
        RelayAddr(([192, 0, 2, 1], port).into())
    }

    fn spares(count: u16) -> Spares {
        let mut spares = Spares::default();
        (0..count).for_each(|port| spares.add(addr(port)));
        spares
    }

    #[test]
    fn each_is_taken_once_in_no_order_and_only_for_its_family() {
        let mut spares = spares(100);
        let mut rng = StdRng::from_seed([5; 32]);
        assert_eq!(spares.take(&mut rng, Family::V6), None);
        let v6 = RelayAddr("[2001:db8::1]:7".parse().unwrap());
        spares.add(v6);
        assert_eq!(spares.take(&mut rng, Family::V6), Some(v6));
        let take = || spares.take(&mut rng, Family::V4);
        let mut taken: Vec<RelayAddr> = std::iter::from_fn(take).collect();
        let in_order = (0..100).map(addr).collect::<Vec<_>>();
        assert_ne!(taken, in_order);
        taken.sort();
        assert_eq!(taken, in_order);
    }

    #[test]
    fn what_was_not_needed_between_two_looks_is_surplus() {
        let mut spares = spares(10);
        assert_eq!(spares.surplus(), [], "they have only come");
        assert!(spares.remove(addr(3)) && spares.remove(addr(4)));
        assert!(!spares.remove(addr(3)));
        spares.add(addr(3));
        assert_eq!(spares.surplus().len(), 8);
        assert_eq!(spares.len(), 1);
        assert_eq!(spares.surplus().len(), 1);
        assert_eq!(spares.surplus(), []);
    }
}
