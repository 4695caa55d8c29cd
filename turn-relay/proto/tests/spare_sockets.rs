//! Sockets that ended allocations leave for the next ones: RFC 8656 §7.2 on ports that a server holds ready.

use std::time::Duration;

use stun_wire::attribute::AddressFamily;
use turn_relay_proto::{DropReason, Reason, RelayAddr};

use crate::harness::{
    Got, PEER, Player, Reply, World, allocate, allocate_tcp, channel_bind, config,
    create_permission, refresh,
};

fn with_spares(count: usize) -> World {
    World::with(|config| {
        config.spare_sockets = count;
        config.quota.allocations_per_user = 100;
    })
}

fn player(number: u16) -> Player {
    Player::alice(&format!("198.51.100.7:{}", 5_000 + number))
}

/// Makes and ends an allocation; its relayed address.
fn leave_spare(world: &mut World, number: u16) -> RelayAddr {
    let mut player = player(number);
    let relayed = player.allocate(world);
    assert_eq!(player.ask(world, refresh().lifetime(0)).code, None);
    RelayAddr(relayed)
}

/// Asks for an allocation of a shell that opens nothing: what is said at once.
fn ask_without_sockets(world: &mut World, number: u16) -> Option<Reply> {
    let mut player = player(number);
    player.greet(world);
    world.slow_shell = true;
    let request = player.sign(&allocate());
    let got = world.client_sends(player.path, &request);
    (!matches!(got, Got::Absorbed)).then(|| got.reply())
}

#[test]
fn next_allocation_has_the_socket_and_its_answer_at_once() {
    let mut world = with_spares(256);
    let spare = leave_spare(&mut world, 0);
    let gauges = world.relay.gauges();
    assert_eq!(
        (gauges.allocations, gauges.ports_in_use, gauges.users),
        (0, 0, 0)
    );
    assert_eq!((gauges.spare_sockets, world.open.len()), (1, 1));

    let reply = ask_without_sockets(&mut world, 1).expect("nothing to wait for");
    assert_eq!(reply.relayed(), spare.0);
    let gauges = world.relay.gauges();
    assert_eq!((gauges.ports_in_use, gauges.spare_sockets), (1, 0));
    assert!(world.relay.owns(spare));
    assert!(world.asked.is_empty() && world.open.len() == 1);
    assert!(
        ask_without_sockets(&mut world, 2).is_none(),
        "there was but one"
    );
}

#[test]
fn next_allocation_inherits_nothing() {
    let mut world = with_spares(256);
    let mut alice = player(0);
    let relayed = alice.allocate(&mut world);
    assert_eq!(alice.ask(&mut world, create_permission(&[PEER])).code, None);
    alice.ask(&mut world, refresh().lifetime(0));
    let mut bob = Player::bob("198.51.100.8:5000");
    assert_eq!(bob.allocate(&mut world), relayed);
    let got = world.peer_sends(PEER, relayed, b"for alice");
    assert!(
        matches!(got, Got::Dropped(DropReason::NoPermission)),
        "{got:?}"
    );
    let got = alice.send(&mut world, PEER, b"hi");
    assert!(
        matches!(got, Got::Dropped(DropReason::NoAllocation)),
        "{got:?}"
    );
}

#[test]
fn what_nobody_needs_is_closed_within_two_seconds() {
    let mut world = with_spares(256);
    leave_spare(&mut world, 0);
    let (at, why) = world.relay.poll_timeout().expect("somebody looks after it");
    assert_eq!(why, Reason::SpareSockets);
    assert!(at <= world.now.mono + Duration::from_secs(1));
    world.wait(Duration::from_millis(1_999));
    assert_eq!(world.open.len(), 1);
    world.wait(Duration::from_millis(1));
    world.assert_empty();
}

