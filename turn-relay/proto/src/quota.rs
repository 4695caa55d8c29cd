//! Who has how much: allocations of a user and of a client address, bandwidth of a user.
//!
//! A user exists here as long as it has an allocation or a reserved port; an address as long as it
//! has an allocation. Both tables are therefore bounded by the number of ports. What a user may have
//! is a bound of the whole daemon: it is claimed in the [`Ledger`] first, held here, and given back.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;

use crate::clock::{Bucket, Tick};
use crate::config::{Prefix, Quota};
use crate::counters::QuotaKind;
use crate::hash::HashKey;
use crate::ledger::Ledger;
use crate::room::{Room, is_too_large};
use crate::verdict::Direction;

/// Names a user while it owns something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserId(usize);

struct User {
    name: Box<str>,
    /// Allocations and reserved ports.
    holdings: u32,
    bandwidth: [Bucket; 2],
}

/// The holdings of all users and addresses.
pub(crate) struct Holdings {
    key: HashKey,
    ledger: Arc<Ledger>,
    users: Slab<User>,
    by_name: HashTable<usize>,
    by_address: HashTable<(IpAddr, u32)>,
    room: Room,
}

/// What an Allocate request wants to be counted for.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) user: &'a str,
    pub(crate) address: IpAddr,
    /// Ports beyond those the user holds already.
    pub(crate) ports: u32,
    /// The ports that are left are kept for users who have none.
    pub(crate) only_new: bool,
}

impl Holdings {
    pub(crate) fn new(key: HashKey, ledger: Arc<Ledger>) -> Self {
        Self {
            key,
            ledger,
            users: Slab::new(),
            by_name: HashTable::new(),
            by_address: HashTable::new(),
            room: Room::default(),
        }
    }

    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    /// What all users hold, for checking.
    pub(crate) fn total(&self) -> usize {
        self.users
            .iter()
            .map(|(_, user)| usize::try_from(user.holdings).unwrap_or(usize::MAX))
            .sum()
    }

    /// What all addresses hold, for checking.
    pub(crate) fn addresses_total(&self) -> usize {
        self.by_address
            .iter()
            .map(|(_, n)| usize::try_from(*n).unwrap_or(usize::MAX))
            .sum()
    }

    pub(crate) fn name(&self, user: UserId) -> &str {
        self.users.get(user.0).map_or("", |user| &user.name)
    }

    pub(crate) fn find(&self, name: &str) -> Option<UserId> {
        let hash = self.key.name(name);
        let same = |slot: &usize| {
            self.users
                .get(*slot)
                .is_some_and(|user| &*user.name == name)
        };
        self.by_name.find(hash, same).copied().map(UserId)
    }

    /// Takes out of the daemon's bounds what is claimed, whole or not at all. `hold` and
    /// `hold_address` follow, or `unclaim`.
    pub(crate) fn claim(&self, quota: &Quota, claim: Claim<'_>) -> Result<(), QuotaKind> {
        let limit = quota.allocations_per_user;
        let held = self.ledger.claim(claim.user, claim.ports, limit);
        let held = held.ok_or(QuotaKind::User)?;
        // A reserved port was counted when it was reserved.
        let allocations = if claim.ports > 0 {
            quota.allocations
        } else {
            u32::MAX
        };
        let refused = if self.address_count(claim.address) >= quota.allocations_per_address {
            Some(QuotaKind::Address)
        } else if claim.only_new && held > 0 || !self.ledger.claim_allocation(allocations) {
            Some(QuotaKind::Total)
        } else {
            None
        };
        let Some(kind) = refused else {
            return Ok(());
        };
        self.ledger.give_back(claim.user, claim.ports);
        Err(kind)
    }

    /// What was claimed is not needed after all.
    pub(crate) fn unclaim(&self, claim: Claim<'_>) {
        self.ledger.give_back(claim.user, claim.ports);
        self.ledger.give_back_allocations(1);
    }

    /// One more thing for a user, who has claimed it.
    pub(crate) fn hold(&mut self, name: &str) -> UserId {
        if let Some(id) = self.find(name) {
            if let Some(user) = self.users.get_mut(id.0) {
                user.holdings += 1;
            }
            return id;
        }
        let slot = self.users.insert(User {
            name: name.into(),
            holdings: 1,
            bandwidth: Default::default(),
        });
        let (key, users) = (self.key, &self.users);
        self.by_name.insert_unique(key.name(name), slot, |slot| {
            users.get(*slot).map_or(0, |user| key.name(&user.name))
        });
        UserId(slot)
    }

