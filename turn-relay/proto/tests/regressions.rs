//! Faults found in other servers and advisories that apply to this machine, each named after its
//! origin. Those that another topic proves are listed here with the test that does; the list over all
//! crates is in docs/security-goals.md.
//!
//! - CVE-2018-4058 (relay to loopback), CVE-2020-26262 (`0.0.0.0`, `::`), CVE-2026-27624 (mapped
//!   loopback), coturn cf4b4952 (6to4, NAT64, compatible), d49ee56a (link-local, ULA):
//!   `peer_policy::every_special_form_is_refused_and_ordinary_addresses_are_not`, and through every
//!   door `peer_policy::every_door_refuses_every_special_form`
//! - coturn 6c13608c (ranges compared byte by byte): `peer_policy::ipv6_agrees_with_a_big_integer_oracle`
//! - coturn 4d0b3c76 (bad prefix silently dropped): `config::tests::prefixes_parse_and_print`
//! - CVE-2025-69217 (guessable ports): `ports::tests::picks_are_spread_over_the_range`
//! - coturn ab762f33, pion, webrtc-rs (attributes behind the signature):
//!   `hostile::attributes_behind_the_signature_are_not_obeyed`
//! - coturn 142dd93b (a session per spoofed packet): `hostile::anonymous_requests_leave_nothing_behind`
//! - coturn 47ce433c, 20d8e382 (401 reflection):
//!   `hostile::flood_from_one_source_is_answered_with_a_quarter_of_its_bytes`,
//!   `hostile::unproven_answers_are_at_most_three_times_their_question`
//! - coturn 5ca467e7 (no cap on permissions): `quota::permissions_are_bounded_and_refreshing_is_not_adding`
//! - CVE-2024-2169 (loops of errors): `indications::only_requests_and_two_indications_are_anything_to_a_server`
//! - pion (a Connect to a closed port, and no Allocate is answered any more):
//!   `tcp_relaying::pion_connect_to_a_closed_port_is_447_and_the_next_allocate_is_answered`
//! - pion (checks of Send and CreatePermission missing in Connect):
//!   `tcp_relaying::connect_is_judged_as_datagrams_are`, `tcp_relaying::connect_without_a_signature_reaches_nobody`
//! - CVE-2018-4056, -4059 (an admin door reached through the relay): `peer_policy::listeners_of_this_host_are_no_peers`
//! - GHSA-5x2p-4vqj-f6m4 (a session per DTLS ClientHello): `anonymous_and_forged_requests_are_not_remembered`
//!   in no_allocation.rs
//! - pion (another user's request unanswered): `refresh::another_users_refresh_is_wrong_credentials`
//! - eturnal (no floor of 600 s in Refresh): `refresh::refresh_prolongs_within_the_bounds_of_allocate`
//! - pion, webrtc-rs, coturn, eturnal (private peers by default): `peer_policy::every_door_refuses_every_special_form`
//! - turn-rs (any nonce): `nonce::nonce_of_another_client_is_worth_nothing`
//! - turn-rs, eturnal, coturn (expired credentials): `auth::expired_credential_makes_nothing_and_prolongs_nothing`

use stun_wire::attribute::AddressFamily;
use stun_wire::{AttributeType, Message, TransactionId};
use turn_relay_proto::{DropReason, StaticUser, Transport};

use crate::harness::{
    Got, PEER, Player, World, allocate, channel_bind, create_permission, refresh,
};

#[test]
fn turn_rs_attribute_length_beyond_the_datagram_ends_nothing() {
    // One 28-byte datagram from anywhere ended the process.
    let mut world = World::new();
    let path = Player::alice("198.51.100.7:5000").path;
    for length in [1_u16, 5, 0x7FFF, 0xFFFC, 0xFFFF] {
        let mut datagram = allocate().unsigned(TransactionId([1; 12]));
        assert_eq!(datagram.len(), 28);
        datagram[22..24].copy_from_slice(&length.to_be_bytes());
        let got = world.client_sends(path, &datagram);
        assert!(
            matches!(got, Got::Dropped(DropReason::Malformed) | Got::Reply(_)),
            "{length}"
        );
    }
    Player::alice("198.51.100.8:5000").allocate(&mut world);
}

