//! Allocate: RFC 8656 §7.

use std::time::Duration;

use stun_wire::attribute::{RequestedTransport, XorMappedAddress};
use stun_wire::{AttributeType, IntegrityKind};
use turn_relay_proto::{EndReason, Event, Reason, RelayAddr, RelayAddress, Traffic, Transport};

use crate::harness::{Ask, Player, RELAY, World, addr, allocate, refresh};

#[test]
fn allocation_is_granted_with_a_random_port_of_the_dynamic_range() {
    // RFC 8656 §7.2: ports from 49152 on; the response has relayed and mapped address and lifetime.
    let mut world = World::new();
    let mut ports = Vec::new();
    for n in 0..16 {
        let client = format!("198.51.100.{n}:5000");
        let mut player = Player::minted(&client, &format!("player{n}"), 3_600);
        let reply = player.ask(&mut world, allocate());
        let relayed = reply.relayed();
        assert_eq!(relayed.ip(), addr(&format!("{RELAY}:0")).ip());
        assert!(relayed.port() >= 49_152);
        assert_eq!(reply.mapped, Some(addr(&client)));
        assert_eq!(reply.lifetime, Some(600));
        assert_eq!((reply.token, reply.address_error), (None, None));
        assert_eq!(reply.signature, Some(IntegrityKind::Sha1));
        ports.push(relayed.port());
    }
    assert!(
        ports.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 256),
        "not random: {ports:?}"
    );
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 16);
}

#[test]
fn lifetime_is_what_was_asked_within_ten_minutes_and_an_hour() {
    // RFC 8656 §7.2: never under the default of 600, never over the server's maximum.
    for (asked, granted) in [
        (None, 600),
        (Some(0), 600),
        (Some(30), 600),
        (Some(1_800), 1_800),
        (Some(u32::MAX), 3_600),
    ] {
        let mut world = World::new();
        let ask = asked.map_or_else(allocate, |seconds| allocate().lifetime(seconds));
        let reply = Player::alice("198.51.100.7:5000").ask(&mut world, ask);
        assert_eq!(reply.lifetime, Some(granted), "asked for {asked:?}");
        let (at, why) = world.relay.poll_timeout().expect("an allocation ends");
        assert_eq!(
            (at - world.now.mono, why),
            (Duration::from_secs(granted.into()), Reason::Allocation)
        );
    }
}

#[test]
fn retransmitted_request_gets_the_same_answer() {
    // RFC 8656 §7.2, RFC 8489 §6.2.1: over UDP the response may be lost.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate().lifetime(1_200));
    let first = world.client_sends(alice.path, &request).reply();
    assert_eq!(first.code, None);
    world.wait_secs(40);
    let again = world.client_sends(alice.path, &request).reply();
    assert_eq!(again, first, "byte for byte");
    assert_eq!(world.relay.gauges().allocations, 1);
    assert_eq!(world.open.len(), 1);
}

#[test]
fn retransmission_while_the_socket_is_opened_is_absorbed() {
    let mut world = World::new();
    world.slow_shell = true;
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate());
    assert_eq!(
        world.client_sends(alice.path, &request),
        crate::harness::Got::Absorbed
    );
    assert_eq!(
        world.client_sends(alice.path, &request),
        crate::harness::Got::Absorbed
    );
    assert_eq!(world.asked.len(), 1, "one socket is asked for once");
    assert_eq!(world.relay.gauges().pending, 1);
    world.answer_sockets();
    world.drain();
    assert_eq!(world.inbox.len(), 1, "and answered once");
    assert_eq!(world.relay.gauges().allocations, 1);
}

#[test]
fn second_allocation_on_a_five_tuple_is_a_mismatch() {
    // RFC 8656 §7.2, check 2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    let again = alice.ask(&mut world, allocate());
    assert_eq!(again.code, Some(437));
    assert!(
        again.signature.is_some(),
        "errors after authentication are signed"
    );
    let other = alice
        .clone()
        .over(Transport::Tcp)
        .ask(&mut world, allocate());
    assert_ne!(
        other.relayed(),
        relayed,
        "another transport is another 5-tuple"
    );
    assert_eq!(world.relay.gauges().allocations, 2);
}

