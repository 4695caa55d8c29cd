//! Signals pass between members of one lobby, unread and in order, and nowhere else.

#[path = "harness/world.rs"]
mod world;

use signal_wire::{ClientBodyWith, ErrorCode};
use world::{World, story};

#[test]
fn a_signal_reaches_the_member_it_names_as_the_senders() {
    let mut world = World::new();
    let (ann, bob, cid) = (
        world.member("Ann", 3),
        world.member("Bob", 3),
        world.member("Cid", 3),
    );
    for player in [ann, bob, cid] {
        world.read(player);
    }
    let data = r#"{ "sdp":"v=0\r\n", "huge":123456789012345678901234567890 }"#;
    world.signal(ann, 3, data);
    assert_eq!(story(&world.read(cid)), [format!("from 1: {data}")]);
    assert_eq!((world.read(ann), world.read(bob)), (vec![], vec![]));
}

#[test]
fn signals_keep_their_order() {
    let mut world = World::new();
    let (ann, bob) = (world.member("Ann", 2), world.member("Bob", 2));
    world.read(bob);
    for n in 0..40 {
        world.signal(ann, 2, &n.to_string());
    }
    let expected: Vec<_> = (0..40).map(|n| format!("from 1: {n}")).collect();
    assert_eq!(story(&world.read(bob)), expected);
}

#[test]
fn nobody_outside_the_lobby_is_reached() {
    let mut world = World::new();
    let ann = world.member("Ann", 4);
    let far = world.player("Far");
    world.join(far, "laser-dragon", 4);
    world.read(far);
    for to in [0, 1, 2, u16::MAX] {
        world.signal(ann, to, "{}");
        assert_eq!(world.error(ann), ErrorCode::NotFound, "{to}");
    }
    let alone = world.player("Alone");
    world.signal(alone, 1, "{}");
    assert_eq!(world.error(alone), ErrorCode::NotFound);
    assert_eq!(world.read(far), []);
}

#[test]
fn who_left_is_no_longer_reached() {
    let mut world = World::new();
    let (ann, bob) = (world.member("Ann", 2), world.member("Bob", 2));
    world.send(bob, 5, ClientBodyWith::LobbyLeave);
    world.read(ann);
    world.signal(ann, 2, "{}");
    assert_eq!(world.error(ann), ErrorCode::NotFound);
    world.read(bob);
    world.signal(bob, 1, "{}");
    assert_eq!(world.error(bob), ErrorCode::NotFound);
}

#[test]
fn a_signal_out_of_bounds_is_refused() {
    let mut world = World::new();
    let (ann, bob) = (world.member("Ann", 2), world.member("Bob", 2));
    world.read(ann);
    world.read(bob);
    let of_length = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    world.signal(ann, 2, &of_length(12 * 1024));
    assert_eq!(world.read(bob).len(), 1);
    world.signal(ann, 2, &of_length(12 * 1024 + 1));
    assert_eq!(world.error(ann), ErrorCode::TooLarge);
    assert_eq!(world.read(bob), []);
}
