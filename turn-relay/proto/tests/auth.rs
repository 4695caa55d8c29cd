//! Long-term credentials: RFC 8489 §9.2, time-limited ones, and what a guesser gets.

use std::sync::Arc;

use credentials::{Secret, Secrets, mint};
use stun_wire::attribute::{
    Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, Userhash, Username,
};
use stun_wire::{AttributeType, IntegrityKind, MessageWriter, TransactionId};
use turn_relay_proto::{AuthFailure, DropReason, StaticUser};

use crate::harness::{
    Ask, Got, PEER, Player, Reply, START_UNIX, World, allocate, create_permission, refresh, secret,
};

/// A request with exactly these credentials, signed with the player's key.
fn custom(player: &mut Player, fill: impl FnOnce(&mut MessageWriter<'_>, &Player)) -> Vec<u8> {
    let transaction = player.transaction();
    let mut out = Vec::new();
    let mut writer = allocate().start(&mut out, transaction);
    fill(&mut writer, player);
    writer.integrity(&player.key(), player.kind());
    writer.finish();
    out
}

fn failures(world: &World, reason: AuthFailure) -> u64 {
    world
        .relay
        .counters()
        .auth_failures()
        .find(|(r, _)| *r == reason)
        .map_or(0, |(_, n)| n)
}

#[test]
fn unsigned_requests_are_challenged() {
    // RFC 8489 §9.2.4: 401 with REALM, NONCE, PASSWORD-ALGORITHMS, and no signature.
    let mut world = World::new();
    for ask in [
        allocate(),
        refresh().lifetime(600),
        create_permission(&[PEER]),
    ] {
        let request = ask.fingerprint().unsigned(TransactionId([1; 12]));
        let player = Player::alice("198.51.100.7:5000");
        let reply = world.client_sends(player.path, &request).reply();
        assert_eq!((reply.code, reply.signature), (Some(401), None));
        assert_eq!(reply.realm.as_deref(), Some("rallypoint"));
        assert_eq!(reply.algorithms, Some(vec![0, 2, 0, 0, 0, 1, 0, 0]));
        assert!(
            reply
                .nonce
                .is_some_and(|nonce| nonce.starts_with("obMatJos2"))
        );
    }
    world.assert_empty();
    assert_eq!(failures(&world, AuthFailure::Missing), 3);
}

#[test]
fn four_kinds_of_clients_are_served() {
    // MD5 or SHA-256 keys; USERNAME or USERHASH (RFC 8489 §9.2.4, §14.4).
    for (modern, hidden) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::new();
        let mut alice = Player::alice("198.51.100.7:5000");
        (alice.modern, alice.hidden) = (modern, hidden);
        let reply = alice.ask(&mut world, allocate());
        assert_eq!(reply.code, None, "modern {modern}, hidden {hidden}");
        assert_eq!(reply.signature, Some(alice.kind()));
        assert_eq!(
            world
                .relay
                .allocations()
                .map(|a| a.user.to_owned())
                .next()
                .as_deref(),
            Some("alice")
        );
    }
}

#[test]
fn key_algorithm_and_signature_are_chosen_apart() {
    // RFC 8489 §9.2.4: PASSWORD-ALGORITHM makes the key; the signature that is there is judged.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000").modern();
    alice.greet(&mut world);
    let request = {
        let transaction = alice.transaction();
        let mut out = Vec::new();
        let mut writer = allocate().start(&mut out, transaction);
        writer
            .attribute(&Username("alice"))
            .attribute(&Realm("rallypoint"))
            .attribute(&Nonce(alice.nonce.as_deref().expect("greeted")))
            .attribute(&PasswordAlgorithms::SHA256_AND_MD5)
            .attribute(&PasswordAlgorithm::SHA256)
            .integrity(&alice.key(), IntegrityKind::Sha1);
        writer.finish();
        out
    };
    let reply = world.client_sends(alice.path, &request).reply();
    assert_eq!(
        (reply.code, reply.signature),
        (None, Some(IntegrityKind::Sha1))
    );
    assert!(reply.is_signed_by(&alice.key()));
}

