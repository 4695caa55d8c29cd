//! What an operator does: drain, reload, kick.

use std::time::Duration;

use turn_relay_proto::{
    AllocationHandle, AuthFailure, DropReason, EndReason, Event, HandleError, Realm, StaticUser,
};

use crate::harness::{
    Got, PEER, Player, World, addr, allocate, channel_bind, config, create_permission, refresh,
};

fn reasons(world: &mut World) -> Vec<EndReason> {
    let events = world.take_events().into_iter();
    let ends = events.filter_map(|event| match event {
        Event::AllocationEnded { reason, .. } => Some(reason),
        _ => None,
    });
    ends.collect()
}

#[test]
fn draining_refuses_new_allocations_and_keeps_the_old() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate());
    let first = world.client_sends(alice.path, &request).reply();
    world.relay.set_draining(true);
    assert_eq!(
        Player::bob("198.51.100.8:5000")
            .ask(&mut world, allocate())
            .code,
        Some(508)
    );
    assert_eq!(alice.ask(&mut world, refresh()).code, None);
    assert_eq!(alice.ask(&mut world, channel_bind(0x4000, PEER)).code, None);
    assert_eq!(
        world.client_sends(alice.path, &request).reply(),
        first,
        "a lost response is repeated"
    );
    world.relay.set_draining(false);
    Player::bob("198.51.100.8:5000").allocate(&mut world);
}

#[test]
fn draining_sends_clients_to_the_alternate_server() {
    // RFC 8489 §10: 300 with ALTERNATE-SERVER, signed.
    let mut world = World::with(|config| config.alternate = Some(addr("203.0.113.20:3478")));
    world.relay.set_draining(true);
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate());
    assert_eq!(
        (reply.code, reply.alternate),
        (Some(300), Some(addr("203.0.113.20:3478")))
    );
    assert!(reply.is_signed_by(&alice.key()));
    // §14.15: never to an address of the other family.
    let mut six = Player::bob("[2001:db8::7]:5000");
    let reply = six.ask(&mut world, allocate());
    assert_eq!((reply.code, reply.alternate), (Some(508), None));
    world.assert_empty();
}

#[test]
fn stop_gives_every_socket_back() {
    let mut world = World::new();
    Player::alice("198.51.100.7:5000")
        .ask(&mut world, allocate().even_port(true))
        .relayed();
    Player::bob("198.51.100.8:5000").allocate(&mut world);
    world.relay.end_all(world.now);
    world.drain();
    world.assert_empty();
    assert_eq!(reasons(&mut world), [EndReason::Drained; 2]);
}

#[test]
fn user_is_kicked_from_everywhere() {
    let mut world = World::new();
    for n in 0..3 {
        Player::minted(&format!("198.51.100.{n}:5000"), "mallory", 3_600 + n).allocate(&mut world);
    }
    let mut bob = Player::bob("198.51.100.8:5000");
    bob.allocate(&mut world);
    assert_eq!(world.relay.kick_user(world.now, "nobody"), 0);
    assert_eq!(world.relay.kick_user(world.now, "mallory"), 3);
    world.drain();
    assert_eq!(world.relay.gauges().allocations, 1);
    assert_eq!(reasons(&mut world), [EndReason::Kicked; 3]);
    assert!(world.relay.kick_client(world.now, bob.path));
    assert!(!world.relay.kick_client(world.now, bob.path));
    world.drain();
    world.assert_empty();
}

#[test]
fn new_policy_ends_what_it_refuses_and_nothing_else() {
    let allow = |list: &[&str]| {
        list.iter()
            .map(|p| p.parse().expect("a prefix"))
            .collect::<Vec<_>>()
    };
    let mut before = config();
    before.peers.allow = allow(&["10.9.0.0/16"]);
    let mut world = World::with(|config| *config = before.clone());
    let mut alice = Player::alice("198.51.100.7:5000");
    let relayed = alice.allocate(&mut world);
    alice.ask(&mut world, create_permission(&[PEER]));
    alice.ask(&mut world, channel_bind(0x4000, "10.9.1.1:6000"));
    world.take_events();

    before.peers.allow = allow(&["10.8.0.0/16"]);
    world.relay.set_config(world.now, before);
    world.drain();
    let events = world.take_events();
    assert!(
        matches!(events[..], [Event::ChannelFreed { .. }]),
        "{events:?}"
    );
    assert_eq!(
        (
            world.relay.gauges().permissions,
            world.relay.gauges().channels
        ),
        (1, 0)
    );
    let got = world.peer_sends("10.9.1.1:6000", relayed, b"hi");
    assert_eq!(got, Got::Dropped(DropReason::NoPermission));
    world.peer_sends(PEER, relayed, b"hi").forwarded();
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&["10.9.1.1:1"]))
            .code,
        Some(403)
    );
    assert_eq!(
        alice
            .ask(&mut world, create_permission(&["10.8.1.1:1"]))
            .code,
        None
    );
}

