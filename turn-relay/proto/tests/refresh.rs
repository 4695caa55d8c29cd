//! Refresh: RFC 8656 §8.

use std::time::Duration;

use stun_wire::AttributeType;
use turn_relay_proto::{DropReason, EndReason, Event, Reason};

use crate::harness::{
    Got, PEER, Player, World, allocate, channel_bind, create_permission, refresh,
};

#[test]
fn refresh_prolongs_within_the_bounds_of_allocate() {
    // RFC 8656 §8.2: the same floor and maximum as §7.2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    for (asked, granted) in [
        (None, 600),
        (Some(1), 600),
        (Some(900), 900),
        (Some(u32::MAX), 3_600),
    ] {
        world.wait_secs(60);
        let ask = asked.map_or_else(refresh, |seconds| refresh().lifetime(seconds));
        let reply = alice.ask(&mut world, ask);
        assert_eq!((reply.code, reply.lifetime), (None, Some(granted)));
        let (at, why) = world.relay.poll_timeout().expect("it ends");
        let left = at - world.now.mono;
        assert_eq!(
            (left, why),
            (Duration::from_secs(granted.into()), Reason::Allocation)
        );
    }
}

#[test]
fn lifetime_zero_is_final_in_the_same_tick() {
    // RFC 8656 §8.2: deleted. Port, quota and 5-tuple are free when the response leaves.
    let mut world = World::with(|config| {
        config.ports = 50_000..=50_000;
        config.quota.allocations_per_user = 1;
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    for _ in 0..3 {
        let relayed = alice.allocate(&mut world);
        assert_eq!(alice.ask(&mut world, create_permission(&[PEER])).code, None);
        assert_eq!(alice.ask(&mut world, channel_bind(0x4000, PEER)).code, None);
        let reply = alice.ask(&mut world, refresh().lifetime(0));
        assert_eq!((reply.code, reply.lifetime), (None, Some(0)));
        world.assert_empty();
        let late = world.peer_sends(PEER, relayed, b"late");
        assert_eq!(late, Got::Dropped(DropReason::UnknownRelay));
        assert_eq!(
            alice.send_channel(&mut world, 0x4000, b"late"),
            Got::Dropped(DropReason::NoAllocation)
        );
        let ends: Vec<_> = world
            .take_events()
            .into_iter()
            .filter_map(|event| match event {
                Event::AllocationEnded { reason, .. } => Some(reason),
                _ => None,
            })
            .collect();
        assert_eq!(ends, [EndReason::Deleted]);
    }
}

#[test]
fn refresh_without_an_allocation_is_a_mismatch() {
    // RFC 8656 §5 and §8.2; a deletion whose response was lost is asked for again and reads 437.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    assert_eq!(alice.ask(&mut world, refresh()).code, Some(437));
    alice.allocate(&mut world);
    let request = alice.sign(&refresh().lifetime(0));
    assert_eq!(world.client_sends(alice.path, &request).reply().code, None);
    let again = world.client_sends(alice.path, &request).reply();
    assert_eq!(again.code, Some(437));
    assert!(again.is_signed_by(&alice.key()));
}

#[test]
fn another_users_refresh_is_wrong_credentials() {
    // RFC 8656 §5: 441, and nothing changes.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let mut bob = Player::bob("198.51.100.7:5000");
    for ask in [
        refresh(),
        refresh().lifetime(0),
        create_permission(&[PEER]),
        channel_bind(0x4000, PEER),
    ] {
        let reply = bob.ask(&mut world, ask);
        assert_eq!(reply.code, Some(441));
        assert!(reply.is_signed_by(&bob.key()));
    }
    assert_eq!(world.relay.gauges().allocations, 1);
    assert_eq!(world.relay.gauges().permissions, 0);
    assert_eq!(alice.ask(&mut world, refresh()).code, None);
}

#[test]
fn malformed_lifetime_is_a_bad_request() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let reply = alice.ask(&mut world, refresh().raw(AttributeType::LIFETIME, &[0; 3]));
    assert_eq!(reply.code, Some(400));
    assert_eq!(world.relay.gauges().allocations, 1);
}

#[test]
fn retransmitted_refresh_gets_the_same_answer() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let request = alice.sign(&refresh().lifetime(1_000));
    let first = world.client_sends(alice.path, &request).reply();
    assert_eq!(world.client_sends(alice.path, &request).reply(), first);
    // A late copy of the request that made the allocation is answered as it was then (§7.2).
    assert_eq!(alice.ask(&mut world, allocate()).code, Some(437));
}

#[test]
fn first_of_two_attributes_counts() {
    // RFC 8489 §14: duplicates may be ignored.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let reply = alice.ask(&mut world, refresh().lifetime(900).lifetime(0));
    assert_eq!((reply.code, reply.lifetime), (None, Some(900)));
    let reply = alice.ask(&mut world, refresh().lifetime(0).lifetime(900));
    assert_eq!((reply.code, reply.lifetime), (None, Some(0)));
    world.assert_empty();
}
