//! Rates of what nobody has proven anything for: Binding answers, challenges, unsigned errors, and
//! wrong signatures. Fixed tables, keyed hash, no allocation after the start.
//!
//! Answers are limited per source (IPv4 /32, IPv6 /64), per neighbourhood (/24, /48) with eight
//! times the rate, and in all. Wrong signatures are limited *before* they are judged: withholding
//! answers would not stop a guesser, because the right guess is still let in.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{Bucket, Tick};
use crate::config::{Limits, Prefix};
use crate::hash::HashKey;

/// Buckets of answers, 8 bytes each.
const ANSWER_BUCKETS: usize = 65_536;
/// Records of wrong signatures, 16 bytes each.
const FAILURE_RECORDS: usize = 16_384;
/// A neighbourhood has this many times the rate of a source.
const NEIGHBOURHOOD_SHARE: u32 = 8;
/// The first wait after too many wrong signatures; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What is being asked for without proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// A Binding response.
    Binding,
    /// A challenge or an unsigned error.
    Challenge,
}

/// All limits of one machine.
pub(crate) struct Limiter {
    config: Limits,
    key: HashKey,
    answers: Box<[Bucket]>,
    totals: [Bucket; 2],
    failures: Box<[Failures]>,
}

impl Limiter {
    pub(crate) fn new(config: Limits, key: HashKey) -> Self {
        Self {
            config,
            key,
            answers: vec![Bucket::default(); ANSWER_BUCKETS].into_boxed_slice(),
            totals: [Bucket::default(); 2],
            failures: vec![Failures::default(); FAILURE_RECORDS].into_boxed_slice(),
        }
    }

    pub(crate) fn set_config(&mut self, config: Limits) {
        self.config = config;
    }

    /// May this source have an answer? Takes it from its budget if so.
    pub(crate) fn admit(&mut self, now: Tick, kind: Unproven, source: IpAddr) -> bool {
        if self.is_exempt(source) {
            return true;
        }
        let config = &self.config;
        let (rate, burst, ceiling, total) = match kind {
            Unproven::Binding => (
                config.bindings_per_second,
                config.bindings_burst,
                config.bindings_ceiling,
                0,
            ),
            Unproven::Challenge => (
                config.challenges_per_second,
                config.challenges_burst,
                config.challenges_ceiling,
                1,
            ),
        };
        let wide_rate = rate.saturating_mul(NEIGHBOURHOOD_SHARE);
        let wide_burst = burst.saturating_mul(NEIGHBOURHOOD_SHARE);
        let domain = total * 2;
        let narrow = self.bucket_of(domain, Prefix::source(source));
        let wide = self.bucket_of(domain + 1, Prefix::neighbourhood(source));
        let total = usize::from(total);
        let room = has_room(self.answers.get(narrow), now, rate, burst)
            && has_room(self.answers.get(wide), now, wide_rate, wide_burst)
            && has_room(self.totals.get(total), now, ceiling, ceiling);
        if room {
            take(self.answers.get_mut(narrow), now, rate);
            take(self.answers.get_mut(wide), now, wide_rate);
            take(self.totals.get_mut(total), now, ceiling);
        }
        room
    }

    /// May a signature of this user from this source be judged?
    pub(crate) fn may_judge(&self, now: Tick, source: IpAddr, user: &str) -> bool {
        let (place, tag) = self.record_of(source, user);
        self.is_exempt(source)
            || self.failures.get(place).is_none_or(|record| {
                record.tag != tag || record.wait_ends(self.config.failed_signatures) <= now
            })
    }

    /// A signature of this user from this source was wrong.
    pub(crate) fn failed(&mut self, now: Tick, source: IpAddr, user: &str) {
        let (place, tag) = self.record_of(source, user);
        if let Some(record) = self.failures.get_mut(place) {
            let forgotten = record.tag != tag || now.since(record.last) > LONGEST_WAIT;
            let count = if forgotten { 0 } else { record.count };
            *record = Failures {
                last: now,
                tag,
                count: count.saturating_add(1),
            };
        }
    }

    /// It was right: the user starts afresh.
    pub(crate) fn succeeded(&mut self, source: IpAddr, user: &str) {
        let (place, tag) = self.record_of(source, user);
        if let Some(record) = self
            .failures
            .get_mut(place)
            .filter(|record| record.tag == tag)
        {
            *record = Failures::default();
        }
    }

    fn is_exempt(&self, source: IpAddr) -> bool {
        self.config
            .exempt
            .iter()
            .any(|prefix| prefix.contains(source))
    }

    fn bucket_of(&self, domain: u8, ip: IpAddr) -> usize {
        // The hash has 64 random bits, the table 16 of them.
        usize::try_from(self.key.ip(domain, ip) % ANSWER_BUCKETS as u64).unwrap_or(0)
    }

    /// Place and tag are different bits of one hash. A record of another tag is another's: it never
    /// keeps a user out, and is written over.
    fn record_of(&self, source: IpAddr, user: &str) -> (usize, u32) {
        let hash = self.key.ip(9, Prefix::source(source)) ^ self.key.name(user).rotate_left(1);
        let place = usize::try_from(hash % FAILURE_RECORDS as u64).unwrap_or(0);
        (place, u32::try_from(hash >> 32).unwrap_or(0))
    }
}

/// Wrong signatures of one user from one source.
#[derive(Clone, Copy, Default)]
struct Failures {
    last: Tick,
    tag: u32,
    count: u32,
}

