//! Any bytes as a story of a TURN relay: clients, peers, sockets and time, told to the real
//! machine.
//!
//! The bytes are a script. Each step is an opcode, an operand, and what it needs: raw datagrams
//! from strangers, requests that are signed with the right key and the nonce the relay gave (so
//! that the code behind the signature is reached), datagrams from peers, answers for sockets, time,
//! disconnects, and the connections of TCP allocations. After each step everything is drained, as a shell does, and the machine's own
//! consistency check runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_wire::attribute::{
    ChannelNumberAttribute, ConnectionId, Icmp, Nonce, Realm, RequestedTransport, Username,
    XorPeerAddress,
};
use stun_wire::{
    AttributeType, Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method,
    TransactionId,
};
use turn_relay_proto::{
    ConnectionEnd, Direction, Event, Forward, Now, Path, PeerConnectionId, Protocol, Relay,
    RelayAddr, RelayAddress, RelayConfig, SocketOutcome, StaticUser, Transport, Verdict,
};

const METHODS: [Method; 8] = [
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::BINDING,
    Method::SEND,
    Method::CONNECT,
    Method::CONNECTION_BIND,
];
const USER: &str = "alice";
const PASSWORD: &str = "wonderland";
/// How many clients there are, see [`client`].
const CLIENTS: usize = 6;
/// A story has at most so many steps.
const MAX_STEPS: usize = 200;

pub(crate) fn run(bytes: &[u8]) {
    let _ = reached(bytes);
}

/// What a story led to, so that a test can tell that the corpus is worth its name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) allocations: usize,
    pub(crate) to_peer: usize,
    pub(crate) to_client: usize,
    /// Connections with peers that a client connection came to carry.
    pub(crate) bound: usize,
}

/// Runs a story, and tells what it led to.
pub(crate) fn reached(bytes: &[u8]) -> Reached {
    let mut world = World::new();
    let mut script = Script(bytes);
    for _ in 0..MAX_STEPS {
        let Some([opcode, operand]) = script.array() else {
            break;
        };
        world.step(opcode, operand, &mut script);
        world.drain();
    }
    world.reached
}

/// What is left of the bytes.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// A length byte and so many bytes, or what is left.
    fn bytes(&mut self) -> &'a [u8] {
        let [length] = self.array().unwrap_or([0]);
        let (head, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
        self.0 = rest;
        head
    }
}

struct World {
    relay: Relay,
    now: Now,
    key: IntegrityKey,
    /// The newest nonce each client was given; it is good for that client alone.
    nonces: [String; CLIENTS],
    reply: Vec<u8>,
    /// Sockets asked for and not answered.
    wanted: Vec<RelayAddr>,
    /// Sockets that are open.
    open: BTreeSet<RelayAddr>,
    /// Of these, listeners.
    listening: BTreeSet<RelayAddr>,
    /// Connections asked for and not answered.
    connecting: Vec<PeerConnectionId>,
    /// Connections that exist, or are being made.
    connections: BTreeSet<PeerConnectionId>,
    transactions: u8,
    reached: Reached,
}

