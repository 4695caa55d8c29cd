//! Two players and the network between them in virtual time: signals and datagrams arrive after fixed delays, pairs of
//! addresses can be cut, datagrams can be lost by a seeded coin.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client_sdk_proto::{
    Identity, Mode, Node, NodeConfig, NodeEvent, Now, PathInfo, PlayerId, Signal, SocketId,
    Transmit,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use signal_wire::LobbyId;

pub(crate) const ANNA: PlayerId = PlayerId(1);
pub(crate) const BERT: PlayerId = PlayerId(2);
pub(crate) const STATE: u8 = 0;
pub(crate) const CHAT: u8 = 1;

/// One player: a node, its sockets, and all it has told.
pub(crate) struct Player {
    pub(crate) node: Node,
    pub(crate) id: PlayerId,
    pub(crate) sockets: Vec<(SocketId, SocketAddr)>,
    pub(crate) events: Vec<(Duration, NodeEvent)>,
    pub(crate) polls: bool,
}

/// The world of the two.
pub(crate) struct World {
    start: Instant,
    pub(crate) elapsed: Duration,
    pub(crate) players: [Player; 2],
    pub(crate) signal_delay: Duration,
    pub(crate) path_delay: Duration,
    pub(crate) loss: f64,
    /// Cut in this direction: from, to.
    pub(crate) cut: Vec<(SocketAddr, SocketAddr)>,
    /// Changes a signal on its way, or swallows it.
    pub(crate) tamper: Option<fn(Signal) -> Option<Signal>>,
    pub(crate) wire: Vec<Vec<u8>>,
    due: BTreeMap<(Duration, u64), Delivery>,
    sequence: u64,
    coin: StdRng,
}

enum Delivery {
    Datagram {
        to_player: usize,
        socket: SocketId,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Signal {
        to_player: usize,
        from: PlayerId,
        signal: Signal,
    },
}

impl World {
    /// Two players with one socket each, 25 ms apart, signaling 50 ms one way.
    pub(crate) fn new(seed: u8) -> Self {
        Self::with_sockets(seed, &[&["10.0.0.1:1000"], &["10.0.0.2:2000"]])
    }

    pub(crate) fn with_sockets(seed: u8, sockets: &[&[&str]; 2]) -> Self {
        let start = origin();
        let now = Now {
            mono: start,
            unix: 1_000_000,
        };
        let player = |id: PlayerId, index: usize| {
            let identity = Identity::from_seed([seed.wrapping_add(id.0 as u8); 32]);
            let config = NodeConfig {
                identity,
                relay_only: false,
            };
            let mut node = Node::new(now, config, LobbyId(7), id, [seed ^ (id.0 as u8); 32]);
            node.declare_channel(STATE, Mode::Unreliable);
            node.declare_channel(CHAT, Mode::ReliableOrdered);
            let sockets: Vec<(SocketId, SocketAddr)> = (0_u32..)
                .zip(sockets[index])
                .map(|(id, address)| (SocketId(id), address.parse().unwrap()))
                .collect();
            for (socket, address) in &sockets {
                node.add_socket(now, *socket, *address);
            }
            node.start_gathering(now);
            Player {
                node,
                id,
                sockets,
                events: Vec::new(),
                polls: true,
            }
        };
        Self {
            players: [player(ANNA, 0), player(BERT, 1)],
            start,
            elapsed: Duration::ZERO,
            signal_delay: ms(50),
            path_delay: ms(25),
            loss: 0.0,
            cut: Vec::new(),
            tamper: None,
            wire: Vec::new(),
            due: BTreeMap::new(),
            sequence: 0,
            coin: StdRng::from_seed([seed; 32]),
        }
    }

    /// Both learn that the other is in the room.
    pub(crate) fn meet(&mut self) {
        let now = self.now();
        self.players[0].node.add_player(now, BERT);
        self.players[1].node.add_player(now, ANNA);
        self.drain();
    }

