//! Send and Data indications: RFC 8656 §11.

use stun_wire::attribute::{Data, Icmp};
use stun_wire::{AttributeType, Method, TransactionId};
use turn_relay_proto::{Direction, DropReason, Framing, RelayAddr, Traffic, Transport, Verdict};

use crate::harness::{Ask, Got, Indication, PEER, PEER_V6, Player, World, addr, create_permission};

#[test]
fn send_indication_carries_exactly_its_data() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    for data in [&b""[..], b"1", b"12", b"123", b"1234", &[7; 1_400]] {
        let Got::Forwarded {
            path,
            bytes,
            forward,
        } = alice.send(&mut world, PEER, data)
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
            (Direction::ToPeer, Framing::Indication)
        );
        assert!(!forward.dont_fragment);
    }
}

#[test]
fn data_indication_is_a_whole_message_for_every_length() {
    // RFC 8656 §11.3; attributes are padded with zeros (RFC 8489 §14).
    for (client, peer) in [("198.51.100.7:5000", PEER), ("[2001:db8::7]:5000", PEER)] {
        let mut world = World::new();
        let mut alice = Player::alice(client);
        let relayed = alice.allocate(&mut world);
        alice.ask(&mut world, create_permission(&[peer]));
        let mut transactions = std::collections::BTreeSet::new();
        for len in 0..70 {
            let data: Vec<u8> = (0..len).map(|n| n | 0x80).collect();
            let (path, bytes) = world.peer_sends(peer, relayed, &data).forwarded();
            assert_eq!((path, bytes.len() % 4), (alice.path, 0));
            let expected = Indication {
                peer: addr(peer),
                data: Some(data),
                icmp: None,
            };
            assert_eq!(Indication::parse(&bytes), expected);
            transactions.insert(bytes[8..20].to_vec());
        }
        assert_eq!(transactions.len(), 70, "transaction ids are random");
    }
}

#[test]
fn send_needs_a_permission_and_does_not_make_one() {
    // RFC 8656 §11.2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    assert_eq!(
        alice.send(&mut world, PEER, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
    assert_eq!(
        alice.send(&mut world, PEER, b"hi"),
        Got::Dropped(DropReason::NoPermission)
    );
    assert_eq!(world.relay.gauges().permissions, 0);
    assert_eq!(
        alice.send(&mut world, PEER_V6, b"hi"),
        Got::Dropped(DropReason::WrongFamily)
    );
    let mut stranger = Player::bob("198.51.100.8:5000");
    assert_eq!(
        stranger.send(&mut world, PEER, b"hi"),
        Got::Dropped(DropReason::NoAllocation)
    );
}

#[test]
fn incomplete_indications_are_silently_discarded() {
    // RFC 8656 §11.2.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    let whole = || {
        Ask::indication(Method::SEND)
            .peer(addr(PEER))
            .with(&Data(b"hi"))
    };
    for ask in [
        whole().without(AttributeType::DATA),
        whole().without(AttributeType::XOR_PEER_ADDRESS),
        whole()
            .without(AttributeType::XOR_PEER_ADDRESS)
            .raw(AttributeType::XOR_PEER_ADDRESS, &[0, 1]),
        whole().raw(AttributeType(0x7F00), b""),
        whole().raw(AttributeType::DONT_FRAGMENT, b"1234"),
    ] {
        let got = world.client_sends(alice.path, &ask.unsigned(TransactionId([1; 12])));
        assert_eq!(got, Got::Dropped(DropReason::BadIndication));
    }
    world
        .client_sends(alice.path, &whole().unsigned(TransactionId([1; 12])))
        .forwarded();
}

#[test]
fn dont_fragment_reaches_the_shell() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    let ask = Ask::indication(Method::SEND)
        .dont_fragment()
        .peer(addr(PEER))
        .with(&Data(b"hi"));
    let got = world.client_sends(alice.path, &ask.unsigned(TransactionId([1; 12])));
    let Got::Forwarded { forward, .. } = got else {
        panic!("not forwarded: {got:?}")
    };
    assert!(forward.dont_fragment);
}

