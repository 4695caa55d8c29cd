//! What a NAT does, in the words of RFC 4787, and the names under which the common combinations are known.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// How much of the remote endpoint a mapping or a filter looks at (RFC 4787 §4.1 for mappings, §5 for filters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependence {
    /// Nothing: one mapping for all remotes; anybody may send in.
    Endpoint,
    /// Its address: a mapping for each remote address; addresses that were sent to may send in.
    Address,
    /// Address and port: a mapping for each remote endpoint; exactly the endpoints that were sent to may send in.
    AddressAndPort,
}

/// How external ports are chosen (RFC 4787 §4.2.1). Two mappings never share one (REQ-3: no port overloading).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Anywhere in the range, from the seed.
    Random,
    /// The internal port where it is free, else as `Random`.
    Preserving,
    /// Each one after the last, as the devices do whose ports can be predicted.
    Sequential,
}

/// Which datagrams keep a mapping alive (RFC 4787 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refresh {
    /// Those that leave (REQ-6a: a MUST).
    Outbound,
    /// Those that leave and those that are let in (REQ-6b: a MAY, and an attacker's way to hold a mapping open).
    Both,
}

/// What happens to a datagram from inside to one of the NAT's own external addresses (RFC 4787 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hairpinning {
    /// It is lost.
    None,
    /// It is delivered, from the sender's external address (REQ-9a).
    ExternalSource,
}

/// The whole description of a NAT.
///
/// [`Kind::behaviour`] makes one; single fields may be changed from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// Which remotes share a mapping.
    pub mapping: Dependence,
    /// Which remotes may send to a mapping.
    pub filtering: Dependence,
    /// How external ports are chosen.
    pub ports: Ports,
    /// Where they are chosen from: the ports of the external address that are this NAT's.
    pub port_range: RangeInclusive<u16>,
    /// How long a mapping, and the right of a remote to send to it, lives without a refresh.
    pub lifetime: Duration,
    /// What counts as a refresh.
    pub refresh: Refresh,
    /// Whether inside hosts reach each other by their external addresses.
    pub hairpinning: Hairpinning,
    /// `false`: no datagram passes in either direction, as in many offices.
    pub udp: bool,
    /// The bound of the table: mappings and remembered remotes together.
    pub sessions: usize,
}

impl Default for Behaviour {
    /// What RFC 4787 asks for: endpoint-independent mapping (REQ-1), address-dependent filtering (REQ-8), two minutes at
    /// least (REQ-5; five recommended), hairpinning (REQ-9).
    fn default() -> Self {
        Self {
            mapping: Dependence::Endpoint,
            filtering: Dependence::Address,
            ports: Ports::Random,
            // REQ-3b: well-known ports stay free of ordinary mappings.
            port_range: 1024..=65535,
            lifetime: Duration::from_secs(300),
            refresh: Refresh::Outbound,
            hairpinning: Hairpinning::ExternalSource,
            udp: true,
            sessions: 65_536,
        }
    }
}

impl Behaviour {
    /// Whether two hosts, one behind each NAT, reach each other directly by plain ICE: both send to the address the
    /// other's STUN server saw, and answer wherever a check came from. Prediction, birthday and TCP tricks do not count.
    #[must_use]
    pub fn punches(&self, other: &Self) -> bool {
        self.udp && other.udp && (self.is_reached_by(other) || other.is_reached_by(self))
    }

    /// Whether the first check that passes can be one from `sender` to the address that is known of this NAT.
    ///
    /// Once one check has passed, its answer and everything after it use the address it came from, so one suffices.
    fn is_reached_by(&self, sender: &Self) -> bool {
        // The address known from the STUN server must be the mapping that is also used towards the player; otherwise the
        // player has no right to send to it, unless nobody needs one.
        if self.mapping != Dependence::Endpoint {
            return self.filtering == Dependence::Endpoint;
        }
        match self.filtering {
            Dependence::Endpoint | Dependence::Address => true,
            // Our checks went to the sender's known address; they open the filter only for exactly that source.
            Dependence::AddressAndPort => sender.mapping == Dependence::Endpoint,
        }
    }
}

