//! The ports of an allocation that is being made: which, and whether their sockets are open.

use crate::ports::Parity;
use crate::relay::Relay;
use crate::verdict::{Family, RelayAddr};

/// The ports picked for an allocation.
pub(super) struct Picks {
    /// It listens for TCP connections (RFC 6062) in place of exchanging datagrams.
    pub(super) tcp: bool,
    parity: Parity,
    /// By family.
    wants: [Option<Want>; 2],
    /// The odd port that goes with the even one.
    next: Option<Want>,
    /// Those that could not be had.
    pub(super) busy: Vec<RelayAddr>,
}

/// A socket that is open, or that the shell is to open.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) addr: RelayAddr,
    pub(super) open: bool,
}

impl Picks {
    pub(super) fn new(tcp: bool, parity: Parity) -> Self {
        Self {
            tcp,
            parity,
            wants: [None; 2],
            next: None,
            busy: Vec::new(),
        }
    }

    /// A port for that family, and its next if a pair is wanted. False if there is none.
    pub(super) fn pick(&mut self, relay: &mut Relay, family: Family) -> bool {
        let Some(want) = self.find(relay, family) else {
            return false;
        };
        if self.parity == Parity::EvenPair {
            self.next = Some(Want {
                addr: want.addr.next(),
                open: false,
            });
        }
        if let Some(place) = self.wants.get_mut(family as usize) {
            *place = Some(want);
        }
        true
    }

    /// A spare socket if any port will do, else a port that is free. Ports of spare sockets are free too if there is no
    /// other.
    fn find(&self, relay: &mut Relay, family: Family) -> Option<Want> {
        if self.parity == Parity::Any
            && !self.tcp
            && let Some(addr) = relay.ports.spares.take(&mut relay.rng, family)
        {
            return Some(Want { addr, open: true });
        }
        let free = |relay: &mut Relay| {
            let ports = &mut relay.ports;
            ports.take(&mut relay.rng, family, self.parity, &self.busy)
        };
        let addr = free(relay).or_else(|| {
            relay.close_spares();
            free(relay)
        })?;
        Some(Want { addr, open: false })
    }

    /// Takes out the port of that family, with its partner.
    pub(super) fn take(&mut self, family: Family) -> impl Iterator<Item = Want> + use<> {
        let want = self.wants.get_mut(family as usize).and_then(Option::take);
        want.into_iter().chain(self.next.take())
    }

    /// No family has a port.
    pub(super) fn is_empty(&self) -> bool {
        self.wants.iter().all(Option::is_none)
    }

    pub(super) fn all_open(&self) -> bool {
        self.iter().all(|want| want.open)
    }

    /// By family.
    pub(super) fn addrs(&self) -> [Option<RelayAddr>; 2] {
        self.wants.map(|want| want.map(|want| want.addr))
    }

    /// The odd port that goes with the even one.
    pub(super) fn next_addr(&self) -> Option<RelayAddr> {
        self.next.map(|want| want.addr)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Want> {
        self.wants.iter().flatten().chain(&self.next)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Want> {
        self.wants.iter_mut().flatten().chain(&mut self.next)
    }
}