impl Failures {
    fn wait_ends(&self, free: u32) -> Tick {
        match self.count.checked_sub(free.max(1)) {
            None => Tick::default(),
            Some(over) => {
                let factor = 1_u32.checked_shl(over.min(16)).unwrap_or(u32::MAX);
                self.last
                    .after(FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT))
            }
        }
    }
}

fn has_room(bucket: Option<&Bucket>, now: Tick, rate: u32, burst: u32) -> bool {
    let depth = interval(rate).saturating_mul(u64::from(burst));
    rate > 0 && bucket.is_some_and(|bucket| bucket.has_room(now, depth))
}

fn take(bucket: Option<&mut Bucket>, now: Tick, rate: u32) {
    if let Some(bucket) = bucket {
        bucket.take(now, interval(rate));
    }
}

/// Nanoseconds in which one is refilled.
fn interval(rate: u32) -> u64 {
    1_000_000_000 / u64::from(rate.max(1))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn limiter(config: Limits) -> Limiter {
        Limiter::new(config, HashKey::random(&mut StdRng::from_seed([4; 32])))
    }

    fn at(millis: u64) -> Tick {
        Tick::default().after(Duration::from_millis(millis))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut limiter = limiter(Limits::default());
        let given = |limiter: &mut Limiter, from: u64, source: &str| {
            (from..from + 1_000)
                .filter(|ms| limiter.admit(at(*ms), Unproven::Challenge, ip(source)))
                .count()
        };
        let flood = given(&mut limiter, 0, "192.0.2.7");
        assert!(
            (79..=80).contains(&flood),
            "60 at once and 20 a second, not {flood}"
        );
        let other = given(&mut limiter, 1_000, "192.0.2.8");
        assert!(
            (79..=80).contains(&other),
            "a neighbour is not disturbed: {other}"
        );
    }

    #[test]
    fn a_neighbourhood_gets_eight_times_as_much() {
        let mut limiter = limiter(Limits::default());
        let given = (0..256_u32)
            .flat_map(|host| std::iter::repeat_n(host, 60))
            .filter(|host| {
                let source = IpAddr::from(0xC000_0200_u32.wrapping_add(*host).to_be_bytes());
                limiter.admit(at(1), Unproven::Challenge, source)
            })
            .count();
        assert_eq!(given, 8 * 60);
    }

    #[test]
    fn the_ceiling_holds_for_everybody_together() {
        let config = Limits {
            challenges_ceiling: 1_000,
            ..Limits::default()
        };
        let mut limiter = limiter(config);
        let given = (0..100_000_u32)
            .filter(|n| {
                let source = IpAddr::from(n.wrapping_mul(0x0001_0301).to_be_bytes());
                limiter.admit(at(u64::from(*n) / 100), Unproven::Challenge, source)
            })
            .count();
        assert!(
            (1_900..=2_001).contains(&given),
            "1,000 at once and 1,000 a second: {given}"
        );
    }

    #[test]
    fn one_ipv6_host_is_one_source() {
        let mut limiter = limiter(Limits::default());
        let given = (0..1_000_u128)
            .filter(|n| {
                let source = IpAddr::from((0x2001_0db8_u128 << 96 | n << 32).to_be_bytes());
                limiter.admit(at(1), Unproven::Binding, source)
            })
            .count();
        assert_eq!(given, 200);
    }

    #[test]
    fn exempt_sources_are_not_limited() {
        let config = Limits {
            exempt: vec!["10.9.0.0/16".parse().unwrap()],
            ..Limits::default()
        };
        let mut limiter = limiter(config);
        assert!((0..10_000).all(|_| limiter.admit(at(1), Unproven::Binding, ip("10.9.8.7"))));
    }

    #[test]
    fn wrong_signatures_are_judged_five_times_and_then_ever_more_rarely() {
        let mut limiter = limiter(Limits::default());
        let source = ip("192.0.2.7");
        let mut judged = Vec::new();
        for second in 0..3_600 {
            let now = at(second * 1_000);
            for _ in 0..100 {
                if limiter.may_judge(now, source, "alice") {
                    limiter.failed(now, source, "alice");
                    judged.push(second);
                }
            }
        }
        assert_eq!(judged[..5], [0; 5]);
        assert_eq!(judged[5..12], [10, 30, 70, 150, 310, 630, 1_230]);
        assert!(
            limiter.may_judge(at(1_230_500), ip("192.0.2.8"), "alice"),
            "another address"
        );
        assert!(
            limiter.may_judge(at(1_230_500), source, "bob"),
            "another user"
        );
    }

    #[test]
    fn a_right_signature_clears_the_record() {
        let mut limiter = limiter(Limits::default());
        let source = ip("192.0.2.7");
        for _ in 0..4 {
            limiter.failed(at(1), source, "alice");
        }
        limiter.succeeded(source, "alice");
        for _ in 0..4 {
            limiter.failed(at(2), source, "alice");
        }
        assert!(limiter.may_judge(at(2), source, "alice"));
    }

    #[test]
    fn failures_of_many_users_do_not_lock_one_out() {
        let mut limiter = limiter(Limits::default());
        let source = ip("192.0.2.7");
        for n in 0..100_000 {
            limiter.failed(at(1), source, &format!("user{n}"));
        }
        assert!(limiter.may_judge(at(1), source, "owner"));
    }
}
