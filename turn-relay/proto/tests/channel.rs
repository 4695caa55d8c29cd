//! ChannelBind and channel data: RFC 8656 §12.

use stun_wire::AttributeType;
use stun_wire::channel_data::ChannelNumber;
use turn_relay_proto::{Direction, DropReason, Event, Framing, RelayAddr, Transport};

use crate::harness::{
    Got, OTHER_PEER, PEER, PEER_V6, Player, World, addr, channel_bind, create_permission, refresh,
};

#[test]
fn channel_carries_data_both_ways() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    assert_eq!(alice.ask(&mut world, channel_bind(0x4001, PEER)).code, None);
    for data in [&b""[..], b"1", b"12", b"123", b"1234", &[9; 1_400]] {
        let Got::Forwarded {
            path,
            bytes,
            forward,
        } = alice.send_channel(&mut world, 0x4001, data)
        else {
            panic!("not forwarded")
        };
        assert_eq!(
            (path.transport, path.local, path.remote),
            (Transport::Udp, relayed, addr(PEER))
        );
        assert_eq!(bytes, data);
        assert_eq!(
            (forward.direction, forward.framing),
            (Direction::ToPeer, Framing::Channel)
        );
        assert_eq!(forward.payload, 4..4 + data.len());

        let (path, bytes) = world.peer_sends(PEER, relayed, data).forwarded();
        let length = u16::try_from(data.len()).expect("short").to_be_bytes();
        assert_eq!(path, alice.path);
        assert_eq!(
            bytes,
            [&[0x40, 0x01], &length[..], data].concat(),
            "no padding over UDP"
        );
    }
}

#[test]
fn channel_data_is_padded_on_streams() {
    // RFC 8656 §12.5.
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut world = World::new();
        let mut alice = Player::alice("198.51.100.7:5000").over(transport);
        let relayed = alice.allocate(&mut world);
        alice.ask(&mut world, channel_bind(0x4000, PEER));
        for (data, padded) in [(&b""[..], 4), (b"1", 8), (b"1234", 8), (b"12345", 12)] {
            let (path, bytes) = world.peer_sends(PEER, relayed, data).forwarded();
            assert_eq!((path, bytes.len()), (alice.path, padded));
            assert_eq!(&bytes[4..4 + data.len()], data);
            assert!(
                bytes[4 + data.len()..].iter().all(|byte| *byte == 0),
                "CVE-2020-4067"
            );
        }
        // What comes in is padded too; the padding is not data.
        let got = world.client_sends(alice.path, &[0x40, 0, 0, 1, b'x', 7, 7, 7]);
        assert_eq!(got.forwarded().1, b"x");
    }
}

#[test]
fn channel_numbers_are_those_of_rfc_8656_unless_switched() {
    // RFC 8656 §12: 0x4000 through 0x4FFF; RFC 5766 §11: through 0x7FFF.
    for (number, strict, wide) in [
        (0x0000, false, false),
        (0x3FFF, false, false),
        (0x4000, true, true),
        (0x4FFF, true, true),
        (0x5000, false, true),
        (0x7FFF, false, true),
        (0x8000, false, false),
        (0xFFFF, false, false),
    ] {
        for (switch, allowed) in [(false, strict), (true, wide)] {
            let mut world = World::with(|config| config.protocol.rfc5766_channels = switch);
            let mut alice = Player::alice("198.51.100.7:5000");
            let relayed = alice.allocate(&mut world);
            let reply = alice.ask(&mut world, channel_bind(number, PEER));
            assert_eq!(
                reply.code,
                (!allowed).then_some(400),
                "{number:#x}, switch {switch}"
            );
            if allowed {
                alice.send_channel(&mut world, number, b"up").forwarded();
                let (_, bytes) = world.peer_sends(PEER, relayed, b"down").forwarded();
                assert_eq!(bytes[..2], number.to_be_bytes());
            }
        }
    }
}

#[test]
fn bindings_do_not_contradict_each_other() {
    // RFC 8656 §12.2: one number one peer, one peer one number; the same again is a refresh.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    assert_eq!(alice.ask(&mut world, channel_bind(0x4000, PEER)).code, None);
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4000, OTHER_PEER)).code,
        Some(400)
    );
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4001, PEER)).code,
        Some(400)
    );
    assert_eq!(alice.ask(&mut world, channel_bind(0x4000, PEER)).code, None);
    assert_eq!(
        alice
            .ask(&mut world, channel_bind(0x4001, "20.30.40.50:6001"))
            .code,
        None,
        "another port"
    );
    assert_eq!(world.relay.gauges().channels, 2);
    assert_eq!(world.relay.gauges().permissions, 1);
}

#[test]
fn both_attributes_are_a_must() {
    // RFC 8656 §12.2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    for ask in [
        channel_bind(0x4000, PEER).without(AttributeType::CHANNEL_NUMBER),
        channel_bind(0x4000, PEER).without(AttributeType::XOR_PEER_ADDRESS),
        channel_bind(0x4000, PEER)
            .without(AttributeType::CHANNEL_NUMBER)
            .raw(AttributeType::CHANNEL_NUMBER, &[0x40, 0]),
    ] {
        assert_eq!(alice.ask(&mut world, ask).code, Some(400));
    }
    assert_eq!(world.relay.gauges().channels, 0);
}