#[test]
fn what_is_needed_stays() {
    let mut world = with_spares(256);
    for number in 0..4 {
        player(number).allocate(&mut world);
    }
    for number in 0..4 {
        let mut player = player(number);
        player.greet(&mut world);
        player.ask(&mut world, refresh().lifetime(0));
    }
    assert_eq!(world.relay.gauges().spare_sockets, 4);
    // Two at a time come and go, faster than the look at them.
    for number in 10..60 {
        let (mut one, mut other) = (player(number), player(number + 100));
        for player in [&mut one, &mut other] {
            assert!(player.allocate(&mut world).is_ipv4());
        }
        world.wait(Duration::from_millis(100));
        for player in [&mut one, &mut other] {
            player.ask(&mut world, refresh().lifetime(0));
        }
    }
    assert_eq!(world.relay.gauges().spare_sockets, 2);
    world.wait_secs(2);
    world.assert_empty();
}

#[test]
fn one_that_hears_something_is_closed() {
    let mut world = with_spares(256);
    let spare = leave_spare(&mut world, 0);
    for _ in 0..2 {
        let got = world.peer_sends(PEER, spare.0, b"are you there?");
        assert!(
            matches!(got, Got::Dropped(DropReason::UnknownRelay)),
            "{got:?}"
        );
    }
    assert!(world.open.is_empty(), "a peer meets a closed port");
    assert_eq!(world.relay.gauges().spare_sockets, 0);
    assert!(ask_without_sockets(&mut world, 1).is_none());
}

#[test]
fn spare_is_no_peer() {
    let mut world = with_spares(256);
    let spare = leave_spare(&mut world, 0).0.to_string();
    let mut even = player(1);
    even.ask(&mut world, allocate().even_port(false));
    let reply = even.ask(&mut world, channel_bind(0x4000, &spare));
    assert_eq!(reply.code, Some(403), "it relays for nobody");
}

#[test]
fn pairs_and_listeners_are_opened_for_themselves() {
    let mut world = World::with(|config| {
        config.spare_sockets = 256;
        config.protocol.tcp_relaying = true;
    });
    let spare = leave_spare(&mut world, 0);
    let even = player(1).ask(&mut world, allocate().even_port(true));
    let tcp = player(2)
        .over(turn_relay_proto::Transport::Tcp)
        .ask(&mut world, allocate_tcp());
    assert!(even.relayed() != spare.0 && tcp.relayed() != spare.0);
    assert_eq!(world.relay.gauges().spare_sockets, 1);
    assert_eq!(
        (world.open.len(), world.listening.len()),
        (4, 1),
        "a pair, a listener, the spare"
    );
}

#[test]
fn reserved_port_that_nobody_claims_is_a_spare() {
    let mut world = with_spares(256);
    let mut alice = player(0);
    let pair = alice.ask(&mut world, allocate().even_port(true));
    world.wait_secs(30);
    assert_eq!(world.relay.gauges().spare_sockets, 1);
    let reply = ask_without_sockets(&mut world, 1).expect("nothing to wait for");
    assert_eq!(reply.relayed().port(), pair.relayed().port() + 1);
}

#[test]
fn ports_of_spares_are_there_for_whoever_needs_just_them() {
    let mut world = World::with(|config| {
        config.spare_sockets = 256;
        config.ports = 50_000..=50_003;
        config.quota.reserved_percent = 0;
    });
    let mut players: Vec<Player> = (0..4).map(player).collect();
    for player in &mut players {
        player.allocate(&mut world);
    }
    assert_eq!(
        player(4).ask(&mut world, allocate()).code,
        Some(508),
        "none is left"
    );
    for player in &mut players {
        player.ask(&mut world, refresh().lifetime(0));
    }
    assert_eq!(world.relay.gauges().spare_sockets, 4);
    let reply = player(5).ask(&mut world, allocate().even_port(true));
    assert_eq!(reply.code, None);
    let gauges = world.relay.gauges();
    assert_eq!((gauges.ports_in_use, gauges.spare_sockets), (2, 0));
}