impl World {
    fn new() -> Self {
        let config = RelayConfig {
            users: vec![StaticUser {
                name: USER.into(),
                password: PASSWORD.into(),
            }],
            relay_addresses: ["192.0.2.1", "2001:db8::1"]
                .map(|ip| RelayAddress::new(ip.parse().expect("an address")))
                .to_vec(),
            listeners: vec!["192.0.2.1:3478".parse().expect("an address")],
            // Few ports, so that they run out.
            ports: 50_000..=50_015,
            protocol: Protocol {
                tcp_relaying: true,
                ..Protocol::default()
            },
            ..RelayConfig::default()
        };
        let key = IntegrityKey::long_term_md5(USER, config.realm.as_str(), PASSWORD);
        // A base that all the story's times are measured from.
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant is not to be had otherwise"
        )]
        let mono = Instant::now();
        Self {
            relay: Relay::new(config, [7; 32]),
            now: Now {
                mono,
                unix: 1_800_000_000,
            },
            key,
            nonces: Default::default(),
            reply: Vec::new(),
            wanted: Vec::new(),
            open: BTreeSet::new(),
            listening: BTreeSet::new(),
            connecting: Vec::new(),
            connections: BTreeSet::new(),
            transactions: 0,
            reached: Reached::default(),
        }
    }

    fn step(&mut self, opcode: u8, operand: u8, script: &mut Script<'_>) {
        match opcode % 12 {
            0 => self.client(client(operand), script.bytes()),
            1..=3 => {
                let datagram = self.signed(operand, script);
                self.client(client(operand & 7), &datagram);
            }
            4 => self.peer(operand, script.bytes()),
            5 => self.peer_error(operand),
            6 => self.answer_socket(operand),
            7 => self.pass_time(operand),
            8 => self.relay.handle_disconnect(self.now, client(operand)),
            9 => self.indication(operand, script.bytes()),
            10 => self.connection(operand),
            _ => self.peer_connects(operand),
        }
    }

    /// A datagram from a client, and what must hold of its verdict.
    fn client(&mut self, path: Path, input: &[u8]) {
        let verdict = self
            .relay
            .handle_client(self.now, path, input, &mut self.reply);
        self.check(verdict, input);
        self.learn_nonce(path);
    }

    /// A request signed with the right key and the newest nonce; the script adds attributes of any
    /// kind.
    fn signed(&mut self, operand: u8, script: &mut Script<'_>) -> Vec<u8> {
        let method = METHODS[usize::from(operand >> 4) % METHODS.len()];
        let [what, which] = script.array().unwrap_or_default();
        // A request is new unless the script wants a retransmission.
        self.transactions = self.transactions.wrapping_add(u8::from(what & 16 == 0));
        let tx = TransactionId([self.transactions; 12]);
        let mut out = Vec::new();
        let mut writer = MessageWriter::new(&mut out, Class::Request, method, tx);
        // The attributes a well-behaved request has, unless the script says otherwise.
        if what & 1 == 0 {
            let tcp = what & 32 != 0;
            writer.attribute(&if tcp {
                RequestedTransport::TCP
            } else {
                RequestedTransport::UDP
            });
        }
        if what & 4 == 0 && method == Method::CONNECTION_BIND {
            let count = self.connections.len().max(1);
            let id = self.connections.iter().nth(usize::from(which) % count);
            writer.attribute(&ConnectionId(id.map_or(0, |id| id.0)));
        }
        if what & 2 == 0 && method != Method::ALLOCATE && method != Method::REFRESH {
            writer.attribute(&XorPeerAddress(peer(which)));
        }
        if what & 4 == 0 && method == Method::CHANNEL_BIND {
            writer.attribute(&ChannelNumberAttribute(0x4000 + u16::from(which & 7)));
        }
        if what & 8 != 0 {
            let [high, low] = script.array().unwrap_or_default();
            let kind = AttributeType::ALL[usize::from(low) % AttributeType::ALL.len()];
            let kind = if high == 0xFF {
                AttributeType(u16::from(low))
            } else {
                kind
            };
            writer.raw(kind, script.bytes());
        }
        writer
            .attribute(&Username(USER))
            .attribute(&Realm(RelayConfig::default().realm.as_str()));
        let nonce = &self.nonces[client_index(operand & 7)];
        writer
            .attribute(&Nonce(nonce))
            .integrity(&self.key, IntegrityKind::Sha1);
        writer.finish();
        out
    }

    fn indication(&mut self, operand: u8, data: &[u8]) {
        let mut out = Vec::new();
        let tx = TransactionId([operand; 12]);
        let mut writer = MessageWriter::new(&mut out, Class::Indication, Method::SEND, tx);
        writer.attribute(&XorPeerAddress(peer(operand)));
        writer.raw(AttributeType::DATA, data);
        writer.finish();
        self.client(client(operand & 3), &out);
    }

    fn peer(&mut self, operand: u8, input: &[u8]) {
        let relayed = self.relayed(operand);
        let verdict = self
            .relay
            .handle_peer(self.now, relayed, peer(operand), input);
        self.reply.clear();
        self.check(verdict, input);
    }

    fn peer_error(&mut self, operand: u8) {
        let relayed = self.relayed(operand);
        let icmp = Icmp {
            icmp_type: 3,
            code: 4,
            data: 1280,
        };
        let verdict =
            self.relay
                .handle_peer_error(self.now, relayed, peer(operand), icmp, &mut self.reply);
        if let Verdict::Reply { .. } = verdict {
            Message::parse(&self.reply).expect("the machine writes well-formed messages");
        }
    }

    /// One of the open relay addresses, sometimes one that is not.
    fn relayed(&self, operand: u8) -> RelayAddr {
        let stranger = RelayAddr("192.0.2.1:50015".parse().expect("an address"));
        let index = usize::from(operand >> 4);
        self.open
            .iter()
            .nth(index % (self.open.len() + 1))
            .copied()
            .unwrap_or(stranger)
    }

    fn answer_socket(&mut self, operand: u8) {
        if self.wanted.is_empty() {
            return;
        }
        let addr = self
            .wanted
            .remove(usize::from(operand >> 4) % self.wanted.len());
        let outcome = match operand & 7 {
            0 => SocketOutcome::InUse,
            1 => SocketOutcome::Failed,
            _ => SocketOutcome::Opened,
        };
        if outcome == SocketOutcome::Opened {
            assert!(self.open.insert(addr), "{addr} is open already");
        } else {
            self.listening.remove(&addr);
        }
        self.relay.handle_socket(self.now, addr, outcome);
    }

    /// An answer for a connection that is being made, bytes on one that exists, or its end.
    fn connection(&mut self, operand: u8) {
        let which = usize::from(operand >> 4);
        if operand & 1 == 0 && !self.connecting.is_empty() {
            let asked = self.connecting.remove(which % self.connecting.len());
            self.relay
                .handle_connected(self.now, asked, operand & 2 == 0);
            return;
        }
        let count = self.connections.len().max(1);
        let Some(id) = self.connections.iter().nth(which % count).copied() else {
            return;
        };
        if operand & 2 == 0 {
            let direction = Direction::ToPeer;
            match self.relay.may_carry(self.now, id, direction) {
                Ok(()) => self.relay.handle_carried(self.now, id, direction, 40_000),
                Err(at) => assert!(at > self.now.mono, "or the shell would spin"),
            }
        } else {
            self.relay
                .handle_connection_end(id, ConnectionEnd::Finished);
        }
    }

    fn peer_connects(&mut self, operand: u8) {
        let relayed = self.relayed(operand);
        if let Ok(id) = self.relay.handle_incoming(self.now, relayed, peer(operand)) {
            assert!(self.listening.contains(&relayed));
            assert!(self.connections.insert(id), "a new id");
        }
    }

    /// From a second to an hour.
    fn pass_time(&mut self, operand: u8) {
        let seconds = match operand >> 6 {
            0 => u64::from(operand & 0x3F),
            1 => u64::from(operand & 0x3F) * 10,
            _ => u64::from(operand & 0x3F) * 60,
        };
        self.now.mono += Duration::from_secs(seconds);
        self.now.unix += seconds;
        self.relay.handle_timeout(self.now);
        if let Some((deadline, reason)) = self.relay.poll_timeout() {
            assert!(
                deadline > self.now.mono,
                "{reason:?} is overdue after handle_timeout"
            );
        }
    }

    /// A verdict's payload lies in the input, a reply is a message and within the amplification
    /// bound.
    fn check(&mut self, verdict: Verdict, input: &[u8]) {
        match verdict {
            Verdict::Forward(forward) => self.check_forward(&forward, input),
            Verdict::Reply { .. } => self.check_reply(input),
            Verdict::Absorbed | Verdict::Dropped(_) => {}
        }
    }

    fn check_forward(&mut self, forward: &Forward, input: &[u8]) {
        assert!(
            input.get(forward.payload.clone()).is_some(),
            "the payload lies in the input"
        );
        assert!(forward.padding < 4);
        let to_client = client_paths().any(|client| client == forward.path);
        assert!(to_client || self.open.contains(&RelayAddr(forward.path.local)));
        match forward.direction {
            Direction::ToPeer => self.reached.to_peer += 1,
            Direction::ToClient => self.reached.to_client += 1,
        }
    }

    fn check_reply(&self, input: &[u8]) {
        let reply = Message::parse(&self.reply).expect("the machine writes well-formed messages");
        assert!(matches!(reply.class(), Class::Success | Class::Error));
        // No reply to an unproven source is more than three times its request.
        let proven = reply.integrity().is_some();
        assert!(
            proven || self.reply.len() <= input.len() * 3,
            "{reply:?} to {} bytes",
            input.len()
        );
    }

    /// Keeps the nonce of a challenge.
    fn learn_nonce(&mut self, path: Path) {
        let at = client_paths().position(|client| client == path);
        if let (Some(at), Ok(challenge)) = (at, Message::parse(&self.reply))
            && let Ok(Some(nonce)) = challenge.attribute::<Nonce<'_>>()
        {
            nonce.0.clone_into(&mut self.nonces[at]);
        }
    }

    /// The drain rule of the machine's front page.
    fn drain(&mut self) {
        while let Some(event) = self.relay.poll_event() {
            match event {
                Event::SocketWanted { addr } => self.wanted.push(addr),
                Event::SocketFreed { addr } => {
                    assert!(self.open.remove(&addr), "{addr} was not open");
                    assert!(!self.listening.contains(&addr), "{addr} is a listener");
                }
                Event::ListenWanted { addr } => {
                    assert!(self.listening.insert(addr), "{addr} listens already");
                    self.wanted.push(addr);
                }
                Event::ListenFreed { addr } => {
                    assert!(self.open.remove(&addr), "{addr} was not open");
                    assert!(self.listening.remove(&addr), "{addr} is no listener");
                }
                Event::ConnectWanted {
                    connection,
                    relayed,
                    ..
                } => {
                    assert!(self.open.contains(&relayed) && self.listening.contains(&relayed));
                    assert!(self.connections.insert(connection), "a new id");
                    self.connecting.push(connection);
                }
                Event::ConnectionBound { connection, client } => {
                    assert!(self.connections.contains(&connection));
                    assert!(client.transport.is_stream());
                    self.reached.bound += 1;
                }
                Event::ConnectionEnded { connection, .. } => {
                    assert!(self.connections.remove(&connection), "it was there");
                    self.connecting.retain(|asked| *asked != connection);
                }
                Event::AllocationCreated { relayed, .. } => {
                    self.reached.allocations += 1;
                    assert!(
                        relayed
                            .into_iter()
                            .flatten()
                            .all(|addr| self.open.contains(&addr))
                    );
                }
                Event::AllocationEnded { .. }
                | Event::AddressEnded { .. }
                | Event::ChannelBound { .. }
                | Event::ChannelFreed { .. } => {}
            }
        }
        let mut out = Vec::new();
        while let Some(path) = self.relay.poll_transmit(&mut out) {
            Message::parse(&out).expect("the machine writes well-formed messages");
            assert!(client_paths().any(|client| client == path));
        }
        self.relay.assert_consistent();
    }
}