#[test]
fn users_realm_and_limits_change_between_two_packets() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let mut after = config();
    after.realm = Realm::new("elsewhere").expect("a realm");
    after.users = vec![StaticUser {
        name: "alice".into(),
        password: "changed".into(),
    }];
    after.lifetime.allocation_max = Duration::from_secs(700);
    world.relay.set_config(world.now, after);
    assert_eq!(alice.ask(&mut world, refresh()).code, Some(401));
    let mut alice = Player::named("198.51.100.7:5000", "alice", "changed");
    alice.realm = "elsewhere".into();
    assert_eq!(
        alice.ask(&mut world, refresh().lifetime(3_600)).lifetime,
        Some(700)
    );
    assert_eq!(
        Player::bob("198.51.100.8:5000")
            .ask(&mut world, allocate())
            .code,
        Some(401)
    );
}

#[test]
fn relay_addresses_and_ports_stay_as_they_were_at_the_start() {
    let mut world = World::new();
    let mut after = config();
    after.relay_addresses.clear();
    after.ports = 1..=2;
    world.relay.set_config(world.now, after);
    let relayed = Player::alice("198.51.100.7:5000").allocate(&mut world);
    assert!(relayed.port() >= 49_152);
}

#[test]
fn user_who_is_kicked_leaves_no_reserved_port() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let pair = alice.ask(&mut world, allocate().even_port(true));
    let token = pair.token.expect("a token");
    assert_eq!(world.relay.kick_user(world.now, "alice"), 1);
    world.drain();
    world.assert_empty();
    let mut again = Player::alice("198.51.100.7:5001");
    let reply = again.ask(&mut world, allocate().token(token));
    assert_eq!(reply.code, Some(508));
}

#[test]
fn one_allocation_is_kicked_by_its_handle_and_no_other_is_called_so() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let bob = Player::bob("198.51.100.8:5000").allocate(&mut world);
    let handles: Vec<_> = world.relay.allocations().map(|view| view.handle).collect();
    let [first, second] = handles[..] else {
        panic!("two of them")
    };
    assert_eq!(first.to_string().parse(), Ok(first));
    for wrong in ["", "1", "+000000000000000", "00000000000000000", "x"] {
        assert_eq!(wrong.parse::<AllocationHandle>(), Err(HandleError));
    }
    assert!(world.relay.kick_allocation(world.now, first));
    assert!(!world.relay.kick_allocation(world.now, first), "it is gone");
    world.drain();
    // The next one takes its place, from the same client.
    alice.allocate(&mut world);
    assert!(!world.relay.kick_allocation(world.now, first));
    let views: Vec<_> = world.relay.allocations().collect();
    assert_eq!(views[0].handle.place(), first.place());
    assert_eq!(views[1].relayed[0].map(|addr| addr.0), Some(bob));
    // A list that goes on behind the first.
    let behind = world.relay.allocations_from(first.place() + 1);
    let behind: Vec<_> = behind.map(|view| view.handle).collect();
    assert_eq!(behind, [second]);
    assert_eq!(reasons(&mut world), [EndReason::Kicked]);
}

#[test]
fn blocked_user_allocates_nothing_until_the_time_has_passed() {
    // RFC 8656 §7.4: 403, signed.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let minute = Duration::from_secs(60);
    assert!(world.relay.block_user(world.now, "alice", minute));
    assert_eq!(alice.ask(&mut world, refresh()).code, None, "it lives on");
    let mut again = Player::alice("198.51.100.9:5000");
    let reply = again.ask(&mut world, allocate());
    assert_eq!((reply.code, reply.signature.is_some()), (Some(403), true));
    Player::bob("198.51.100.8:5000").allocate(&mut world);
    let blocked = |world: &World| {
        let mut failures = world.relay.counters().auth_failures();
        failures.find(|(why, _)| *why == AuthFailure::Blocked)
    };
    assert_eq!(blocked(&world), Some((AuthFailure::Blocked, 1)));
    world.wait_secs(59);
    let left: Vec<_> = world
        .relay
        .blocked_users(world.now)
        .map(|(user, left)| (user.to_owned(), left.as_secs()))
        .collect();
    assert_eq!(left, [("alice".to_owned(), 1)]);
    assert_eq!(again.ask(&mut world, allocate()).code, Some(403));
    world.wait_secs(1);
    again.allocate(&mut world);
    assert!(!world.relay.unblock_user(world.now, "alice"));
}

#[test]
fn user_is_blocked_whatever_its_expiry_and_let_in_again() {
    let mut world = World::new();
    let hour = Duration::from_secs(3600);
    assert!(world.relay.block_user(world.now, "mallory", hour));
    for life in [600, 700] {
        let mut mallory = Player::minted("198.51.100.7:5000", "mallory", life).modern();
        assert_eq!(mallory.ask(&mut world, allocate()).code, Some(403));
    }
    // Reloads are about other things.
    world.relay.set_config(world.now, config());
    let mut mallory = Player::minted("198.51.100.7:5000", "mallory", 600);
    assert_eq!(mallory.ask(&mut world, allocate()).code, Some(403));
    assert!(world.relay.unblock_user(world.now, "mallory"));
    mallory.allocate(&mut world);
}