#[test]
fn transport_is_a_must_and_udp() {
    // RFC 8656 §7.2, check 3: 400 without, 442 for what is not supported.
    let cases = [
        (allocate().without(AttributeType::REQUESTED_TRANSPORT), 400),
        (
            allocate()
                .without(AttributeType::REQUESTED_TRANSPORT)
                .raw(AttributeType::REQUESTED_TRANSPORT, &[17]),
            400,
        ),
        (
            allocate()
                .without(AttributeType::REQUESTED_TRANSPORT)
                .transport(RequestedTransport::TCP.0),
            442,
        ),
        (
            allocate()
                .without(AttributeType::REQUESTED_TRANSPORT)
                .transport(0),
            442,
        ),
    ];
    for (ask, code) in cases {
        let mut world = World::new();
        let reply = Player::alice("198.51.100.7:5000").ask(&mut world, ask);
        assert_eq!(
            (reply.code, reply.signature),
            (Some(code), Some(IntegrityKind::Sha1))
        );
        world.assert_empty();
    }
}

#[test]
fn malformed_attributes_are_bad_requests() {
    for (kind, value) in [
        (AttributeType::LIFETIME, &[0, 0, 1][..]),
        (AttributeType::EVEN_PORT, &[0, 0]),
        (AttributeType::DONT_FRAGMENT, &[1]),
        (AttributeType::RESERVATION_TOKEN, &[1; 7]),
        (AttributeType::REQUESTED_ADDRESS_FAMILY, &[1]),
        (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2]),
    ] {
        let mut world = World::new();
        let reply = Player::alice("198.51.100.7:5000").ask(&mut world, allocate().raw(kind, value));
        assert_eq!(reply.code, Some(400), "{kind:?}");
        world.assert_empty();
    }
}

#[test]
fn unknown_required_attributes_are_listed_and_optional_ones_ignored() {
    // RFC 8489 §6.3.1, after authentication, so the list is signed.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let unknown = allocate()
        .raw(AttributeType(0x7F01), b"")
        .raw(AttributeType(0x7F02), b"four")
        .raw(AttributeType::USE_CANDIDATE, b"");
    let reply = alice.ask(&mut world, unknown);
    assert_eq!(
        (reply.code, reply.unknown),
        (Some(420), vec![0x7F01, 0x7F02, 0x0025])
    );
    assert!(reply.signature.is_some());
    let optional = allocate()
        .raw(AttributeType(0xFF01), b"??")
        .with(&XorMappedAddress(addr("1.2.3.4:5")));
    assert_eq!(
        alice.ask(&mut world, optional).code,
        None,
        "known but unexpected is ignored too"
    );
}

#[test]
fn dont_fragment_is_unknown_to_a_shell_that_cannot_set_it() {
    // RFC 8656 §7.2, check 4.
    let mut able = World::new();
    assert_eq!(
        Player::alice("198.51.100.7:5000")
            .ask(&mut able, allocate().dont_fragment())
            .code,
        None
    );
    let mut unable = World::with(|config| config.protocol.dont_fragment = false);
    let reply = Player::alice("198.51.100.7:5000").ask(&mut unable, allocate().dont_fragment());
    assert_eq!(
        (reply.code, reply.unknown),
        (Some(420), vec![AttributeType::DONT_FRAGMENT.0])
    );
}

#[test]
fn busy_ports_are_replaced_a_few_times() {
    let mut world = World::with(|config| config.ports = 50_000..=50_003);
    world.busy = [50_000, 50_001, 50_002].into();
    let relayed = Player::alice("198.51.100.7:5000").allocate(&mut world);
    assert_eq!(relayed.port(), 50_003);
    assert_eq!(
        world.relay.gauges().ports_in_use,
        1,
        "busy ports are not kept"
    );
    assert_eq!(world.open.len(), 1);
}

#[test]
fn port_range_that_is_all_busy_is_insufficient_capacity() {
    let mut world = World::with(|config| config.ports = 50_000..=50_063);
    world.busy = (50_000..=50_063).collect();
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate());
    assert_eq!(reply.code, Some(508));
    assert!(reply.is_signed_by(&alice.key()));
    world.assert_empty();
    world.busy.clear();
    alice.allocate(&mut world);
}

#[test]
fn missing_descriptors_are_insufficient_capacity_and_pass() {
    let mut world = World::new();
    world.no_descriptors = true;
    let mut alice = Player::alice("198.51.100.7:5000");
    assert_eq!(alice.ask(&mut world, allocate()).code, Some(508));
    world.assert_empty();
    world.no_descriptors = false;
    alice.allocate(&mut world);
}

