//! Several machines of one daemon: what they count together, and what each counts alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use turn_relay_proto::{Ledger, RelayConfig};

use crate::harness::{Got, PEER, Player, World, allocate, config, create_permission, refresh};

/// Shards of one daemon.
fn shards<const N: usize>(change: impl Fn(&mut RelayConfig)) -> (Arc<Ledger>, [World; N]) {
    let ledger = Arc::new(Ledger::new([3; 16]));
    let worlds = std::array::from_fn(|index| {
        let mut config = config();
        change(&mut config);
        config.ledger = Some(Arc::clone(&ledger));
        World::seeded(config, [u8::try_from(index).expect("few"); 32])
    });
    (ledger, worlds)
}

#[test]
fn user_has_sixteen_allocations_on_all_shards_together() {
    let (ledger, mut shards) = shards::<2>(|_| {});
    let mut players: Vec<Player> = (0..17)
        .map(|n| Player::alice(&format!("198.51.100.{n}:5000")))
        .collect();
    let answers: Vec<_> = players
        .iter_mut()
        .enumerate()
        .map(|(n, alice)| alice.ask(&mut shards[n % 2], allocate()).code)
        .collect();
    assert_eq!(answers[..16], [None; 16]);
    assert_eq!(answers[16], Some(486));
    assert_eq!((ledger.held("alice"), ledger.allocations()), (16, 16));
    Player::bob("198.51.100.99:5000").allocate(&mut shards[0]);
    // What is given back on one shard can be had on the other in the same tick.
    players[0].ask(&mut shards[0], refresh().lifetime(0));
    Player::alice("198.51.100.98:5000").allocate(&mut shards[1]);
    assert_eq!((ledger.users(), ledger.allocations()), (2, 17));
}

#[test]
fn reserved_ports_and_two_families_count_on_all_shards() {
    let (ledger, [mut one, mut two]) = shards::<2>(|config| {
        config.quota.allocations_per_user = 3;
    });
    let pair = allocate().even_port(true);
    let mut alice = Player::alice("198.51.100.1:5000");
    let token = alice.ask(&mut one, pair.clone()).token.expect("a token");
    assert_eq!(ledger.held("alice"), 2);
    let mut twice = Player::alice("198.51.100.2:5000");
    assert_eq!(twice.ask(&mut two, pair).code, Some(486), "one is left");
    twice.allocate(&mut two);
    assert_eq!(ledger.held("alice"), 3);
    // The token names what is counted already.
    let mut second = Player::alice("198.51.100.1:5001");
    assert_eq!(second.ask(&mut one, allocate().token(token)).code, None);
    assert_eq!((ledger.held("alice"), ledger.allocations()), (3, 3));
    for world in [&mut one, &mut two] {
        world.wait_secs(700);
        world.assert_empty();
    }
    assert_eq!((ledger.users(), ledger.allocations()), (0, 0));
}

#[test]
fn last_ports_of_a_shard_are_not_for_who_has_some_on_another() {
    let (_, [mut one, mut two]) = shards::<2>(|config| {
        config.ports = 50_000..=50_001;
        config.relay_addresses.truncate(1);
        config.quota.reserved_percent = 90;
    });
    Player::alice("198.51.100.1:5000").allocate(&mut one);
    Player::bob("198.51.100.2:5000").allocate(&mut two);
    let mut alice = Player::alice("198.51.100.3:5000");
    assert_eq!(alice.ask(&mut two, allocate()).code, Some(508));
    Player::minted("198.51.100.4:5000", "new", 600).allocate(&mut two);
}

#[test]
fn relay_has_so_many_allocations_on_all_shards_together() {
    let (ledger, [mut one, mut two]) = shards::<2>(|config| config.quota.allocations = 2);
    Player::alice("198.51.100.1:5000").allocate(&mut one);
    Player::alice("198.51.100.2:5000").allocate(&mut one);
    let mut bob = Player::bob("198.51.100.3:5000");
    assert_eq!(bob.ask(&mut two, allocate()).code, Some(508));
    assert_eq!(ledger.held("bob"), 0, "what was refused is not held");
    assert_eq!(one.relay.kick_user(one.now, "alice"), 2);
    bob.allocate(&mut two);
}

