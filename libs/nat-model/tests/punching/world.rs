//! Two players, their NATs, a STUN server, and the packets between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nat_model::{Behaviour, Kind, Nat, Outbound};

const STUN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), 3478);
const OTHER_STUN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11)), 3478);
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// As RFC 8445 retransmits: seven times.
const ROUNDS: u32 = 7;
const SOCKETS: u16 = 256;
const PROBES: u16 = 1024;
/// How many of the ports that come next are tried.
const PREDICTED: u16 = 20;

/// Where a player sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// On the internet.
    Public,
    /// Behind one NAT.
    Home(Kind),
    /// Behind a masquerading router behind a carrier's NAT.
    Carrier(Kind),
}

impl Site {
    /// The NATs from the player outwards.
    fn nats(self, player: u8, seed: u8) -> Vec<Nat> {
        let internet = IpAddr::from([198, 51, 100, player]);
        let carrier = IpAddr::from([100, 64, 0, player]);
        let nat = |behaviour: Behaviour, external, salt| {
            Nat::new(behaviour, external, [seed ^ salt ^ (player << 4); 32])
        };
        match self {
            Self::Public => Vec::new(),
            Self::Home(kind) => vec![nat(kind.behaviour(), internet, 1)],
            Self::Carrier(kind) => vec![
                nat(Kind::Masquerade.behaviour(), carrier, 2),
                nat(kind.behaviour(), internet, 3),
            ],
        }
    }

    fn address(self, player: u8) -> IpAddr {
        match self {
            Self::Public => IpAddr::from([198, 51, 100, player]),
            Self::Home(_) | Self::Carrier(_) => IpAddr::from([192, 168, 1, 10 + player]),
        }
    }
}

struct Player {
    address: IpAddr,
    nats: Vec<Nat>,
}

impl Player {
    fn socket(&self, number: u16) -> SocketAddr {
        SocketAddr::new(self.address, 5000 + number)
    }

    /// The source under which a datagram comes out on the internet.
    fn out(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        self.nats.iter_mut().try_fold(from, |from, nat| {
            nat.outbound(now, from, to).ok().map(Outbound::from)
        })
    }

    /// The player's socket that a datagram from the internet reaches.
    fn receive(&mut self, now: Instant, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let socket = self
            .nats
            .iter_mut()
            .rev()
            .try_fold(to, |to, nat| nat.inbound(now, to, from).ok())?;
        (socket.ip() == self.address).then_some(socket)
    }
}

/// A datagram's arrival: the socket it reached and where it seemed to come from.
type Arrival = (SocketAddr, SocketAddr);

/// The two players, called 0 and 1.
pub(crate) struct World {
    now: Instant,
    players: [Player; 2],
}

impl World {
    /// A fresh world; the seed decides every port.
    #[expect(
        clippy::disallowed_methods,
        reason = "an arbitrary origin for virtual time"
    )]
    pub(crate) fn new(a: Site, b: Site, seed: u8) -> Self {
        let player = |site: Site, number| Player {
            address: site.address(number),
            nats: site.nats(number, seed),
        };
        Self {
            now: Instant::now(),
            players: [player(a, 1), player(b, 2)],
        }
    }

    /// Plain ICE: both learn their address from the STUN server, check the other's, and answer where checks came from.
    pub(crate) fn punch(&mut self) -> bool {
        let [Some(a), Some(b)] = [self.seen_by(STUN, 0), self.seen_by(STUN, 1)] else {
            return false;
        };
        let mut targets = [BTreeSet::from([b]), BTreeSet::from([a])];
        for _ in 0..ROUNDS {
            self.now += CHECK_INTERVAL;
            for player in [0, 1] {
                let socket = self.players[player].socket(0);
                for target in targets[player].clone() {
                    let Some((at, from)) = self.send(player, socket, target) else {
                        continue;
                    };
                    // RFC 8445 §7.3.1.3: the source of a check is a peer-reflexive candidate; §7.3.1.4 triggers a check.
                    targets[1 - player].insert(from);
                    if self.answers(1 - player, at, from) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Port prediction: both ask two STUN servers, take the step between the answers for the device's habit, and check the
    /// ports that come next.
    pub(crate) fn predict(&mut self) -> bool {
        let [Some(a), Some(b)] = [self.next_addresses(0), self.next_addresses(1)] else {
            return false;
        };
        let socket = [self.players[0].socket(0), self.players[1].socket(0)];
        let guesses = [b, a];
        for _ in 0..ROUNDS {
            self.now += CHECK_INTERVAL;
            for player in [0, 1] {
                for guess in &guesses[player] {
                    if let Some((at, from)) = self.send(player, socket[player], *guess)
                        && self.answers(1 - player, at, from)
                    {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Where the other player would find the mapping that the next datagram opens.
    fn next_addresses(&mut self, player: usize) -> Option<Vec<SocketAddr>> {
        let first = self.seen_by(STUN, player)?;
        let second = self.seen_by(OTHER_STUN, player)?;
        let step = second.port().wrapping_sub(first.port());
        let guesses = (1..=PREDICTED)
            .map(|times| second.port().wrapping_add(step.wrapping_mul(times)))
            .map(|port| SocketAddr::new(second.ip(), port));
        Some(guesses.collect())
    }

    /// Many sockets on the side whose ports are unknown, each towards the other's known address; many probes on the other.
    pub(crate) fn birthday(&mut self) -> bool {
        self.birthday_with_sockets_on(0) || self.birthday_with_sockets_on(1)
    }

    fn birthday_with_sockets_on(&mut self, many: usize) -> bool {
        let one = 1 - many;
        let [Some(_), Some(target)] = [self.seen_by(STUN, many), self.seen_by(STUN, one)] else {
            return false;
        };
        let prober = self.players[one].socket(0);
        let ip = self.internet_address(many);
        let mut probed = BTreeMap::new();
        for number in 1..=SOCKETS {
            let socket = self.players[many].socket(number);
            self.send(many, socket, target);
        }
        for probe in 0..PROBES {
            let port = 1024 + u16::try_from(u32::from(probe) * 40_503 % 64_512).expect("in range");
            if let Some((at, from)) = self.send(one, prober, SocketAddr::new(ip, port)) {
                probed.insert(at, from);
            }
        }
        // Whoever was reached answers where the probe came from.
        probed
            .into_iter()
            .any(|(at, from)| self.answers(many, at, from))
    }

    /// What a STUN server sees of a player's first socket.
    fn seen_by(&mut self, server: SocketAddr, player: usize) -> Option<SocketAddr> {
        let socket = self.players[player].socket(0);
        let now = self.now;
        let seen = self.players[player].out(now, socket, server)?;
        let answered = self.players[player].receive(now, server, seen);
        assert_eq!(answered, Some(socket), "the server's answer comes back");
        Some(seen)
    }

    fn send(&mut self, player: usize, socket: SocketAddr, to: SocketAddr) -> Option<Arrival> {
        let now = self.now;
        let from = self.players[player].out(now, socket, to)?;
        let at = self.players[1 - player].receive(now, from, to)?;
        Some((at, from))
    }

    /// Whether an answer from `socket` to `to` arrives: then the path works both ways.
    fn answers(&mut self, player: usize, socket: SocketAddr, to: SocketAddr) -> bool {
        self.send(player, socket, to).is_some()
    }

    fn internet_address(&self, player: usize) -> IpAddr {
        self.players[player]
            .nats
            .last()
            .map_or(self.players[player].address, Nat::external)
    }
}
