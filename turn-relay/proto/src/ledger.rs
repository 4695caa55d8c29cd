//! What is held in the whole daemon: of each user, and allocations in all. Shards share nothing
//! else that changes, because addresses are steered to one shard and users are not.
//!
//! A claim is checked and taken in one step, so no two shards give the last one away twice. Only
//! Allocate and the ends of what it made come here: a packet takes no lock. A user is listed as
//! long as it holds something, so the table is bounded by the relay ports.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use crate::hash::HashKey;
use crate::room::is_too_large;

/// Users are spread over so many locks, each held for one look into a table.
const STRIPES: usize = 64;

/// Holdings over all shards that share it. Give the same `Arc` to each shard.
pub struct Ledger {
    key: HashKey,
    stripes: [Mutex<Stripe>; STRIPES],
    allocations: AtomicU32,
}

/// Users and how much each holds; never 0.
type Stripe = HashTable<(Box<str>, u32)>;

impl Ledger {
    /// Nobody holds anything. The seed is 16 bytes of the operating system's generator.
    #[must_use]
    pub fn new(seed: [u8; 16]) -> Self {
        Self {
            key: HashKey::of(seed),
            stripes: [const { Mutex::new(Stripe::new()) }; STRIPES],
            allocations: AtomicU32::new(0),
        }
    }

    /// Users who hold something.
    #[must_use]
    pub fn users(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }

    /// Allocations, those that wait for sockets included.
    #[must_use]
    pub fn allocations(&self) -> u32 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Allocations and reserved ports of a user.
    #[must_use]
    pub fn held(&self, user: &str) -> u32 {
        let hash = self.key.name(user);
        let stripe = lock(self.stripe(hash));
        let found = stripe.find(hash, |(name, _)| **name == *user);
        found.map_or(0, |(_, count)| *count)
    }

    /// Takes `count` for the user unless that makes more than `limit`; what it held before.
    pub(crate) fn claim(&self, user: &str, count: u32, limit: u32) -> Option<u32> {
        let hash = self.key.name(user);
        let mut stripe = lock(self.stripe(hash));
        let found = stripe.find_mut(hash, |(name, _)| **name == *user);
        let before = found.as_ref().map_or(0, |(_, held)| *held);
        let after = before.checked_add(count).filter(|after| *after <= limit)?;
        match found {
            Some((_, held)) => *held = after,
            None if count > 0 => {
                let key = self.key;
                stripe.insert_unique(hash, (user.into(), after), |(name, _)| key.name(name));
            }
            None => {}
        }
        Some(before)
    }

    /// The user holds so much less; with nothing it is forgotten.
    pub(crate) fn give_back(&self, user: &str, count: u32) {
        let hash = self.key.name(user);
        let mut stripe = lock(self.stripe(hash));
        let Ok(mut entry) = stripe.find_entry(hash, |(name, _)| **name == *user) else {
            return;
        };
        let held = &mut entry.get_mut().1;
        *held = held.saturating_sub(count);
        if *held == 0 {
            entry.remove();
        }
        let (key, len) = (self.key, stripe.len());
        if len == 0 {
            *stripe = Stripe::new();
        } else if is_too_large(len, stripe.capacity()) {
            stripe.shrink_to(2 * len, |(name, _)| key.name(name));
        }
    }

    /// One allocation more, unless there are `limit`.
    pub(crate) fn claim_allocation(&self, limit: u32) -> bool {
        let more = |count: u32| (count < limit).then(|| count + 1);
        self.allocations
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// So many allocations less.
    pub(crate) fn give_back_allocations(&self, count: u32) {
        self.allocations.fetch_sub(count, Ordering::Relaxed);
    }

    fn stripe(&self, hash: u64) -> &Mutex<Stripe> {
        // The table inside uses both ends of the hash.
        let at = usize::try_from(hash >> 32).unwrap_or(0) % STRIPES;
        self.stripes.get(at).expect("the remainder is a stripe")
    }
}

/// Nothing panics while it holds a lock, and a count would still be one.
fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("users", &self.users())
            .field("allocations", &self.allocations())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn claims_are_counted_up_down_and_forgotten() {
        let ledger = Ledger::new([1; 16]);
        assert_eq!(ledger.claim("alice", 2, 3), Some(0));
        assert_eq!(ledger.claim("alice", 2, 3), None, "refused whole");
        assert_eq!(ledger.claim("alice", 1, 3), Some(2));
        assert_eq!(ledger.claim("alice", 0, 2), None, "the bound was lowered");
        assert_eq!(ledger.claim("bob", 0, 3), Some(0));
        assert_eq!((ledger.users(), ledger.held("alice")), (1, 3));
        ledger.give_back("alice", 3);
        ledger.give_back("bob", 1);
        assert_eq!((ledger.users(), ledger.held("alice")), (0, 0));
        assert!(ledger.claim_allocation(1));
        assert!(!ledger.claim_allocation(1));
        ledger.give_back_allocations(1);
        assert_eq!(ledger.allocations(), 0);
    }

    #[test]
    fn bounds_hold_while_threads_claim_and_give_back() {
        const USERS: usize = 3;
        const LIMIT: u32 = 5;
        let ledger = Ledger::new([2; 16]);
        // Counted up behind a claim and down before it is given back: never above the ledger.
        let held = [const { AtomicU32::new(0) }; USERS];
        std::thread::scope(|scope| {
            for seed in 0..4_u64 {
                let (ledger, held) = (&ledger, &held);
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed);
                    let mut mine = Vec::new();
                    for _ in 0..20_000 {
                        if !mine.is_empty() && rng.random() {
                            let (user, count): (usize, u32) =
                                mine.swap_remove(rng.random_range(0..mine.len()));
                            held[user].fetch_sub(count, Ordering::SeqCst);
                            ledger.give_back(&format!("user {user}"), count);
                            continue;
                        }
                        let (user, count) = (rng.random_range(0..USERS), rng.random_range(1..3));
                        if ledger
                            .claim(&format!("user {user}"), count, LIMIT)
                            .is_some()
                        {
                            let now = held[user].fetch_add(count, Ordering::SeqCst) + count;
                            assert!(now <= LIMIT, "{now} of {LIMIT}");
                            mine.push((user, count));
                        }
                    }
                    for (user, count) in mine {
                        held[user].fetch_sub(count, Ordering::SeqCst);
                        ledger.give_back(&format!("user {user}"), count);
                    }
                });
            }
        });
        assert_eq!(ledger.users(), 0);
    }
}
