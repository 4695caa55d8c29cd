//! EVEN-PORT and RESERVATION-TOKEN: RFC 8656 §7.2, §18.7, §18.10.

use turn_relay_proto::Reason;

use crate::harness::{Player, World, allocate, refresh};

#[test]
fn even_port_is_even() {
    let mut world = World::with(|config| config.quota.allocations_per_user = 100);
    for n in 0..32 {
        let mut player = Player::alice(&format!("198.51.100.{n}:5000"));
        let reply = player.ask(&mut world, allocate().even_port(false));
        assert_eq!((reply.relayed().port() % 2, reply.token), (0, None));
    }
}

#[test]
fn next_port_is_kept_for_the_token() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let reply = alice.ask(&mut world, allocate().even_port(true));
    let (even, token) = (reply.relayed(), reply.token.expect("a token"));
    assert_eq!(even.port() % 2, 0);
    assert_eq!(
        (world.relay.gauges().reservations, world.open.len()),
        (1, 2)
    );

    let mut second = Player::alice("198.51.100.7:5001");
    let odd = second.ask(&mut world, allocate().token(token)).relayed();
    assert_eq!((odd.ip(), odd.port()), (even.ip(), even.port() + 1));
    assert_eq!(
        (world.relay.gauges().reservations, world.open.len()),
        (0, 2)
    );

    let mut third = Player::alice("198.51.100.7:5002");
    let reply = third.ask(&mut world, allocate().token(token));
    assert_eq!(reply.code, Some(508), "a token is good once");
    for mut player in [alice, second] {
        player.ask(&mut world, refresh().lifetime(0));
    }
    world.assert_empty();
}

#[test]
fn retransmitted_request_gets_the_same_token() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let request = alice.sign(&allocate().even_port(true));
    let first = world.client_sends(alice.path, &request).reply();
    assert!(first.token.is_some());
    assert_eq!(world.client_sends(alice.path, &request).reply(), first);
    assert_eq!(world.relay.gauges().reservations, 1);
}

#[test]
fn token_lasts_thirty_seconds() {
    // RFC 8656 §7.2: at least 30 s.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let token = alice
        .ask(&mut world, allocate().even_port(true))
        .token
        .expect("a token");
    assert_eq!(
        world.relay.poll_timeout().map(|(_, why)| why),
        Some(Reason::Reservation)
    );
    world.wait_secs(30);
    assert_eq!(
        (world.relay.gauges().reservations, world.open.len()),
        (0, 1)
    );
    let reply = Player::alice("198.51.100.7:5001").ask(&mut world, allocate().token(token));
    assert_eq!(reply.code, Some(508));
    alice.ask(&mut world, refresh().lifetime(0));
    world.assert_empty();
}

#[test]
fn token_outlives_the_allocation_that_got_it() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    let token = alice
        .ask(&mut world, allocate().even_port(true))
        .token
        .expect("a token");
    alice.ask(&mut world, refresh().lifetime(0));
    assert_eq!(world.relay.gauges().ports_in_use, 1);
    Player::alice("198.51.100.7:5001")
        .ask(&mut world, allocate().token(token))
        .relayed();
}

#[test]
fn token_is_its_users() {
    let mut world = World::new();
    let token = Player::alice("198.51.100.7:5000")
        .ask(&mut world, allocate().even_port(true))
        .token
        .expect("a token");
    let reply = Player::bob("198.51.100.8:5000").ask(&mut world, allocate().token(token));
    assert_eq!(reply.code, Some(508));
    assert_eq!(
        world.relay.gauges().reservations,
        1,
        "and still there for its user"
    );
}

#[test]
fn unknown_token_is_insufficient_capacity() {
    let mut world = World::new();
    let reply = Player::alice("198.51.100.7:5000").ask(&mut world, allocate().token([9; 8]));
    assert_eq!(reply.code, Some(508));
    world.assert_empty();
}

#[test]
fn pair_with_a_busy_half_is_replaced_whole() {
    let mut world = World::with(|config| config.ports = 50_000..=50_003);
    for busy in [50_000, 50_001] {
        world.busy = [busy].into();
        let mut alice = Player::alice("198.51.100.7:5000");
        let reply = alice.ask(&mut world, allocate().even_port(true));
        assert_eq!(
            (reply.relayed().port(), reply.token.is_some()),
            (50_002, true)
        );
        assert_eq!(
            (world.open.len(), world.relay.gauges().ports_in_use),
            (2, 2)
        );
        alice.ask(&mut world, refresh().lifetime(0));
        world.wait_secs(30);
        world.assert_empty();
    }
}

#[test]
fn no_pair_left_is_insufficient_capacity() {
    let mut world = World::with(|config| {
        config.ports = 50_001..=50_002;
        config.quota.reserved_percent = 0;
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    assert_eq!(
        alice.ask(&mut world, allocate().even_port(true)).code,
        Some(508)
    );
    world.assert_empty();
    assert_eq!(
        alice
            .ask(&mut world, allocate().even_port(false))
            .relayed()
            .port(),
        50_002
    );
    let mut second = Player::alice("198.51.100.7:5001");
    assert_eq!(
        second.ask(&mut world, allocate().even_port(false)).code,
        Some(508)
    );
    assert_eq!(second.ask(&mut world, allocate()).relayed().port(), 50_001);
}

#[test]
fn reserved_ports_count_against_their_user() {
    let mut world = World::with(|config| config.quota.allocations_per_user = 3);
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.ask(&mut world, allocate().even_port(true)).relayed();
    let mut second = Player::alice("198.51.100.7:5001");
    assert_eq!(
        second.ask(&mut world, allocate().even_port(true)).code,
        Some(486)
    );
    second.allocate(&mut world);
    let mut third = Player::alice("198.51.100.7:5002");
    assert_eq!(third.ask(&mut world, allocate()).code, Some(486));
    world.wait_secs(30);
    third.allocate(&mut world);
}