#[test]
fn no_more_are_kept_than_is_allowed() {
    let mut world = with_spares(2);
    let mut players: Vec<Player> = (0..5).map(player).collect();
    for player in &mut players {
        player.allocate(&mut world);
    }
    for player in &mut players {
        player.ask(&mut world, refresh().lifetime(0));
    }
    assert_eq!(world.relay.gauges().spare_sockets, 2);
    assert_eq!(world.open.len(), 2);
}

#[test]
fn one_half_of_a_dual_allocation_may_be_a_spare() {
    let mut world = with_spares(256);
    let spare = leave_spare(&mut world, 0);
    let mut alice = player(1);
    alice.greet(&mut world);
    world.slow_shell = true;
    let request = alice.sign(&allocate().additional_family(AddressFamily::Ipv6));
    let got = world.client_sends(alice.path, &request);
    assert!(matches!(got, Got::Absorbed), "{got:?}");
    assert_eq!(world.relay.gauges().spare_sockets, 0);
    world.slow_shell = false;
    world.answer_sockets();
    world.drain();
    let reply = Reply::parse(&world.told(alice.path).expect("an answer"));
    assert_eq!(reply.relayed.first(), Some(&spare.0));
    assert!(reply.relayed[1].is_ipv6());
}

#[test]
fn spare_of_a_client_that_left_while_waiting_is_one_again() {
    let mut world = with_spares(256);
    leave_spare(&mut world, 0);
    let mut alice = player(1).over(turn_relay_proto::Transport::Tcp);
    alice.greet(&mut world);
    world.slow_shell = true;
    let request = alice.sign(&allocate().additional_family(AddressFamily::Ipv6));
    let _ = world.client_sends(alice.path, &request);
    world.relay.handle_disconnect(world.now, alice.path);
    world.drain();
    assert_eq!(world.relay.gauges().spare_sockets, 1);
    world.slow_shell = false;
    world.answer_sockets();
    world.drain();
    world.wait_secs(2);
    world.assert_empty();
}

#[test]
fn draining_stopping_and_fewer_descriptors_close_them() {
    let mut world = with_spares(256);
    leave_spare(&mut world, 0);
    let mut last = player(1);
    last.ask(&mut world, allocate().even_port(false));
    world.relay.set_draining(true);
    world.drain();
    assert_eq!(world.relay.gauges().spare_sockets, 0);
    last.ask(&mut world, refresh().lifetime(0));
    assert!(world.open.is_empty(), "no allocation will come");

    world.relay.set_draining(false);
    leave_spare(&mut world, 2);
    world.relay.end_all(world.now);
    world.drain();
    assert!(world.open.is_empty());

    leave_spare(&mut world, 3);
    world.no_descriptors = true;
    let reply = player(4).ask(&mut world, allocate().even_port(false));
    assert_eq!(reply.code, Some(508));
    assert!(world.open.is_empty(), "somebody needs what it holds");

    world.no_descriptors = false;
    leave_spare(&mut world, 5);
    world.relay.set_config(world.now, config());
    world.drain();
    assert!(world.open.is_empty(), "none is allowed any more");
    world.wait_secs(1);
    world.assert_empty();
}

#[test]
fn channel_to_a_player_who_has_left_leads_nowhere() {
    let mut world = with_spares(256);
    let mut alice = player(0);
    let relayed = alice.allocate(&mut world);
    let mut bob = Player::bob("198.51.100.8:5000");
    bob.allocate(&mut world);
    let target = relayed.to_string();
    assert_eq!(
        bob.ask(&mut world, channel_bind(0x4000, &target)).code,
        None
    );
    alice.ask(&mut world, refresh().lifetime(0));
    let got = bob.send_channel(&mut world, 0x4000, b"hi");
    assert!(
        matches!(got, Got::Dropped(DropReason::PeerDenied)),
        "{got:?}"
    );
}
