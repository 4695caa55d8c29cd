//! The first message, what comes before it and what is no message at all.

#[path = "harness/world.rs"]
mod world;

use signal_wire::{ClientBodyWith, CloseCode, ErrorCode, Fault, Hello, PROTOCOL_VERSION, RawData};
use std::time::Duration;
use world::{World, hello, story};

#[test]
fn welcome_tells_the_limits_and_the_time() {
    let mut world = World::new();
    let (_, welcome) = world.greet("Ann");
    assert_eq!(
        (welcome.resumed, welcome.replayed, welcome.lobby),
        (false, 0, None)
    );
    assert_eq!(
        (welcome.grace_ms, &*welcome.protocol),
        (60_000, PROTOCOL_VERSION)
    );
    assert_eq!(welcome.limits.message_bytes, 16_384);
    assert_eq!(
        (
            welcome.limits.messages_per_second,
            welcome.limits.messages_burst
        ),
        (50, 100)
    );
    assert_eq!(
        (
            welcome.limits.lobby_members,
            welcome.limits.ping_interval_ms
        ),
        (16, 20_000)
    );
    assert_eq!(welcome.server_time.to_string(), "2026-11-20T11:05:07.042Z");
}

#[test]
fn sessions_and_tokens_differ() {
    let mut world = World::new();
    let (ann, bob) = (world.greet("Ann").1, world.greet("Bob").1);
    assert_ne!(ann.session_id, bob.session_id);
    assert!(!ann.resume_token.matches(bob.resume_token));
}

#[test]
fn nothing_but_ping_is_answered_before_hello() {
    let mut world = World::new();
    let ann = world.connect();
    world.ping(ann, 5);
    assert_eq!(story(&world.read(ann)), ["pong 5"]);
    world.join(ann, "jump-rocket", 2);
    assert_eq!(world.error(ann), ErrorCode::Unauthorized);
    world.signal(ann, 1, "{}");
    assert_eq!(world.error(ann), ErrorCode::Unauthorized);
    world.send(ann, 4, ClientBodyWith::LobbyLeave);
    assert_eq!(world.error(ann), ErrorCode::Unauthorized);
}

#[test]
fn who_says_no_hello_is_closed() {
    let mut world = World::new();
    let (silent, ann) = (world.connect(), world.player("Ann"));
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.closed(silent), None);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.closed(silent), Some(CloseCode::Policy));
    assert_eq!(world.closed(ann), None);
    world.send(silent, 1, ClientBodyWith::Hello(hello("Late")));
    assert_eq!(world.received(silent), [], "a closing connection is deaf");
}

#[test]
fn a_second_hello_is_a_conflict() {
    let mut world = World::new();
    let ann = world.player("Ann");
    world.send(ann, 2, ClientBodyWith::Hello(hello("Ann")));
    assert_eq!(world.error(ann), ErrorCode::Conflict);
}

#[test]
fn names_games_and_builds_out_of_bounds_are_refused() {
    let mut world = World::new();
    let ann = world.connect();
    let long = || "x".repeat(65);
    for bad in [
        Hello {
            game: "Tank".into(),
            ..hello("Ann")
        },
        Hello {
            game: String::new(),
            ..hello("Ann")
        },
        Hello {
            build: long(),
            ..hello("Ann")
        },
        Hello {
            sdk: long(),
            ..hello("Ann")
        },
        hello(&long()),
        hello("An\nn"),
        hello("A\u{202E}nn"),
    ] {
        world.send(ann, 1, ClientBodyWith::Hello(bad.clone()));
        assert_eq!(world.error(ann), ErrorCode::BadRequest, "{bad:?}");
    }
    world.send(ann, 1, ClientBodyWith::Hello(hello("Ann")));
    assert_eq!(story(&world.read(ann)), ["welcome"]);
}

#[test]
fn what_is_no_message_is_answered_by_number() {
    let mut world = World::new();
    let ann = world.player("Ann");
    for (fault, code) in [
        (Fault::UnknownType, ErrorCode::UnknownType),
        (Fault::BadData, ErrorCode::BadRequest),
        (Fault::TooLarge, ErrorCode::TooLarge),
        (Fault::NotAMessage, ErrorCode::BadRequest),
        (Fault::NotJson, ErrorCode::BadRequest),
    ] {
        world.send_garbage(ann, fault, Some(42));
        let messages = world.read_messages(ann);
        let [message] = messages.as_slice() else {
            panic!("{messages:?}")
        };
        assert_eq!(message.re, Some(42));
        assert_eq!(
            story(std::slice::from_ref(&message.body)),
            [format!("error {code}")]
        );
    }
}

#[test]
fn unknown_types_are_forgiven_and_garbage_is_not() {
    let mut world = World::new();
    let (future, noise) = (world.player("Ann"), world.player("Bob"));
    for _ in 0..50 {
        world.send_garbage(future, Fault::UnknownType, None);
    }
    assert_eq!(world.closed(future), None);
    for _ in 0..8 {
        world.send_binary(noise);
    }
    assert_eq!(world.closed(noise), Some(CloseCode::BadFrame));
}

#[test]
fn the_server_holds_so_many_sessions() {
    let mut world = World::with(|config| config.sessions = 2);
    let ann = world.player("Ann");
    world.player("Bob");
    let cid = world.connect();
    world.send(cid, 1, ClientBodyWith::<RawData>::Hello(hello("Cid")));
    assert_eq!(world.error(cid), ErrorCode::Busy);
    world.disconnect(ann);
    world.send(cid, 1, ClientBodyWith::Hello(hello("Cid")));
    assert_eq!(story(&world.read(cid)), ["welcome"]);
}
