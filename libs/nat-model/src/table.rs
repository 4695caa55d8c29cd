//! The NAT's memory: mappings, the remotes that may send to each, and when all of it ends.
//!
//! Invariant: a mapping is in `by_port` and `by_inside` or in neither; each mapping and each remote has exactly one entry in
//! `deadlines`; `len` counts both and never passes the bound.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::behaviour::Dependence;

/// As much of a remote endpoint as a [`Dependence`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Selector {
    Any,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

impl Selector {
    pub(crate) fn new(dependence: Dependence, remote: SocketAddr) -> Self {
        match dependence {
            Dependence::Endpoint => Self::Any,
            Dependence::Address => Self::Address(remote.ip()),
            Dependence::AddressAndPort => Self::Endpoint(remote),
        }
    }
}

/// What makes two outbound datagrams share a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inside {
    pub(crate) internal: SocketAddr,
    pub(crate) towards: Selector,
}

#[derive(Debug)]
struct Mapping {
    inside: Inside,
    ends: Instant,
    remotes: BTreeMap<Selector, Instant>,
}

/// What ends at a deadline: a mapping, or one remote's right to send to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Mapping(u16),
    Remote(u16, Selector),
}

/// All mappings of one external address.
#[derive(Debug)]
pub(crate) struct Table {
    by_port: BTreeMap<u16, Mapping>,
    by_inside: BTreeMap<Inside, u16>,
    deadlines: BTreeSet<(Instant, Entry)>,
    bound: usize,
    len: usize,
}

impl Table {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            by_port: BTreeMap::new(),
            by_inside: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            bound,
            len: 0,
        }
    }

    pub(crate) fn port_of(&self, inside: &Inside) -> Option<u16> {
        self.by_inside.get(inside).copied()
    }

    pub(crate) fn internal_of(&self, port: u16) -> Option<SocketAddr> {
        Some(self.by_port.get(&port)?.inside.internal)
    }

    pub(crate) fn is_free(&self, port: u16) -> bool {
        !self.by_port.contains_key(&port)
    }

    pub(crate) fn has_room_for(&self, entries: usize) -> bool {
        self.bound.saturating_sub(self.len) >= entries
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn mappings(&self) -> usize {
        self.by_port.len()
    }

    /// Adds a mapping on a free port. The caller has asked for room.
    pub(crate) fn open(&mut self, port: u16, inside: Inside, ends: Instant) {
        self.by_inside.insert(inside, port);
        self.deadlines.insert((ends, Entry::Mapping(port)));
        self.by_port.insert(
            port,
            Mapping {
                inside,
                ends,
                remotes: BTreeMap::new(),
            },
        );
        self.len += 1;
    }

    /// Lets a mapping live on until `ends`.
    pub(crate) fn refresh(&mut self, port: u16, ends: Instant) {
        if let Some(mapping) = self.by_port.get_mut(&port) {
            self.deadlines.remove(&(mapping.ends, Entry::Mapping(port)));
            self.deadlines.insert((ends, Entry::Mapping(port)));
            mapping.ends = ends;
        }
    }

    pub(crate) fn may_send_in(&self, port: u16, remote: Selector) -> bool {
        remote == Selector::Any
            || self
                .by_port
                .get(&port)
                .is_some_and(|mapping| mapping.remotes.contains_key(&remote))
    }

    /// Gives a remote the right to send to a mapping until `ends`, or prolongs it; `false` when the table is full.
    pub(crate) fn admit(&mut self, port: u16, remote: Selector, ends: Instant) -> bool {
        if remote == Selector::Any {
            return true;
        }
        let has_room = self.has_room_for(1);
        let Some(mapping) = self.by_port.get_mut(&port) else {
            return false;
        };
        match mapping.remotes.get_mut(&remote) {
            Some(known) => {
                self.deadlines
                    .remove(&(*known, Entry::Remote(port, remote)));
                *known = ends;
            }
            None if has_room => {
                mapping.remotes.insert(remote, ends);
                self.len += 1;
            }
            None => return false,
        }
        self.deadlines.insert((ends, Entry::Remote(port, remote)));
        true
    }

    pub(crate) fn close(&mut self, port: u16) -> bool {
        let Some(mapping) = self.by_port.remove(&port) else {
            return false;
        };
        self.by_inside.remove(&mapping.inside);
        self.deadlines.remove(&(mapping.ends, Entry::Mapping(port)));
        for (remote, ends) in &mapping.remotes {
            self.deadlines
                .remove(&(*ends, Entry::Remote(port, *remote)));
        }
        self.len -= 1 + mapping.remotes.len();
        true
    }

    /// Ends everything; answers the ports that were open.
    pub(crate) fn clear(&mut self) -> Vec<u16> {
        let ports = self.by_port.keys().copied().collect();
        *self = Self::new(self.bound);
        ports
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(ends, _)| *ends)
    }

    /// Ends the first thing that is due; answers the port when it was a mapping. `None` when nothing is due.
    pub(crate) fn expire_one(&mut self, now: Instant) -> Option<Option<u16>> {
        let (ends, entry) = *self.deadlines.first()?;
        if ends > now {
            return None;
        }
        match entry {
            Entry::Mapping(port) => {
                self.close(port);
                Some(Some(port))
            }
            Entry::Remote(port, remote) => {
                self.deadlines.remove(&(ends, entry));
                if let Some(mapping) = self.by_port.get_mut(&port) {
                    mapping.remotes.remove(&remote);
                    self.len -= 1;
                }
                Some(None)
            }
        }
    }

    /// Compares every index with every other; for tests.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        let mut expected = BTreeSet::new();
        for (port, mapping) in &self.by_port {
            assert_eq!(self.by_inside.get(&mapping.inside), Some(port));
            expected.insert((mapping.ends, Entry::Mapping(*port)));
            for (remote, ends) in &mapping.remotes {
                expected.insert((*ends, Entry::Remote(*port, *remote)));
            }
        }
        assert_eq!(self.by_inside.len(), self.by_port.len());
        assert_eq!(self.deadlines, expected);
        assert_eq!(self.len, expected.len());
        assert!(self.len <= self.bound);
    }
}