#[test]
fn shell_that_never_answers_is_not_waited_for() {
    let mut world = World::new();
    world.slow_shell = true;
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate());
    let _ = world.client_sends(alice.path, &request);
    assert_eq!(
        world.relay.poll_timeout().map(|(_, why)| why),
        Some(Reason::SocketOverdue)
    );
    world.wait_secs(10);
    assert_eq!(
        crate::harness::Reply::parse(&world.inbox.remove(0).1).code,
        Some(508)
    );
    assert_eq!(
        world.relay.gauges().ports_in_use,
        1,
        "the port is not reused while it may be open"
    );
    world.slow_shell = false;
    world.answer_sockets();
    world.drain();
    world.assert_empty();
}

#[test]
fn disconnect_while_the_socket_is_opened_leaves_nothing() {
    let mut world = World::new();
    world.slow_shell = true;
    let mut alice = Player::alice("198.51.100.7:5000").over(Transport::Tcp);
    alice.greet(&mut world);
    let request = alice.sign(&allocate().even_port(true));
    let _ = world.client_sends(alice.path, &request);
    world.relay.handle_disconnect(world.now, alice.path);
    world.drain();
    world.slow_shell = false;
    world.answer_sockets();
    world.drain();
    world.assert_empty();
    assert_eq!((world.inbox.len(), world.take_events()), (0, vec![]));
}

#[test]
fn five_tuple_is_free_after_the_end_and_the_story_is_told() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000").over(Transport::Tcp);
    let relayed = RelayAddr(alice.allocate(&mut world));
    world.wait_secs(5);
    world.relay.handle_disconnect(world.now, alice.path);
    world.drain();
    world.assert_empty();
    let client = alice.path;
    assert_eq!(
        world.take_events(),
        [
            Event::AllocationCreated {
                client,
                relayed: [Some(relayed), None]
            },
            Event::AllocationEnded {
                client,
                relayed: [Some(relayed), None],
                reason: EndReason::Disconnected,
                duration: Duration::from_secs(5),
                traffic: Traffic::default(),
            },
        ]
    );
    alice.allocate(&mut world);
}

#[test]
fn external_address_is_told_and_the_inner_one_bound() {
    let mut world = World::with(|config| {
        config.relay_addresses = vec![RelayAddress {
            bind: "10.0.0.5".parse().expect("an address"),
            external: Some("203.0.113.10".parse().expect("an address")),
        }];
    });
    let relayed = Player::alice("198.51.100.7:5000").allocate(&mut world);
    assert_eq!(relayed.ip().to_string(), "203.0.113.10");
    let bound: Vec<String> = world.open.iter().map(ToString::to_string).collect();
    assert_eq!(bound, [format!("10.0.0.5:{}", relayed.port())]);
}

#[test]
fn several_relay_addresses_share_the_load() {
    let mut world = World::with(|config| {
        config.relay_addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
            .map(|ip| RelayAddress::new(ip.parse().expect("ip")))
            .to_vec();
        config.ports = 50_000..=50_009;
        config.quota.reserved_percent = 0;
    });
    let mut used = std::collections::BTreeMap::new();
    for n in 0..30 {
        let client = format!("198.51.100.{n}:5000");
        let relayed = Player::minted(&client, &format!("player{n}"), 3_600).allocate(&mut world);
        *used.entry(relayed.ip().to_string()).or_insert(0) += 1;
    }
    assert_eq!(used.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    let late = Player::minted("198.51.101.1:5000", "late", 3_600).ask(&mut world, allocate());
    assert_eq!(late.code, Some(508));
}

#[test]
fn unknown_method_is_silently_discarded() {
    // RFC 8489 §6.3.
    let mut world = World::new();
    let method = stun_wire::Method::from_u16(0x0FF).expect("twelve bits");
    let request = Ask::request(method).unsigned(stun_wire::TransactionId([1; 12]));
    let alice = Player::alice("198.51.100.7:5000");
    assert_eq!(
        world.client_sends(alice.path, &request),
        crate::harness::Got::Dropped(turn_relay_proto::DropReason::UnknownMethod)
    );
    let mut alice = alice;
    assert_eq!(
        alice.ask(&mut world, refresh()).code,
        Some(437),
        "nothing was made"
    );
}