#[test]
fn pion_and_webrtc_rs_wrong_password_is_401_and_not_400() {
    let mut world = World::new();
    let mut wrong = Player::named("198.51.100.7:5000", "alice", "wrong");
    assert_eq!(wrong.ask(&mut world, allocate()).code, Some(401));
}

#[test]
fn firezone_webrtc_rs_ystreet_retransmitted_allocate_is_no_437() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate());
    let first = world.client_sends(alice.path, &request).reply();
    assert_eq!(world.client_sends(alice.path, &request).reply(), first);
}

#[test]
fn coturn_quota_and_five_tuple_are_free_with_the_response_to_refresh_0() {
    let mut world = World::with(|config| config.quota.allocations_per_user = 1);
    let mut alice = Player::alice("198.51.100.7:5000");
    for _ in 0..50 {
        alice.allocate(&mut world);
        assert_eq!(alice.ask(&mut world, refresh().lifetime(0)).code, None);
    }
    world.assert_empty();
}

#[test]
fn coturn_437_is_signed() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    for ask in [
        refresh(),
        create_permission(&[PEER]),
        channel_bind(0x4000, PEER),
    ] {
        let reply = alice.ask(&mut world, ask);
        assert_eq!(reply.code, Some(437));
        assert!(reply.is_signed_by(&alice.key()));
    }
}

#[test]
fn pion_and_webrtc_rs_channel_0_is_refused() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    assert_eq!(alice.ask(&mut world, channel_bind(0, PEER)).code, Some(400));
}

#[test]
fn firezone_dual_allocation_explains_the_half_that_failed() {
    let mut world = World::with(|config| config.relay_addresses.truncate(1));
    let reply = Player::alice("198.51.100.7:5000").ask(
        &mut world,
        allocate().additional_family(AddressFamily::Ipv6),
    );
    assert_eq!(
        (reply.code, reply.address_error),
        (None, Some((AddressFamily::Ipv6, 440)))
    );
}

#[test]
fn cve_2020_4067_padding_is_zero() {
    // Every byte of a response that is not a value is 0, whatever the buffer held before.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    for len in 1..16 {
        let (_, bytes) = world
            .peer_sends(PEER, relayed, &vec![0xEE; len])
            .forwarded();
        let data = bytes.len() - len.next_multiple_of(4);
        assert!(bytes[data + len..].iter().all(|byte| *byte == 0));
    }
    let challenge = alice.clone().greet(&mut World::new()).bytes;
    let nonce = challenge
        .windows(9)
        .position(|w| w == b"obMatJos2")
        .expect("a nonce");
    assert_eq!(
        challenge[nonce + 35],
        0,
        "35 characters and one byte of padding"
    );
}

#[test]
fn coturn_c85248fb_channel_data_of_65535_bytes() {
    // A 16-bit overflow desynchronised the stream; here lengths are usize.
    let mut world = World::with(|config| {
        config.quota.bandwidth_per_allocation = None;
        config.quota.bandwidth_per_user = None;
    });
    let mut alice = Player::alice("198.51.100.7:5000").over(Transport::Tcp);
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    let mut frame = vec![0x40, 0, 0xFF, 0xFF];
    frame.resize(4 + 65_536, 7); // data and one byte of padding
    let (_, bytes) = world.client_sends(alice.path, &frame).forwarded();
    assert_eq!(bytes.len(), 65_535);
    let (_, bytes) = world
        .peer_sends(PEER, relayed, &vec![7; 65_535])
        .forwarded();
    assert_eq!(
        (bytes.len(), &bytes[..4]),
        (4 + 65_536, &[0x40, 0, 0xFF, 0xFF][..])
    );
    assert_eq!(
        world.peer_sends(PEER, relayed, &vec![7; 65_536]),
        Got::Dropped(DropReason::TooLarge)
    );
}

