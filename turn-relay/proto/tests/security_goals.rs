//! Figures that the relay promises (docs/security-goals.md) and no other topic shows.

use std::collections::BTreeMap;
use std::time::Duration;

use stun_wire::attribute::AddressFamily;
use stun_wire::{AttributeType, Method, TransactionId};
use turn_relay_proto::{AuthFailure, DropReason, Realm};

use crate::harness::{
    Ask, Got, PEER, Player, Reply, World, allocate, binding, channel_bind, create_permission,
    refresh,
};

const TX: TransactionId = TransactionId([0x6B; 12]);

#[test]
fn a2_every_unproven_answer_is_small_whatever_is_asked_and_however() {
    let mut world = World::with(|config| {
        config.limits.exempt = ["0.0.0.0/0", "::/0"]
            .map(|p| p.parse().expect("a prefix"))
            .to_vec();
        config.realm = Realm::new("twelve-bytes").expect("the longest realm");
    });
    let mut worst = BTreeMap::new();
    for client in ["198.51.100.7:5000", "[2001:db8::7]:5000"] {
        let mut owner = Player::alice(client);
        owner.realm = "twelve-bytes".into();
        owner.allocate(&mut world);
        for client in [client, "198.51.100.9:5000", "[2001:db8::9]:5000"] {
            let mut stranger = Player::named(client, "alice", "wrong");
            stranger.realm = "twelve-bytes".into();
            for ask in shapes() {
                let unsigned = ask.unsigned(TX);
                let with_fingerprint = ask.clone().fingerprint().unsigned(TX);
                stranger.nonce = Some("obMatJos2gAAAAAAAAAAAAAAAAAAAAAAAAA".into());
                let foreign_nonce = stranger.sign(&ask);
                stranger.nonce = None;
                let no_nonce = stranger.sign(&ask);
                for request in [unsigned, with_fingerprint, foreign_nonce, no_nonce] {
                    let Got::Reply(bytes) = world.client_sends(stranger.path, &request) else {
                        continue;
                    };
                    let code = Reply::parse(&bytes).code;
                    let hundredths = bytes.len() * 100 / request.len();
                    let most = match code {
                        Some(401 | 438) => 300,
                        Some(_) => 150,
                        None if stranger.path.remote.is_ipv4() => 160,
                        None => 220,
                    };
                    assert!(
                        hundredths <= most,
                        "{code:?}: {} bytes for {}",
                        bytes.len(),
                        request.len()
                    );
                    let seen = worst.entry(code).or_insert(0);
                    *seen = hundredths.max(*seen);
                }
            }
        }
    }
    let codes: Vec<_> = worst.keys().copied().collect();
    let expected = [None, Some(400), Some(401), Some(420), Some(437), Some(438)];
    assert_eq!(codes, expected, "every kind of answer was looked at");
}

/// Requests of all methods in all sizes from a bare header on.
fn shapes() -> Vec<Ask> {
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::CONNECT,
        Method::CONNECTION_BIND,
    ];
    let padded = |method, len| {
        let software = AttributeType(0x8022);
        let ask = Ask::request(method);
        match len {
            None => ask,
            Some(len) => ask.raw(software, &vec![b'x'; len]),
        }
    };
    let mut all = vec![
        allocate(),
        refresh().lifetime(0),
        create_permission(&[PEER]),
        channel_bind(0x4000, PEER),
    ];
    for method in methods {
        all.extend([None, Some(0), Some(1), Some(8), Some(60)].map(|len| padded(method, len)));
        let mut ask = Ask::request(method);
        for n in 0..10 {
            ask = ask.raw(AttributeType(0x7F00 + n), b"");
            all.push(ask.clone());
        }
    }
    all
}

