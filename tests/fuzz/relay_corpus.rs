//! Replays `corpus/relay`, and damaged copies of it, through the body of the fuzz target `relay`.
//! It is a test of
//! `turn-relay-proto`, and stands here beside what it replays.
//!
//! The corpus is the stories below, and whatever fuzzing has found since, under any other name.
//! `RALLYPOINT_WRITE_CORPUS=1 cargo test -p turn-relay-proto --test fuzz_corpus` writes it anew.

use std::path::Path;
use std::{env, fs};

#[path = "../../libs/stun-wire/tests/support/mutate.rs"]
mod mutate;
#[path = "bodies/relay.rs"]
mod relay;

use mutate::{Random, mutate};

/// Damaged copies of each story in a plain test run.
const COPIES: u64 = 30;

#[test]
fn relay_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/relay");
    for (name, story) in stories() {
        let path = folder.join(name);
        if env::var_os("RALLYPOINT_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).expect("the corpus folder can be made");
            fs::write(&path, &story).expect("the corpus can be written");
        }
        let kept = fs::read(&path).ok();
        assert_eq!(
            kept,
            Some(story),
            "{} is not what the stories say",
            path.display()
        );
    }
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    files.sort();
    for (seed, path) in (0_u64..).zip(files) {
        let story = fs::read(&path).expect("the corpus can be read");
        relay::run(&story);
        for copy in 0..COPIES {
            let mut random = Random(seed << 32 | copy);
            let mut damaged = story.clone();
            mutate(&mut damaged, &mut random);
            let case = format!("{} damaged by seed {seed}, copy {copy}", path.display());
            let result = std::panic::catch_unwind(|| relay::run(&damaged));
            assert!(result.is_ok(), "{case}: {damaged:02x?}");
        }
    }
}

/// The stories reach what they are named for: replies, an allocation, forwarded data both ways.
#[test]
fn stories_reach_the_code_behind_the_signature() {
    let reached = |name: &str| {
        let (_, story) = stories()
            .into_iter()
            .find(|(known, _)| *known == name)
            .expect("a story");
        relay::reached(&story)
    };
    let whole = reached("whole-life");
    assert_eq!(
        (whole.allocations, whole.to_peer, whole.to_client),
        (1, 2, 2),
        "{whole:?}"
    );
    assert_eq!(reached("busy-port").allocations, 1);
    assert_eq!(reached("no-socket").allocations, 0);
    assert_eq!(reached("refused-peer").to_peer, 0);
    assert_eq!(reached("three-clients").allocations, 3);
    assert_eq!(reached("connect").bound, 1);
    assert_eq!(reached("peer-connects").bound, 1);
    assert_eq!(reached("connect-refused").bound, 0);
}

/// Steps in a row, in the encoding of `bodies/relay.rs`.
#[derive(Clone, Default)]
struct Story(Vec<u8>);

const ALLOCATE: u8 = 0;
const REFRESH: u8 = 1;
const PERMISSION: u8 = 2;
const CHANNEL: u8 = 3;
const CONNECT: u8 = 6;
const CONNECTION_BIND: u8 = 7;

const PEER: u8 = 0;
const PEER_V6: u8 = 2;
const PRIVATE_PEER: u8 = 3;
const ITSELF: u8 = 4;
const HAIRPIN: u8 = 5;

impl Story {
    fn raw(mut self, client: u8, bytes: &[u8]) -> Self {
        self.0
            .extend_from_slice(&[0, client, u8::try_from(bytes.len()).expect("short")]);
        self.0.extend_from_slice(bytes);
        self
    }

    /// An unsigned Allocate, for the nonce.
    fn challenge(self, client: u8) -> Self {
        let mut bytes = vec![
            0, 3, 0, 16, 0x21, 0x12, 0xA4, 0x42, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, client,
        ];
        bytes.extend_from_slice(&[
            0, 0x19, 0, 4, 17, 0, 0, 0, 0x80, 0x22, 0, 4, b'f', b'u', b'z', b'z',
        ]);
        self.raw(client, &bytes)
    }

