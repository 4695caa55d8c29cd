//! The passphrase door, in the literals of the tank game.

#[path = "harness/world.rs"]
mod world;

use signal_wire::CloseCode;
use signaling_lobby::{ConnId, Dropped, Event, Limiter, Rate};
use std::time::Duration;
use world::{World, story};

const JOIN: &str = r#"{"join":"jump-rocket"}"#;

#[test]
fn the_story_of_two_tanks() {
    let mut world = World::new();
    let (one, two) = (world.connect_tank(), world.connect_tank());
    world.text(one, JOIN);
    assert_eq!(
        world.read_texts(one),
        [r#"{"type":"joined","joined":true,"players":1}"#]
    );
    world.text(two, JOIN);
    assert_eq!(
        world.read_texts(two),
        [
            r#"{"type":"joined","joined":true,"players":2}"#,
            r#"{"type":"ready","ready":true}"#
        ]
    );
    assert_eq!(world.read_texts(one), [r#"{"type":"ready","ready":true}"#]);

    let moves = [
        r#"{ "playerMove" : {"x":1.50, "join":1} }"#,
        r#"{"playerShoot":true}"#,
        "hm, \u{1F680}",
    ];
    for text in moves {
        world.text(one, text);
    }
    assert_eq!(world.read_texts(two), moves, "verbatim and in order");
    world.text(two, r#"{"playerShoot":2}"#);
    assert_eq!(world.read_texts(one), [r#"{"playerShoot":2}"#]);

    world.disconnect(two);
    assert_eq!(
        world.read_texts(one),
        [r#"{"type":"left","left":true,"players":1}"#]
    );
    world.text(one, r#"{"playerMove":1}"#);
    assert_eq!(world.read_texts(one), [""; 0]);
    assert_eq!(world.count(Event::Dropped(Dropped::NoReceiver)), 1);

    let three = world.connect_tank();
    world.text(three, JOIN);
    assert_eq!(world.read_texts(one), [r#"{"type":"ready","ready":true}"#]);
    world.disconnect(one);
    world.disconnect(three);
    assert_eq!(world.census().lobbies, 0);
}

#[test]
fn a_third_tank_and_a_bad_passphrase_are_refused() {
    let mut world = World::new();
    let tanks: Vec<_> = (0..3).map(|_| world.connect_tank()).collect();
    for tank in &tanks {
        world.text(*tank, JOIN);
    }
    assert_eq!(
        world.read_texts(tanks[2]),
        [r#"{"type":"error","error":"full"}"#]
    );
    refused(
        &mut world,
        tanks[2],
        r#"{"join":"Jump Rocket"}"#,
        "bad_passphrase",
    );
    refused(&mut world, tanks[2], r#"{"join":7}"#, "not_joined");
    refused(&mut world, tanks[2], r#"{"playerMove":1}"#, "not_joined");
    refused(&mut world, tanks[2], "nonsense", "not_joined");
    world.text(tanks[2], r#"{"player":"C","join":"laser-dragon"}"#);
    let joined = world.read_texts(tanks[2]);
    assert_eq!(joined, [r#"{"type":"joined","joined":true,"players":1}"#]);
    refused(&mut world, tanks[2], JOIN, "already_joined");
}

#[test]
fn the_doors_do_not_mix() {
    let mut world = World::new();
    world.member("Ann", 2);
    let tank = world.connect_tank();
    world.text(tank, JOIN);
    assert_eq!(
        world.read_texts(tank),
        [r#"{"type":"error","error":"full"}"#]
    );
    world.text(tank, r#"{"join":"laser-dragon"}"#);
    world.read_texts(tank);
    let bob = world.player("Bob");
    world.join(bob, "laser-dragon", 2);
    assert_eq!(story(&world.read(bob)), ["error forbidden"]);
}

#[test]
fn binary_is_refused_and_then_closed() {
    let mut world = World::new();
    let tank = world.connect_tank();
    world.send_binary(tank);
    assert_eq!(
        world.read_texts(tank),
        [r#"{"type":"error","error":"bad_request"}"#]
    );
    for _ in 0..7 {
        world.send_binary(tank);
    }
    assert_eq!(world.closed(tank), Some(CloseCode::BadFrame));
}

#[test]
fn messages_are_limited_per_connection() {
    let mut world = World::with(|config| config.relay_rate = Rate::per_second(60, 10));
    let (one, two) = (world.connect_tank(), world.connect_tank());
    world.text(one, JOIN);
    world.text(two, JOIN);
    world.read_texts(one);
    world.read_texts(two);
    for _ in 0..20 {
        world.text(one, "x");
    }
    assert_eq!(world.read_texts(two).len(), 9, "ten with the join");
    assert_eq!(
        world.read_texts(one),
        [r#"{"type":"error","error":"rate_limited"}"#],
        "told once"
    );
    assert_eq!(world.count(Event::RateLimited(Limiter::Messages)), 11);
    world.pass(Duration::from_secs(1));
    world.text(one, "y");
    assert_eq!(world.read_texts(two), ["y"]);
}

#[test]
fn an_idle_game_is_closed() {
    let mut world = World::with(|config| config.lobby_idle = Duration::from_secs(60));
    let one = world.connect_tank();
    world.text(one, JOIN);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.closed(one), Some(CloseCode::Idle));
    assert_eq!(world.census().lobbies, 0);
}

fn refused(world: &mut World, tank: ConnId, text: &str, error: &str) {
    world.text(tank, text);
    let expected = format!(r#"{{"type":"error","error":"{error}"}}"#);
    assert_eq!(world.read_texts(tank), [expected], "{text}");
}
