//! How many answers a source may have: token buckets in a table of fixed size.
//!
//! Three limits, narrow to wide: a source (an IPv4 address, an IPv6 /64), its neighbourhood (/24, /48)
//! and the server. A fourth, small one is for a source's answers that leave from elsewhere, or go
//! elsewhere, than its request says (RFC 5780). A bucket is one word: a tag of its key and the time at which it will be full again,
//! which says how many tokens are missing (the "generic cell rate algorithm"). All shards share the
//! table, so a source spread over shards is still one source, and a stranger leaves nothing behind but
//! one of these words.
//!
//! ```text
//!   63            40 39                                0
//!   | tag, never 0  | microseconds until full, mod 2^40 |      8 words: one set, one cache line
//! ```
//!
//! When a set is full, a new key takes the word of the fullest bucket *with its missing tokens*: nobody
//! gains tokens by being forgotten.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::siphash::Key;

/// Buckets of a set: as many as share a cache line.
const WAYS: usize = 8;
/// Sets of the table; 8,192 of them are 65,536 buckets in 512 KiB.
const SETS: usize = 8_192;
/// Bits of a word that hold a time.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// The longest a bucket may take to fill, an hour, so that times stay unambiguous.
const LONGEST_BURST: u64 = 3_600_000_000;
/// Marks the key of a source's bucket for redirects.
const REDIRECT: u64 = 1 << 16;
/// Marks the key of a source's bucket for long answers.
const LONG: u64 = 1 << 17;
/// How often a word that other shards change at the same moment is tried again.
const ATTEMPTS: usize = 8;

/// The rates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitConfig {
    /// Answers a second to one IPv4 address or IPv6 /64.
    pub per_source: u32,
    /// Answers to such a source at once.
    pub burst: u32,
    /// How many times as much an IPv4 /24 or IPv6 /48 may have.
    pub neighbourhood: u32,
    /// Answers a second to everybody.
    pub server: u32,
    /// Answers a second to a source that leave from, or go, elsewhere than its request says; twice as
    /// many at once. They count against the other limits too.
    pub redirects: u32,
    /// Who is never limited and counts against nobody.
    pub exempt: Vec<Prefix>,
}

impl Default for LimitConfig {
    /// A carrier's NAT hides thousands of players, and each asks a few times a session.
    fn default() -> Self {
        Self {
            per_source: 100,
            burst: 200,
            neighbourhood: 8,
            server: 50_000,
            // A client that discovers its NAT's behavior asks for about eight of them.
            redirects: 5,
            exempt: Vec::new(),
        }
    }
}

/// Whether a request may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It may, and has been counted.
    Admitted,
    /// It may not.
    Refused(Limit),
}

/// Which limit refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// That of the source itself.
    Source,
    /// That of its /24 or /48.
    Neighbourhood,
    /// That of the whole server.
    Server,
    /// That of the source for answers from or to elsewhere.
    Redirect,
}

/// The table. Shared by all shards.
pub struct SourceLimits {
    epoch: Instant,
    key: Key,
    source: Rate,
    neighbourhood: Rate,
    server: Rate,
    redirect: Rate,
    exempt: Vec<Prefix>,
    /// The longest that any bucket takes to fill: a time further ahead than this is long past.
    horizon: u64,
    total: AtomicU64,
    sets: Box<[Set]>,
}

