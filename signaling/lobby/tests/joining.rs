//! Joining by passphrase, filling up, leaving; who is refused and why.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

#[path = "harness/world.rs"]
mod world;

use signal_wire::{ClientBodyWith, ErrorCode, Hello, LobbyJoin};
use signaling_lobby::{Door, Event, LobbyEnd};
use std::time::Duration;
use world::{Body, World, hello, story};

#[test]
fn two_players_meet_and_both_are_told_when_the_lobby_is_ready() {
    let mut world = World::new();
    let ann = world.player("Ann");
    world.join(ann, "jump-rocket", 2);
    assert_eq!(story(&world.read(ann)), ["joined v1 as 1: Ann"]);
    let bob = world.player("Bob");
    world.join(bob, "jump-rocket", 2);
    assert_eq!(
        story(&world.read(bob)),
        ["joined v2 as 2: Ann Bob", "v3 ready"]
    );
    assert_eq!(story(&world.read(ann)), ["v2 2 Bob came", "v3 ready"]);
    assert_eq!(world.count(Event::LobbyReady(Door::Native)), 1);
}

#[test]
fn replies_carry_the_request_number_and_events_a_gapless_one() {
    let mut world = World::new();
    let ann = world.member("Ann", 3);
    let bob = world.player("Bob");
    world.join(bob, "jump-rocket", 3);
    world.ping(bob, 77);
    let numbers: Vec<_> = world
        .read_messages(bob)
        .iter()
        .map(|m| (m.re, m.seq))
        .collect();
    assert_eq!(numbers, [(Some(2), None), (Some(77), None)]);
    world.member("Cid", 3);
    let numbers: Vec<_> = world
        .read_messages(ann)
        .iter()
        .map(|m| (m.re, m.seq))
        .collect();
    assert_eq!(numbers, [(None, Some(1)), (None, Some(2)), (None, Some(3))]);
}

#[test]
fn a_third_player_is_refused() {
    let mut world = World::new();
    let ann = world.member("Ann", 2);
    world.member("Bob", 2);
    world.read(ann);
    let cid = world.player("Cid");
    world.join(cid, "jump-rocket", 2);
    assert_eq!(world.error(cid), ErrorCode::LobbyFull);
    assert_eq!(world.read(ann), []);
}

#[test]
fn a_name_is_taken_in_one_lobby_only_and_look_alikes_count() {
    let mut world = World::new();
    world.member("Ann", 3);
    for name in ["Ann", "ann", "Ａnn"] {
        let other = world.player(name);
        world.join(other, "jump-rocket", 3);
        assert_eq!(world.error(other), ErrorCode::Conflict, "{name}");
        world.join(other, "laser-dragon", 3);
        assert!(
            matches!(&*world.read(other), [Body::LobbyJoined(_), ..]),
            "{name}"
        );
        world.send(other, 9, ClientBodyWith::LobbyLeave);
    }
}

#[test]
fn who_has_no_name_is_called_by_number() {
    let mut world = World::new();
    let first = world.player("");
    world.join(first, "jump-rocket", 2);
    assert_eq!(story(&world.read(first)), ["joined v1 as 1: player 1"]);
}

#[test]
fn numbers_are_never_reused_and_ready_comes_again() {
    let mut world = World::new();
    let ann = world.member("Ann", 2);
    for number in 2..6 {
        let bob = world.member("Bob", 2);
        world.send(bob, 5, ClientBodyWith::LobbyLeave);
        assert_eq!(story(&world.read(bob)), ["left"]);
        let version = 1 + (number - 2) * 3;
        assert_eq!(
            story(&world.read(ann)),
            [
                format!("v{} {number} Bob came", version + 1),
                format!("v{} ready", version + 2),
                format!("v{} {number} Left", version + 3),
            ]
        );
    }
}

#[test]
fn a_lobby_ends_with_its_last_member_and_the_passphrase_is_free() {
    let mut world = World::new();
    let ann = world.member("Ann", 2);
    world.send(ann, 5, ClientBodyWith::LobbyLeave);
    assert_eq!(world.census().lobbies, 0);
    assert_eq!(world.count(Event::LobbyClosed(LobbyEnd::Empty)), 1);
    world.read(ann);
    world.join(ann, "jump-rocket", 4);
    assert_eq!(story(&world.read(ann)), ["joined v1 as 1: Ann"]);
}