#[test]
fn coturn_4adbd82e_even_port_without_reservation_leaks_no_port() {
    // security.md E5: 160 cycles over a 200-port range.
    let mut world = World::with(|config| config.ports = 50_000..=50_199);
    for cycle in 0..160 {
        let mut alice = Player::alice(&format!("198.51.100.7:{}", 5_000 + cycle));
        alice
            .ask(&mut world, allocate().even_port(cycle % 2 == 0))
            .relayed();
        assert_eq!(alice.ask(&mut world, refresh().lifetime(0)).code, None);
        world.wait_secs(30);
        world.assert_empty();
    }
}

#[test]
fn coturn_217_780_no_family_leaks_a_socket() {
    let mut world = World::with(|config| {
        config.limits.exempt = ["0.0.0.0/0", "::/0"]
            .map(|p| p.parse().expect("a prefix"))
            .to_vec();
    });
    for cycle in 0..50 {
        for client in ["198.51.100.7", "[2001:db8::7]"] {
            for ask in [
                allocate(),
                allocate().family(AddressFamily::Ipv6),
                allocate().additional_family(AddressFamily::Ipv6),
            ] {
                let mut alice = Player::alice(&format!("{client}:{}", 5_000 + cycle));
                assert_eq!(alice.ask(&mut world, ask).code, None);
                assert_eq!(alice.ask(&mut world, refresh().lifetime(0)).code, None);
                world.assert_empty();
            }
        }
    }
}

#[test]
fn pion_udp_and_tcp_checks_are_the_same() {
    // 0dafcab, 7a0272f: a check that exists for UDP and not for its TCP twin is the recurring bug.
    let story = |transport: Transport| {
        let mut world = World::new();
        let mut alice = Player::alice("198.51.100.7:5000").over(transport);
        let mut codes = vec![alice.ask(&mut world, refresh()).code];
        alice.allocate(&mut world);
        for ask in [
            create_permission(&["127.0.0.1:6000"]),
            create_permission(&["[::ffff:127.0.0.1]:6000"]),
            channel_bind(0x4000, "10.0.0.1:6000"),
            channel_bind(0x4000, "20.30.40.50:53"),
            channel_bind(0x5000, PEER),
            allocate(),
            refresh().raw(AttributeType(0x7F00), b""),
        ] {
            codes.push(alice.ask(&mut world, ask).code);
        }
        let mut bob = Player {
            user: "bob".into(),
            password: "builder".into(),
            ..alice.clone()
        };
        codes.push(bob.ask(&mut world, refresh()).code);
        let mut guesser = Player {
            password: "wrong".into(),
            ..alice
        };
        codes.push(guesser.ask(&mut world, refresh()).code);
        codes
    };
    let udp = story(Transport::Udp);
    assert_eq!(
        udp,
        [437, 403, 443, 403, 403, 400, 437, 420, 441, 401].map(Some)
    );
    assert_eq!(story(Transport::Tcp), udp);
    assert_eq!(story(Transport::Tls), udp);
}

#[test]
fn cve_2025_69217_nonces_ports_and_tokens_follow_no_pattern() {
    // `random()` was predictable. Two relays with other seeds share nothing; one relay repeats nothing.
    let harvest = |seed: u8| {
        let mut world = World::seeded(crate::harness::config(), [seed; 32]);
        let mut seen = Vec::new();
        for n in 0..8 {
            let mut alice = Player::alice(&format!("198.51.100.7:{}", 5_000 + n));
            let reply = alice.ask(&mut world, allocate().even_port(true));
            seen.push(format!("{:?}", reply.token.expect("a token")));
            seen.push(reply.relayed().port().to_string());
            let nonce = alice.nonce.expect("a nonce");
            seen.push(nonce[13..].to_owned());
        }
        seen
    };
    let (one, other) = (harvest(1), harvest(2));
    let distinct: std::collections::BTreeSet<_> = one.iter().chain(&other).collect();
    // 16 draws of 8,192 even ports may meet by chance; tokens and nonces may not.
    let met = one.len() + other.len() - distinct.len();
    assert!(
        met <= 2,
        "{met} of {} values came twice",
        one.len() + other.len()
    );
}

