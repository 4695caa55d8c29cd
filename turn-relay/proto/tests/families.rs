//! IPv4 and IPv6 relayed addresses: RFC 8656 §7.2, §8.1.

use stun_wire::AttributeType;
use stun_wire::attribute::AddressFamily;
use turn_relay_proto::{DropReason, Event, RelayAddr};

use crate::harness::{
    Got, Indication, PEER, PEER_V6, Player, World, addr, allocate, channel_bind, create_permission,
    refresh,
};

const V4: AddressFamily = AddressFamily::Ipv4;
const V6: AddressFamily = AddressFamily::Ipv6;

fn only(ip: &str) -> World {
    World::with(|config| {
        config
            .relay_addresses
            .retain(|address| address.bind.to_string() == ip);
    })
}

#[test]
fn family_is_ipv4_unless_asked_for() {
    // RFC 8656 §7.2; the client's own family does not matter.
    for client in ["198.51.100.7:5000", "[2001:db8::7]:5000"] {
        for (ask, v4) in [
            (allocate(), true),
            (allocate().family(V4), true),
            (allocate().family(V6), false),
        ] {
            let mut world = World::new();
            let reply = Player::alice(client).ask(&mut world, ask);
            assert_eq!(reply.relayed().is_ipv4(), v4);
            assert_eq!(reply.mapped, Some(addr(client)));
        }
    }
}

#[test]
fn family_that_is_not_there_is_not_supported() {
    // RFC 8656 §7.2, check 8: 440.
    let unknown = allocate().raw(AttributeType::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0]);
    for (relay, ask) in [
        ("192.0.2.1", allocate().family(V6)),
        ("2001:db8::1", allocate()),
        ("2001:db8::1", allocate().family(V4)),
        ("192.0.2.1", unknown),
    ] {
        let reply = Player::alice("198.51.100.7:5000").ask(&mut only(relay), ask);
        assert_eq!((reply.code, reply.signature.is_some()), (Some(440), true));
    }
}

#[test]
fn additional_family_gives_one_address_of_each() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate().additional_family(V6));
    assert_eq!((reply.code, reply.address_error), (None, None));
    let [v4, v6] = reply.relayed[..] else {
        panic!("not two: {reply:?}")
    };
    assert!(v4.is_ipv4() && v6.is_ipv6());
    assert_eq!(world.relay.gauges().allocations, 1);
    assert_eq!(world.relay.gauges().ports_in_use, 2);

    // Each side talks with its own family.
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&[PEER, PEER_V6]))
            .code,
        None
    );
    for (peer, local) in [(PEER, v4), (PEER_V6, v6)] {
        let (path, _) = alice.send(&mut world, peer, b"hi").forwarded();
        assert_eq!((path.local, path.remote), (local, addr(peer)));
        let (_, bytes) = world.peer_sends(peer, local, b"hi").forwarded();
        assert_eq!(Indication::parse(&bytes).peer, addr(peer));
    }
}

#[test]
fn half_of_a_dual_allocation_is_granted_and_the_other_explained() {
    // RFC 8656 §7.2: ADDRESS-ERROR-CODE in a success response.
    let ask = || allocate().additional_family(V6);
    let reply = Player::alice("198.51.100.7:5000").ask(&mut only("192.0.2.1"), ask());
    assert_eq!((reply.code, reply.address_error), (None, Some((V6, 440))));
    assert!(reply.relayed().is_ipv4());
    let reply = Player::alice("198.51.100.7:5000").ask(&mut only("2001:db8::1"), ask());
    assert_eq!((reply.code, reply.address_error), (None, Some((V4, 440))));
    assert!(reply.relayed().is_ipv6());
}

#[test]
fn half_whose_socket_cannot_be_had_is_insufficient_capacity() {
    let mut world = World::with(|config| config.ports = 50_000..=50_000);
    Player::bob("198.51.100.8:5000")
        .ask(&mut world, allocate().family(V6))
        .relayed();
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate().additional_family(V6));
    assert_eq!((reply.code, reply.address_error), (None, Some((V6, 508))));
    assert!(reply.relayed().is_ipv4());

    let mut world = World::with(|config| config.ports = 50_000..=50_003);
    world.busy = (50_000..=50_003).collect();
    let reply = alice.ask(&mut world, allocate().additional_family(V6));
    assert_eq!(reply.code, Some(508), "neither");
    world.assert_empty();
}