#[test]
fn wrong_family_and_forbidden_peers_are_refused() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4000, PEER_V6)).code,
        Some(443)
    );
    assert_eq!(
        alice
            .ask(&mut world, channel_bind(0x4000, "10.0.0.1:6000"))
            .code,
        Some(403)
    );
    assert_eq!(
        alice
            .ask(&mut world, channel_bind(0x4000, "20.30.40.50:53"))
            .code,
        Some(403),
        "low port"
    );
    assert_eq!(
        alice
            .ask(&mut world, channel_bind(0x4000, "20.30.40.50:0"))
            .code,
        Some(403)
    );
    assert_eq!(
        world.relay.gauges().permissions,
        0,
        "nothing is left of a refused binding"
    );
}

#[test]
fn binding_brings_a_permission_that_lasts_half_as_long() {
    // RFC 8656 §12: the channel ten minutes, its permission five (§9).
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    let (_, bytes) = world
        .peer_sends("20.30.40.50:7777", relayed, b"other port")
        .forwarded();
    assert_eq!(
        bytes[..2],
        [0x00, 0x17],
        "the permission is for the address: a Data indication"
    );
    world.wait_secs(300);
    assert_eq!(
        world.peer_sends(PEER, relayed, b"in"),
        Got::Dropped(DropReason::NoPermission)
    );
    // §12.6 asks a bound channel for nothing more: the way out stays open.
    alice.send_channel(&mut world, 0x4000, b"out").forwarded();
    alice.ask(&mut world, create_permission(&[PEER]));
    let (_, bytes) = world.peer_sends(PEER, relayed, b"in").forwarded();
    assert_eq!(
        bytes[..2],
        [0x40, 0x00],
        "the channel was there all the time"
    );
}

#[test]
fn channel_lasts_ten_minutes_unless_refreshed() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = RelayAddr(
        alice
            .ask(&mut world, crate::harness::allocate().lifetime(3_600))
            .relayed(),
    );
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    world.wait_secs(500);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    world.wait_secs(599);
    alice.send_channel(&mut world, 0x4000, b"hi").forwarded();
    world.take_events();
    world.wait_secs(1);
    assert_eq!(
        alice.send_channel(&mut world, 0x4000, b"hi"),
        Got::Dropped(DropReason::NoChannel)
    );
    let (client, peer) = (alice.path, addr(PEER));
    let channel = ChannelNumber::MIN;
    assert_eq!(
        world.take_events(),
        [Event::ChannelFreed {
            client,
            relayed,
            peer,
            channel
        }]
    );
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4000, OTHER_PEER)).code,
        None,
        "free again"
    );
}

#[test]
fn fast_path_hears_of_every_channel_once() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = RelayAddr(alice.allocate(&mut world));
    world.take_events();
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    alice.ask(&mut world, refresh().lifetime(0));
    let (client, peer, channel) = (alice.path, addr(PEER), ChannelNumber::MIN);
    let events = world.take_events();
    assert_eq!(
        events[..2],
        [
            Event::ChannelBound {
                client,
                relayed,
                peer,
                channel
            },
            Event::ChannelFreed {
                client,
                relayed,
                peer,
                channel
            }
        ]
    );
    assert!(matches!(events[2], Event::AllocationEnded { .. }));
}

#[test]
fn broken_channel_data_is_dropped() {
    // RFC 8656 §12.6.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    for (bytes, reason) in [
        (&[0x40][..], DropReason::Malformed),
        (&[0x40, 0, 0], DropReason::Malformed),
        (&[0x40, 0, 0, 5, 1, 2, 3, 4], DropReason::Malformed),
        (&[0x40, 1, 0, 1, 1], DropReason::NoChannel),
        (&[0x50, 0, 0, 1, 1], DropReason::NotTurn),
    ] {
        assert_eq!(
            world.client_sends(alice.path, bytes),
            Got::Dropped(reason),
            "{bytes:?}"
        );
    }
    let stranger = Player::bob("198.51.100.8:5000");
    let got = world.client_sends(stranger.path, &[0x40, 0, 0, 1, 1]);
    assert_eq!(got, Got::Dropped(DropReason::NoAllocation));
}

#[test]
fn channels_of_two_clients_do_not_meet() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let mut bob = Player::bob("198.51.100.8:5000");
    let hers = alice.allocate(&mut world);
    let his = bob.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    bob.ask(&mut world, channel_bind(0x4000, OTHER_PEER));
    let (path, _) = alice.send_channel(&mut world, 0x4000, b"a").forwarded();
    assert_eq!((path.local, path.remote), (hers, addr(PEER)));
    let (path, _) = bob.send_channel(&mut world, 0x4000, b"b").forwarded();
    assert_eq!((path.local, path.remote), (his, addr(OTHER_PEER)));
}

#[test]
fn expired_channel_carries_nothing_even_if_nobody_called_the_timer() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice
        .ask(&mut world, crate::harness::allocate().lifetime(3_600))
        .relayed();
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    world.wait_secs(500);
    alice.ask(&mut world, create_permission(&[PEER]));
    let (_, bytes) = world.peer_sends(PEER, relayed, b"hi").forwarded();
    assert_eq!(bytes[..2], [0x40, 0x00]);
    world.sleep_through(100);
    assert_eq!(
        alice.send_channel(&mut world, 0x4000, b"hi"),
        Got::Dropped(DropReason::NoChannel)
    );
    let (_, bytes) = world.peer_sends(PEER, relayed, b"hi").forwarded();
    assert_eq!(
        bytes[..2],
        [0x00, 0x17],
        "the permission is left: a Data indication"
    );
}
