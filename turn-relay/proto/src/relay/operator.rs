//! What an operator sees and does: allocations one by one, kicked, and users kept out for a time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::Relay;
use crate::tables::{Allocation, AllocationId};
use crate::verdict::{EndReason, Now, Path, RelayAddr, Traffic};

/// Names an allocation of one machine. It outlives the allocation, and the next one in its place is
/// called otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationHandle(u64);

impl AllocationHandle {
    /// Its place in the order of [`Relay::allocations_from`].
    #[must_use]
    pub fn place(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for AllocationHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for AllocationHandle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).map_err(|_| HandleError)?;
        is_plain.then_some(Self(number)).ok_or(HandleError)
    }
}

/// A text is no handle: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleError;

/// One allocation, for lists and dashboards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationView<'a> {
    /// How it is called.
    pub handle: AllocationHandle,
    /// The client's 5-tuple.
    pub client: Path,
    /// Who owns it: the subject of the credential.
    pub user: &'a str,
    /// Bound relay addresses.
    pub relayed: [Option<RelayAddr>; 2],
    /// It relays TCP connections (RFC 6062), not datagrams.
    pub relays_tcp: bool,
    /// When it was made.
    pub created: Instant,
    /// When it ends unless refreshed.
    pub expires: Instant,
    /// What it carried.
    pub traffic: Traffic,
    /// Permissions installed.
    pub permissions: usize,
    /// Channels bound.
    pub channels: usize,
}

impl Relay {
    /// Allocations one by one, in the order of their places.
    pub fn allocations(&self) -> impl Iterator<Item = AllocationView<'_>> {
        self.allocations_from(0)
    }

    /// Those whose place is `place` or behind it. A list goes on at the place behind its last.
    pub fn allocations_from(&self, place: u32) -> impl Iterator<Item = AllocationView<'_>> {
        let rest = self
            .tables
            .iter()
            .skip_while(move |(id, _)| id.place() < place);
        let live = rest.filter(|(_, allocation)| allocation.pending.is_none());
        live.filter_map(|(id, allocation)| {
            Some(AllocationView {
                handle: self.handle(id, allocation),
                client: allocation.client,
                user: self.holdings.name(allocation.user),
                relayed: allocation.relayed(),
                relays_tcp: self.tcp.is_tcp(id),
                created: self.clock.instant(allocation.created)?,
                expires: self.clock.instant(allocation.expires())?,
                traffic: allocation.traffic,
                permissions: allocation.permissions(),
                channels: allocation.channels().len(),
            })
        })
    }

    fn handle(&self, id: AllocationId, allocation: &Allocation) -> AllocationHandle {
        let transaction = allocation.grant.transaction.0;
        let tag = self.key.request(&allocation.client, transaction) & u64::from(u32::MAX);
        AllocationHandle(u64::from(id.place()) << 32 | tag)
    }

    /// Ends all that a user (a credential's subject, or a static user's name) has: its allocations,
    /// whose number is returned, and the ports held for its tokens.
    pub fn kick_user(&mut self, now: Now, user: &str) -> usize {
        let tick = self.clock.tick(now.mono);
        let Some(user) = self.holdings.find(user) else {
            return 0;
        };
        let theirs = self
            .tables
            .iter()
            .filter(|(_, allocation)| allocation.user == user);
        let ids: Vec<AllocationId> = theirs.map(|(id, _)| id).collect();
        let held = self
            .reservations
            .iter()
            .filter(|(_, held)| held.user == user);
        let tokens: Vec<[u8; 8]> = held.map(|(token, _)| *token).collect();
        for id in &ids {
            self.end(*id, tick, EndReason::Kicked);
        }
        for token in tokens {
            self.end_reservation(token);
        }
        ids.len()
    }

    /// Ends the allocation of a client. False if there was none.
    pub fn kick_client(&mut self, now: Now, client: Path) -> bool {
        let tick = self.clock.tick(now.mono);
        let Some(id) = self.tables.find_client(&client) else {
            return false;
        };
        self.end(id, tick, EndReason::Kicked);
        true
    }

    /// Ends one allocation. False if there is none of that name (any more).
    pub fn kick_allocation(&mut self, now: Now, handle: AllocationHandle) -> bool {
        let tick = self.clock.tick(now.mono);
        let id = AllocationId::at(handle.place());
        let named = self.tables.get(id);
        if named.is_none_or(|allocation| self.handle(id, allocation) != handle) {
            return false;
        }
        self.end(id, tick, EndReason::Kicked);
        true
    }

    /// Makes no allocation for this user until so much time has passed; those it has live on. False
    /// if [`MAX_BLOCKED_USERS`](crate::MAX_BLOCKED_USERS) are kept out already.
    pub fn block_user(&mut self, now: Now, user: &str, duration: Duration) -> bool {
        let tick = self.clock.tick(now.mono);
        self.blocks.block(user, tick, tick.after(duration))
    }

    /// Lets a user in again. False if it was not kept out.
    pub fn unblock_user(&mut self, now: Now, user: &str) -> bool {
        let tick = self.clock.tick(now.mono);
        self.blocks.unblock(user, tick)
    }

    /// Who is kept out, by name, and for how long yet.
    pub fn blocked_users(&mut self, now: Now) -> impl Iterator<Item = (&str, Duration)> {
        let tick = self.clock.tick(now.mono);
        let blocked = self.blocks.iter(tick);
        blocked.map(move |(user, until)| (user, until.since(tick)))
    }
}