    fn signed(mut self, client: u8, method: u8, what: u8, which: u8) -> Self {
        self.0
            .extend_from_slice(&[1, method << 4 | client, what, which]);
        self
    }

    /// A signed request with one more attribute, by its place in the list of types.
    fn signed_with(mut self, client: u8, method: u8, attribute: u8, value: &[u8]) -> Self {
        self.0
            .extend_from_slice(&[1, method << 4 | client, 8, 0, 0, attribute]);
        self.0.push(u8::try_from(value.len()).expect("short"));
        self.0.extend_from_slice(value);
        self
    }

    fn socket(mut self, outcome: u8) -> Self {
        self.0.extend_from_slice(&[6, outcome]);
        self
    }

    /// A TCP allocation of the client that may have one.
    fn tcp_allocation(self) -> Self {
        self.challenge(3).signed(3, ALLOCATE, 32, 0).socket(2)
    }

    /// The peer's answer to a Connect.
    fn connected(mut self, outcome: u8) -> Self {
        self.0.extend_from_slice(&[10, outcome]);
        self
    }

    /// Bytes cross, or the connection ends.
    fn connection(mut self, what: u8) -> Self {
        self.0.extend_from_slice(&[10, 1 | what]);
        self
    }

    fn peer_connects(mut self, peer: u8) -> Self {
        self.0.extend_from_slice(&[11, peer << 2]);
        self
    }

    fn allocation(self, client: u8) -> Self {
        self.challenge(client)
            .signed(client, ALLOCATE, 0, 0)
            .socket(2)
    }

    fn send(mut self, client: u8, peer: u8, data: &[u8]) -> Self {
        self.0.extend_from_slice(&[
            9,
            peer << 2 | client,
            u8::try_from(data.len()).expect("short"),
        ]);
        self.0.extend_from_slice(data);
        self
    }

    fn channel_data(self, client: u8, channel: u8, data: &[u8]) -> Self {
        let mut bytes = vec![0x40, channel, 0, u8::try_from(data.len()).expect("short")];
        bytes.extend_from_slice(data);
        self.raw(client, &bytes)
    }

    fn peer_sends(mut self, peer: u8, data: &[u8]) -> Self {
        self.0
            .extend_from_slice(&[4, peer << 2, u8::try_from(data.len()).expect("short")]);
        self.0.extend_from_slice(data);
        self
    }

    fn peer_error(mut self, peer: u8) -> Self {
        self.0.extend_from_slice(&[5, peer << 2]);
        self
    }

    fn minutes(mut self, minutes: u8) -> Self {
        self.0.extend_from_slice(&[7, 0x80 | minutes]);
        self
    }

    fn disconnect(mut self, client: u8) -> Self {
        self.0.extend_from_slice(&[8, client]);
        self
    }
}

