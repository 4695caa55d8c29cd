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
    /// `None` until it is known who the client is: behind a proxy that takes its header.
    address: Option<IpAddr>,
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

    /// A place for a connection, of `client` if that is known yet, if there is one.
    pub(crate) fn enter(&self, client: Option<IpAddr>) -> Result<Place, StreamRefusal> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.total >= counts.limits.connections {
            return Err(StreamRefusal::TotalLimit);
        }
        counts.total += 1;
        drop(counts);
        let mut place = Place {
            connections: self.clone(),
            address: None,
        };
        if let Some(client) = client {
            place.give_to(client)?;
        }
        Ok(place)
    }
}

impl Place {
    /// It is `client` who has the place, unless its address has its share already.
    pub(crate) fn give_to(&mut self, client: IpAddr) -> Result<(), StreamRefusal> {
        let address = source(client);
        let mut counts = self
            .connections
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let limit = counts.limits.connections_per_address;
        let has = counts.by_address.get(&address).copied().unwrap_or(0);
        if has >= limit {
            return Err(StreamRefusal::AddressLimit);
        }
        counts.by_address.insert(address, has + 1);
        drop(counts);
        self.address = Some(address);
        Ok(())
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
        let Some(address) = &self.address else {
            return;
        };
        if let Some(of_address) = counts.by_address.get_mut(address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                counts.by_address.remove(address);
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

    fn of(client: &str) -> IpAddr {
        client.parse().unwrap()
    }

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let connections = connections(10, 2);
        let (a, b) = ("192.0.2.1", "192.0.2.2");
        let first = connections.enter(Some(of(a))).unwrap();
        let _second = connections.enter(Some(of(a))).unwrap();
        let refused = connections.enter(Some(of(a))).unwrap_err();
        assert_eq!(refused, StreamRefusal::AddressLimit);
        let _other = connections.enter(Some(of(b))).unwrap();
        drop(first);
        let _third = connections.enter(Some(of(a))).unwrap();
    }

    #[test]
    fn the_addresses_of_one_ipv6_host_are_one() {
        let connections = connections(10, 1);
        let _first = connections.enter(Some(of("2001:db8::1"))).unwrap();
        let neighbour = connections.enter(Some(of("2001:db8::ffff:1")));
        assert_eq!(neighbour.unwrap_err(), StreamRefusal::AddressLimit);
        let _other = connections.enter(Some(of("2001:db8:0:1::1"))).unwrap();
    }

    #[test]
    fn the_total_is_bounded_and_forgets_who_left() {
        let connections = connections(3, 3);
        let mut places: Vec<Place> = ["192.0.2.1", "192.0.2.2"]
            .map(|client| connections.enter(Some(of(client))).unwrap())
            .into();
        // One that is nobody's yet counts too.
        places.push(connections.enter(None).unwrap());
        let error = connections.enter(None).unwrap_err();
        assert_eq!(error, StreamRefusal::TotalLimit);
        drop(places);
        let counts = connections.0.lock().unwrap();
        assert_eq!(counts.total, 0);
        assert!(counts.by_address.is_empty());
    }
}
