//! Wrong tokens, by source: after some of them none of that source is looked at for a while.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong tokens of one source in a window.
pub(super) const GUESSES: u32 = 10;
/// How long a window is, from its first wrong token.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Sources remembered; the one with the oldest window makes room for another.
const SOURCES: usize = 256;

/// Who has guessed wrong, how often, and since when.
#[derive(Debug, Default)]
pub(super) struct Guesses(BTreeMap<IpAddr, (u32, Instant)>);

impl Guesses {
    /// For how long nothing of this source is looked at.
    pub(super) fn locked_for(&self, source: IpAddr, now: Instant) -> Option<Duration> {
        let (count, since) = self.0.get(&block(source))?;
        let left = (*since + WINDOW).saturating_duration_since(now);
        (*count >= GUESSES && !left.is_zero()).then_some(left)
    }

    pub(super) fn wrong(&mut self, source: IpAddr, now: Instant) {
        let source = block(source);
        self.0.retain(|_, (_, since)| *since + WINDOW > now);
        if self.0.len() >= SOURCES && !self.0.contains_key(&source) {
            let oldest = self.0.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(oldest) = oldest.map(|(source, _)| *source) {
                self.0.remove(&oldest);
            }
        }
        self.0.entry(source).or_insert((0, now)).0 += 1;
    }

    pub(super) fn right(&mut self, source: IpAddr) {
        self.0.remove(&block(source));
    }
}

/// Whom an address stands for: an IPv6 customer has a /64.
fn block(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_locked_for_its_window_and_others_are_not() {
        let mut guesses = Guesses::default();
        let start = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, other) = (ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        for _ in 0..GUESSES {
            assert_eq!(guesses.locked_for(one, start), None);
            guesses.wrong(one, start);
        }
        assert_eq!(
            guesses.locked_for(ip("2001:db8::ffff"), start),
            Some(WINDOW)
        );
        assert_eq!(guesses.locked_for(other, start), None);
        let over = start + WINDOW;
        assert_eq!(guesses.locked_for(one, over), None);
        guesses.wrong(one, over);
        assert_eq!(guesses.locked_for(one, over), None, "a new window");
        guesses.right(one);
        assert!(guesses.0.is_empty());
    }

    #[test]
    fn sources_are_bounded_and_the_oldest_makes_room() {
        let mut guesses = Guesses::default();
        let mut now = Instant::now();
        for n in 0..=SOURCES {
            let [.., high, low] = n.to_be_bytes();
            guesses.wrong(IpAddr::from([10, 0, high, low]), now);
            now += Duration::from_millis(1);
        }
        assert_eq!(guesses.0.len(), SOURCES);
        assert!(!guesses.0.contains_key(&IpAddr::from([10, 0, 0, 0])));
    }
}
