//! Bounds: RFC 8656 §5 and §7.2 (486, 508), and what no RFC sets.

use turn_relay_proto::{DropReason, QuotaKind};

use crate::harness::{
    Got, PEER, Player, World, addr, allocate, channel_bind, create_permission, refresh,
};

fn rejections(world: &World, kind: QuotaKind) -> u64 {
    world
        .relay
        .counters()
        .quota_rejections()
        .find(|(k, _)| *k == kind)
        .map_or(0, |(_, n)| n)
}

#[test]
fn user_has_sixteen_allocations_and_others_are_served() {
    // security.md E3: one account takes not all ports.
    let mut world = World::new();
    let mut players = Vec::new();
    for n in 0..16 {
        let mut alice = Player::alice(&format!("198.51.100.{n}:5000"));
        alice.allocate(&mut world);
        players.push(alice);
    }
    let mut more = Player::alice("198.51.100.99:5000");
    let reply = more.ask(&mut world, allocate());
    assert_eq!((reply.code, reply.signature.is_some()), (Some(486), true));
    assert_eq!(rejections(&world, QuotaKind::User), 1);
    Player::bob("198.51.100.99:5001").allocate(&mut world);
    // Given back in the same tick.
    players[0].ask(&mut world, refresh().lifetime(0));
    more.allocate(&mut world);
}

#[test]
fn same_subject_is_the_same_user_whatever_its_expiry() {
    let mut world = World::with(|config| config.quota.allocations_per_user = 2);
    for (n, code) in [(0, None), (1, None), (2, Some(486))] {
        let mut carol = Player::minted(&format!("198.51.100.{n}:5000"), "carol", 1_000 + n);
        assert_eq!(carol.ask(&mut world, allocate()).code, code);
    }
}

#[test]
fn address_has_so_many_allocations() {
    let mut world = World::with(|config| config.quota.allocations_per_address = 2);
    for (n, code) in [(0, None), (1, None), (2, Some(486))] {
        let mut player = Player::minted(
            &format!("198.51.100.7:{}", 5_000 + n),
            &format!("u{n}"),
            600,
        );
        assert_eq!(player.ask(&mut world, allocate()).code, code);
    }
    Player::alice("198.51.100.8:5000").allocate(&mut world);
    // An IPv6 customer has a /64 at least.
    for (n, code) in [(0, None), (1, None), (2, Some(486))] {
        let mut player = Player::minted(&format!("[2001:db8::{n}]:5000"), &format!("v{n}"), 600);
        assert_eq!(player.ask(&mut world, allocate()).code, code);
    }
    assert_eq!(rejections(&world, QuotaKind::Address), 2);
}

#[test]
fn last_ports_are_for_users_who_have_none() {
    let mut world = World::with(|config| {
        config.ports = 50_000..=50_019;
        config.relay_addresses.truncate(1);
        config.quota.allocations_per_user = 100;
    });
    let mut hers = 0;
    for n in 0..30 {
        let mut alice = Player::alice(&format!("198.51.100.{n}:5000"));
        match alice.ask(&mut world, allocate()).code {
            None => hers += 1,
            code => assert_eq!(code, Some(508)),
        }
    }
    assert_eq!(
        hers, 19,
        "of twenty, two are kept, and the second is the last to go to her"
    );
    Player::bob("198.51.101.1:5000").allocate(&mut world);
    let late = Player::minted("198.51.101.2:5000", "late", 600).ask(&mut world, allocate());
    assert_eq!(late.code, Some(508), "all are gone");
    assert!(rejections(&world, QuotaKind::Total) > 0);
}

#[test]
fn relay_has_so_many_allocations() {
    let mut world = World::with(|config| config.quota.allocations = 1);
    Player::alice("198.51.100.7:5000").allocate(&mut world);
    let reply = Player::bob("198.51.100.8:5000").ask(&mut world, allocate());
    assert_eq!(reply.code, Some(508));
}

#[test]
fn permissions_are_bounded_and_refreshing_is_not_adding() {
    // security.md E4: 4.6.1 takes 3,000 and more.
    let mut world = World::with(|config| config.quota.permissions_per_allocation = 4);
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let peers: Vec<String> = (1..=5).map(|n| format!("20.30.40.{n}:6000")).collect();
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    assert_eq!(
        alice.ask(&mut world, create_permission(&peers)).code,
        Some(508)
    );
    assert_eq!(world.relay.gauges().permissions, 0);
    assert_eq!(
        alice.ask(&mut world, create_permission(&peers[..4])).code,
        None
    );
    assert_eq!(
        alice.ask(&mut world, create_permission(&peers[..4])).code,
        None
    );
    assert_eq!(
        alice.ask(&mut world, create_permission(&peers[4..])).code,
        Some(508)
    );
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4000, peers[4])).code,
        Some(508)
    );
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4000, peers[3])).code,
        None
    );
    assert_eq!(rejections(&world, QuotaKind::Permissions), 3);
    world.wait_secs(301);
    assert_eq!(
        alice.ask(&mut world, create_permission(&peers[4..])).code,
        None
    );
}

