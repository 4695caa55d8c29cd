//! The machine: one NAT with one external address.
//!
//! Every datagram ends in exactly one verdict, and [`Counters`] adds up to them.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::behaviour::{Behaviour, Hairpinning, Refresh};
use crate::ports::PortChooser;
use crate::table::{Inside, Selector, Table};

/// How many remotes can be cut off at once.
pub const MAX_CUTS: usize = 256;

/// Where a datagram from inside goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// Out to the remote, from this external address.
    Sent {
        /// The source that the remote sees.
        from: SocketAddr,
    },
    /// Back in to another host behind this NAT (RFC 4787 §6).
    Hairpinned {
        /// The source that the other host sees: the sender's external address (REQ-9a).
        from: SocketAddr,
        /// The other host's internal address.
        to: SocketAddr,
    },
}

impl Outbound {
    /// The external address that the datagram leaves from.
    #[must_use]
    pub fn from(self) -> SocketAddr {
        match self {
            Self::Sent { from } | Self::Hairpinned { from, .. } => from,
        }
    }
}

/// Why a datagram goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// UDP does not pass this device.
    UdpBlocked,
    /// The remote was cut off ([`Nat::cut`]).
    Cut,
    /// The remote is of another address family than the external address.
    WrongFamily,
    /// No external port is free.
    PortsExhausted,
    /// The table holds as much as it may.
    TableFull,
    /// Nobody inside has this external address.
    NoMapping,
    /// The remote was not sent to before.
    Filtered,
    /// To one of the NAT's own addresses, and it does not hairpin.
    NoHairpin,
}

impl DropReason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::UdpBlocked,
        Self::Cut,
        Self::WrongFamily,
        Self::PortsExhausted,
        Self::TableFull,
        Self::NoMapping,
        Self::Filtered,
        Self::NoHairpin,
    ];

    fn index(self) -> usize {
        match self {
            Self::UdpBlocked => 0,
            Self::Cut => 1,
            Self::WrongFamily => 2,
            Self::PortsExhausted => 3,
            Self::TableFull => 4,
            Self::NoMapping => 5,
            Self::Filtered => 6,
            Self::NoHairpin => 7,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UdpBlocked => "UDP is blocked",
            Self::Cut => "cut off",
            Self::WrongFamily => "other address family",
            Self::PortsExhausted => "no external port free",
            Self::TableFull => "table full",
            Self::NoMapping => "no mapping",
            Self::Filtered => "filtered",
            Self::NoHairpin => "no hairpinning",
        })
    }
}

/// How many datagrams ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Let out.
    pub outbound: u64,
    /// Let in.
    pub inbound: u64,
    /// Turned around inside.
    pub hairpinned: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason.index()).copied().unwrap_or(0)
    }

    /// All datagrams the NAT was told of.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.outbound + self.inbound + self.hairpinned + self.dropped.iter().sum::<u64>()
    }

    fn count(&mut self, reason: DropReason) {
        if let Some(counter) = self.dropped.get_mut(reason.index()) {
            *counter += 1;
        }
    }
}

/// Somebody on the internet, to be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// Everything at an address.
    Address(IpAddr),
    /// One endpoint.
    Endpoint(SocketAddr),
}

/// One NAT.
#[derive(Debug)]
pub struct Nat {
    behaviour: Behaviour,
    external: IpAddr,
    table: Table,
    ports: PortChooser,
    /// Ports that mappings must not use, because the owner of the sockets could not get them.
    reserved: BTreeSet<u16>,
    cuts: BTreeSet<Remote>,
    closed: VecDeque<SocketAddr>,
    counters: Counters,
}