#[test]
fn only_requests_and_two_indications_are_anything_to_a_server() {
    // RFC 8489 §6.3: a server that answers answers feeds a loop (CVE-2024-2169).
    let mut world = World::new();
    let alice = Player::alice("198.51.100.7:5000");
    for class in [stun_wire::Class::Success, stun_wire::Class::Error] {
        for method in [
            Method::BINDING,
            Method::ALLOCATE,
            Method::REFRESH,
            Method::SEND,
        ] {
            let message = Ask {
                class,
                ..Ask::request(method)
            }
            .unsigned(TransactionId([1; 12]));
            let got = world.client_sends(alice.path, &message);
            assert_eq!(got, Got::Dropped(DropReason::NotARequest));
        }
    }
    let data = Ask::indication(Method::DATA).unsigned(TransactionId([1; 12]));
    assert_eq!(
        world.client_sends(alice.path, &data),
        Got::Dropped(DropReason::NotARequest)
    );
    let keepalive = Ask::indication(Method::BINDING).unsigned(TransactionId([1; 12]));
    assert_eq!(world.client_sends(alice.path, &keepalive), Got::Absorbed);
}

#[test]
fn largest_payloads_fit_or_are_counted() {
    let mut world = World::with(|config| {
        config.quota.bandwidth_per_allocation = None;
        config.quota.bandwidth_per_user = None;
    });
    let mut alice = Player::alice("198.51.100.7:5000").over(Transport::Tcp);
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    let most = vec![1; 65_512]; // 65,535 less XOR-PEER-ADDRESS and DATA's header, whole words
    let (_, bytes) = world.peer_sends(PEER, relayed, &most).forwarded();
    assert_eq!(
        Indication::parse(&bytes).data.map(|data| data.len()),
        Some(most.len())
    );
    let over = world.peer_sends(PEER, relayed, &vec![1; 65_524]);
    assert_eq!(over, Got::Dropped(DropReason::TooLarge));
}

#[test]
fn icmp_error_reaches_the_client_that_may_know() {
    // RFC 8656 §11.5: only for peers with a permission.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = RelayAddr(alice.allocate(&mut world));
    let too_big = Icmp {
        icmp_type: 3,
        code: 4,
        data: 1_280,
    };
    let mut reply = Vec::new();
    let verdict =
        world
            .relay
            .handle_peer_error(world.now, relayed, addr(PEER), too_big, &mut reply);
    assert_eq!(verdict, Verdict::Dropped(DropReason::NoPermission));
    alice.ask(&mut world, create_permission(&[PEER]));
    let verdict =
        world
            .relay
            .handle_peer_error(world.now, relayed, addr(PEER), too_big, &mut reply);
    assert_eq!(verdict, Verdict::Reply { path: alice.path });
    let expected = Indication {
        peer: addr(PEER),
        data: None,
        icmp: Some(too_big),
    };
    assert_eq!(Indication::parse(&reply), expected);
}

#[test]
fn icmp_errors_of_other_kinds_are_not_told() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = RelayAddr(alice.allocate(&mut world));
    alice.ask(&mut world, create_permission(&[PEER]));
    let mut reply = Vec::new();
    for icmp_type in 0..=127 {
        let icmp = Icmp {
            icmp_type,
            code: 0,
            data: 0,
        };
        let relay = &mut world.relay;
        let verdict = relay.handle_peer_error(world.now, relayed, addr(PEER), icmp, &mut reply);
        let told = verdict == Verdict::Reply { path: alice.path };
        assert_eq!(told, [3, 11].contains(&icmp_type), "{icmp_type}");
        assert!(told || verdict == Verdict::Dropped(DropReason::Malformed));
    }
}

#[test]
fn traffic_is_counted_live() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    alice.send(&mut world, PEER, b"four").forwarded();
    alice.send(&mut world, PEER, b"").forwarded();
    world.peer_sends(PEER, relayed, b"seven..").forwarded();
    let _ = alice.send(&mut world, "20.30.40.51:6000", b"dropped is not carried");
    let mut expected = Traffic {
        to_peer_packets: 2,
        to_peer_bytes: 4,
        to_client_packets: 1,
        to_client_bytes: 7,
    };
    let traffic = |world: &World| world.relay.allocations().map(|a| a.traffic).next();
    assert_eq!(traffic(&world), Some(expected));
    // What a kernel fast path carried is added.
    world.relay.handle_usage(
        alice.path,
        Traffic {
            to_peer_packets: 10,
            to_peer_bytes: 99,
            ..Traffic::default()
        },
    );
    expected.to_peer_packets += 10;
    expected.to_peer_bytes += 99;
    assert_eq!(traffic(&world), Some(expected));
}
