//! What a packet costs the machine: channel data and indications, both ways, over many allocations
//! so that tables do not stay in the cache. `cargo bench -p turn-relay-proto`.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[path = "../tests/harness.rs"]
mod harness;

use harness::{Ask, Player, World, channel_bind};
use stun_wire::attribute::Data;
use stun_wire::{Method, TransactionId};
use turn_relay_proto::{Now, RelayAddr, Verdict};

const ROUNDS: usize = 7;
const BATCHES: usize = 400;
const BATCH: usize = 2_000;

struct Flow {
    player: Player,
    relayed: RelayAddr,
    peer: SocketAddr,
}

fn main() {
    for allocations in [16, 1_000, 10_000] {
        let (mut world, flows) = world(allocations);
        let now = world.now;
        println!("{allocations} allocations, 100 B, ns a packet:");
        let payload = [7_u8; 100];
        let channel_data = [&[0x40, 0, 0, 100][..], &payload].concat();
        measure(
            "channel, client to peer",
            &mut world,
            &flows,
            |world, flow, reply| {
                world
                    .relay
                    .handle_client(now, flow.player.path, &channel_data, reply)
            },
        );
        measure(
            "channel, peer to client",
            &mut world,
            &flows,
            |world, flow, _| {
                world
                    .relay
                    .handle_peer(now, flow.relayed, flow.peer, &payload)
            },
        );
        let sends: Vec<Vec<u8>> = flows.iter().map(|flow| send(flow.peer, &payload)).collect();
        let mut n = 0;
        measure(
            "Send, client to peer",
            &mut world,
            &flows,
            |world, flow, reply| {
                n = (n + 1) % sends.len();
                world.relay.handle_client(
                    now,
                    flow.player.path,
                    &sends[(n + sends.len() - 1) % sends.len()],
                    reply,
                )
            },
        );
        measure(
            "Data, peer to client",
            &mut world,
            &flows,
            |world, flow, _| {
                let other_port = SocketAddr::new(flow.peer.ip(), 7_777);
                world
                    .relay
                    .handle_peer(now, flow.relayed, other_port, &payload)
            },
        );
    }
    handshake();
}

fn send(peer: SocketAddr, payload: &[u8]) -> Vec<u8> {
    Ask::indication(Method::SEND)
        .peer(peer)
        .with(&Data(payload))
        .unsigned(TransactionId([1; 12]))
}

fn measure(
    what: &str,
    world: &mut World,
    flows: &[Flow],
    mut packet: impl FnMut(&mut World, &Flow, &mut Vec<u8>) -> Verdict,
) {
    let mut reply = Vec::new();
    // The best of many short batches: one of them is not interrupted by the rest of the machine.
    let mut best = Duration::MAX;
    let mut flows = flows.iter().cycle();
    for _ in 0..BATCHES {
        let start = Instant::now();
        for flow in flows.by_ref().take(BATCH) {
            let verdict = packet(world, flow, &mut reply);
            assert!(matches!(black_box(verdict), Verdict::Forward(_)));
        }
        best = best.min(start.elapsed());
    }
    println!(
        "  {what:24} {:6.1}",
        best.as_secs_f64() * 1e9 / BATCH as f64
    );
}

fn world(allocations: usize) -> (World, Vec<Flow>) {
    let mut world = World::with(unbounded);
    let flows = (0..allocations)
        .map(|n| {
            let mut player = Player::alice(&format!("198.18.{}.{}:5000", n / 250, n % 250));
            let relayed = RelayAddr(quiet(&mut world, &mut player, &harness::allocate()).relayed());
            let peer = harness::addr(&format!("20.30.{}.{}:6000", n / 250, n % 250));
            quiet(
                &mut world,
                &mut player,
                &channel_bind(0x4000, &peer.to_string()),
            );
            let _ = world.relay.handle_peer(world.now, relayed, peer, b"heard");
            Flow {
                player,
                relayed,
                peer,
            }
        })
        .collect();
    (world, flows)
}

fn unbounded(config: &mut turn_relay_proto::RelayConfig) {
    config.quota.allocations_per_user = 100_000;
    config.quota.allocations = 100_000;
    config.quota.bandwidth_per_allocation = Some(1_000_000_000);
    config.quota.bandwidth_per_user = Some(1_000_000_000);
    config.limits.exempt = vec!["198.18.0.0/15".parse().expect("a prefix")];
}

/// As `Player::ask`, without the harness's linear checks.
fn quiet(world: &mut World, player: &mut Player, ask: &Ask) -> harness::Reply {
    let mut reply = Vec::new();
    if player.nonce.is_none() {
        let hello = harness::allocate()
            .fingerprint()
            .unsigned(TransactionId([2; 12]));
        let _ = world
            .relay
            .handle_client(world.now, player.path, &hello, &mut reply);
        player.nonce = harness::Reply::parse(&reply).nonce;
    }
    let request = player.sign(ask);
    let now = world.now;
    exchange(world, player, &request, now)
}

fn exchange(world: &mut World, player: &Player, request: &[u8], now: Now) -> harness::Reply {
    let mut reply = Vec::new();
    if world
        .relay
        .handle_client(now, player.path, request, &mut reply)
        == Verdict::Absorbed
    {
        while let Some(event) = world.relay.poll_event() {
            if let turn_relay_proto::Event::SocketWanted { addr } = event {
                world
                    .relay
                    .handle_socket(now, addr, turn_relay_proto::SocketOutcome::Opened);
            }
        }
        world.relay.poll_transmit(&mut reply).expect("the response");
    }
    while world.relay.poll_event().is_some() {}
    harness::Reply::parse(&reply)
}

/// 401, Allocate, CreatePermission, ChannelBind, Refresh 0: signing by the client not counted.
fn handshake() {
    let mut world = World::with(unbounded);
    let mut best = Duration::MAX;
    const CLIENTS: usize = 500;
    for round in 0..ROUNDS {
        let mut spent = Duration::ZERO;
        for n in 0..CLIENTS {
            let client = format!("198.18.{}.{}:{}", n / 250, n % 250, 5_000 + round);
            let mut player = Player::minted(&client, &format!("player{n}"), 3_600);
            let hello = harness::allocate()
                .fingerprint()
                .unsigned(TransactionId([2; 12]));
            let start = Instant::now();
            let now = world.now;
            let challenge = exchange(&mut world, &player, &hello, now);
            spent += start.elapsed();
            player.nonce = challenge.nonce;
            for ask in [
                harness::allocate(),
                harness::create_permission(&["20.30.40.50:6000"]),
                channel_bind(0x4000, "20.30.40.50:6000"),
                harness::refresh().lifetime(0),
            ] {
                let request = player.sign(&ask);
                let now = world.now;
                let start = Instant::now();
                let reply = exchange(&mut world, &player, &request, now);
                spent += start.elapsed();
                assert_eq!(reply.code, None);
            }
        }
        best = best.min(spent);
    }
    let each = best.as_secs_f64() * 1e6 / CLIENTS as f64;
    println!(
        "401, Allocate, CreatePermission, ChannelBind, Refresh 0: {each:.1} us (parsing of the replies included)"
    );
}