    pub(crate) fn connected(seed: u8) -> Self {
        let mut world = Self::new(seed);
        world.meet();
        world.run(ms(2000));
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: self.start + self.elapsed,
            unix: 1_000_000 + self.elapsed.as_secs(),
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.elapsed + time;
        self.drain();
        loop {
            let delivery = self.due.keys().next().map(|(at, _)| *at);
            let start = self.start;
            let timer = self
                .players
                .iter_mut()
                .filter_map(|player| player.node.poll_timeout())
                .map(|at| at.saturating_duration_since(start))
                .min();
            let next = [delivery, timer]
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= end);
            let Some(next) = next else {
                self.elapsed = end;
                return;
            };
            self.elapsed = self.elapsed.max(next);
            self.deliver();
            let now = self.now();
            for player in &mut self.players {
                if player.node.poll_timeout().is_some_and(|at| at <= now.mono) {
                    player.node.handle_timeout(now);
                }
            }
            self.drain();
            // Machines that ask for the same instant again get the next microsecond.
            if timer == Some(next) {
                self.elapsed += Duration::from_micros(1);
            }
        }
    }

    pub(crate) fn send(&mut self, from: usize, channel: u8, message: &[u8]) {
        let to = self.players[1 - from].id;
        let now = self.now();
        self.players[from]
            .node
            .send(now, to, channel, message)
            .unwrap();
        self.drain();
    }

    /// Cuts a pair of addresses in both directions.
    pub(crate) fn cut_both(&mut self, one: SocketAddr, other: SocketAddr) {
        self.cut.extend([(one, other), (other, one)]);
    }

    pub(crate) fn path(&self, player: usize) -> PathInfo {
        let other = self.players[1 - player].id;
        self.players[player]
            .node
            .stats(other)
            .expect("connected")
            .path
    }

    fn deliver(&mut self) {
        let now = self.now();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > self.elapsed {
                return;
            }
            match entry.remove() {
                Delivery::Datagram {
                    to_player,
                    socket,
                    from,
                    bytes,
                } => {
                    self.players[to_player]
                        .node
                        .handle_datagram(now, socket, from, &bytes);
                }
                Delivery::Signal {
                    to_player,
                    from,
                    signal,
                } => {
                    let node = &mut self.players[to_player].node;
                    node.handle_signal(now, from, signal.kind, &signal.conn, &signal.data);
                }
            }
        }
    }

    fn drain(&mut self) {
        let now = self.now();
        for index in 0..2 {
            let other: Vec<_> = self.players[1 - index].sockets.clone();
            let player = &mut self.players[index];
            while player.polls
                && let Some(event) = player.node.poll_event(now)
            {
                player.events.push((self.elapsed, event));
            }
            while let Some(transmit) = player.node.poll_transmit() {
                let Transmit::Datagram { socket, to, bytes } = transmit else {
                    continue;
                };
                let from = player
                    .sockets
                    .iter()
                    .find(|(id, _)| *id == socket)
                    .unwrap()
                    .1;
                self.wire.push(bytes.clone());
                let lost = f64::from(self.coin.next_u32()) / f64::from(u32::MAX) < self.loss;
                let target = other.iter().find(|(_, address)| *address == to);
                if let Some((socket, _)) = target
                    && !lost
                    && !self.cut.contains(&(from, to))
                {
                    let delivery = Delivery::Datagram {
                        to_player: 1 - index,
                        socket: *socket,
                        from,
                        bytes,
                    };
                    self.sequence += 1;
                    self.due
                        .insert((self.elapsed + self.path_delay, self.sequence), delivery);
                }
            }
            while let Some(signal) = player.node.poll_signal() {
                let signal = match self.tamper {
                    Some(tamper) => tamper(signal),
                    None => Some(signal),
                };
                if let Some(signal) = signal {
                    let from = player.id;
                    let delivery = Delivery::Signal {
                        to_player: 1 - index,
                        from,
                        signal,
                    };
                    self.sequence += 1;
                    self.due
                        .insert((self.elapsed + self.signal_delay, self.sequence), delivery);
                }
            }
        }
    }
}

impl Player {
    pub(crate) fn connected_at(&self) -> Option<Duration> {
        self.events
            .iter()
            .find_map(|(at, event)| matches!(event, NodeEvent::Connected { .. }).then_some(*at))
    }

    pub(crate) fn messages(&self, on: u8) -> Vec<&[u8]> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                NodeEvent::Message { channel, data, .. } if *channel == on => Some(data.as_ref()),
                _ => None,
            })
            .collect()
    }
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
fn origin() -> Instant {
    Instant::now()
}