fn client_paths() -> impl Iterator<Item = Path> {
    (0..6).map(client)
}

/// Where a client stands among them.
fn client_index(operand: u8) -> usize {
    let path = client(operand);
    client_paths()
        .position(|known| known == path)
        .unwrap_or_default()
}

/// Six clients: three over UDP, of which two share an address, and three connections of a host.
fn client(operand: u8) -> Path {
    let (transport, remote) = match operand & 7 {
        4 => (Transport::Tcp, "20.0.0.3:1001"),
        5 => (Transport::Tls, "20.0.0.3:1002"),
        0 => (Transport::Udp, "20.0.0.1:1000"),
        1 | 6 => (Transport::Udp, "20.0.0.1:1001"),
        2 | 7 => (Transport::Udp, "20.0.0.2:1000"),
        _ => (Transport::Tcp, "20.0.0.3:1000"),
    };
    Path {
        transport,
        local: "192.0.2.1:3478".parse().expect("an address"),
        remote: remote.parse().expect("an address"),
    }
}

/// Peers of both families, a private one, the relay's own addresses, and mapped forms.
fn peer(operand: u8) -> SocketAddr {
    const PEERS: [&str; 8] = [
        "20.30.40.50:6000",
        "20.30.40.51:6000",
        "[2a00:1:2::3]:6000",
        "10.0.0.1:6000",
        "192.0.2.1:3478",
        "192.0.2.1:50000",
        "[::ffff:127.0.0.1]:6000",
        "[2002:7f00:1::]:6000",
    ];
    PEERS[usize::from(operand >> 2) % PEERS.len()]
        .parse()
        .expect("an address")
}
