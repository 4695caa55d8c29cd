//! A world in virtual time: one relay, the shell around it, players and peers.
//!
//! Every call checks the machine's invariants; every datagram is counted by its verdict.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_imports,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_enum_variant,
    reason = "a test library: each binary uses its part, and a panic is how it says no"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use credentials::{Secret, Secrets};
use turn_relay_proto::{
    DropReason, Event, Forward, IncomingRefusal, Now, Path, PeerConnectionId, Relay, RelayAddr,
    RelayAddress, RelayConfig, SocketOutcome, StaticUser, Transport, Verdict,
};

pub use ask::{
    Ask, allocate, allocate_tcp, binding, channel_bind, connect, connection_bind,
    create_permission, refresh,
};
pub use player::Player;
pub use reply::{Indication, Reply, attempt};

// By path, because the bench includes this file from another folder.
#[path = "harness/ask.rs"]
mod ask;
#[path = "harness/player.rs"]
mod player;
#[path = "harness/reply.rs"]
mod reply;

/// Where the relay listens, relays, and whom players may talk with: ordinary public addresses.
pub const LISTENER: &str = "192.0.2.1:3478";
pub const LISTENER_V6: &str = "[2001:db8::1]:3478";
pub const RELAY: &str = "192.0.2.1";
pub const RELAY_V6: &str = "2001:db8::1";
pub const PEER: &str = "20.30.40.50:6000";
pub const OTHER_PEER: &str = "20.30.40.51:6000";
pub const PEER_V6: &str = "[2a00:1:2::3]:6000";
/// The wall clock when a world begins.
pub const START_UNIX: u64 = 1_800_000_000;

pub struct World {
    pub relay: Relay,
    pub now: Now,
    /// Ports that somebody else on the host has.
    pub busy: BTreeSet<u16>,
    /// All sockets fail to open.
    pub no_descriptors: bool,
    /// The shell answers for sockets only when told to.
    pub slow_shell: bool,
    /// The linear checks of all invariants after each call are left out.
    pub unchecked: bool,
    /// Relay sockets that are open.
    pub open: BTreeSet<RelayAddr>,
    pub asked: Vec<RelayAddr>,
    /// Listeners that are open, of those in `open`.
    pub listening: BTreeSet<RelayAddr>,
    /// Connections with peers that the relay wants, and those that the shell has.
    pub connecting: Vec<Connecting>,
    pub connections: BTreeSet<PeerConnectionId>,
    /// Events other than sockets, since they were last looked at.
    pub events: Vec<Event>,
    /// Deferred responses, by client.
    pub inbox: Vec<(Path, Vec<u8>)>,
    pub tally: Tally,
}

/// A connection that the relay wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connecting {
    pub connection: PeerConnectionId,
    pub relayed: RelayAddr,
    pub peer: SocketAddr,
}

/// How datagrams ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub received: u64,
    pub forwarded: u64,
    pub replied: u64,
    pub absorbed: u64,
    pub dropped: BTreeMap<DropReason, u64>,
}

/// What came of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Reply(Vec<u8>),
    Forwarded {
        path: Path,
        bytes: Vec<u8>,
        forward: Forward,
    },
    Absorbed,
    Dropped(DropReason),
}

impl Got {
    /// The bytes that go out, and where to.
    pub fn forwarded(self) -> (Path, Vec<u8>) {
        match self {
            Self::Forwarded { path, bytes, .. } => (path, bytes),
            other => panic!("not forwarded: {other:?}"),
        }
    }