    /// One thing less; a user with nothing is forgotten.
    pub(crate) fn release(&mut self, id: UserId) {
        let Some(user) = self.users.get_mut(id.0) else {
            return;
        };
        self.ledger.give_back(&user.name, 1);
        user.holdings -= 1;
        if user.holdings > 0 {
            return;
        }
        let hash = self.key.name(&user.name);
        self.users.remove(id.0);
        if let Ok(entry) = self.by_name.find_entry(hash, |slot| *slot == id.0) {
            entry.remove();
        }
        if self.users.is_empty() {
            self.users.shrink_to_fit();
            self.by_name = HashTable::new();
        } else if self
            .room
            .is_too_large(self.users.len(), self.users.capacity())
        {
            self.shrink_users();
        }
    }

    fn shrink_users(&mut self) {
        let (key, users) = (self.key, &mut self.users);
        users.shrink_to_fit();
        let len = users.len();
        if is_too_large(len, self.by_name.capacity()) {
            self.by_name.shrink_to(2 * len, |slot| {
                users.get(*slot).map_or(0, |user| key.name(&user.name))
            });
        }
    }

    /// One more allocation from an address, for which it was claimed.
    pub(crate) fn hold_address(&mut self, address: IpAddr) {
        let address = Prefix::source(address);
        let key = self.key;
        let hash = key.ip(0, address);
        match self
            .by_address
            .find_mut(hash, |(known, _)| *known == address)
        {
            Some((_, count)) => *count += 1,
            None => {
                self.by_address
                    .insert_unique(hash, (address, 1), |(known, _)| key.ip(0, *known));
            }
        }
    }

