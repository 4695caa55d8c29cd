//! A path that dies is left, and taken again when it has come back.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "helpers of tests may panic, and tell the one event of interest from all others"
)]

#[path = "common/world.rs"]
#[allow(dead_code, reason = "each story uses its part of the world")]
mod world;

use std::time::Duration;

use client_sdk_proto::NodeEvent;
use world::{STATE, World, ms};

const TWO_EACH: [&[&str]; 2] = [&["10.0.0.1:1000", "10.1.0.1:1001"], &["10.0.0.2:2000"]];

fn playing() -> World {
    let mut world = World::with_sockets(20, &TWO_EACH);
    world.meet();
    world.run(ms(2000));
    play(&mut world, ms(500));
    world
}

/// Both send at 50 Hz.
fn play(world: &mut World, time: Duration) {
    let end = world.elapsed + time;
    while world.elapsed < end {
        world.send(0, STATE, b"anna");
        world.send(1, STATE, b"bert");
        world.run(ms(20));
    }
}

/// The longest time without a message at `player` since `since`.
fn longest_gap(world: &World, player: usize, since: Duration) -> Duration {
    let mut last = since;
    let mut longest = Duration::ZERO;
    for (at, event) in &world.players[player].events {
        if *at >= since && matches!(event, NodeEvent::Message { .. }) {
            longest = longest.max(*at - last);
            last = *at;
        }
    }
    longest.max(world.elapsed - last)
}

#[test]
fn a_cut_path_is_left_within_half_a_second() {
    let mut world = playing();
    let path = world.path(0);
    let cut_at = world.elapsed;
    world.cut_both(path.local, path.remote);
    play(&mut world, ms(3000));
    for player in 0..2 {
        let gap = longest_gap(&world, player, cut_at);
        assert!(gap <= ms(560), "player {player} heard nothing for {gap:?}");
    }
    assert_ne!(world.path(0).local, path.local);
    assert!(
        world.players[0]
            .events
            .iter()
            .any(|(at, event)| { *at > cut_at && matches!(event, NodeEvent::PathChanged { .. }) })
    );
}

#[test]
fn a_path_cut_in_one_direction_is_left_by_both() {
    let mut world = playing();
    let path = world.path(0);
    let cut_at = world.elapsed;
    world.cut.push((path.local, path.remote));
    play(&mut world, ms(3000));
    for player in 0..2 {
        let gap = longest_gap(&world, player, cut_at);
        assert!(gap <= ms(1100), "player {player} heard nothing for {gap:?}");
    }
}

#[test]
fn a_silent_game_does_not_lose_its_path() {
    let mut world = playing();
    let path = world.path(0);
    world.run(ms(20_000));
    assert_eq!(world.path(0), path);
    play(&mut world, ms(500));
    assert_eq!(world.path(0), path);
}

#[test]
fn one_sided_traffic_does_not_lose_its_path() {
    let mut world = playing();
    let path = world.path(0);
    for _ in 0..200 {
        world.send(0, STATE, b"anna");
        world.run(ms(20));
    }
    assert_eq!(world.path(0), path);
    assert_eq!(world.path(1).remote, path.local);
}

#[test]
fn a_path_that_comes_back_is_used_again_when_the_other_dies() {
    let mut world = playing();
    let first = world.path(0);
    world.cut_both(first.local, first.remote);
    play(&mut world, ms(2000));
    world.cut.clear();
    play(&mut world, ms(8000));
    let second = world.path(0);
    world.cut_both(second.local, second.remote);
    let cut_at = world.elapsed;
    play(&mut world, ms(3000));
    assert!(longest_gap(&world, 1, cut_at) <= ms(1100));
    assert_ne!(
        (world.path(0).local, world.path(0).remote),
        (second.local, second.remote)
    );
}
