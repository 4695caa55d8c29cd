//! The data path allocates nothing, and gives nothing back: proven by an allocator that counts.

#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use harness::{Ask, PEER, Player, World, addr, allocate, channel_bind, create_permission};
use stun_wire::attribute::Data;
use stun_wire::{Method, TransactionId};
use turn_relay_proto::{Relay, RelayAddr, Verdict};

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get().wrapping_add(layout.size())));
        // SAFETY: the caller keeps this function's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get().wrapping_sub(layout.size())));
        // SAFETY: the caller keeps this function's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls(act: impl FnOnce()) -> u64 {
    let before = CALLS.with(Cell::get);
    act();
    CALLS.with(Cell::get) - before
}

#[test]
fn counting_counts() {
    assert!(calls(|| drop(std::hint::black_box(vec![1_u8]))) >= 2);
}

#[test]
fn data_path_does_not_allocate() {
    let mut world = World::with(|config| {
        config.quota.bandwidth_per_allocation = Some(100_000_000);
        config.quota.bandwidth_per_user = Some(100_000_000);
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = RelayAddr(alice.allocate(&mut world));
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    alice.ask(&mut world, create_permission(&["20.30.40.60:6000"]));
    let (bound, permitted) = (addr(PEER), addr("20.30.40.60:6000"));
    let payload = [7; 1_200];
    let channel_data = [&[0x40, 0, 0x04, 0xB0][..], &payload].concat();
    let send = Ask::indication(Method::SEND)
        .peer(permitted)
        .with(&Data(&payload));
    let send = send.unsigned(TransactionId([1; 12]));
    let unbound = [&[0x40, 9, 0x04, 0xB0][..], &payload].concat();
    let mut reply = Vec::new();
    let mut forwarded = 0_u32;
    let mut dropped = 0_u32;
    let mut now = world.now;
    let count = calls(|| {
        for _ in 0..1_000 {
            now.mono += Duration::from_millis(1);
            let verdicts = [
                world.relay.handle_peer(now, relayed, bound, &payload),
                world.relay.handle_peer(now, relayed, permitted, &payload),
                world
                    .relay
                    .handle_client(now, alice.path, &channel_data, &mut reply),
                world
                    .relay
                    .handle_client(now, alice.path, &send, &mut reply),
                world
                    .relay
                    .handle_client(now, alice.path, &unbound, &mut reply),
                world
                    .relay
                    .handle_client(now, alice.path, b"garbage", &mut reply),
                world
                    .relay
                    .handle_peer(now, relayed, addr("20.30.40.61:1"), &payload),
            ];
            for verdict in verdicts {
                match verdict {
                    Verdict::Forward(_) => forwarded += 1,
                    Verdict::Dropped(_) => dropped += 1,
                    Verdict::Reply { .. } | Verdict::Absorbed => {}
                }
            }
            let _ = world.relay.poll_timeout();
            let _ = world.relay.poll_event();
        }
    });
    assert_eq!((forwarded, dropped), (4_000, 3_000));
    assert_eq!(count, 0, "the data path called the allocator");
}

#[test]
fn anonymous_and_forged_requests_are_not_remembered() {
    // security.md E1, E2: 200,000 anonymous Allocates, 200,000 forged ones, as many ClientHellos of
    // DTLS, each from its own address. coturn 4.6.1 keeps 19.7 kB and 67 kB of each for a minute.
    const COUNT: u32 = 200_000;
    const CLIENT_HELLO: [u8; 25] = [
        22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut world = World::with(|config| {
        config.limits.exempt = vec!["0.0.0.0/0".parse().expect("a prefix")]; // every one is answered
    });
    let anonymous = allocate().fingerprint().unsigned(TransactionId([1; 12]));
    let mut guesser = Player::alice("198.51.100.7:5000");
    guesser.greet(&mut world);
    guesser.password = "wrong".into();
    let forged = guesser.sign(&allocate());
    let mut reply = Vec::with_capacity(2_048);
    let mut path = guesser.path;
    let before = BYTES.with(Cell::get);
    let mut answered = 0;
    for n in 0..COUNT {
        path.remote = (std::net::Ipv4Addr::from_bits(0x0B00_0000 + n), 5_000).into();
        for (bytes, path) in [
            (&anonymous[..], path),
            (&forged[..], path), // a nonce of somebody else's: 438
            (&CLIENT_HELLO, path),
        ] {
            let verdict = world
                .relay
                .handle_client(world.now, path, bytes, &mut reply);
            answered += u32::from(matches!(verdict, Verdict::Reply { .. }));
        }
    }
    // And those that are judged: the nonce is theirs, the signature is not.
    let judged = COUNT / 10;
    for _ in 0..judged {
        let verdict = world
            .relay
            .handle_client(world.now, guesser.path, &forged, &mut reply);
        answered += u32::from(matches!(verdict, Verdict::Reply { .. }));
    }
    assert_eq!(answered, 2 * COUNT + judged);
    let held = BYTES.with(Cell::get).wrapping_sub(before).cast_signed();
    assert!(held <= 1_024, "{held} bytes of {answered} requests");
    world.assert_empty();
}

/// What a machine holds: what dropping it gives back.
fn bytes_of(relay: Relay) -> usize {
    let before = BYTES.with(Cell::get);
    drop(relay);
    before.wrapping_sub(BYTES.with(Cell::get))
}

#[test]
fn allocation_costs_at_most_a_kibibyte_and_gives_it_back() {
    const COUNT: usize = 1_500; // just past a doubling of every table: the worst case
    let fill = |world: &mut World| {
        world.unchecked = true;
        for n in 0..COUNT {
            let client = format!("198.18.{}.{}:5000", n / 250, n % 250);
            let mut player = Player::minted(&client, &format!("player{n}"), 3_600);
            player.allocate(world);
            player.ask(world, create_permission(&[PEER]));
            player.ask(world, channel_bind(0x4000, PEER));
        }
    };
    let exempt = |config: &mut turn_relay_proto::RelayConfig| {
        config.limits.exempt = vec!["198.18.0.0/15".parse().expect("a prefix")];
    };
    let idle = bytes_of(World::with(exempt).relay);
    let mut full = World::with(exempt);
    fill(&mut full);
    let each = (bytes_of(full.relay) - idle) / COUNT;
    assert!(
        each <= 1_024,
        "{each} bytes an allocation with a permission and a channel"
    );

    let mut released = World::with(exempt);
    fill(&mut released);
    released.relay.end_all(released.now);
    released.drain();
    let left = bytes_of(released.relay) - idle;
    assert!(
        left <= 64 * 1024,
        "{left} bytes are left of {COUNT} allocations"
    );
    assert!(idle <= 1024 * 1024, "an idle machine holds {idle} bytes");
}
