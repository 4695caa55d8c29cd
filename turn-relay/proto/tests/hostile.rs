//! What strangers send: garbage, truncation, floods, and the smallest questions with the largest
//! answers. security.md A, C, E, F.

use std::time::Duration;

use stun_wire::{AttributeType, Message, Method, TransactionId};
use turn_relay_proto::{DropReason, Gauges};

use crate::harness::{
    Ask, Got, PEER, Player, World, allocate, binding, channel_bind, create_permission, refresh,
};

const TX: TransactionId = TransactionId([0x5A; 12]);

#[test]
fn garbage_is_dropped_by_its_kind() {
    let mut world = World::new();
    let path = Player::alice("198.51.100.7:5000").path;
    let mut stun = binding().unsigned(TX);
    stun[7] ^= 1;
    for (bytes, reason) in [
        (&b""[..], DropReason::NotTurn),
        (b"\0", DropReason::NotTurn),
        (b"GET / HTTP/1.1\r\n\r\n", DropReason::NoAllocation), // "GE" reads as channel 0x4745
        (
            &[0x16, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            DropReason::NotTurn,
        ), // DTLS
        (&[0x80; 40], DropReason::NotTurn),                    // RTP
        (&[0xC3; 1_200], DropReason::NotTurn),                 // QUIC
        (&[0xFF; 65_535], DropReason::NotTurn),
        (&stun, DropReason::NotTurn), // no cookie: RFC 3489 is not spoken
    ] {
        let shown = &bytes[..bytes.len().min(8)];
        let got = world.client_sends(path, bytes);
        if bytes.starts_with(b"GET") {
            assert_eq!(
                got,
                Got::Dropped(DropReason::Malformed),
                "its length is beyond the datagram"
            );
        } else {
            assert_eq!(got, Got::Dropped(reason), "{shown:?}");
        }
    }
    world.assert_empty();
}

#[test]
fn every_truncation_of_a_good_request_is_dropped_or_refused() {
    let mut world = World::with(|config| {
        config.limits.exempt = vec!["198.51.100.0/24".parse().expect("a prefix")];
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate().lifetime(900).fingerprint());
    for len in 0..request.len() {
        let got = world.client_sends(alice.path, &request[..len]);
        assert!(matches!(got, Got::Dropped(_)), "{len} bytes: {got:?}");
    }
    // With a length field that is made right, what is left is not signed or not well-formed.
    // FINGERPRINT alone may go: it stands behind the signature.
    for len in (20..request.len() - 8).step_by(4) {
        let mut cut = request[..len].to_vec();
        let body = u16::try_from(len - 20).expect("short").to_be_bytes();
        cut[2..4].copy_from_slice(&body);
        match world.client_sends(alice.path, &cut) {
            Got::Dropped(_) => {}
            got => assert!(matches!(got.reply().code, Some(400 | 401)), "{len} bytes"),
        }
    }
    world.assert_empty();
    assert_eq!(world.client_sends(alice.path, &request).reply().code, None);
}

#[test]
fn every_flipped_bit_of_a_good_request_makes_nothing() {
    let mut world = World::with(|config| {
        config.limits.exempt = vec!["198.51.100.0/24".parse().expect("a prefix")];
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate().lifetime(900));
    for bit in 0..request.len() * 8 {
        let mut flipped = request.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let got = world.client_sends(alice.path, &flipped);
        if let Got::Reply(bytes) = got {
            let reply = crate::harness::Reply::parse(&bytes);
            let refused = matches!(reply.code, Some(400 | 401 | 438));
            // One bit makes it a Binding, which needs no signature.
            assert!(
                refused || reply.method == Method::BINDING,
                "bit {bit}: {reply:?}"
            );
        }
    }
    let limit = world.relay.gauges().ports_limit;
    assert_eq!(
        world.relay.gauges(),
        Gauges {
            ports_limit: limit,
            ..Gauges::default()
        }
    );
}

#[test]
fn attributes_behind_the_signature_are_not_obeyed() {
    // coturn ab762f33, pion, webrtc-rs, turn-rs: an on-path attacker appends LIFETIME=0, a peer, a
    // family. RFC 8489 §14.5: all but FINGERPRINT and -SHA256 is ignored.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let append = |request: &[u8], kind: AttributeType, value: &[u8]| {
        let mut longer = request.to_vec();
        longer.extend_from_slice(&kind.0.to_be_bytes());
        longer.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
        longer.extend_from_slice(value);
        let body = u16::try_from(longer.len() - 20)
            .expect("short")
            .to_be_bytes();
        longer[2..4].copy_from_slice(&body);
        longer
    };
    let signed = alice.sign(&refresh());
    let forged = append(&signed, AttributeType::LIFETIME, &[0; 4]);
    let reply = world.client_sends(alice.path, &forged).reply();
    assert_eq!(
        (reply.code, reply.lifetime),
        (None, Some(600)),
        "refreshed, not deleted"
    );

    let signed = alice.sign(&create_permission(&[PEER]));
    let other_peer = Ask::request(Method::CREATE_PERMISSION)
        .peer(crate::harness::addr("20.30.40.99:6000"))
        .unsigned(TransactionId(
            Message::parse(&signed).expect("whole").transaction_id().0,
        ));
    let forged = append(&signed, AttributeType::XOR_PEER_ADDRESS, &other_peer[24..]);
    assert_eq!(world.client_sends(alice.path, &forged).reply().code, None);
    assert_eq!(world.relay.gauges().permissions, 1, "the signed one");
    let got = alice.send(&mut world, "20.30.40.99:6000", b"?");
    assert_eq!(got, Got::Dropped(DropReason::NoPermission));

    // A required attribute that nobody knows is ignored there as well.
    let forged = append(&alice.sign(&refresh()), AttributeType(0x7F00), b"");
    assert_eq!(world.client_sends(alice.path, &forged).reply().code, None);
}

#[test]
fn unproven_answers_are_at_most_three_times_their_question() {
    // security.md A1, A2.
    let mut world = World::with(|config| {
        config.limits.exempt = ["0.0.0.0/0", "::/0"]
            .map(|p| p.parse().expect("a prefix"))
            .to_vec();
        config.realm = turn_relay_proto::Realm::new("twelve-bytes").expect("the longest realm");
    });
    let methods = [
        Method::BINDING,
        Method::ALLOCATE,
        Method::REFRESH,
        Method::CREATE_PERMISSION,
        Method::CHANNEL_BIND,
        Method::CONNECT,
        Method::CONNECTION_BIND,
    ];
    let mut worst = 0.0_f64;
    for client in ["198.51.100.7:5000", "[2001:db8::7]:5000"] {
        let player = Player::alice(client);
        for method in methods {
            for extra in 0..40 {
                let mut ask = Ask::request(method);
                if extra % 2 == 1 && method == Method::ALLOCATE {
                    ask = ask.transport(17);
                }
                for n in 0..extra / 4 {
                    ask = ask.raw(AttributeType(0x7F00 + n), b"");
                }
                for ask in [ask.clone(), ask.fingerprint()] {
                    let request = ask.unsigned(TX);
                    if let Got::Reply(reply) = world.client_sends(player.path, &request) {
                        let factor = f64::from(u32::try_from(reply.len()).expect("short"))
                            / f64::from(u32::try_from(request.len()).expect("short"));
                        assert!(factor <= 3.0, "{method:?} of {}: {factor}", request.len());
                        worst = worst.max(factor);
                    }
                }
            }
        }
        let reply = world
            .client_sends(player.path, &binding().unsigned(TX))
            .reply();
        assert_eq!(
            reply.bytes.len(),
            if player.path.remote.is_ipv4() { 32 } else { 44 }
        );
        assert_eq!(reply.mapped, Some(player.path.remote));
    }
    assert!(
        worst > 2.9,
        "the test looked at the wrong requests: {worst}"
    );
}

#[test]
fn flood_from_one_source_is_answered_with_a_quarter_of_its_bytes() {
    // security.md A3: 3,000 in 2 s.
    for ask in [binding(), allocate()] {
        let mut world = World::new();
        let player = Player::alice("198.51.100.7:5000");
        let request = ask.unsigned(TX);
        let (mut sent, mut answered) = (0, 0);
        for _ in 0..3_000 {
            world.now.mono += Duration::from_micros(667);
            sent += request.len();
            match world.client_sends(player.path, &request) {
                Got::Reply(reply) => answered += reply.len(),
                got => assert_eq!(got, Got::Dropped(DropReason::AnswerLimited)),
            }
        }
        assert!(answered * 4 <= sent, "{answered} of {sent} bytes");
        // A neighbour's first question is answered meanwhile.
        Player::bob("198.51.101.8:5000").allocate(&mut world);
    }
}

#[test]
fn five_tuple_with_an_allocation_is_no_reflector_either() {
    // security.md A2, A3: who writes a player's address has the player answered as little as anybody.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let (mut sent, mut answered) = (0, 0);
    for n in 0..3_000_usize {
        world.now.mono += Duration::from_micros(667);
        let ask = [refresh(), allocate(), refresh().lifetime(0)][n % 3].clone();
        let request = ask.unsigned(TX);
        sent += request.len();
        match world.client_sends(alice.path, &request) {
            Got::Reply(reply) => {
                assert!(reply.len() <= 3 * request.len(), "{}", request.len());
                assert_eq!(crate::harness::Reply::parse(&reply).code, Some(401));
                answered += reply.len();
            }
            got => assert_eq!(got, Got::Dropped(DropReason::AnswerLimited)),
        }
    }
    assert!(answered * 4 <= sent, "{answered} of {sent} bytes");
    assert_eq!(
        alice.ask_once(&mut world, &refresh()).code,
        None,
        "a signature is proof"
    );
}

#[test]
fn anonymous_requests_leave_nothing_behind() {
    // security.md E1: 4.6.1 keeps 19.7 kB for 60 s.
    let mut world = World::new();
    for n in 0..20_000_u32 {
        let [a, b, c, _] = (n << 8).to_be_bytes();
        let client = format!("{}.{b}.{c}.7:5000", 11 + a);
        let path = Player::alice(&client).path;
        let mut reply = Vec::new();
        let _ = world
            .relay
            .handle_client(world.now, path, &allocate().unsigned(TX), &mut reply);
    }
    world.drain();
    world.assert_empty();
}

#[test]
fn forged_control_messages_change_nothing() {
    // security.md F2: unsigned, signed by nobody, with the signature of another message, and signed
    // by another user.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    let before = world.relay.gauges();
    let mut forger = Player {
        password: "guessed".into(),
        ..alice.clone()
    };
    let mut bob = Player {
        user: "bob".into(),
        password: "builder".into(),
        ..alice.clone()
    };
    let binding = alice.sign(&binding());
    let (_, signature) = binding.split_at(binding.len() - 20);
    let mut refused = 0;
    for ask in [
        refresh().lifetime(0),
        refresh(),
        create_permission(&["20.30.40.99:6000"]),
        channel_bind(0x4001, "20.30.40.99:6000"),
        channel_bind(0x4000, "20.30.40.99:6000"),
        allocate(),
    ] {
        let mut transplanted = alice.sign(&ask);
        let end = transplanted.len() - 20;
        transplanted[end..].copy_from_slice(signature);
        for forged in [ask.unsigned(TX), forger.sign(&ask), transplanted] {
            let reply = world.client_sends(alice.path, &forged).reply();
            assert_eq!((reply.code, reply.signature), (Some(401), None));
            refused += 1;
        }
        let reply = bob.ask_once(&mut world, &ask);
        assert!(matches!(reply.code, Some(437 | 441)), "{reply:?}");
        refused += 1;
    }
    assert!(refused >= 21);
    assert_eq!(world.relay.gauges(), before);
    world.peer_sends(PEER, relayed, b"hi").forwarded();
}

#[test]
fn malformed_flood_does_not_disturb_the_honest() {
    // security.md C: no answer, no state, no budget of anybody spent.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    let mut malformed = allocate().unsigned(TX);
    malformed[22] = 0xFF; // an attribute longer than the message
    let replies = world.tally.replied;
    let mut reply = Vec::new();
    for n in 0..100_000_u32 {
        let path = Player::alice(&format!("203.0.113.9:{}", 1_024 + n % 60_000)).path;
        let _ = world
            .relay
            .handle_client(world.now, path, &malformed, &mut reply);
        assert!(reply.is_empty());
    }
    assert_eq!(world.tally.replied, replies);
    alice.send_channel(&mut world, 0x4000, b"hi").forwarded();
    world.peer_sends(PEER, relayed, b"hi").forwarded();
    Player::bob("203.0.113.9:1024").allocate(&mut world);
}

#[test]
fn verdicts_add_up() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    alice.send_channel(&mut world, 0x4000, b"hi").forwarded();
    let _ = world.peer_sends("20.30.40.99:6000", relayed, b"no");
    let _ = world.client_sends(alice.path, b"");
    let tally = &world.tally;
    let dropped: u64 = tally.dropped.values().sum();
    assert_eq!(
        tally.received,
        tally.forwarded + tally.replied + tally.absorbed + dropped
    );
    let requests: u64 = world.relay.counters().requests().map(|(_, _, n)| n).sum();
    let responses: u64 = world.relay.counters().responses().map(|(_, _, n)| n).sum();
    assert_eq!(
        (requests, responses),
        (3, 3),
        "challenge, Allocate, ChannelBind"
    );
}
