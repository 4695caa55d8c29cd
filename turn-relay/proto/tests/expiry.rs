//! Everything ends: RFC 8656 §3.2, §8, §9, §12; one deadline queue that says when and why.

use std::time::Duration;

use turn_relay_proto::{DropReason, EndReason, Event, Reason};

use crate::harness::{
    Got, PEER, Player, World, addr, allocate, channel_bind, create_permission, refresh,
};

#[test]
fn deadlines_are_told_with_their_reason_in_order() {
    let mut world = World::new();
    assert_eq!(world.relay.poll_timeout(), None);
    let start = world.now.mono;
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.ask(&mut world, allocate().lifetime(1_800)).relayed();
    alice.ask(&mut world, create_permission(&[PEER]));
    alice.ask(&mut world, channel_bind(0x4000, "20.30.40.51:6000"));
    let mut seen = Vec::new();
    while let Some((at, why)) = world.relay.poll_timeout() {
        seen.push(((at - start).as_secs(), why));
        world.wait(at - world.now.mono);
    }
    assert_eq!(
        seen,
        [
            (300, Reason::Permission),
            (600, Reason::Channel),
            (1_800, Reason::Allocation)
        ]
    );
    world.assert_empty();
}

#[test]
fn deadline_that_was_moved_is_not_waited_for() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.ask(&mut world, allocate().lifetime(3_600)).relayed();
    alice.ask(&mut world, create_permission(&[PEER]));
    world.wait_secs(100);
    alice.ask(&mut world, create_permission(&[PEER]));
    let (at, why) = world.relay.poll_timeout().expect("it ends");
    assert_eq!(
        (at - world.now.mono, why),
        (Duration::from_secs(300), Reason::Permission)
    );
}

#[test]
fn allocation_expires_with_everything_it_has() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    world.wait_secs(400);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    alice.send_channel(&mut world, 0x4000, b"bytes").forwarded();
    world.take_events();
    world.wait_secs(200);
    world.assert_empty();
    let events = world.take_events();
    assert!(matches!(events[0], Event::ChannelFreed { peer, .. } if peer == addr(PEER)));
    let Event::AllocationEnded {
        reason,
        duration,
        traffic,
        ..
    } = &events[1]
    else {
        panic!("not an end: {events:?}")
    };
    assert_eq!((*reason, duration.as_secs()), (EndReason::Expired, 600));
    assert_eq!((traffic.to_peer_packets, traffic.to_peer_bytes), (1, 5));
    assert_eq!(
        world.peer_sends(PEER, relayed, b"hi"),
        Got::Dropped(DropReason::UnknownRelay)
    );
    assert_eq!(alice.ask(&mut world, refresh()).code, Some(437));
    alice.allocate(&mut world);
}

#[test]
fn late_timer_changes_no_answer() {
    // A shell that is busy calls handle_timeout late; no packet and no request may notice.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    world.sleep_through(600);
    assert_eq!(
        world.peer_sends(PEER, relayed, b"hi"),
        Got::Dropped(DropReason::UnknownRelay)
    );
    assert!(matches!(
        alice.send_channel(&mut world, 0x4000, b"hi"),
        Got::Dropped(_)
    ));
    assert_eq!(
        alice.ask(&mut world, refresh()).code,
        Some(437),
        "the request finds it gone"
    );
    world.assert_empty();
}

#[test]
fn number_is_free_when_its_binding_expired_even_if_the_timer_is_late() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.ask(&mut world, allocate().lifetime(3_600)).relayed();
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    world.sleep_through(600);
    assert_eq!(
        alice
            .ask(&mut world, channel_bind(0x4000, "20.30.40.51:6000"))
            .code,
        None
    );
    let (path, _) = alice.send_channel(&mut world, 0x4000, b"hi").forwarded();
    assert_eq!(path.remote, addr("20.30.40.51:6000"));
}

#[test]
fn thousand_allocations_expire_in_their_order() {
    let mut world = World::with(|config| config.quota.allocations_per_user = 2_000);
    let mut due = Vec::new();
    for n in 0..1_000_u32 {
        let client = format!("198.{}.{}.7:5000", 18 + n / 250, n % 250);
        let seconds = 600 + n.wrapping_mul(2_654_435_761) % 3_000;
        Player::alice(&client)
            .ask(&mut world, allocate().lifetime(seconds))
            .relayed();
        due.push(seconds);
    }
    due.sort_unstable();
    let start = world.now.mono;
    let mut ended = Vec::new();
    while let Some((at, _)) = world.relay.poll_timeout() {
        world.wait(at - world.now.mono);
        let ends = world.take_events().into_iter();
        let count = ends
            .filter(|event| matches!(event, Event::AllocationEnded { .. }))
            .count();
        let second = u32::try_from((at - start).as_secs()).expect("an hour");
        ended.extend(std::iter::repeat_n(second, count));
    }
    assert_eq!(ended, due);
    world.assert_empty();
}
