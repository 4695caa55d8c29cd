//! What a source gets, what its neighbours get, and what nobody gets by tricks.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "some moment to count from")]
fn start() -> Instant {
    Instant::now()
}

fn table(config: &LimitConfig) -> (SourceLimits, Instant) {
    let start = start();
    (
        SourceLimits::new(config, *b"a key for tests!", start),
        start,
    )
}

/// How many of `attempts` at one moment are admitted.
fn admitted(limits: &SourceLimits, now: Instant, source: &str, attempts: usize) -> usize {
    let source = source.parse().unwrap();
    (0..attempts)
        .filter(|_| limits.admit(now, source) == Admission::Admitted)
        .count()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_source_gets_its_burst_and_then_its_rate() {
    let (limits, start) = table(&LimitConfig::default());
    assert_eq!(admitted(&limits, start, "192.0.2.1", 1000), 200);
    assert_eq!(admitted(&limits, start + millis(9), "192.0.2.1", 10), 0);
    assert_eq!(admitted(&limits, start + millis(10), "192.0.2.1", 10), 1);
    assert_eq!(admitted(&limits, start + millis(510), "192.0.2.1", 100), 50);
    assert_eq!(
        admitted(&limits, start + millis(60_000), "192.0.2.1", 1000),
        200
    );
}

#[test]
fn redirected_answers_have_a_small_bucket_of_their_own() {
    let (limits, start) = table(&LimitConfig {
        exempt: vec![Prefix::new([198, 51, 100, 0].into(), 24)],
        ..LimitConfig::default()
    });
    let redirected = |now, source: &str, attempts: usize| {
        let source = source.parse().unwrap();
        (0..attempts)
            .filter(|_| limits.admit_redirect(now, source) == Admission::Admitted)
            .count()
    };
    assert_eq!(redirected(start, "192.0.2.1", 100), 10);
    let refused = limits.admit_redirect(start, "192.0.2.1".parse().unwrap());
    assert_eq!(refused, Admission::Refused(Limit::Redirect));
    // Five a second come back, and neither bucket knows of the other.
    assert_eq!(redirected(start + millis(1_000), "192.0.2.1", 100), 5);
    assert_eq!(admitted(&limits, start, "192.0.2.1", 1000), 200);
    assert_eq!(redirected(start, "192.0.2.2", 100), 10);
    assert_eq!(redirected(start, "2001:db8::1", 100), 10);
    assert_eq!(redirected(start, "2001:db8::2", 100), 0, "the same /64");
    assert_eq!(redirected(start, "198.51.100.1", 100), 100, "exempt");
}

#[test]
fn the_refusal_names_the_limit() {
    let (limits, start) = table(&LimitConfig {
        burst: 1,
        ..LimitConfig::default()
    });
    let source = "192.0.2.1".parse().unwrap();
    assert_eq!(limits.admit(start, source), Admission::Admitted);
    assert_eq!(
        limits.admit(start, source),
        Admission::Refused(Limit::Source)
    );
    for neighbour in 2..9 {
        let source = IpAddr::from([192, 0, 2, neighbour]);
        assert_eq!(limits.admit(start, source), Admission::Admitted);
    }
    let ninth = "192.0.2.9".parse().unwrap();
    assert_eq!(
        limits.admit(start, ninth),
        Admission::Refused(Limit::Neighbourhood)
    );
    let config = LimitConfig {
        server: 10,
        ..LimitConfig::default()
    };
    let (limits, start) = table(&config);
    assert_eq!(
        limits.admit(start, "192.0.2.1".parse().unwrap()),
        Admission::Admitted
    );
    let elsewhere = "198.51.100.1".parse().unwrap();
    assert_eq!(
        limits.admit(start, elsewhere),
        Admission::Refused(Limit::Server)
    );
}

#[test]
fn an_ipv6_source_is_its_64_and_its_neighbourhood_the_48() {
    let (limits, start) = table(&LimitConfig::default());
    assert_eq!(admitted(&limits, start, "2001:db8:1:1::1", 150), 150);
    assert_eq!(admitted(&limits, start, "2001:db8:1:1:ffff::2", 150), 50);
    for network in 2..9 {
        let source = format!("2001:db8:1:{network}::1");
        assert_eq!(admitted(&limits, start, &source, 300), 200, "{source}");
    }
    assert_eq!(admitted(&limits, start, "2001:db8:1:9::1", 300), 0);
    assert_eq!(admitted(&limits, start, "2001:db8:2:9::1", 300), 200);
}

#[test]
fn exempt_sources_are_not_counted_at_all() {
    let monitor = Prefix::new("10.9.0.0".parse().unwrap(), 16);
    let config = LimitConfig {
        burst: 1,
        server: 10,
        exempt: vec![monitor],
        ..Default::default()
    };
    let (limits, start) = table(&config);
    assert_eq!(admitted(&limits, start, "10.9.1.1", 1000), 1000);
    assert_eq!(admitted(&limits, start, "10.10.1.1", 1000), 1);
}

#[test]
fn a_clock_that_stands_still_or_goes_round_harms_nobody() {
    let (limits, start) = table(&LimitConfig::default());
    assert_eq!(admitted(&limits, start, "192.0.2.1", 200), 200);
    // The table's time has 40 bits of microseconds and starts again after 12.7 days.
    let cycle = Duration::from_micros(1 << TIME_BITS);
    for days in [1, 7, 12, 13, 30] {
        let later = start + Duration::from_secs(days * 86_400);
        assert_eq!(
            admitted(&limits, later, "192.0.2.1", 300),
            200,
            "after {days} days"
        );
    }
    let over_the_edge = start + 3 * cycle - millis(500);
    assert_eq!(admitted(&limits, over_the_edge, "192.0.2.7", 300), 200);
    assert_eq!(
        admitted(&limits, over_the_edge + millis(1000), "192.0.2.7", 300),
        100
    );
}

#[test]
fn nobody_gains_by_being_forgotten() {
    // Far more sources than buckets, each of them emptied, and the first of them again after all.
    let config = LimitConfig {
        burst: 4,
        neighbourhood: 1000,
        server: 1_000_000,
        ..Default::default()
    };
    let config = LimitConfig {
        server: u32::MAX,
        ..config
    };
    let (limits, start) = table(&config);
    let sources = SETS * WAYS * 2;
    let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
    let mut admitted = 0;
    for round in 0..2 {
        for n in 0..sources {
            for _ in 0..8 {
                if limits.admit(start, address(n)) == Admission::Admitted {
                    admitted += 1;
                }
            }
        }
        assert!(admitted <= SETS * WAYS * 4, "round {round}: {admitted}");
    }
}

#[test]
fn shards_that_share_a_table_share_its_limits() {
    let (limits, start) = table(&LimitConfig::default());
    let limits = std::sync::Arc::new(limits);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let limits = std::sync::Arc::clone(&limits);
            std::thread::spawn(move || admitted(&limits, start, "192.0.2.1", 1000))
        })
        .collect();
    let total: usize = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    assert!(total <= 200, "{total}");
    assert!(total >= 150, "contention alone refused {}", 200 - total);
}