#[test]
fn cve_2026_40613_messages_are_read_at_every_alignment() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    for shift in 0..16 {
        let request = alice.sign(&create_permission(&[PEER, "20.30.40.51:6000"]).fingerprint());
        let shifted = [vec![0xEE; shift], request].concat();
        let reply = world.client_sends(alice.path, &shifted[shift..]).reply();
        assert_eq!(reply.code, None, "{shift} bytes into a buffer");
    }
}

#[test]
fn cve_2026_43994_access_tokens_are_not_decoded() {
    // A stack overflow before authentication. Here they are an unknown attribute, of any length.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    for len in [0, 1, 4, 255, 1_000, 30_000] {
        let ask = allocate().raw(AttributeType::ACCESS_TOKEN, &vec![0xFF; len]);
        let unsigned = ask.unsigned(TransactionId([1; 12]));
        assert_eq!(
            world.client_sends(alice.path, &unsigned).reply().code,
            Some(401)
        );
        let reply = alice.ask(&mut world, ask);
        assert_eq!((reply.code, reply.unknown), (Some(420), vec![0x001B]));
    }
}

#[test]
fn coturn_37df0513_mobility_ticket_moves_nothing() {
    // Tickets of others resumed their allocations. There is no mobility here: the attribute is ignored.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let ticket = AttributeType::MOBILITY_TICKET;
    let reply = alice.ask(&mut world, allocate().raw(ticket, b""));
    let relayed = reply.relayed();
    let granted = Message::parse(&reply.bytes).expect("whole");
    assert!(!granted.contains(ticket), "no ticket is given out");
    let mut elsewhere = Player::alice("198.51.100.8:5000");
    let reply = elsewhere.ask(&mut world, refresh().raw(ticket, &[7; 16]));
    assert_eq!(reply.code, Some(437));
    alice.ask(&mut world, create_permission(&[PEER]));
    let (path, _) = world.peer_sends(PEER, relayed, b"hi").forwarded();
    assert_eq!(path, alice.path);
}

#[test]
fn ghsa_v8hj_2xx7_xmp5_and_4g7c_p5wg_j4hp_user_names_are_only_compared() {
    // They were format strings and SQL.
    let names = [
        "%s%s%n%x",
        "'; DROP TABLE turnusers_lt; --",
        "a\0b\r\nc",
        "\u{202e}reversed",
        "1900000000:k1:%n",
        ":::",
    ];
    let mut world = World::with(|config| {
        config.users = names[..1]
            .iter()
            .map(|name| StaticUser {
                name: (*name).into(),
                password: "right".into(),
            })
            .collect();
    });
    for (n, name) in names.into_iter().enumerate() {
        let mut player = Player::named(&format!("198.51.100.{n}:5000"), name, "right");
        let expected = if n == 0 { None } else { Some(401) };
        assert_eq!(
            player.ask(&mut world, allocate()).code,
            expected,
            "{name:?}"
        );
    }
}

#[test]
fn coturn_eda6358d_peers_who_come_and_go_leave_nothing() {
    // A table of peers grew without end. Whoever a permission is not for is not remembered either.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    for n in 0..2_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let stranger = format!("20.{a}.{b}.{c}:6000");
        assert_eq!(
            world.peer_sends(&stranger, relayed, b"?"),
            Got::Dropped(DropReason::NoPermission)
        );
    }
    assert_eq!(world.relay.gauges().permissions, 0);
    for n in 0..1_000_u32 {
        let [.., b, c] = n.to_be_bytes();
        let peer = format!("20.40.{b}.{c}:6000");
        assert_eq!(
            alice.ask(&mut world, create_permission(&[&peer])).code,
            None
        );
        world.wait_secs(5); // 300 s: sixty at a time
        assert!(world.relay.gauges().permissions <= 61);
        if n % 100 == 0 {
            assert_eq!(alice.ask(&mut world, refresh()).code, None);
        }
    }
}
