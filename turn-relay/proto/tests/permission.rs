//! CreatePermission and what permissions do: RFC 8656 §9, §10.

use stun_wire::AttributeType;
use turn_relay_proto::DropReason;

use crate::harness::{
    Got, Indication, OTHER_PEER, PEER, PEER_V6, Player, World, addr, create_permission, refresh,
};

#[test]
fn permission_lets_an_address_through_on_every_port() {
    // RFC 8656 §9: by address; the port of XOR-PEER-ADDRESS does not count, 0 included.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    assert_eq!(
        world.peer_sends(PEER, relayed, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&["20.30.40.50:0"]))
            .code,
        None
    );
    for peer in [PEER, "20.30.40.50:1"] {
        let (path, bytes) = world.peer_sends(peer, relayed, b"hi").forwarded();
        assert_eq!(path, alice.path);
        let expected = Indication {
            peer: addr(peer),
            data: Some(b"hi".to_vec()),
            icmp: None,
        };
        assert_eq!(Indication::parse(&bytes), expected);
    }
    assert_eq!(
        world.peer_sends(OTHER_PEER, relayed, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
}

#[test]
fn permissions_are_granted_all_or_none() {
    // RFC 8656 §10.2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    for (peers, code) in [
        (&[PEER, "10.0.0.1:6000", OTHER_PEER][..], 403),
        (&[PEER, PEER_V6], 443),
        (&[PEER, "127.0.0.1:6000"], 403),
    ] {
        let reply = alice.ask(&mut world, create_permission(peers));
        assert_eq!(reply.code, Some(code), "{peers:?}");
        assert_eq!(world.relay.gauges().permissions, 0, "{peers:?}");
    }
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&[PEER, OTHER_PEER, PEER]))
            .code,
        None
    );
    assert_eq!(world.relay.gauges().permissions, 2);
}

#[test]
fn request_without_peers_or_with_a_broken_one_is_bad() {
    // RFC 8656 §10.2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let broken =
        |value: &[u8]| create_permission(&[PEER]).raw(AttributeType::XOR_PEER_ADDRESS, value);
    for ask in [
        create_permission(&[]),
        broken(&[]),
        broken(&[0, 1, 0, 0, 1, 2, 3]),
        broken(&[0, 3, 0, 0, 1, 2, 3, 4]),
        broken(&[0, 2, 0, 0, 1, 2, 3, 4]),
    ] {
        assert_eq!(alice.ask(&mut world, ask).code, Some(400));
    }
    assert_eq!(world.relay.gauges().permissions, 0);
}

#[test]
fn permission_lasts_five_minutes_and_traffic_does_not_prolong_it() {
    // RFC 8656 §9: 300 s, refreshed by requests only.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    world.wait_secs(299);
    world.peer_sends(PEER, relayed, b"in time").forwarded();
    alice.send(&mut world, PEER, b"in time").forwarded();
    world.wait_secs(1);
    assert_eq!(
        world.peer_sends(PEER, relayed, b"late"),
        Got::Dropped(DropReason::NoPermission)
    );
    assert_eq!(
        alice.send(&mut world, PEER, b"late"),
        Got::Dropped(DropReason::NoPermission)
    );
    assert_eq!(world.relay.gauges().permissions, 0);
}

#[test]
fn permission_is_refreshed_and_outlives_its_first_deadline() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    world.wait_secs(200);
    alice.ask(&mut world, create_permission(&[PEER]));
    world.wait_secs(299);
    world.peer_sends(PEER, relayed, b"hi").forwarded();
    assert_eq!(world.relay.gauges().permissions, 1);
    world.wait_secs(1);
    assert_eq!(
        world.peer_sends(PEER, relayed, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
}

#[test]
fn expired_permission_drops_data_even_if_nobody_called_the_timer() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    world.sleep_through(300);
    assert_eq!(
        world.peer_sends(PEER, relayed, b"late"),
        Got::Dropped(DropReason::NoPermission)
    );
    assert_eq!(
        alice.send(&mut world, PEER, b"late"),
        Got::Dropped(DropReason::NoPermission)
    );
}

#[test]
fn permission_is_one_allocations_and_ends_with_it() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let mut bob = Player::bob("198.51.100.8:5000");
    alice.allocate(&mut world);
    let theirs = bob.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    assert_eq!(
        world.peer_sends(PEER, theirs, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
    alice.ask(&mut world, refresh().lifetime(0));
    assert_eq!(world.relay.gauges().permissions, 0);
    let again = alice.allocate(&mut world);
    assert_eq!(
        world.peer_sends(PEER, again, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
}

#[test]
fn permission_without_an_allocation_is_a_mismatch() {
    let mut world = World::new();
    let reply = Player::alice("198.51.100.7:5000").ask(&mut world, create_permission(&[PEER]));
    assert_eq!(reply.code, Some(437));
}
