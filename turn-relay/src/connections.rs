//! How many client connections there are, of the process and of each address.
//!
//! The one lock that shards share. It is taken when a connection comes or goes, never for a packet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::StreamLimits;
use crate::counters::StreamRefusal;

/// The counts, shared by all shards.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    total: u32,
    /// Only addresses that have connections are in it, so `total` bounds it.
    by_address: HashMap<IpAddr, u32>,
    limits: StreamLimits,
}

/// A place among the connections; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Connections,
    address: IpAddr,
}

impl Connections {
    pub(crate) fn new(limits: StreamLimits) -> Self {
        Self(Arc::new(Mutex::new(Counts {
            total: 0,
            by_address: HashMap::new(),
            limits,
        })))
    }

    /// Other bounds for connections to come; those that are open stay.
    pub(crate) fn set_limits(&self, limits: StreamLimits) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.limits = limits;
    }

    /// A place for a connection from `client`, if there is one.
    pub(crate) fn enter(&self, client: IpAddr) -> Result<Place, StreamRefusal> {
        let address = source(client);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= counts.limits.connections {
            return Err(StreamRefusal::TotalLimit);
        }
        let limit = counts.limits.connections_per_address;
        let of_address = counts.by_address.entry(address).or_insert(0);
        if *of_address >= limit {
            return Err(StreamRefusal::AddressLimit);
        }
        *of_address += 1;
        counts.total += 1;
        drop(counts);
        Ok(Place {
            connections: self.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .connections
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: an IPv6 host has a /64 to itself.
fn source(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: u32, of_address: u32) -> Connections {
        Connections::new(StreamLimits {
            connections: total,
            connections_per_address: of_address,
            ..StreamLimits::default()
        })
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let connections = connections(10, 2);
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = connections.enter(a).unwrap();
        let _second = connections.enter(a).unwrap();
        assert_eq!(
            connections.enter(a).unwrap_err(),
            StreamRefusal::AddressLimit
        );
        let _other = connections.enter(b).unwrap();
        drop(first);
        let _third = connections.enter(a).unwrap();
    }

    #[test]
    fn the_addresses_of_one_ipv6_host_are_one() {
        let connections = connections(10, 1);
        let _first = connections.enter("2001:db8::1".parse().unwrap()).unwrap();
        let neighbour = connections.enter("2001:db8::ffff:1".parse().unwrap());
        assert_eq!(neighbour.unwrap_err(), StreamRefusal::AddressLimit);
        let _other = connections
            .enter("2001:db8:0:1::1".parse().unwrap())
            .unwrap();
    }

    #[test]
    fn the_total_is_bounded_and_forgets_who_left() {
        let connections = connections(3, 3);
        let places: Vec<Place> = (1..=3_u8)
            .map(|n| connections.enter([192, 0, 2, n].into()).unwrap())
            .collect();
        let error = connections.enter([192, 0, 2, 9].into()).unwrap_err();
        assert_eq!(error, StreamRefusal::TotalLimit);
        drop(places);
        let counts = connections.0.lock().unwrap();
        assert_eq!(counts.total, 0);
        assert!(counts.by_address.is_empty());
    }
}