    /// One allocation less.
    pub(crate) fn release_address(&mut self, address: IpAddr) {
        self.ledger.give_back_allocations(1);
        let address = Prefix::source(address);
        let hash = self.key.ip(0, address);
        if let Ok(mut entry) = self
            .by_address
            .find_entry(hash, |(known, _)| *known == address)
        {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
        let (key, len) = (self.key, self.by_address.len());
        if len == 0 {
            self.by_address = HashTable::new();
        } else if is_too_large(len, self.by_address.capacity()) {
            self.by_address
                .shrink_to(2 * len, |(known, _)| key.ip(0, *known));
        }
    }

    /// What users hold here is listed in the ledger, for checking.
    pub(crate) fn assert_listed(&self) {
        for (_, user) in &self.users {
            let listed = self.ledger.held(&user.name);
            assert!(listed >= user.holdings, "{} in the ledger", user.name);
        }
    }

    fn address_count(&self, address: IpAddr) -> u32 {
        let address = Prefix::source(address);
        let found = self
            .by_address
            .find(self.key.ip(0, address), |(known, _)| *known == address);
        found.map_or(0, |(_, count)| *count)
    }

    /// The bucket from which all of a user's traffic in one direction is taken.
    #[inline]
    pub(crate) fn bandwidth(&mut self, user: UserId, direction: Direction) -> Option<&mut Bucket> {
        self.users
            .get_mut(user.0)?
            .bandwidth
            .get_mut(direction as usize)
    }

    /// The same bucket, to be looked at.
    pub(crate) fn bandwidth_of(&self, user: UserId, direction: Direction) -> Option<&Bucket> {
        self.users.get(user.0)?.bandwidth.get(direction as usize)
    }
}

/// A shard that is gone holds nothing: its siblings' users are not to pay for it.
impl Drop for Holdings {
    fn drop(&mut self) {
        for (_, user) in &self.users {
            self.ledger.give_back(&user.name, user.holdings);
        }
        let allocations: u32 = self.by_address.iter().map(|(_, count)| count).sum();
        self.ledger.give_back_allocations(allocations);
    }
}

/// Takes a payload from the buckets of its allocation and its user, or from neither.
#[inline]
pub(crate) fn admit_bytes(
    now: Tick,
    len: usize,
    allocation: (&mut Bucket, Option<u32>),
    user: (Option<&mut Bucket>, Option<u32>),
) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let (allocation, allocation_rate) = allocation;
    let (user, user_rate) = user;
    if allocation_rate.is_some() && !allocation.has_room(now, SECOND)
        || user_rate.is_some()
            && user
                .as_ref()
                .is_some_and(|user| !user.has_room(now, SECOND))
    {
        return false;
    }
    let cost = |rate: u32| SECOND / u64::from(rate.max(1)) * len as u64;
    if let Some(rate) = allocation_rate {
        allocation.take(now, cost(rate));
    }
    if let Some((user, rate)) = user.zip(user_rate) {
        user.take(now, cost(rate));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn users_and_addresses_are_counted_up_down_and_forgotten() {
        let key = HashKey::random(&mut StdRng::from_seed([5; 32]));
        let ledger = Arc::new(Ledger::new([6; 16]));
        let mut holdings = Holdings::new(key, Arc::clone(&ledger));
        let quota = Quota {
            allocations_per_user: 2,
            allocations_per_address: 3,
            ..Quota::default()
        };
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let one = |user, address| Claim {
            user,
            address,
            ports: 1,
            only_new: false,
        };
        let mut hold = |user, address| -> Result<UserId, QuotaKind> {
            holdings.claim(&quota, one(user, address))?;
            holdings.hold_address(address);
            Ok(holdings.hold(user))
        };
        let alice = hold("alice", address).unwrap();
        assert_eq!(hold("alice", neighbour), Ok(alice));
        assert_eq!(hold("alice", address), Err(QuotaKind::User));
        let bob = hold("bob", address).unwrap();
        assert_eq!(hold("bob", neighbour), Err(QuotaKind::Address));
        assert_eq!((ledger.held("alice"), ledger.held("bob")), (2, 1));
        for user in [alice, alice, bob] {
            holdings.release(user);
            holdings.release_address(address);
        }
        assert_eq!((holdings.users(), holdings.address_count(address)), (0, 0));
        assert_eq!((ledger.users(), ledger.allocations()), (0, 0));
    }

    #[test]
    fn refused_and_unused_claims_leave_nothing_and_neither_does_a_shard_that_is_gone() {
        let key = HashKey::random(&mut StdRng::from_seed([5; 32]));
        let ledger = Arc::new(Ledger::new([6; 16]));
        let mut holdings = Holdings::new(key, Arc::clone(&ledger));
        let quota = Quota {
            allocations: 1,
            ..Quota::default()
        };
        let claim = Claim {
            user: "alice",
            address: "192.0.2.1".parse().unwrap(),
            ports: 2,
            only_new: true,
        };
        assert_eq!(holdings.claim(&quota, claim), Ok(()));
        assert_eq!(
            holdings.claim(&quota, claim),
            Err(QuotaKind::Total),
            "is not new"
        );
        let bob = Claim {
            user: "bob",
            ..claim
        };
        assert_eq!(holdings.claim(&quota, bob), Err(QuotaKind::Total), "full");
        assert_eq!((ledger.users(), ledger.held("alice")), (1, 2));
        holdings.unclaim(claim);
        assert_eq!((ledger.users(), ledger.allocations()), (0, 0));

        holdings.claim(&quota, claim).unwrap();
        holdings.hold("alice");
        holdings.hold("alice");
        holdings.hold_address(claim.address);
        drop(holdings);
        assert_eq!((ledger.users(), ledger.allocations()), (0, 0));
    }

    #[test]
    fn bytes_come_from_both_buckets_or_from_neither() {
        let (mut allocation, mut user) = (Bucket::default(), Bucket::default());
        let mut carried = 0;
        for ms in 0..2_000 {
            let now = Tick::default().after(Duration::from_millis(ms));
            let one = (&mut allocation, Some(100_000));
            if admit_bytes(now, 1_000, one, (Some(&mut user), Some(50_000))) {
                carried += 1_000;
            }
        }
        assert!(
            (149_000..=151_000).contains(&carried),
            "1 s at once, then 50,000/s: {carried}"
        );
        let now = Tick::default().after(Duration::from_secs(2));
        assert!(
            allocation.has_room(now, 1),
            "what the user's bucket refused cost the other nothing"
        );
    }
}