/// The kinds of NAT that players sit behind; the names are those of the nat-lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Independent mapping, no filter.
    FullCone,
    /// Independent mapping, filter by address.
    AddressRestricted,
    /// Independent mapping, filter by address and port.
    PortRestricted,
    /// As port-restricted, keeping the internal port: the common Linux router.
    Masquerade,
    /// Mapping and filter by address.
    SymmetricAddress,
    /// Mapping and filter by address and port, random ports: the carrier's NAT that needs a relay.
    SymmetricRandom,
    /// The same with consecutive ports.
    SymmetricSequential,
    /// No UDP at all.
    UdpBlocked,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Masquerade,
        Self::SymmetricAddress,
        Self::SymmetricRandom,
        Self::SymmetricSequential,
        Self::UdpBlocked,
    ];

    /// What NATs of this kind do.
    #[must_use]
    pub fn behaviour(self) -> Behaviour {
        use Dependence::{Address, AddressAndPort, Endpoint};
        let (mapping, filtering, ports) = match self {
            Self::FullCone => (Endpoint, Endpoint, Ports::Random),
            Self::AddressRestricted => (Endpoint, Address, Ports::Random),
            Self::PortRestricted => (Endpoint, AddressAndPort, Ports::Random),
            Self::Masquerade => (Endpoint, AddressAndPort, Ports::Preserving),
            Self::SymmetricAddress => (Address, Address, Ports::Random),
            Self::SymmetricRandom | Self::UdpBlocked => {
                (AddressAndPort, AddressAndPort, Ports::Random)
            }
            Self::SymmetricSequential => (AddressAndPort, AddressAndPort, Ports::Sequential),
        };
        Behaviour {
            mapping,
            filtering,
            ports,
            // What the lab's routers, and Linux's conntrack with two-way traffic, come to; they do not hairpin.
            lifetime: Duration::from_secs(120),
            refresh: Refresh::Both,
            hairpinning: Hairpinning::None,
            udp: self != Self::UdpBlocked,
            ..Behaviour::default()
        }
    }

    /// The name in plain words, as tables show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Masquerade => "masquerade",
            Self::SymmetricAddress => "symmetric by address",
            Self::SymmetricRandom => "symmetric",
            Self::SymmetricSequential => "symmetric, sequential",
            Self::UdpBlocked => "UDP blocked",
        }
    }

    /// The nat-lab's name, as command lines and files hold it.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::FullCone => "fullcone",
            Self::AddressRestricted => "addrres",
            Self::PortRestricted => "portres",
            Self::Masquerade => "masq",
            Self::SymmetricAddress => "symaddr",
            Self::SymmetricRandom => "symrand",
            Self::SymmetricSequential => "symseq",
            Self::UdpBlocked => "udpblock",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no [`Kind`] has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownKind;

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown kind of NAT; known are")?;
        for kind in Kind::ALL {
            write!(f, " {}", kind.id())?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(id: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.id() == id)
            .ok_or(UnknownKind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_id() {
        for kind in Kind::ALL {
            assert_eq!(kind.id().parse(), Ok(kind));
        }
        assert_eq!("carrier-pigeon".parse::<Kind>(), Err(UnknownKind));
    }

    #[test]
    fn no_two_kinds_behave_alike() {
        for a in Kind::ALL {
            for b in Kind::ALL {
                assert_eq!(a == b, a.behaviour() == b.behaviour(), "{a} and {b}");
            }
        }
    }

    #[test]
    fn default_behaviour_is_what_rfc_4787_requires() {
        let required = Behaviour::default();
        assert_eq!(required.mapping, Dependence::Endpoint); // REQ-1
        assert!(*required.port_range.start() >= 1024); // REQ-3b
        assert!(required.lifetime >= Duration::from_secs(120)); // REQ-5
        assert_ne!(required.filtering, Dependence::AddressAndPort); // REQ-8
        assert_eq!(required.hairpinning, Hairpinning::ExternalSource); // REQ-9
    }
}