proptest! {
    /// The bucket against the textbook: a counter refilled by elapsed time.
    #[test]
    fn it_admits_what_a_token_bucket_admits(gaps in prop::collection::vec(0_u64..40_000, 1..400)) {
        let config = LimitConfig { per_source: 100, burst: 20, ..LimitConfig::default() };
        let (limits, start) = table(&config);
        let source = "192.0.2.1".parse().unwrap();
        let (mut tokens_e4, mut elapsed) = (200_000_u64, 0);
        for gap in gaps {
            elapsed += gap;
            // 100 a second are one in 10,000 microseconds.
            tokens_e4 = (tokens_e4 + gap).min(200_000);
            let expected = tokens_e4 >= 10_000;
            if expected {
                tokens_e4 -= 10_000;
            }
            let admission = limits.admit(start + Duration::from_micros(elapsed), source);
            prop_assert_eq!(admission == Admission::Admitted, expected, "at {} us", elapsed);
        }
    }

    #[test]
    fn prefixes_compare_exactly_their_bits(address: u128, length in 0_u8..=128, flip in 0_u32..128) {
        let other = address ^ (1 << flip);
        let inside = 127 - flip >= u32::from(length);
        let prefix = Prefix::new(IpAddr::from(address.to_be_bytes()), length);
        prop_assert_eq!(prefix.contains(IpAddr::from(other.to_be_bytes())), inside);
    }

    #[test]
    fn ipv4_prefixes_do_too(address: u32, length in 0_u8..=32, flip in 0_u32..32) {
        let other = address ^ (1 << flip);
        let inside = 31 - flip >= u32::from(length);
        let prefix = Prefix::new(IpAddr::from(address.to_be_bytes()), length);
        prop_assert!(prefix.contains(IpAddr::from(address.to_be_bytes())));
        prop_assert_eq!(prefix.contains(IpAddr::from(other.to_be_bytes())), inside);
    }
}