#[test]
fn f3_malformed_attributes_are_refused_whole() {
    let mut world = World::with(|config| {
        config.limits.exempt = vec!["198.51.100.0/24".parse().expect("a prefix")];
    });
    let mut stranger = Player::alice("198.51.100.8:5000");
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    let before = world.relay.gauges();
    let mut refused = 0;

    let numbers = AttributeType::LIFETIME;
    for (kind, lengths) in [
        (numbers, &[0, 1, 2, 3, 5, 8][..]),
        (AttributeType::EVEN_PORT, &[0, 2, 4]),
        (AttributeType::RESERVATION_TOKEN, &[0, 1, 4, 7, 9, 16]),
        (AttributeType::REQUESTED_ADDRESS_FAMILY, &[0, 1, 2, 3, 5]),
        (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[0, 1, 2, 3, 5]),
        (AttributeType::DONT_FRAGMENT, &[1, 4]),
    ] {
        for len in lengths {
            let ask = allocate().raw(kind, &vec![1; *len]);
            let code = stranger.ask(&mut world, ask).code;
            assert_eq!(code, Some(400), "Allocate, {kind:?} of {len}");
            refused += 1;
        }
    }
    for len in [0, 1, 2, 3, 5, 8] {
        let ask = Ask::request(Method::ALLOCATE);
        let ask = ask.raw(AttributeType::REQUESTED_TRANSPORT, &vec![17; len]);
        assert_eq!(stranger.ask(&mut world, ask).code, Some(400), "{len}");
        let ask = refresh().raw(numbers, &vec![0; len]);
        assert_eq!(alice.ask(&mut world, ask).code, Some(400), "{len}");
        refused += 2;
    }
    for family in [0, 3, 4, 255] {
        let value = [family, 0, 0, 0];
        let ask = allocate().raw(AttributeType::REQUESTED_ADDRESS_FAMILY, &value);
        assert_eq!(stranger.ask(&mut world, ask).code, Some(440), "{family}");
        let ask = refresh().raw(AttributeType::REQUESTED_ADDRESS_FAMILY, &value);
        assert_eq!(alice.ask(&mut world, ask).code, Some(443), "{family}");
        refused += 2;
    }
    let peer = AttributeType::XOR_PEER_ADDRESS;
    for value in broken_addresses() {
        let ask = Ask::request(Method::CREATE_PERMISSION).raw(peer, &value);
        assert_eq!(alice.ask(&mut world, ask).code, Some(400), "{value:?}");
        // All or nothing: an ordinary peer beside it gets no permission either.
        let ask = create_permission(&["20.30.40.99:6000"]).raw(peer, &value);
        assert_eq!(alice.ask(&mut world, ask).code, Some(400), "{value:?}");
        let ask = Ask::request(Method::CHANNEL_BIND).channel(0x4000);
        let ask = ask.raw(peer, &value);
        assert_eq!(alice.ask(&mut world, ask).code, Some(400), "{value:?}");
        let send = Ask::indication(Method::SEND).raw(peer, &value);
        let send = send.raw(AttributeType::DATA, b"?").unsigned(TX);
        let got = world.client_sends(alice.path, &send);
        assert_eq!(got, Got::Dropped(DropReason::BadIndication), "{value:?}");
        refused += 4;
    }
    for len in [0, 1, 2, 3, 5, 8] {
        let ask = create_permission(&[]).raw(AttributeType::CHANNEL_NUMBER, &vec![0x40; len]);
        let ask = Ask {
            method: Method::CHANNEL_BIND,
            ..ask.peer(crate::harness::addr(PEER))
        };
        assert_eq!(alice.ask(&mut world, ask).code, Some(400), "{len}");
        refused += 1;
    }
    assert!(refused >= 72, "{refused}");
    assert_eq!(world.relay.gauges(), before);
    assert_eq!(world.tally.forwarded, 0);
}

