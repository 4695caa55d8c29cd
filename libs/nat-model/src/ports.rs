//! Port assignment (RFC 4787 §4.2): which external port the next mapping gets.

use std::ops::RangeInclusive;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::behaviour::Ports;

/// Random draws before the range is searched in order: enough that a range half full is missed once in 65,536 mappings.
const DRAWS: u32 = 16;

/// Chooses external ports; knows which are in use only through the question it is handed.
#[derive(Debug)]
pub(crate) struct PortChooser {
    ports: Ports,
    range: RangeInclusive<u16>,
    /// The port that `Sequential` tries next.
    next: u16,
    random: StdRng,
}

impl PortChooser {
    pub(crate) fn new(ports: Ports, range: RangeInclusive<u16>, seed: [u8; 32]) -> Self {
        let mut random = StdRng::from_seed(seed);
        let next = first_of(&range, &mut random);
        Self {
            ports,
            range,
            next,
            random,
        }
    }

    /// A free port for a mapping of `internal_port`, or none when the whole range is taken.
    pub(crate) fn choose(
        &mut self,
        internal_port: u16,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        if self.range.is_empty() {
            return None;
        }
        match self.ports {
            Ports::Preserving if self.range.contains(&internal_port) && is_free(internal_port) => {
                Some(internal_port)
            }
            Ports::Preserving | Ports::Random => self.random(is_free),
            Ports::Sequential => {
                let port = self.search(self.next, is_free)?;
                self.next = after(port, &self.range);
                Some(port)
            }
        }
    }

    /// Forgets where a sequence stood, as a device does that starts anew.
    pub(crate) fn restart(&mut self) {
        self.next = first_of(&self.range, &mut self.random);
    }

    fn random(&mut self, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..DRAWS {
            let port = first_of(&self.range, &mut self.random);
            if is_free(port) {
                return Some(port);
            }
        }
        let start = first_of(&self.range, &mut self.random);
        self.search(start, is_free)
    }

    /// The first free port from `start` upwards, once around the range.
    fn search(&self, start: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        (start..=*self.range.end())
            .chain(*self.range.start()..start)
            .find(|port| is_free(*port))
    }
}

fn first_of(range: &RangeInclusive<u16>, random: &mut StdRng) -> u16 {
    if range.is_empty() {
        return *range.start();
    }
    random.random_range(range.clone())
}

fn after(port: u16, range: &RangeInclusive<u16>) -> u16 {
    match port.checked_add(1) {
        Some(next) if range.contains(&next) => next,
        _ => *range.start(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn chooser(ports: Ports, range: RangeInclusive<u16>) -> PortChooser {
        PortChooser::new(ports, range, [7; 32])
    }

    #[test]
    fn random_ports_use_up_the_whole_range_and_then_end() {
        let mut chooser = chooser(Ports::Random, 40_000..=40_099);
        let mut taken = BTreeSet::new();
        while let Some(port) = chooser.choose(5000, |port| !taken.contains(&port)) {
            assert!((40_000..=40_099).contains(&port));
            taken.insert(port);
        }
        assert_eq!(taken.len(), 100);
    }

    #[test]
    fn preserving_keeps_the_internal_port_while_it_is_free() {
        let mut chooser = chooser(Ports::Preserving, 1024..=65_535);
        assert_eq!(chooser.choose(5000, |_| true), Some(5000));
        let other = chooser.choose(5000, |port| port != 5000);
        assert!(other.is_some_and(|port| port != 5000));
        let outside = chooser.choose(80, |_| true);
        assert!(
            outside.is_some_and(|port| port >= 1024),
            "80 is not in the range"
        );
    }

    #[test]
    fn sequential_counts_up_and_wraps_around() {
        let mut chooser = chooser(Ports::Sequential, 40_000..=40_002);
        let ports: Vec<_> = (0..6).filter_map(|_| chooser.choose(1, |_| true)).collect();
        for two in ports.windows(2) {
            assert_eq!(two[1], if two[0] == 40_002 { 40_000 } else { two[0] + 1 });
        }
        assert_eq!(ports.len(), 6);
    }

    #[test]
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "an empty range is the case under test"
    )]
    fn empty_range_yields_no_port() {
        for ports in [Ports::Random, Ports::Preserving, Ports::Sequential] {
            assert_eq!(chooser(ports, 5..=4).choose(5, |_| true), None);
        }
    }
}