impl Nat {
    /// A NAT with one external address.
    #[must_use]
    pub fn new(behaviour: Behaviour, external: IpAddr, seed: [u8; 32]) -> Self {
        Self {
            table: Table::new(behaviour.sessions),
            ports: PortChooser::new(behaviour.ports, behaviour.port_range.clone(), seed),
            behaviour,
            external,
            reserved: BTreeSet::new(),
            cuts: BTreeSet::new(),
            closed: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A datagram from `internal` to `remote` reached the inner side.
    ///
    /// # Errors
    /// Why it does not leave.
    pub fn outbound(
        &mut self,
        now: Instant,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Outbound, DropReason> {
        let verdict = self.translate_out(now, internal, remote);
        match verdict {
            Ok(Outbound::Sent { .. }) => self.counters.outbound += 1,
            Ok(Outbound::Hairpinned { .. }) => self.counters.hairpinned += 1,
            Err(reason) => self.counters.count(reason),
        }
        verdict
    }

    /// A datagram from `remote` to `external` reached the outer side; answers the internal address it goes to.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn inbound(
        &mut self,
        now: Instant,
        external: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        let verdict = self.translate_in(now, external, remote);
        match verdict {
            Ok(_) => self.counters.inbound += 1,
            Err(reason) => self.counters.count(reason),
        }
        verdict
    }

    /// Ends what is due. Calls with a later `now` do it too; this is for owners that sleep.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(ended) = self.table.expire_one(now) {
            if let Some(port) = ended {
                self.report_closed(port);
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    /// An external address that ended since it was last asked: its socket can be closed.
    pub fn poll_closed(&mut self) -> Option<SocketAddr> {
        self.closed.pop_front()
    }

    /// The owner of the sockets could not have this port: its mapping ends, and no other gets it until a reboot.
    pub fn reserve_port(&mut self, port: u16) {
        self.reserved.insert(port);
        self.close(port);
    }

    /// No datagram to or from `remote` passes from here on; `false` when [`MAX_CUTS`] others are cut off already.
    pub fn cut(&mut self, remote: Remote) -> bool {
        if self.cuts.len() >= MAX_CUTS && !self.cuts.contains(&remote) {
            return false;
        }
        self.cuts.insert(remote);
        true
    }

    /// Takes a [`Self::cut`] back.
    pub fn mend(&mut self, remote: Remote) {
        self.cuts.remove(&remote);
    }

    /// Blocks or lets pass all UDP, as when a laptop moves to an office.
    pub fn set_udp(&mut self, passes: bool) {
        self.behaviour.udp = passes;
    }

    /// The power fails for a moment: every mapping is gone. Cuts stay, they are the line's and not the device's.
    pub fn reboot(&mut self) {
        for port in self.table.clear() {
            self.report_closed(port);
        }
        self.reserved.clear();
        self.ports.restart();
    }

    /// The provider hands out another address: every mapping is gone with the old one.
    pub fn renumber(&mut self, external: IpAddr) {
        self.reboot();
        self.external = external;
    }

    /// The external address.
    #[must_use]
    pub fn external(&self) -> IpAddr {
        self.external
    }

    /// What this NAT does.
    #[must_use]
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// How many datagrams ended how.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many mappings are open.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.table.mappings()
    }

    /// Mappings and remembered remotes: what [`Behaviour::sessions`] bounds.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.table.len()
    }

    fn translate_out(
        &mut self,
        now: Instant,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Outbound, DropReason> {
        self.handle_timeout(now);
        self.check_line(remote)?;
        let own = self.owns(remote);
        if own && self.behaviour.hairpinning == Hairpinning::None {
            return Err(DropReason::NoHairpin);
        }
        let port = self.map(now, internal, remote)?;
        let from = SocketAddr::new(self.external, port);
        if !own {
            return Ok(Outbound::Sent { from });
        }
        let to = self.admitted(now, remote.port(), from)?;
        Ok(Outbound::Hairpinned { from, to })
    }

    fn translate_in(
        &mut self,
        now: Instant,
        external: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        self.handle_timeout(now);
        self.check_line(remote)?;
        if !self.owns(external) {
            return Err(DropReason::NoMapping);
        }
        self.admitted(now, external.port(), remote)
    }

    /// Whether an address is this NAT's. Where customers share an address (RFC 7597), each owns its range of the ports.
    fn owns(&self, address: SocketAddr) -> bool {
        address.ip() == self.external && self.behaviour.port_range.contains(&address.port())
    }

    fn check_line(&self, remote: SocketAddr) -> Result<(), DropReason> {
        if !self.behaviour.udp {
            return Err(DropReason::UdpBlocked);
        }
        if self.cuts.contains(&Remote::Address(remote.ip()))
            || self.cuts.contains(&Remote::Endpoint(remote))
        {
            return Err(DropReason::Cut);
        }
        if remote.is_ipv4() != self.external.is_ipv4() {
            return Err(DropReason::WrongFamily);
        }
        Ok(())
    }

    /// The external port for an outbound datagram: the one it shares with earlier ones, or another.
    fn map(
        &mut self,
        now: Instant,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> Result<u16, DropReason> {
        let ends = now + self.behaviour.lifetime;
        let permitted = Selector::new(self.behaviour.filtering, remote);
        let inside = Inside {
            internal,
            towards: Selector::new(self.behaviour.mapping, remote),
        };
        if let Some(port) = self.table.port_of(&inside) {
            if !self.table.admit(port, permitted, ends) {
                return Err(DropReason::TableFull);
            }
            // RFC 4787 REQ-6a: outbound traffic refreshes the mapping.
            self.table.refresh(port, ends);
            return Ok(port);
        }
        if !self
            .table
            .has_room_for(1 + usize::from(permitted != Selector::Any))
        {
            return Err(DropReason::TableFull);
        }
        let (table, reserved) = (&self.table, &self.reserved);
        let port = self
            .ports
            .choose(internal.port(), |port| {
                table.is_free(port) && !reserved.contains(&port)
            })
            .ok_or(DropReason::PortsExhausted)?;
        self.table.open(port, inside, ends);
        self.table.admit(port, permitted, ends);
        Ok(port)
    }

    /// The internal address behind an external port, if the filter lets this remote through.
    fn admitted(
        &mut self,
        now: Instant,
        port: u16,
        remote: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        let internal = self.table.internal_of(port).ok_or(DropReason::NoMapping)?;
        let sender = Selector::new(self.behaviour.filtering, remote);
        if !self.table.may_send_in(port, sender) {
            return Err(DropReason::Filtered);
        }
        if self.behaviour.refresh == Refresh::Both {
            let ends = now + self.behaviour.lifetime;
            self.table.refresh(port, ends);
            self.table.admit(port, sender, ends);
        }
        Ok(internal)
    }

    fn close(&mut self, port: u16) {
        if self.table.close(port) {
            self.report_closed(port);
        }
    }

    /// An owner that never asks costs one address per port at most.
    fn report_closed(&mut self, port: u16) {
        if self.closed.len() > usize::from(u16::MAX) {
            self.closed.pop_front();
        }
        self.closed.push_back(SocketAddr::new(self.external, port));
    }
}

#[cfg(test)]
#[path = "nat/tests.rs"]
mod tests;
