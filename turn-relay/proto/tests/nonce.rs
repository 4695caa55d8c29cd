//! Nonces: RFC 8489 §9.2, stateless.

use turn_relay_proto::{AuthFailure, Transport};

use crate::harness::{Player, World, allocate, refresh};

#[test]
fn stale_nonce_is_answered_with_a_new_one_signed() {
    // RFC 8489 §9.2.4: 438 with REALM, NONCE, PASSWORD-ALGORITHMS.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.ask(&mut world, allocate().lifetime(3_600)).relayed();
    world.wait_secs(600);
    assert_eq!(
        alice.ask_once(&mut world, &refresh()).code,
        None,
        "ten minutes it lives"
    );
    world.wait_secs(1);
    let reply = alice.ask_once(&mut world, &refresh());
    assert_eq!(reply.code, Some(438));
    assert!(reply.is_signed_by(&alice.key()), "the password was right");
    assert!(reply.algorithms.is_some() && reply.realm.is_some());
    assert_ne!(reply.nonce, alice.nonce);
    alice.nonce = reply.nonce;
    assert_eq!(
        alice.ask_once(&mut world, &refresh().lifetime(3_600)).code,
        None
    );
}

#[test]
fn stale_nonce_with_a_wrong_password_is_unauthenticated() {
    // RFC 8489 §9.2.4: the signature is judged first.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    world.wait_secs(601);
    let mut wrong = Player {
        password: "wrong".into(),
        ..alice.clone()
    };
    assert_eq!(wrong.ask_once(&mut world, &allocate()).code, Some(401));
    assert_eq!(alice.ask_once(&mut world, &allocate()).code, Some(438));
}

#[test]
fn nonce_of_another_client_is_worth_nothing() {
    // turn-rs accepts any nonce; replay from another address is what a nonce is there against.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    for mut other in [
        Player::alice("198.51.100.7:5001"),
        Player::alice("198.51.100.8:5000"),
        Player::alice("198.51.100.7:5000").over(Transport::Tcp),
    ] {
        other.nonce.clone_from(&alice.nonce);
        let reply = other.ask_once(&mut world, &allocate());
        assert_eq!((reply.code, reply.signature), (Some(438), None));
    }
    world.assert_empty();
}

#[test]
fn altered_and_foreign_nonces_are_never_accepted() {
    // security.md F1: 0 of 87, and of some more.
    let mut refused = 0;
    let mut world = World::with(|config| {
        config.limits.exempt = vec!["198.51.100.0/24".parse().expect("a prefix")];
    });
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let good = alice.nonce.clone().expect("greeted");
    for at in 0..good.len() {
        for replacement in ["A", "B", "_"] {
            let mut altered = good.clone();
            altered.replace_range(at..=at, replacement);
            if altered == good {
                continue;
            }
            alice.nonce = Some(altered);
            assert_eq!(
                alice.ask_once(&mut world, &allocate()).code,
                Some(438),
                "{:?}",
                alice.nonce
            );
            refused += 1;
        }
    }
    assert!(refused >= 87, "{refused}");
    for foreign in [
        "",
        "obMatJos2",
        "f//499k954d6OL34oL9FSTvy64sA",
        &"x".repeat(127),
    ] {
        alice.nonce = Some(foreign.into());
        assert_eq!(
            alice.ask_once(&mut world, &allocate()).code,
            Some(438),
            "{foreign:?}"
        );
    }
    world.assert_empty();
    alice.nonce = Some(good);
    assert_eq!(alice.ask_once(&mut world, &allocate()).code, None);
    let stale = world
        .relay
        .counters()
        .auth_failures()
        .find(|(r, _)| *r == AuthFailure::StaleNonce);
    assert!(stale.is_some_and(|(_, n)| n > 60));
}

#[test]
fn nonces_of_a_relay_that_was_restarted_are_replaced_in_one_round_trip() {
    let mut before = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut before);
    let mut after = World::seeded(crate::harness::config(), [8; 32]);
    assert_eq!(alice.ask(&mut after, refresh()).code, Some(437));
    assert_eq!(alice.ask(&mut after, allocate()).code, None);
}

#[test]
fn nonce_life_follows_the_configuration() {
    let mut world = World::with(|config| config.lifetime.nonce = std::time::Duration::from_secs(5));
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    world.wait_secs(6);
    assert_eq!(alice.ask_once(&mut world, &refresh()).code, Some(438));
}