#[expect(clippy::too_many_lines, reason = "a list of stories")]
fn stories() -> Vec<(&'static str, Vec<u8>)> {
    let story = Story::default;
    let talk = || {
        story()
            .allocation(0)
            .signed(0, PERMISSION, 0, PEER << 2)
            .send(0, PEER, b"to the peer")
            .peer_sends(PEER, b"to the client")
            .signed(0, CHANNEL, 0, PEER << 2)
            .channel_data(0, 0, b"shorter")
            .peer_sends(PEER, b"back")
    };
    let connected = || {
        story()
            .tcp_allocation()
            .signed(3, CONNECT, 0, PEER << 2)
            .connected(0)
    };
    let bound = || connected().challenge(4).signed(4, CONNECTION_BIND, 0, 0);
    [
        ("challenge", story().challenge(0)),
        (
            "binding",
            story().raw(0, b"\0\x01\0\0\x21\x12\xA4\x42abcdefghijkl"),
        ),
        (
            "garbage",
            story().raw(0, b"GET / HTTP/1.1\r\n").raw(3, &[0xFF; 30]),
        ),
        ("allocation", story().allocation(0)),
        (
            "whole-life",
            talk().minutes(4).signed(0, REFRESH, 0, 0).minutes(12),
        ),
        (
            "retransmitted",
            story()
                .challenge(0)
                .signed(0, ALLOCATE, 0, 0)
                .signed(0, ALLOCATE, 16, 0)
                .socket(2)
                .signed(0, ALLOCATE, 16, 0),
        ),
        (
            "busy-port",
            story()
                .challenge(0)
                .signed(0, ALLOCATE, 0, 0)
                .socket(0)
                .socket(2),
        ),
        (
            "no-socket",
            story().challenge(0).signed(0, ALLOCATE, 0, 0).socket(1),
        ),
        (
            "never-answered",
            story()
                .challenge(0)
                .signed(0, ALLOCATE, 0, 0)
                .minutes(20)
                .socket(2),
        ),
        ("expired", talk().minutes(60)),
        (
            "permission-expired",
            talk().minutes(6).peer_sends(PEER, b"late"),
        ),
        (
            "deleted",
            talk()
                .signed_with(0, REFRESH, 7, &[0; 4])
                .peer_sends(PEER, b"late"),
        ),
        (
            "disconnected",
            story()
                .allocation(3)
                .signed(3, PERMISSION, 0, 0)
                .disconnect(3),
        ),
        (
            "refused-peer",
            story()
                .allocation(0)
                .signed(0, PERMISSION, 0, PRIVATE_PEER << 2)
                .send(0, PRIVATE_PEER, b"no")
                .signed(0, PERMISSION, 0, ITSELF << 2)
                .send(0, ITSELF, b"no"),
        ),
        (
            "hairpin",
            story()
                .allocation(0)
                .allocation(1)
                .signed(0, PERMISSION, 0, HAIRPIN << 2)
                .send(0, HAIRPIN, b"across"),
        ),
        (
            "ipv6",
            story()
                .challenge(0)
                .signed_with(0, ALLOCATE, 13, &[2, 0, 0, 0])
                .socket(2)
                .signed(0, PERMISSION, 0, PEER_V6 << 2)
                .send(0, PEER_V6, b"six"),
        ),
        (
            "both-families",
            story()
                .challenge(0)
                .signed_with(0, ALLOCATE, 28, &[2, 0, 0, 0])
                .socket(2)
                .socket(2),
        ),
        (
            "half-of-both",
            story()
                .challenge(0)
                .signed_with(0, ALLOCATE, 28, &[2, 0, 0, 0])
                .socket(2)
                .socket(1),
        ),
        (
            "even-port",
            story()
                .challenge(0)
                .signed_with(0, ALLOCATE, 14, &[0x80])
                .socket(2)
                .socket(2)
                .minutes(1),
        ),
        ("icmp", talk().peer_error(PEER)),
        (
            "three-clients",
            story().allocation(0).allocation(2).allocation(3),
        ),
        (
            "stale-nonce",
            story()
                .allocation(0)
                .minutes(30)
                .signed(0, REFRESH, 0, 0)
                .signed(0, ALLOCATE, 0, 0),
        ),
        ("connect", bound().connection(0).connection(0).connection(2)),
        (
            "connect-refused",
            story()
                .tcp_allocation()
                .signed(3, CONNECT, 0, PEER << 2)
                .connected(2)
                .signed(3, CONNECT, 0, PRIVATE_PEER << 2),
        ),
        (
            "connect-unanswered",
            story()
                .tcp_allocation()
                .signed(3, CONNECT, 0, PEER << 2)
                .minutes(1)
                .connected(0),
        ),
        (
            "peer-connects",
            story()
                .tcp_allocation()
                .peer_connects(PEER)
                .signed(3, PERMISSION, 0, PEER << 2)
                .peer_connects(PEER)
                .challenge(5)
                .signed(5, CONNECTION_BIND, 0, 0)
                .peer_connects(PEER)
                .minutes(12),
        ),
        ("connection-unclaimed", connected().minutes(1)),
        ("control-lost", bound().disconnect(3)),
        ("data-lost", bound().disconnect(4)),
        (
            "unknown-attribute",
            story().challenge(0).signed_with(0, ALLOCATE, 23, b"????"),
        ),
    ]
    .into_iter()
    .map(|(name, story)| (name, story.0))
    .collect()
}