#[test]
fn signed_request_without_its_attributes_is_bad() {
    // RFC 8489 §9.2.4: 400, unsigned.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.greet(&mut world);
    let nonce = alice.nonce.clone().expect("greeted");
    let parts: [(&str, &dyn Fn(&mut MessageWriter<'_>)); 7] = [
        ("no USERNAME", &|w| {
            w.attribute(&Realm("rallypoint")).attribute(&Nonce(&nonce));
        }),
        ("no REALM", &|w| {
            w.attribute(&Username("alice")).attribute(&Nonce(&nonce));
        }),
        ("no NONCE", &|w| {
            w.attribute(&Username("alice"))
                .attribute(&Realm("rallypoint"));
        }),
        ("two names", &|w| {
            w.attribute(&Username("alice"))
                .attribute(&Username("alice"));
            w.attribute(&Realm("rallypoint")).attribute(&Nonce(&nonce));
        }),
        ("name and hash", &|w| {
            w.attribute(&Username("alice"))
                .attribute(&Userhash::of("alice", "rallypoint"));
            w.attribute(&Realm("rallypoint")).attribute(&Nonce(&nonce));
        }),
        ("two nonces", &|w| {
            w.attribute(&Username("alice"))
                .attribute(&Realm("rallypoint"));
            w.attribute(&Nonce(&nonce)).attribute(&Nonce(&nonce));
        }),
        ("name is no text", &|w| {
            w.raw(AttributeType::USERNAME, &[0xFF, 0xFE]);
            w.attribute(&Realm("rallypoint")).attribute(&Nonce(&nonce));
        }),
    ];
    for (what, fill) in parts {
        let request = custom(&mut alice, |writer, _| fill(writer));
        let reply = world.client_sends(alice.path, &request).reply();
        assert_eq!((reply.code, reply.signature), (Some(400), None), "{what}");
    }
    assert_eq!(failures(&world, AuthFailure::Malformed), 7);
    world.assert_empty();
}

#[test]
fn altered_algorithm_lists_are_bad() {
    // RFC 8489 §9.2.4: both attributes or none; the list as it was sent; an algorithm of the list.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000").modern();
    alice.greet(&mut world);
    let unlisted = PasswordAlgorithm {
        algorithm: 3,
        parameters: &[],
    };
    let odd = PasswordAlgorithm {
        algorithm: 2,
        parameters: &[1],
    };
    let cases: [(
        &str,
        Option<PasswordAlgorithms<'_>>,
        Option<PasswordAlgorithm<'_>>,
    ); 6] = [
        ("list alone", Some(PasswordAlgorithms::SHA256_AND_MD5), None),
        ("choice alone", None, Some(PasswordAlgorithm::SHA256)),
        (
            "SHA-256 struck out",
            Some(PasswordAlgorithms::MD5),
            Some(PasswordAlgorithm::MD5),
        ),
        (
            "MD5 struck out",
            Some(PasswordAlgorithms::SHA256),
            Some(PasswordAlgorithm::SHA256),
        ),
        (
            "not in the list",
            Some(PasswordAlgorithms::SHA256_AND_MD5),
            Some(unlisted),
        ),
        (
            "with parameters",
            Some(PasswordAlgorithms::SHA256_AND_MD5),
            Some(odd),
        ),
    ];
    for (what, list, choice) in cases {
        let request = custom(&mut alice, |writer, alice| {
            let nonce = alice.nonce.as_deref().expect("greeted");
            writer
                .attribute(&Username("alice"))
                .attribute(&Realm("rallypoint"))
                .attribute(&Nonce(nonce));
            if let Some(list) = &list {
                writer.attribute(list);
            }
            if let Some(choice) = &choice {
                writer.attribute(choice);
            }
        });
        assert_eq!(
            world.client_sends(alice.path, &request).reply().code,
            Some(400),
            "{what}"
        );
    }
}

#[test]
fn wrong_credentials_are_challenged_again_and_told_apart_by_nobody() {
    // RFC 8489 §9.2.4: 401 and not 400; the same for known and unknown users (security.md F6).
    let mut world = World::new();
    let mut replies: Vec<Reply> = Vec::new();
    for (user, password) in [
        ("alice", "wrong"),
        ("nobody", "wrong"),
        ("1800003600:k1:eve", "wrong"),
    ] {
        let mut player = Player::named("198.51.100.7:5000", user, password);
        replies.push(player.ask(&mut world, allocate()));
    }
    for reply in &replies {
        assert_eq!((reply.code, reply.signature), (Some(401), None));
        assert_eq!(reply.bytes.len(), replies[0].bytes.len());
    }
    let mut elsewhere = Player::alice("198.51.100.7:5000");
    elsewhere.realm = "elsewhere".into();
    assert_eq!(elsewhere.ask(&mut world, allocate()).code, Some(401));
    assert_eq!(failures(&world, AuthFailure::BadIntegrity), 2);
    assert_eq!(failures(&world, AuthFailure::UnknownUser), 1);
    assert_eq!(failures(&world, AuthFailure::WrongRealm), 1);
    world.assert_empty();
}

#[test]
fn time_limited_credentials_work_in_both_forms() {
    let mut world = World::new();
    Player::minted("198.51.100.7:5000", "carol", 3_600).allocate(&mut world);
    // The common REST form, `expiry:name`, with whichever secret is listed.
    let plain = Secret {
        id: None,
        key: secret().key.clone(),
    };
    let credential = mint(&plain, "dave", START_UNIX + 3_600);
    Player::named(
        "198.51.100.8:5000",
        &credential.username,
        &credential.password,
    )
    .modern()
    .allocate(&mut world);
    let mut users: Vec<String> = world
        .relay
        .allocations()
        .map(|a| a.user.to_owned())
        .collect();
    users.sort();
    assert_eq!(
        users,
        ["carol", "dave"],
        "the subject is the user, whatever the expiry"
    );
}

#[test]
fn expired_credential_makes_nothing_and_prolongs_nothing() {
    // Checked at Allocate *and* Refresh (eturnal and coturn let it refresh).
    let mut world = World::new();
    let mut carol = Player::minted("198.51.100.7:5000", "carol", 300);
    carol.allocate(&mut world);
    world.wait_secs(300 + 59);
    assert_eq!(
        carol.ask(&mut world, refresh()).code,
        None,
        "a minute of skew is forgiven"
    );
    world.wait_secs(1);
    let reply = carol.ask(&mut world, refresh());
    assert_eq!((reply.code, reply.signature), (Some(401), None));
    let mut again = carol.clone();
    again.path.remote.set_port(5_001);
    again.nonce = None;
    assert_eq!(again.ask(&mut world, allocate()).code, Some(401));
    assert_eq!(failures(&world, AuthFailure::Expired), 2);
    // What lives may still be used, and ended.
    assert_eq!(carol.ask(&mut world, create_permission(&[PEER])).code, None);
    assert_eq!(carol.ask(&mut world, refresh().lifetime(0)).code, None);
    world.assert_empty();
}

#[test]
fn fresh_credential_of_the_same_subject_takes_over() {
    let mut world = World::new();
    let mut carol = Player::minted("198.51.100.7:5000", "carol", 300);
    carol.allocate(&mut world);
    world.wait_secs(400);
    let renewed = Player::minted("198.51.100.7:5000", "carol", 7_200);
    let mut carol = Player {
        nonce: carol.nonce,
        ..renewed
    };
    assert_eq!(carol.ask(&mut world, refresh()).code, None);
    let mut other = Player::minted("198.51.100.7:5000", "mallory", 7_200);
    assert_eq!(other.ask(&mut world, refresh()).code, Some(441));
}

#[test]
fn secret_that_is_taken_off_the_list_opens_nothing() {
    let mut world = World::new();
    let mut carol = Player::minted("198.51.100.7:5000", "carol", 3_600);
    carol.allocate(&mut world);
    let mut config = crate::harness::config();
    let new = Secret {
        id: Some("k2".into()),
        key: b"Mq8Wz3Er6Ty1Ui9Op4As7Df2Gh5Jk0Lx".to_vec(),
    };
    config.secrets = Some(Arc::new(Secrets::new(vec![new.clone(), secret()])));
    world.relay.set_config(world.now, config.clone());
    assert_eq!(
        carol.ask(&mut world, refresh()).code,
        None,
        "both are good while both are listed"
    );
    config.secrets = Some(Arc::new(Secrets::new(vec![new])));
    world.relay.set_config(world.now, config);
    assert_eq!(carol.ask(&mut world, refresh()).code, Some(401));
}

#[test]
fn wall_clock_that_jumps_ends_no_allocation() {
    // security.md H11: lifetimes and nonces follow the monotonic clock.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    for unix in [0, START_UNIX * 2, 1] {
        world.now.unix = unix;
        world.wait_secs(1);
        assert_eq!(alice.ask_once(&mut world, &refresh()).code, None);
    }
}

#[test]
fn sha1_can_be_switched_off() {
    let mut world = World::with(|config| config.protocol.sha1_integrity = false);
    let mut old = Player::alice("198.51.100.7:5000");
    let reply = old.ask(&mut world, allocate());
    assert_eq!(
        (reply.code, reply.algorithms),
        (Some(401), Some(vec![0, 2, 0, 0]))
    );
    let mut modern = Player::alice("198.51.100.7:5000");
    modern.greet(&mut world);
    let request = {
        let transaction = modern.transaction();
        modern.modern = true;
        let mut out = Vec::new();
        let mut writer = allocate().start(&mut out, transaction);
        writer
            .attribute(&Username("alice"))
            .attribute(&Realm("rallypoint"))
            .attribute(&Nonce(modern.nonce.as_deref().expect("greeted")))
            .attribute(&PasswordAlgorithms::SHA256)
            .attribute(&PasswordAlgorithm::SHA256)
            .integrity(&modern.key(), IntegrityKind::Sha256);
        writer.finish();
        out
    };
    assert_eq!(world.client_sends(modern.path, &request).reply().code, None);
}

#[test]
fn hashed_names_are_announced_only_where_they_can_be_found() {
    // A time-limited user name cannot be looked up by its hash.
    let bits = |world: &mut World| {
        let mut player = Player::alice("198.51.100.7:5000");
        player.greet(world).nonce.expect("a nonce")[9..13].to_owned()
    };
    assert_eq!(
        bits(&mut World::new()),
        "gAAA",
        "algorithms alone beside time-limited users"
    );
    assert_eq!(
        bits(&mut World::with(|config| config.secrets = None)),
        "wAAA",
        "both"
    );
}

#[test]
fn guesses_are_not_judged_after_five() {
    // security.md F5: limited before the signature is judged; 401s are no protection.
    let mut world = World::new();
    let mut guesser = Player::alice("203.0.113.9:5000");
    guesser.greet(&mut world);
    let mut judged = 0;
    for guess in 0..100 {
        guesser.password = format!("guess{guess}");
        let request = guesser.sign(&allocate());
        judged += u32::from(matches!(
            world.client_sends(guesser.path, &request),
            Got::Reply(_)
        ));
    }
    assert_eq!(judged, 5);
    guesser.password = "wonderland".into();
    let right = guesser.sign(&allocate());
    assert_eq!(
        world.client_sends(guesser.path, &right),
        Got::Dropped(DropReason::SignatureLimited)
    );
    // The owner elsewhere is not disturbed; here the right password works when the wait is over.
    Player::alice("198.51.100.7:5000").allocate(&mut world);
    world.wait_secs(11);
    let right = guesser.sign(&allocate());
    assert_eq!(world.client_sends(guesser.path, &right).reply().code, None);
}

#[test]
fn owner_of_an_allocation_is_never_locked_out() {
    // A spoofer who writes the owner's address sees no answers, so he learns nothing, and must not
    // be able to do harm.
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000");
    alice.allocate(&mut world);
    let mut spoofer = Player {
        password: "wrong".into(),
        ..alice.clone()
    };
    for _ in 0..50 {
        let request = spoofer.sign(&refresh().lifetime(0));
        assert_eq!(
            world.client_sends(alice.path, &request).reply().code,
            Some(401)
        );
    }
    assert_eq!(alice.ask_once(&mut world, &refresh()).code, None);
    assert_eq!(world.relay.gauges().allocations, 1);
}

#[test]
fn allocation_of_ones_own_is_no_licence_to_guess_at_others() {
    // security.md F5. A right guess would be told from a wrong one: 441 and 401.
    let mut world = World::new();
    let mut alice = Player::minted("198.51.100.7:5000", "alice-of-the-shop", 3_600);
    alice.allocate(&mut world);
    let mut judged = 0;
    for guess in 0..100 {
        let mut guesser = Player {
            user: "bob".into(),
            password: format!("guess{guess}"),
            next_transaction: 1_000 + guess,
            ..alice.clone()
        };
        let request = guesser.sign(&refresh());
        judged += u32::from(matches!(
            world.client_sends(alice.path, &request),
            Got::Reply(_)
        ));
    }
    assert_eq!(judged, 5);
    // Her own name, minted anew, goes on being judged whatever was sent in it.
    let mut spoofer = Player {
        password: "wrong".into(),
        ..alice.clone()
    };
    for _ in 0..10 {
        let request = spoofer.sign(&refresh().lifetime(0));
        assert_eq!(
            world.client_sends(alice.path, &request).reply().code,
            Some(401)
        );
    }
    let anew = Player::minted("198.51.100.7:5000", "alice-of-the-shop", 7_200);
    (alice.user, alice.password) = (anew.user, anew.password);
    assert_eq!(alice.ask_once(&mut world, &refresh()).code, None);
}

#[test]
fn spoofer_without_a_nonce_cannot_lock_an_address_out() {
    let mut world = World::new();
    let mut spoofer = Player {
        password: "wrong".into(),
        ..Player::alice("198.51.100.7:5000")
    };
    spoofer.nonce = Some("obMatJos2gAAAAAAAAAAAAAAAAAAAAAAAAA".into());
    for _ in 0..50 {
        let request = spoofer.sign(&allocate());
        let _ = world.client_sends(spoofer.path, &request);
    }
    world.wait_secs(3); // unsigned answers are limited per source, and that passes
    Player::alice("198.51.100.7:5000").allocate(&mut world);
}

#[test]
fn static_users_and_secrets_stand_side_by_side() {
    let mut world = World::with(|config| {
        config.users = vec![StaticUser {
            name: "1900000000:k1:odd".into(),
            password: "mine".into(),
        }];
    });
    // A listed name is its own, even one that looks like a time-limited one.
    Player::named("198.51.100.7:5000", "1900000000:k1:odd", "mine").allocate(&mut world);
    let forged = mint(&secret(), "odd", 1_900_000_000);
    let reply = Player::named("198.51.100.8:5000", &forged.username, &forged.password)
        .ask(&mut world, allocate());
    assert_eq!(reply.code, Some(401));
}

#[test]
fn requests_too_short_for_a_challenge_get_the_next_truth() {
    // security.md 5.2: a challenge is never more than three times its request.
    let mut world = World::new();
    let player = Player::alice("198.51.100.7:5000");
    let tx = TransactionId([1; 12]);
    for (ask, code) in [
        (Ask::request(stun_wire::Method::ALLOCATE), 400),
        (refresh(), 437),
        (Ask::request(stun_wire::Method::CREATE_PERMISSION), 437),
        (Ask::request(stun_wire::Method::CHANNEL_BIND), 437),
    ] {
        let reply = world.client_sends(player.path, &ask.unsigned(tx)).reply();
        assert_eq!((reply.code, reply.bytes.len()), (Some(code), 28));
    }
    // 28 bytes: a challenge without the list, and the nonce says so.
    let reply = world
        .client_sends(player.path, &allocate().unsigned(tx))
        .reply();
    assert_eq!(
        (reply.code, reply.bytes.len(), reply.algorithms),
        (Some(401), 84, None)
    );
    assert_eq!(&reply.nonce.expect("a nonce")[..13], "obMatJos2AAAA");
    // 32 bytes and more: with it.
    let request = allocate().raw(AttributeType(0x8022), b"").unsigned(tx);
    let reply = world.client_sends(player.path, &request).reply();
    assert_eq!(
        (request.len(), reply.code, reply.bytes.len()),
        (32, Some(401), 96)
    );
    assert_eq!(&reply.nonce.expect("a nonce")[..13], "obMatJos2gAAA");
}

#[test]
fn algorithms_that_never_came_with_the_nonce_are_bad() {
    let mut world = World::new();
    let mut alice = Player::alice("198.51.100.7:5000").modern();
    let short = allocate().unsigned(TransactionId([1; 12]));
    alice.nonce = world.client_sends(alice.path, &short).reply().nonce;
    assert_eq!(alice.ask(&mut world, allocate()).code, Some(400));
    alice.modern = false;
    assert_eq!(alice.ask(&mut world, allocate()).code, None);
}