#[test]
fn what_fails_to_open_is_given_back() {
    let (ledger, [mut one]) = shards::<1>(|_| {});
    one.no_descriptors = true;
    let mut alice = Player::alice("198.51.100.1:5000");
    assert_eq!(alice.ask(&mut one, allocate()).code, Some(508));
    assert_eq!((ledger.users(), ledger.allocations()), (0, 0));
    let (ledger, [mut none]) = shards::<1>(|config| {
        config.ports = 50_000..=50_000;
        config.quota.reserved_percent = 0;
    });
    Player::alice("198.51.100.1:5000").allocate(&mut none);
    let six = Player::bob("198.51.100.2:5000").ask(&mut none, allocate().even_port(true));
    assert_eq!(six.code, Some(508), "there is no pair of ports");
    assert_eq!((ledger.users(), ledger.allocations()), (1, 1));
}

#[test]
fn shard_that_is_gone_holds_nothing() {
    let (ledger, [mut one, two]) = shards::<2>(|_| {});
    Player::alice("198.51.100.1:5000").allocate(&mut one);
    Player::alice("198.51.100.2:5000")
        .ask(&mut one, allocate().even_port(true))
        .relayed();
    assert_eq!((ledger.held("alice"), ledger.allocations()), (3, 2));
    drop(one);
    assert_eq!((ledger.users(), ledger.allocations()), (0, 0));
    drop(two);
}

#[test]
fn bandwidth_of_a_user_is_that_of_one_shard() {
    let (_, shards) = shards::<2>(|config| config.quota.bandwidth_per_user = Some(10_000));
    for mut world in shards {
        let mut alice = Player::alice("198.51.100.1:5000");
        let relayed = alice.allocate(&mut world);
        alice.ask(&mut world, create_permission(&[PEER]));
        let sent = (0..100).filter(|_| {
            let got = world.peer_sends(PEER, relayed, &[0; 1_000]);
            matches!(got, Got::Forwarded { .. })
        });
        assert_eq!(sent.count(), 10, "a second's worth at once");
    }
}

/// Each thread is a shard that makes and ends allocations of two users at random.
#[test]
fn bounds_hold_whatever_threads_do() {
    const LIMIT: u32 = 5;
    let users = ["alice", "bob"];
    // Counted up behind an Allocate and down before it ends: never above the truth.
    let held = [const { AtomicU32::new(0) }; 2];
    let most = [const { AtomicU32::new(0) }; 2];
    let (ledger, shards) = shards::<4>(|config| {
        config.quota.allocations_per_user = LIMIT;
    });
    std::thread::scope(|scope| {
        for (seed, mut world) in shards.into_iter().enumerate() {
            let (held, most) = (&held, &most);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(u64::try_from(seed).expect("few"));
                let mut players: Vec<(usize, bool, Player)> = (0..16_usize)
                    .map(|n| {
                        let client = format!("198.51.{seed}.{n}:5000");
                        let player = match n % 2 {
                            0 => Player::alice(&client),
                            _ => Player::bob(&client),
                        };
                        (n % 2, false, player)
                    })
                    .collect();
                for _ in 0..2_000 {
                    let at = rng.random_range(0..players.len());
                    let (user, lives, player) = &mut players[at];
                    if *lives {
                        held[*user].fetch_sub(1, Ordering::SeqCst);
                        assert_eq!(player.ask(&mut world, refresh().lifetime(0)).code, None);
                        *lives = false;
                    } else {
                        match player.ask(&mut world, allocate()).code {
                            None => {
                                let now = held[*user].fetch_add(1, Ordering::SeqCst) + 1;
                                assert!(now <= LIMIT, "{} has {now}", users[*user]);
                                most[*user].fetch_max(now, Ordering::SeqCst);
                                *lives = true;
                            }
                            code => assert_eq!(code, Some(486)),
                        }
                    }
                }
                // The shard ends here, and with it what its users hold.
                for (user, _, _) in players.iter().filter(|(_, lives, _)| *lives) {
                    held[*user].fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let most = most.map(|most| most.load(Ordering::SeqCst));
    assert_eq!(most, [LIMIT; 2], "the bound was reached");
    assert_eq!((ledger.users(), ledger.allocations()), (0, 0));
}