    pub fn reply(self) -> Reply {
        match self {
            Self::Reply(bytes) => Reply::parse(&bytes),
            other => panic!("no reply: {other:?}"),
        }
    }
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn secret() -> Secret {
    Secret {
        id: Some("k1".into()),
        key: b"Yw5Tn8Qe3Rb7Lk1Zp6Vc0Xm4Hs9Jd2Ga".to_vec(),
    }
}

/// Two players of the common case: time-limited credentials and a static user, both families.
pub fn config() -> RelayConfig {
    RelayConfig {
        secrets: Some(Arc::new(Secrets::new(vec![secret()]))),
        users: vec![
            StaticUser {
                name: "alice".into(),
                password: "wonderland".into(),
            },
            StaticUser {
                name: "bob".into(),
                password: "builder".into(),
            },
        ],
        relay_addresses: [RELAY, RELAY_V6]
            .map(|ip| RelayAddress::new(ip.parse().expect("an address")))
            .to_vec(),
        listeners: vec![
            addr("0.0.0.0:3478"),
            addr("[::]:3478"),
            addr("127.0.0.1:9479"),
        ],
        // So that each story's sockets come and go with its allocations.
        spare_sockets: 0,
        ..RelayConfig::default()
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A world whose relay is configured otherwise.
    pub fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        Self::seeded(config, [7; 32])
    }

    pub fn seeded(config: RelayConfig, seed: [u8; 32]) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "virtual time has to start somewhere"
        )]
        let mono = Instant::now();
        Self {
            relay: Relay::new(config, seed),
            now: Now {
                mono,
                unix: START_UNIX,
            },
            busy: BTreeSet::new(),
            no_descriptors: false,
            slow_shell: false,
            unchecked: false,
            open: BTreeSet::new(),
            asked: Vec::new(),
            listening: BTreeSet::new(),
            connecting: Vec::new(),
            connections: BTreeSet::new(),
            events: Vec::new(),
            inbox: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Lets time pass and the relay act at each deadline on the way, as a shell does.
    pub fn wait(&mut self, duration: Duration) {
        let end = self.now.mono + duration;
        let end_unix = self.now.unix + duration.as_secs();
        while let Some((at, _)) = self.relay.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now.mono = self.now.mono.max(at);
            self.relay.handle_timeout(self.now);
            self.drain();
            let next = self.relay.poll_timeout().map(|(at, _)| at);
            assert!(
                next.is_none_or(|next| next > at),
                "what was due at {at:?} is still due"
            );
        }
        self.now = Now {
            mono: end,
            unix: end_unix,
        };
    }

    pub fn wait_secs(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    /// Time passes and nobody calls `handle_timeout`: a busy shell.
    pub fn sleep_through(&mut self, seconds: u64) {
        self.now.mono += Duration::from_secs(seconds);
        self.now.unix += seconds;
    }

    /// A datagram from a client, and what the relay did with it.
    pub fn client_sends(&mut self, path: Path, bytes: &[u8]) -> Got {
        let mut reply = b"left over from before".to_vec();
        let verdict = self.relay.handle_client(self.now, path, bytes, &mut reply);
        let got = self.count(verdict, path, bytes, reply);
        self.drain();
        match (got, self.inbox.iter().position(|(to, _)| *to == path)) {
            (Got::Absorbed, Some(at)) => Got::Reply(self.inbox.remove(at).1),
            (got, _) => got,
        }
    }

    /// A datagram from a peer to a relayed address.
    pub fn peer_sends(&mut self, peer: &str, relayed: SocketAddr, bytes: &[u8]) -> Got {
        self.peer_sends_from(addr(peer), relayed, bytes)
    }

    pub fn peer_sends_from(&mut self, peer: SocketAddr, relayed: SocketAddr, bytes: &[u8]) -> Got {
        let verdict = self
            .relay
            .handle_peer(self.now, RelayAddr(relayed), peer, bytes);
        let path = Path {
            transport: Transport::Udp,
            local: relayed,
            remote: peer,
        };
        let got = self.count(verdict, path, bytes, Vec::new());
        self.drain();
        got
    }

    fn count(&mut self, verdict: Verdict, path: Path, input: &[u8], reply: Vec<u8>) -> Got {
        self.tally.received += 1;
        match verdict {
            Verdict::Forward(forward) => {
                self.tally.forwarded += 1;
                let mut bytes = forward.header.as_bytes().to_vec();
                bytes.extend_from_slice(&input[forward.payload.clone()]);
                bytes.resize(bytes.len() + usize::from(forward.padding), 0);
                Got::Forwarded {
                    path: forward.path,
                    bytes,
                    forward,
                }
            }
            Verdict::Reply { path: to } => {
                self.tally.replied += 1;
                assert_eq!(to, path, "a reply goes back where the request came from");
                Got::Reply(reply)
            }
            Verdict::Absorbed => {
                self.tally.absorbed += 1;
                Got::Absorbed
            }
            Verdict::Dropped(reason) => {
                self.tally
                    .dropped
                    .entry(reason)
                    .and_modify(|n| *n += 1)
                    .or_insert(1);
                Got::Dropped(reason)
            }
        }
    }

    /// What the shell does after each batch.
    pub fn drain(&mut self) {
        loop {
            while let Some(event) = self.relay.poll_event() {
                match event {
                    Event::SocketWanted { addr } => {
                        assert!(!self.open.contains(&addr), "{addr} is open already");
                        self.asked.push(addr);
                    }
                    Event::SocketFreed { addr } => {
                        assert!(self.open.remove(&addr), "{addr} is not open");
                        assert!(!self.listening.contains(&addr), "{addr} is a listener");
                    }
                    Event::ListenWanted { addr } => {
                        assert!(!self.open.contains(&addr), "{addr} is open already");
                        assert!(self.listening.insert(addr), "{addr} listens already");
                        self.asked.push(addr);
                    }
                    Event::ListenFreed { addr } => {
                        assert!(self.open.remove(&addr), "{addr} is not open");
                        assert!(self.listening.remove(&addr), "{addr} is no listener");
                    }
                    other => self.note_connection(other),
                }
            }
            if self.slow_shell || self.asked.is_empty() {
                break;
            }
            self.answer_sockets();
        }
        let mut reply = Vec::new();
        while let Some(path) = self.relay.poll_transmit(&mut reply) {
            self.inbox.push((path, reply.clone()));
        }
        if !self.unchecked {
            self.relay.assert_consistent();
        }
    }

    /// The shell opens what it was asked for.
    pub fn answer_sockets(&mut self) {
        for addr in std::mem::take(&mut self.asked) {
            let outcome = if self.no_descriptors {
                SocketOutcome::Failed
            } else if self.busy.contains(&addr.0.port()) {
                SocketOutcome::InUse
            } else {
                self.open.insert(addr);
                SocketOutcome::Opened
            };
            if outcome != SocketOutcome::Opened {
                self.listening.remove(&addr);
            }
            self.relay.handle_socket(self.now, addr, outcome);
        }
    }

    /// The shell has a connection from the moment it is asked to make one until it ends.
    fn note_connection(&mut self, event: Event) {
        match event {
            Event::ConnectWanted {
                connection,
                relayed,
                peer,
            } => {
                assert!(
                    self.listening.contains(&relayed),
                    "from a listener's address"
                );
                assert!(self.connections.insert(connection), "a new id");
                self.connecting.push(Connecting {
                    connection,
                    relayed,
                    peer,
                });
            }
            Event::ConnectionEnded { connection, .. } => {
                assert!(self.connections.remove(&connection), "it was there");
                self.connecting
                    .retain(|known| known.connection != connection);
            }
            _ => {}
        }
        if !matches!(event, Event::ConnectWanted { .. }) {
            self.events.push(event);
        }
    }

    /// Peers answer what the relay has asked for, or refuse.
    pub fn answer_connects(&mut self, success: bool) {
        for asked in std::mem::take(&mut self.connecting) {
            self.relay
                .handle_connected(self.now, asked.connection, success);
            self.drain();
        }
    }

    /// A peer connects to a relayed address; the relay accepts or refuses.
    pub fn peer_connects(
        &mut self,
        peer: &str,
        relayed: SocketAddr,
    ) -> Result<PeerConnectionId, IncomingRefusal> {
        let incoming = self
            .relay
            .handle_incoming(self.now, RelayAddr(relayed), addr(peer));
        if let Ok(connection) = incoming {
            assert!(self.connections.insert(connection), "a new id");
        }
        self.drain();
        incoming
    }

    /// What the relay has said to a client without being asked, or later than asked.
    pub fn told(&mut self, path: Path) -> Option<Vec<u8>> {
        let at = self.inbox.iter().position(|(to, _)| *to == path)?;
        Some(self.inbox.remove(at).1)
    }

    /// Events other than sockets that nobody has looked at.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Nothing of anybody is left.
    pub fn assert_empty(&self) {
        let gauges = self.relay.gauges();
        let limit = gauges.ports_limit;
        let empty = turn_relay_proto::Gauges {
            ports_limit: limit,
            ..Default::default()
        };
        assert_eq!(gauges, empty);
        assert_eq!(self.open, BTreeSet::new());
        assert_eq!(self.listening, BTreeSet::new());
        assert_eq!(self.connections, BTreeSet::new());
        assert_eq!(self.relay.poll_timeout(), None);
    }
}

/// A path of a client to the relay's listener of the same family.
pub fn path(transport: Transport, client: &str) -> Path {
    let remote = addr(client);
    let local = addr(if remote.is_ipv4() {
        LISTENER
    } else {
        LISTENER_V6
    });
    Path {
        transport,
        local,
        remote,
    }
}