#[test]
fn contradicting_family_attributes_are_bad() {
    // RFC 8656 §7.2, checks 6, 9, 10.
    for ask in [
        allocate().family(V4).additional_family(V6),
        allocate().additional_family(V4),
        allocate().additional_family(V6).even_port(true),
        allocate().token([1; 8]).family(V4),
        allocate().token([1; 8]).additional_family(V6),
        allocate().token([1; 8]).even_port(false),
    ] {
        let mut world = World::new();
        assert_eq!(
            Player::alice("198.51.100.7:5000").ask(&mut world, ask).code,
            Some(400)
        );
        world.assert_empty();
    }
}

#[test]
fn even_port_without_reservation_goes_with_two_families() {
    let mut world = World::new();
    let reply = Player::alice("198.51.100.7:5000").ask(
        &mut world,
        allocate().additional_family(V6).even_port(false),
    );
    assert_eq!((reply.code, reply.relayed.len()), (None, 2));
    assert!(reply.relayed.iter().all(|relayed| relayed.port() % 2 == 0));
}

#[test]
fn refresh_can_mean_one_half() {
    // RFC 8656 §8.1: the other half's permissions and channels are not touched.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate().additional_family(V6));
    let [v4, v6] = reply.relayed[..] else {
        panic!("not two: {reply:?}")
    };
    alice.ask(&mut world, create_permission(&[PEER, PEER_V6]));
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    alice.ask(&mut world, channel_bind(0x4001, PEER_V6));
    world.take_events();

    let gone = alice.ask(&mut world, refresh().family(V6).lifetime(0));
    assert_eq!((gone.code, gone.lifetime), (None, Some(0)));
    let freed = world.take_events();
    assert!(
        matches!(freed[..], [Event::ChannelFreed { peer, .. }, Event::AddressEnded { addr: ended }]
            if peer == addr(PEER_V6) && ended.0 == v6)
    );
    assert_eq!(
        world.peer_sends(PEER_V6, v6, b"hi"),
        Got::Dropped(DropReason::UnknownRelay)
    );
    world.peer_sends(PEER, v4, b"hi").forwarded();
    assert_eq!(
        world.open.iter().copied().collect::<Vec<_>>(),
        [RelayAddr(v4)]
    );
    assert_eq!(
        (
            world.relay.gauges().permissions,
            world.relay.gauges().channels
        ),
        (1, 1)
    );
    assert_eq!(
        alice.ask(&mut world, create_permission(&[PEER_V6])).code,
        Some(443)
    );

    assert_eq!(
        alice.ask(&mut world, refresh().family(V6)).code,
        Some(443),
        "it has no such half"
    );
    assert_eq!(
        alice.ask(&mut world, refresh().family(V4).lifetime(0)).code,
        None
    );
    world.assert_empty();
}

#[test]
fn halves_expire_apart() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate().additional_family(V6));
    let [v4, v6] = reply.relayed[..] else {
        panic!("not two: {reply:?}")
    };
    assert_eq!(
        alice
            .ask(&mut world, refresh().family(V6).lifetime(1_200))
            .code,
        None
    );
    world.wait_secs(600);
    assert_eq!(
        world.open.iter().copied().collect::<Vec<_>>(),
        [RelayAddr(v6)]
    );
    assert_eq!(
        world.peer_sends(PEER, v4, b"hi"),
        Got::Dropped(DropReason::UnknownRelay)
    );
    alice.ask(&mut world, create_permission(&[PEER_V6]));
    world.peer_sends(PEER_V6, v6, b"hi").forwarded();
    world.wait_secs(600);
    world.assert_empty();
}

#[test]
fn refresh_of_a_single_allocation_may_name_its_family() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    assert_eq!(alice.ask(&mut world, refresh().family(V4)).code, None);
    assert_eq!(alice.ask(&mut world, refresh().family(V6)).code, Some(443));
    assert_eq!(
        alice.ask(&mut world, refresh().family(V4).lifetime(0)).code,
        None
    );
    world.assert_empty();
}
