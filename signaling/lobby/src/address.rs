//! Addresses that limits are counted by, and what each of them has used.

use crate::config::Config;
use crate::output::Admission;
use crate::rate::Usage;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// A range of addresses in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The first `length` bits of `address`; `None` when it has not as many.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (length <= longest).then_some(Self { address, length })
    }

    /// Whether `address` lies within; an IPv4-mapped one counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |bits: u8| u32::from(bits - self.length.min(bits));
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let difference = ours.to_bits() ^ theirs.to_bits();
                difference.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let difference = ours.to_bits() ^ theirs.to_bits();
                difference.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// An address as limits see it: IPv4 whole, IPv6 by its /64, which one host can fill at will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// What one source has used of its rates.
#[derive(Debug, Default)]
pub(crate) struct Record {
    connections: u32,
    connects: Usage,
    pub(crate) guesses: Usage,
    pub(crate) opens: Usage,
}

/// The sources that are connected or whose rates are not yet earned back.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    records: HashMap<Source, Record>,
}

impl Sources {
    /// Counts a connection in.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        source: Source,
        config: &Config,
    ) -> Result<(), Admission> {
        if !self.records.contains_key(&source) && self.records.len() >= config.addresses {
            return Err(Admission::AddressTableFull);
        }
        let record = self.records.entry(source).or_default();
        if record.connections >= config.connections_per_address {
            return Err(Admission::AddressFull);
        }
        record
            .connects
            .take(now, config.connect_rate, 1)
            .map_err(Admission::ConnectRate)?;
        record.connections += 1;
        Ok(())
    }

    /// Counts a connection out and says when [`Sources::forget`] may try.
    pub(crate) fn disconnect(&mut self, now: Instant, source: Source) -> Option<Instant> {
        let record = self.records.get_mut(&source)?;
        record.connections = record.connections.saturating_sub(1);
        (record.connections == 0).then(|| record.rested_at().unwrap_or(now))
    }

    /// Drops the record of a source that is gone; says when to try again if it is not rested.
    pub(crate) fn forget(&mut self, now: Instant, source: Source) -> Option<Instant> {
        let record = self.records.get(&source)?;
        if record.connections > 0 {
            return None;
        }
        if let Some(at) = record.rested_at().filter(|at| *at > now) {
            return Some(at);
        }
        self.records.remove(&source);
        None
    }

    pub(crate) fn record(&mut self, source: Source) -> Option<&mut Record> {
        self.records.get_mut(&source)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
}

impl Record {
    fn rested_at(&self) -> Option<Instant> {
        [self.connects, self.guesses, self.opens]
            .into_iter()
            .filter_map(Usage::rested_at)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_hold_their_addresses() {
        let prefix = |text: &str, length| Prefix::new(text.parse().unwrap(), length);
        let holds = |(text, length), address: &str| {
            prefix(text, length)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(holds(("10.9.0.0", 16), "10.9.255.1") && !holds(("10.9.0.0", 16), "10.8.255.1"));
        assert!(holds(("10.9.0.0", 16), "::ffff:10.9.0.1"));
        assert!(holds(("0.0.0.0", 0), "203.0.113.9") && !holds(("0.0.0.0", 0), "2001:db8::1"));
        assert!(holds(("::", 0), "2001:db8::1") && holds(("127.0.0.1", 32), "127.0.0.1"));
        assert!(holds(("2001:db8::", 32), "2001:db8:1::"));
        assert!(!holds(("2001:db8::", 32), "2001:db9::"));
        assert_eq!((prefix("10.0.0.0", 33), prefix("::", 129)), (None, None));
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