/// Values of XOR-PEER-ADDRESS that are none: lengths, families, and lengths of another family.
fn broken_addresses() -> Vec<Vec<u8>> {
    let lengths = [0, 1, 4, 7, 9, 12, 19, 21];
    let mut values: Vec<Vec<u8>> = lengths
        .map(|len| {
            let mut value = vec![0x21; len];
            if let Some(family) = value.get_mut(1) {
                *family = 1;
            }
            value
        })
        .to_vec();
    for family in [0, 3, 255] {
        values.push(vec![0, family, 0x21, 0x12, 1, 2, 3, 4]);
    }
    values.push(vec![0, 2, 0x21, 0x12, 1, 2, 3, 4]);
    values.push([&[0, 1, 0x21, 0x12][..], &[5; 16]].concat());
    values
}

#[test]
fn f5_a_hundred_guessers_are_judged_less_than_a_hundred_times_a_second() {
    const SECONDS: u64 = 10;
    let mut world = World::new();
    world.unchecked = true;
    let mut guessers: Vec<Player> = (0..100_u8)
        .map(|n| Player::alice(&format!("11.{n}.0.1:5000")))
        .collect();
    for guesser in &mut guessers {
        guesser.greet(&mut world);
    }
    for round in 0..SECONDS * 20 {
        for guesser in &mut guessers {
            guesser.password = format!("guess{round}");
            let request = guesser.sign(&allocate());
            let _ = world.client_sends(guesser.path, &request);
        }
        world.wait(Duration::from_millis(50));
    }
    let failures = world.relay.counters().auth_failures();
    let judged: u64 = failures
        .filter(|(reason, _)| *reason == AuthFailure::BadIntegrity)
        .map(|(_, count)| count)
        .sum();
    assert!(judged >= 500, "the first five of each: {judged}");
    assert!(judged <= SECONDS * 100, "{judged} in {SECONDS} s");
    Player::alice("198.51.100.7:5000").allocate(&mut world);
}

#[test]
fn e3_one_account_leaves_ports_to_others() {
    // With nothing configured: 16 allocations, then 486.
    let mut world = World::with(|config| {
        config.limits.exempt = vec!["0.0.0.0/0".parse().expect("a prefix")];
    });
    let mut granted = 0;
    for n in 0..200 {
        let mut greedy = Player::alice(&format!("11.{n}.0.1:5000"));
        match greedy.ask(&mut world, allocate()).code {
            None => granted += 1,
            code => assert_eq!(code, Some(486)),
        }
    }
    assert_eq!(granted, 16);
    Player::bob("198.51.100.7:5000").allocate(&mut world);
}

#[test]
fn e4_one_allocation_has_256_permissions() {
    let mut world = World::new();
    let mut greedy = Player::alice("198.51.100.7:5000");
    greedy.ask(
        &mut world,
        allocate().additional_family(AddressFamily::Ipv6),
    );
    let mut granted = 0;
    for n in 0..3_000_u32 {
        let [.., b, c] = n.to_be_bytes();
        let peer = if n % 2 == 0 {
            format!("20.30.{b}.{c}:6000")
        } else {
            format!("[2a00:1:2::{n:x}]:6000")
        };
        match greedy.ask(&mut world, create_permission(&[&peer])).code {
            None => granted += 1,
            code => assert_eq!(code, Some(508)),
        }
    }
    assert_eq!((granted, world.relay.gauges().permissions), (256, 256));
}

#[test]
fn a1_binding_costs_at_most_its_factor() {
    let mut world = World::new();
    for (client, len) in [("198.51.100.7:5000", 32), ("[2001:db8::7]:5000", 44)] {
        let path = Player::alice(client).path;
        let reply = world.client_sends(path, &binding().unsigned(TX)).reply();
        assert_eq!(reply.bytes.len(), len, "1.6 and 2.2 times 20 bytes");
        let request = binding().fingerprint().unsigned(TX);
        let reply = world.client_sends(path, &request).reply();
        assert_eq!((request.len(), reply.bytes.len()), (28, len + 8));
    }
}