#[test]
fn games_do_not_meet() {
    let mut world = World::new();
    world.member("Ann", 2);
    let other = world.connect();
    world.send(
        other,
        1,
        ClientBodyWith::Hello(Hello {
            game: "chess".into(),
            ..hello("Bob")
        }),
    );
    world.join(other, "jump-rocket", 2);
    assert_eq!(
        story(&world.read(other)),
        ["welcome", "joined v1 as 1: Bob"]
    );
    assert_eq!(world.census().lobbies, 2);
}

#[test]
fn without_create_a_lobby_must_exist() {
    let mut world = World::new();
    let ann = world.player("Ann");
    let join = |create| {
        ClientBodyWith::LobbyJoin(LobbyJoin {
            passphrase: "jump-rocket".into(),
            create,
            max: 2,
        })
    };
    world.send(ann, 2, join(false));
    assert_eq!(world.error(ann), ErrorCode::NotFound);
    let bob = world.member("Bob", 2);
    world.send(ann, 2, join(false));
    assert_eq!(
        story(&world.read(ann)),
        ["joined v2 as 2: Bob Ann", "v3 ready"]
    );
    world.read(bob);
}

#[test]
fn the_form_of_a_passphrase_and_the_size_of_a_lobby_are_checked() {
    let mut world = World::new();
    let ann = world.player("Ann");
    for passphrase in ["", "x", "Jump Rocket", "jump--rocket", &"x".repeat(300)] {
        world.join(ann, passphrase, 2);
        assert_eq!(world.error(ann), ErrorCode::BadPassphrase, "{passphrase}");
        world.pass(Duration::from_secs(1));
    }
    for max in [0, 1, 17, u16::MAX] {
        world.join(ann, "jump-rocket", max);
        assert_eq!(world.error(ann), ErrorCode::BadRequest, "{max}");
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.census().lobbies, 0);
}

#[test]
fn joining_the_same_lobby_again_answers_again_and_another_is_refused() {
    let mut world = World::new();
    let ann = world.member("Ann", 2);
    world.join(ann, "jump-rocket", 2);
    assert_eq!(story(&world.read(ann)), ["joined v1 as 1: Ann"]);
    world.join(ann, "laser-dragon", 2);
    assert_eq!(world.error(ann), ErrorCode::AlreadyMember);
    assert_eq!(world.census().lobbies, 1);
}

#[test]
fn leaving_without_a_lobby_is_refused() {
    let mut world = World::new();
    let ann = world.player("Ann");
    world.send(ann, 2, ClientBodyWith::LobbyLeave);
    assert_eq!(world.error(ann), ErrorCode::NotFound);
}

#[test]
fn a_lobby_nothing_happens_in_is_closed_after_its_time() {
    let mut world = World::with(|config| config.lobby_idle = Duration::from_secs(600));
    let ann = world.member("Ann", 2);
    world.pass(Duration::from_secs(400));
    let bob = world.member("Bob", 2);
    world.read(ann);
    world.pass(Duration::from_secs(590));
    assert_eq!(world.read(ann), []);
    world.pass(Duration::from_secs(20));
    assert_eq!(story(&world.read(ann)), ["left"]);
    assert_eq!(story(&world.read(bob)), ["left"]);
    assert_eq!(world.count(Event::LobbyClosed(LobbyEnd::Idle)), 1);
    assert_eq!(
        (world.census().lobbies, world.census().lobbies_ready),
        (0, 0)
    );
    world.join(ann, "jump-rocket", 2);
    assert_eq!(story(&world.read(ann)), ["joined v1 as 1: Ann"]);
}

#[test]
fn credentials_are_asked_for_by_session_and_number() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.send(ann, 2, ClientBodyWith::IceRequest);
    assert_eq!(world.error(ann), ErrorCode::NotFound);
    world.join(ann, "jump-rocket", 2);
    world.send(ann, 3, ClientBodyWith::IceRequest);
    let subjects: Vec<_> = world
        .received(ann)
        .into_iter()
        .map(|received| match received {
            world::Received::Message(_, Some(ice)) => (ice.session, ice.member.0),
            other => panic!("no subject in {other:?}"),
        })
        .collect();
    assert_eq!(subjects, [(welcome.session_id, 1), (welcome.session_id, 1)]);
}