#[test]
fn channels_are_bounded() {
    let mut world = World::with(|config| config.quota.channels_per_allocation = 2);
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    for (number, peer, code) in [
        (0x4000, "20.30.40.50:6000", None),
        (0x4001, "20.30.40.50:6001", None),
        (0x4002, "20.30.40.50:6002", Some(508)),
        (0x4001, "20.30.40.50:6001", None),
    ] {
        assert_eq!(alice.ask(&mut world, channel_bind(number, peer)).code, code);
    }
    assert_eq!(rejections(&world, QuotaKind::Channels), 1);
}

#[test]
fn bandwidth_of_an_allocation_is_bounded_each_way() {
    let mut world = World::with(|config| config.quota.bandwidth_per_allocation = Some(100_000));
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    world.peer_sends(PEER, relayed, b"hi").forwarded();
    let (mut up, mut down) = (0, 0);
    for _ in 0..2_000 {
        world.now.mono += std::time::Duration::from_millis(1);
        for _ in 0..2 {
            up += u32::from(matches!(
                alice.send_channel(&mut world, 0x4000, &[0; 1_000]),
                Got::Forwarded { .. }
            ));
            down += u32::from(matches!(
                world.peer_sends(PEER, relayed, &[0; 1_000]),
                Got::Forwarded { .. }
            ));
        }
    }
    for carried in [up, down] {
        assert!(
            (298..=301).contains(&carried),
            "100 kB at once and 100 kB/s for two seconds: {carried}"
        );
    }
    assert_eq!(
        world.tally.dropped[&DropReason::Bandwidth],
        rejections(&world, QuotaKind::Bandwidth)
    );
}

#[test]
fn bandwidth_of_a_user_is_shared_by_its_allocations() {
    let mut world = World::with(|config| config.quota.bandwidth_per_user = Some(100_000));
    let mut carried = 0;
    let mut players: Vec<Player> = (0..4)
        .map(|n| Player::alice(&format!("198.51.100.{n}:5000")))
        .collect();
    for player in &mut players {
        let relayed = player.allocate(&mut world);
        player.ask(&mut world, channel_bind(0x4000, PEER));
        world.peer_sends(PEER, relayed, b"hi").forwarded();
    }
    for player in &mut players {
        for _ in 0..100 {
            let got = player.send_channel(&mut world, 0x4000, &[0; 1_000]);
            carried += u32::from(matches!(got, Got::Forwarded { .. }));
        }
    }
    assert!((99..=101).contains(&carried), "{carried}");
}

#[test]
fn silent_peer_gets_twenty_packets_a_second_until_it_answers() {
    // security.md 5.1: the relay is no scanner or flooder.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    let send = |world: &mut World, alice: &mut Player| {
        let mut passed = 0;
        for _ in 0..100 {
            world.now.mono += std::time::Duration::from_millis(10);
            passed += u32::from(matches!(
                alice.send_channel(world, 0x4000, b"?"),
                Got::Forwarded { .. }
            ));
        }
        passed
    };
    let first = send(&mut world, &mut alice);
    assert!(
        (39..=40).contains(&first),
        "twenty at once and twenty a second: {first}"
    );
    assert_eq!(
        alice.send(&mut world, PEER, b"?"),
        Got::Dropped(DropReason::SilentPeer)
    );
    world.peer_sends(PEER, relayed, b"!").forwarded();
    assert_eq!(send(&mut world, &mut alice), 100);
}

#[test]
fn lists_and_gauges_agree() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER, "20.30.40.51:1"]));
    alice.ask(&mut world, channel_bind(0x4000, PEER));
    let gauges = world.relay.gauges();
    assert_eq!(
        (
            gauges.allocations,
            gauges.permissions,
            gauges.channels,
            gauges.users
        ),
        (1, 2, 1, 1)
    );
    let view = world.relay.allocations().next().expect("one");
    assert_eq!(
        (view.client, view.user, view.permissions, view.channels),
        (alice.path, "alice", 2, 1)
    );
    assert_eq!(view.relayed[0].map(|addr| addr.0), Some(relayed));
    assert_eq!((view.expires - world.now.mono).as_secs(), 600);
    assert_eq!(view.client.remote, addr("198.51.100.7:5000"));
}
