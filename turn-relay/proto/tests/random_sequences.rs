//! A model-free property: whatever comes in whatever order, the invariants hold. A failure prints
//! its seed; fix it and add the seed to `KEPT`.
//!
//! Always on: quotas are kept, no datagram goes to a peer that the policy refuses, indexes and
//! gauges agree, every verdict is counted, deadlines never lie in the past after the timer ran, and
//! after the longest lifetime nothing is left.

#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::panic,
    reason = "a test names the case it is about"
)]

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use harness::{
    Ask, Got, Player, World, addr, allocate, allocate_tcp, channel_bind, connect, connection_bind,
    create_permission, refresh,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stun_wire::attribute::AddressFamily;
use turn_relay_proto::{
    ConnectionEnd, Direction, Event, PeerPolicy, RelayConfig, SocketOutcome, Transport,
};

/// Seeds that once failed.
const KEPT: &[u64] = &[];

const PEERS: [&str; 10] = [
    "20.30.40.50:6000",
    "20.30.40.50:6001",
    "20.30.40.51:6000",
    "20.30.40.51:53",
    "[2a00:1:2::3]:6000",
    "[2a00:1:2::4]:6000",
    "10.0.0.1:6000",
    "127.0.0.1:6000",
    "[::ffff:20.30.40.50]:6000",
    "192.0.2.1:3478",
];

#[test]
fn invariants_hold_under_random_sequences() {
    let seeds = std::env::var("RALLYPOINT_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(40);
    let mut reached = Reached::default();
    for seed in KEPT.iter().copied().chain(0..seeds) {
        let run = std::panic::catch_unwind(|| play(seed));
        let Ok(run) = run else {
            panic!("seed {seed} failed")
        };
        reached.forwarded += run.forwarded;
        reached.allocations += run.allocations;
        reached.channels += run.channels;
        reached.bound += run.bound;
    }
    // The invariants are those of a relay at work.
    let Reached {
        forwarded,
        allocations,
        channels,
        bound,
    } = reached;
    assert!(
        forwarded > 0 && allocations > 300 && channels > 30 && bound > 5,
        "{reached:?}"
    );
}

/// Thirty days of mixed traffic in virtual time, well under a minute of ours. `RALLYPOINT_SEED` tells
/// another story; the seed is printed.
#[test]
fn thirty_days_leave_nothing_behind() {
    let seed = std::env::var("RALLYPOINT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(4_711);
    println!("thirty days with RALLYPOINT_SEED={seed}");
    let run = std::panic::catch_unwind(|| thirty_days(seed));
    assert!(run.is_ok(), "RALLYPOINT_SEED={seed} failed");
}

fn thirty_days(seed: u64) {
    let mut game = Game::new(seed);
    let end = game.world.now.mono + Duration::from_secs(30 * 86_400);
    while game.world.now.mono < end {
        for _ in 0..game.rng.random_range(1..30) {
            game.step();
        }
        let nap = game.rng.random_range(0..1_200);
        game.world.wait_secs(nap);
    }
    assert!(game.world.tally.forwarded > 1_000, "{:?}", game.world.tally);
    game.finish();
}

fn play(seed: u64) -> Reached {
    let mut game = Game::new(seed);
    for _ in 0..800 {
        game.step();
    }
    let mut reached = Reached {
        forwarded: game.world.tally.forwarded,
        ..Reached::default()
    };
    for event in game.world.take_events() {
        match event {
            Event::AllocationCreated { .. } => reached.allocations += 1,
            Event::ChannelBound { .. } => reached.channels += 1,
            Event::ConnectionBound { .. } => reached.bound += 1,
            _ => {}
        }
    }
    game.finish();
    reached
}

/// How far random sequences have come.
#[derive(Debug, Default)]
struct Reached {
    forwarded: u64,
    allocations: usize,
    channels: usize,
    bound: usize,
}

struct Game {
    rng: StdRng,
    world: World,
    config: RelayConfig,
    players: Vec<Player>,
    relayed: Vec<SocketAddr>,
    tokens: Vec<[u8; 8]>,
    last: Vec<u8>,
}

impl Game {
    fn new(seed: u64) -> Self {
        let mut config = harness::config();
        config.ports = 50_000..=50_031; // scarce, so that every error is met
        config.spare_sockets = [256, 3, 0][usize::try_from(seed % 3).expect("below three")];
        config.quota.allocations_per_user = 4;
        config.quota.permissions_per_allocation = 3;
        config.quota.channels_per_allocation = 2;
        config.quota.peer_connections_per_allocation = 4;
        config.quota.waiting_connections_per_allocation = 2;
        config.protocol.tcp_relaying = true;
        let mut players = Vec::new();
        for n in 0..6_u16 {
            let client = format!("198.51.100.{}:{}", n % 5, 5_000 + n);
            let mut player = match n % 4 {
                0 => Player::alice(&client),
                1 => Player::bob(&client).modern(),
                2 => Player::minted(&client, &format!("m{}", n % 3), 40 * 86_400),
                _ => Player::named(&client, "alice", "wrong"),
            };
            player.path.transport =
                [Transport::Udp, Transport::Tcp, Transport::Tls][usize::from(n) % 3];
            players.push(player);
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut world = World::seeded(config.clone(), bytes);
        for player in &mut players {
            player.greet(&mut world); // or every request is one without a nonce: 400
        }
        Self {
            rng: StdRng::seed_from_u64(seed),
            world,
            config,
            players,
            relayed: vec![addr("192.0.2.1:50000")],
            tokens: vec![[0; 8]],
            last: b"nothing yet".to_vec(),
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..24) {
            20..=23 => self.connections(),
            0..=6 => self.request(),
            7..=8 => self.session(),
            9..=12 => self.client_data(),
            13..=15 => self.peer_data(),
            16 => self.mutated(),
            17 => {
                let longest = if self.rng.random() { 4_000 } else { 200_000 };
                let nap = self.rng.random_range(0..longest);
                self.world.wait(Duration::from_millis(nap));
            }
            18 => self.shell(),
            _ => self.operator(),
        }
        self.check();
    }

    fn request(&mut self) {
        let (player, peer) = (self.player(), self.peer());
        let number = self.rng.random_range(0x3FFE..0x4004);
        let token = self.tokens[self.rng.random_range(0..self.tokens.len())];
        let ask = match self.rng.random_range(0..18) {
            12 | 13 => allocate_tcp(),
            14 => allocate_tcp().additional_family(AddressFamily::Ipv6),
            15 | 16 => connect(&peer),
            17 => connection_bind(self.connection()),
            0 | 1 => allocate(),
            2 => allocate().even_port(self.rng.random()),
            3 => allocate().additional_family(AddressFamily::Ipv6),
            4 => allocate()
                .family(AddressFamily::Ipv6)
                .lifetime(self.rng.random_range(0..5_000)),
            5 => allocate().token(token),
            6 => refresh(),
            7 => refresh().lifetime(self.rng.random_range(0..2) * 900),
            8 => refresh().family(AddressFamily::Ipv6).lifetime(0),
            9 => create_permission(&[&peer, &self.peer()]),
            _ => channel_bind(number, &peer),
        };
        self.ask(player, &ask);
    }

    /// What a player comes for, as far as the moment lets him.
    fn session(&mut self) {
        let (player, peer) = (self.player(), self.peer());
        for ask in [allocate(), allocate(), channel_bind(0x4000, &peer)] {
            self.ask(player, &ask);
        }
        let relayed = self.recent_relayed();
        for len in 0..self.rng.random_range(1..20) {
            let data = vec![9; len * 100];
            let got = self.players[player].send_channel(&mut self.world, 0x4000, &data);
            self.check_forward(got);
            let got = self.world.peer_sends(&peer, relayed, &data);
            self.check_forward(got);
        }
    }

    /// Asks, and once more with a new nonce if the relay wants one.
    fn ask(&mut self, player: usize, ask: &Ask) {
        let known = self.world.connecting.len();
        let player = &mut self.players[player];
        let mut request = player.sign(ask);
        for _ in 0..2 {
            let Got::Reply(bytes) = self.world.client_sends(player.path, &request) else {
                break;
            };
            let reply = harness::Reply::parse(&bytes);
            if reply.nonce.is_some() {
                player.nonce.clone_from(&reply.nonce);
            }
            self.relayed.extend(reply.relayed);
            self.tokens.extend(reply.token);
            if reply.code != Some(438) {
                break;
            }
            request = player.sign(ask);
        }
        self.last = request;
        // Asked from outside as for datagrams: a peer that the policy allows, or a listener of ours.
        for asked in self.world.connecting.iter().skip(known) {
            let listens = self.world.listening.iter().any(|own| own.0 == asked.peer);
            let allowed = self.is_allowed(asked.peer);
            assert!(allowed || listens, "connects to {}", asked.peer);
        }
    }

    fn client_data(&mut self) {
        let (player, peer) = (self.player(), self.peer());
        let number = self.rng.random_range(0x4000..0x4004);
        let data = vec![7; self.rng.random_range(0..2_000)];
        let got = if self.rng.random() {
            self.players[player].send_channel(&mut self.world, number, &data)
        } else {
            self.players[player].send(&mut self.world, &peer, &data)
        };
        self.check_forward(got);
    }

    fn peer_data(&mut self) {
        let relayed = self.recent_relayed();
        let peer = self.peer();
        let data = vec![8; self.rng.random_range(0..2_000)];
        let got = self.world.peer_sends(&peer, relayed, &data);
        self.check_forward(got);
    }

    /// The last request with a byte changed, cut or lengthened; or noise.
    fn mutated(&mut self) {
        let mut bytes = self.last.clone();
        let at = self.rng.random_range(0..bytes.len().max(1));
        match self.rng.random_range(0..4) {
            0 if at < bytes.len() => bytes[at] ^= self.rng.random::<u8>(),
            1 => bytes.truncate(at),
            2 => bytes.extend_from_slice(&[self.rng.random(); 8]),
            _ => bytes = (0..at).map(|_| self.rng.random()).collect(),
        }
        let player = self.player();
        let path = self.players[player].path;
        let got = self.world.client_sends(path, &bytes);
        self.check_forward(got);
    }

    /// One of the last relayed addresses, most of which are still there.
    fn recent_relayed(&mut self) -> SocketAddr {
        let old = self.relayed.len().saturating_sub(8);
        self.relayed[self.rng.random_range(old..self.relayed.len())]
    }

    /// Peers answer and come, bytes cross, connections end, clients claim theirs.
    fn connections(&mut self) {
        let relayed = self.recent_relayed();
        let peer = self.peer();
        match self.rng.random_range(0..7) {
            0 | 5 => {
                let success = self.rng.random_range(0..4) > 0;
                self.world.answer_connects(success);
            }
            1 => drop(self.world.peer_connects(&peer, relayed)),
            2 => {
                let (player, id) = (self.player(), self.connection());
                self.claim(player, id);
            }
            3 => {
                // As players do: one after the other.
                let player = self.player();
                self.ask(player, &allocate_tcp());
                self.ask(player, &connect(&peer));
                self.world.answer_connects(true);
                let id = self.connection();
                self.claim(player, id);
            }
            _ => {
                let id = turn_relay_proto::PeerConnectionId(self.connection());
                let now = self.world.now;
                match self.world.relay.may_carry(now, id, Direction::ToClient) {
                    Ok(()) => {
                        let bytes = self.rng.random_range(0..60_000);
                        let relay = &mut self.world.relay;
                        relay.handle_carried(now, id, Direction::ToClient, bytes);
                    }
                    Err(at) => assert!(at > now.mono, "or the shell would spin"),
                }
                if self.rng.random_range(0..4) == 0 {
                    let end = ConnectionEnd::Finished;
                    self.world.relay.handle_connection_end(id, end);
                }
            }
        }
        self.world.drain();
    }

    /// A fresh connection of a player's host claims a connection, or is lost.
    fn claim(&mut self, player: usize, connection: u32) {
        let mut data = self.players[player].clone();
        data.path.transport = Transport::Tcp;
        data.path
            .remote
            .set_port(self.rng.random_range(20_000..20_004));
        if self.world.relay.carries_data(data.path) {
            let now = self.world.now;
            self.world.relay.handle_disconnect(now, data.path);
            return;
        }
        let hello = allocate().fingerprint().unsigned(data.transaction());
        if let Got::Reply(bytes) = self.world.client_sends(data.path, &hello) {
            data.nonce = harness::Reply::parse(&bytes).nonce;
            let request = data.sign(&connection_bind(connection));
            let _ = self.world.client_sends(data.path, &request);
        }
    }

    /// The id of some connection, or of none.
    fn connection(&mut self) -> u32 {
        let count = self.world.connections.len();
        let at = self.rng.random_range(0..=count);
        self.world.connections.iter().nth(at).map_or(7, |id| id.0)
    }

    fn is_allowed(&self, peer: SocketAddr) -> bool {
        PeerPolicy::new(&self.config).judge(peer).is_ok()
    }

    fn shell(&mut self) {
        match self.rng.random_range(0..7) {
            0 => self.world.slow_shell = true,
            1 | 5 | 6 => {
                self.world.slow_shell = false;
                self.world.answer_sockets();
                self.world.drain();
            }
            2 => self.world.busy = (50_000..50_032).filter(|_| self.rng.random()).collect(),
            3 => self.world.no_descriptors = self.rng.random_range(0..4) == 0,
            _ => {
                // An answer to a question that nobody asked.
                let addr = turn_relay_proto::RelayAddr(addr("192.0.2.1:49152"));
                self.world
                    .relay
                    .handle_socket(self.world.now, addr, SocketOutcome::InUse);
                self.world.drain();
            }
        }
    }

    fn operator(&mut self) {
        let now = self.world.now;
        let player = self.player();
        let path = self.players[player].path;
        match self.rng.random_range(0..8) {
            0 => self
                .world
                .relay
                .set_draining(self.rng.random_range(0..4) == 0),
            1 => drop(self.world.relay.kick_user(now, "bob")),
            5 => {
                let handle = self.world.relay.allocations().next().map(|it| it.handle);
                if let Some(handle) = handle {
                    assert!(self.world.relay.kick_allocation(now, handle));
                }
                let nap = Duration::from_secs(self.rng.random_range(0..60));
                assert!(self.world.relay.block_user(now, "m1", nap));
            }
            2 => self.world.relay.handle_disconnect(now, path),
            3 => {
                let list = if self.rng.random() {
                    vec![]
                } else {
                    vec!["10.0.0.0/8"]
                };
                self.config.peers.allow = list
                    .into_iter()
                    .map(|p| p.parse().expect("a prefix"))
                    .collect();
                self.world.relay.set_config(now, self.config.clone());
            }
            4 => self.world.sleep_through(self.rng.random_range(0..700)),
            _ => {}
        }
        self.world.drain();
    }

    fn player(&mut self) -> usize {
        self.rng.random_range(0..self.players.len())
    }

    /// A peer of the list, or another player's relayed address.
    fn peer(&mut self) -> String {
        if self.rng.random_range(0..4) == 0 {
            return self.recent_relayed().to_string();
        }
        PEERS[self.rng.random_range(0..PEERS.len())].to_owned()
    }

    /// A datagram goes to a peer only if the policy, asked from outside, allows it.
    fn check_forward(&self, got: Got) {
        let Got::Forwarded { path, forward, .. } = got else {
            return;
        };
        if forward.direction == Direction::ToClient {
            assert!(self.players.iter().any(|player| player.path == path));
            return;
        }
        let open = |addr: SocketAddr| self.world.open.iter().any(|open| open.0 == addr);
        assert!(open(path.local), "sent from a socket that is not open");
        let allowed = self.is_allowed(path.remote);
        assert!(allowed || open(path.remote), "sent to {}", path.remote);
        assert_eq!(forward.hairpin, open(path.remote) && !allowed);
    }

    fn check(&self) {
        self.world.relay.assert_consistent();
        let tally = &self.world.tally;
        let dropped: u64 = tally.dropped.values().sum();
        assert_eq!(
            tally.received,
            tally.forwarded + tally.replied + tally.absorbed + dropped
        );
        let gauges = self.world.relay.gauges();
        let quota = &self.config.quota;
        assert!(gauges.ports_in_use <= gauges.ports_limit);
        let mut held = std::collections::BTreeMap::new();
        for view in self.world.relay.allocations() {
            *held.entry(view.user.to_owned()).or_insert(0) += 1;
            assert!(view.permissions <= usize::from(quota.permissions_per_allocation));
            assert!(view.channels <= usize::from(quota.channels_per_allocation));
        }
        assert!(
            held.values()
                .all(|count| *count <= quota.allocations_per_user)
        );
    }

    /// Every allocation ends.
    fn finish(mut self) {
        self.world.slow_shell = false;
        self.world.answer_sockets();
        self.world.drain();
        self.world.wait_secs(3_700);
        self.world.assert_empty();
    }
}