#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl SourceLimits {
    /// Full buckets for everybody. `seed` is secret and random; `now` is the table's beginning of time.
    #[must_use]
    pub fn new(config: &LimitConfig, seed: [u8; 16], now: Instant) -> Self {
        let empty = || Set([const { AtomicU64::new(0) }; WAYS]);
        let wide = |value: u32| u64::from(value) * u64::from(config.neighbourhood.max(1));
        let source = Rate::new(config.per_source.into(), config.burst.into());
        let neighbourhood = Rate::new(wide(config.per_source), wide(config.burst));
        // A tenth of a second's worth at once: enough for the largest batches.
        let server = Rate::new(config.server.into(), u64::from(config.server).div_ceil(10));
        let redirects = u64::from(config.redirects);
        let redirect = Rate::new(redirects, redirects * 2);
        let bursts = [source, neighbourhood, server, redirect].map(|rate| rate.burst_micros);
        Self {
            epoch: now,
            key: Key::new(seed),
            source,
            neighbourhood,
            server,
            redirect,
            exempt: config.exempt.clone(),
            horizon: bursts.into_iter().max().unwrap_or(0),
            total: AtomicU64::new(0),
            sets: std::iter::repeat_with(empty).take(SETS).collect(),
        }
    }

    /// Asks for one answer to `source`.
    pub fn admit(&self, now: Instant, source: IpAddr) -> Admission {
        if self.is_exempt(source) {
            return Admission::Admitted;
        }
        let now = self.micros(now);
        let [narrow, wide] = keys(source);
        if !self.take(now, narrow, self.source) {
            return Admission::Refused(Limit::Source);
        }
        if !self.take(now, wide, self.neighbourhood) {
            return Admission::Refused(Limit::Neighbourhood);
        }
        if !self.take_from(&self.total, now, 0, self.server) {
            return Admission::Refused(Limit::Server);
        }
        Admission::Admitted
    }

    /// Asks for an answer that was admitted to leave from, or go, elsewhere than its request says.
    pub fn admit_redirect(&self, now: Instant, source: IpAddr) -> Admission {
        let [(kind, address), _] = keys(source);
        let key = (kind | REDIRECT, address);
        if self.is_exempt(source) || self.take(self.micros(now), key, self.redirect) {
            Admission::Admitted
        } else {
            Admission::Refused(Limit::Redirect)
        }
    }

    /// Whether an answer that was admitted may be more than three times as long as its request. As many
    /// may as are redirected: a client that discovers its NAT's behavior needs both about as often.
    #[must_use]
    pub fn admit_long(&self, now: Instant, source: IpAddr) -> bool {
        let [(kind, address), _] = keys(source);
        let key = (kind | LONG, address);
        self.is_exempt(source) || self.take(self.micros(now), key, self.redirect)
    }

    fn is_exempt(&self, source: IpAddr) -> bool {
        self.exempt.iter().any(|prefix| prefix.contains(source))
    }

    /// The table's time. 0 marks a word without a bucket, so the first microsecond is skipped.
    fn micros(&self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.epoch).as_micros();
        u64::try_from(micros & u128::from(TIME_MASK))
            .unwrap_or(0)
            .wrapping_add(1)
    }

    /// Takes a token from the bucket of `key`.
    fn take(&self, now: u64, key: (u64, u64), rate: Rate) -> bool {
        let hash = self.key.hash(key.0, key.1);
        // The low bits choose the set, the high ones are the tag.
        let index = usize::try_from(hash & (SETS as u64 - 1)).expect("a set's index is small");
        let tag = (hash | (1 << TIME_BITS)) & !TIME_MASK;
        let set = self
            .sets
            .get(index)
            .expect("the mask keeps within the table");
        self.take_from(self.bucket(set, now, tag), now, tag, rate)
    }

    /// The word of `tag`, or the one it takes over: that of the fullest bucket.
    fn bucket<'t>(&self, set: &'t Set, now: u64, tag: u64) -> &'t AtomicU64 {
        let [first, ..] = &set.0;
        let mut fullest = (u64::MAX, first);
        for word in &set.0 {
            let value = word.load(Ordering::Relaxed);
            if value & !TIME_MASK == tag {
                return word;
            }
            let missing = self.until_full(value, now);
            if missing < fullest.0 {
                fullest = (missing, word);
            }
        }
        fullest.1
    }

    /// Takes a token from `word`, whoever's it was, and makes it the bucket of `tag`.
    fn take_from(&self, word: &AtomicU64, now: u64, tag: u64, rate: Rate) -> bool {
        let mut value = word.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            let missing = self.until_full(value, now).min(rate.burst_micros);
            let after = missing + rate.micros_per_token;
            if after > rate.burst_micros {
                return false;
            }
            let next = tag | (now.wrapping_add(after) & TIME_MASK);
            match word.compare_exchange_weak(value, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => value = changed,
            }
        }
        // Other shards answer this very source at this very moment, again and again.
        false
    }

    /// Microseconds until the bucket in `value` is full again; 0 for one that is.
    fn until_full(&self, value: u64, now: u64) -> u64 {
        if value == 0 {
            return 0;
        }
        // Times are cyclic (12.7 days), so what is past looks far ahead.
        let ahead = value.wrapping_sub(now) & TIME_MASK;
        if ahead > self.horizon { 0 } else { ahead }
    }
}

impl std::fmt::Debug for SourceLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceLimits")
    }
}

/// A rate as the time that a token takes to come back.
#[derive(Debug, Clone, Copy)]
struct Rate {
    micros_per_token: u64,
    burst_micros: u64,
}

impl Rate {
    /// `per_second` from 1 to 1,000,000 (finer than a microsecond is not told apart), `burst` from 1.
    fn new(per_second: u64, burst: u64) -> Self {
        let micros_per_token = (1_000_000 / per_second.max(1)).max(1);
        let burst_micros = burst
            .max(1)
            .saturating_mul(micros_per_token)
            .min(LONGEST_BURST);
        Self {
            micros_per_token,
            burst_micros,
        }
    }
}

/// What a source is counted under, narrow and wide. The first word tells the kinds apart.
fn keys(source: IpAddr) -> [(u64, u64); 2] {
    match source {
        IpAddr::V4(v4) => {
            let bits = u64::from(v4.to_bits());
            [(4 << 8 | 32, bits), (4 << 8 | 24, bits >> 8)]
        }
        IpAddr::V6(v6) => {
            let bits = u64::try_from(v6.to_bits() >> 64).expect("half of 128 bits are 64");
            [(6 << 8 | 64, bits), (6 << 8 | 48, bits >> 16)]
        }
    }
}

/// Addresses that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The first `length` bits of `address`.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        Self { address, length }
    }

    /// Whether `address` begins with them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                u128::from(ours.to_bits() ^ theirs.to_bits()) << 96
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => ours.to_bits() ^ theirs.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        // A full-width IPv4 prefix compares 32 bits; the 96 below them are equal anyway.
        differing.leading_zeros() >= u32::from(self.length)
    }
}

#[cfg(test)]
mod tests;
