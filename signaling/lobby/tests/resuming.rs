//! A cut connection costs nothing within the grace time: membership stays, what was missed follows.

#[path = "harness/world.rs"]
mod world;

use signal_wire::{ClientBodyWith, CloseCode, Hello, Resume, ResumeToken};
use signaling_lobby::{Dropped, Event, ResumeOutcome};
use std::time::Duration;
use world::{World, hello, story};

#[test]
fn what_was_missed_follows_the_welcome_in_order() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 3);
    let bob = world.member("Bob", 3);
    let seen = world
        .read_messages(ann)
        .last()
        .and_then(|message| message.seq)
        .unwrap();
    world.disconnect(ann);
    world.signal(bob, 1, "1");
    world.signal(bob, 1, "2");
    world.member("Cid", 3);

    world.pass(Duration::from_secs(59));
    let (ann, again) = world.resume(&welcome, seen);
    assert_eq!((again.resumed, again.replayed), (true, 4));
    assert_eq!(again.session_id, welcome.session_id);
    assert!(again.lobby.is_some());
    let messages = world.read_messages(ann);
    let numbers: Vec<_> = messages.iter().filter_map(|message| message.seq).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
    let bodies: Vec<_> = messages
        .iter()
        .map(|message| message.body.clone())
        .collect();
    assert_eq!(
        story(&bodies),
        ["from 2: 1", "from 2: 2", "v3 3 Cid came", "v4 ready"]
    );
    world.read(bob);
    world.signal(ann, 2, "3");
    assert_eq!(story(&world.read(bob)), ["from 1: 3"]);
    assert_eq!(world.count(Event::Resume(ResumeOutcome::Replayed)), 1);
}

#[test]
fn others_do_not_notice_a_short_cut() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    let bob = world.member("Bob", 2);
    world.disconnect(ann);
    assert_eq!(world.census().sessions_cut, 1);
    world.resume(&welcome, 2);
    assert_eq!(world.census().sessions_cut, 0);
    world.pass(Duration::from_secs(300));
    assert_eq!(world.read(bob), []);
}

#[test]
fn after_the_grace_time_the_seat_is_free() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    let bob = world.member("Bob", 2);
    world.disconnect(ann);
    world.pass(Duration::from_secs(61));
    assert_eq!(story(&world.read(bob)), ["v4 1 Disconnected"]);
    let (_, again) = world.resume(&welcome, 2);
    assert_eq!((again.resumed, again.lobby), (false, None));
    assert_ne!(again.session_id, welcome.session_id);
    assert_eq!(world.count(Event::Resume(ResumeOutcome::Unknown)), 1);
}

#[test]
fn a_session_without_a_lobby_has_nothing_to_keep() {
    let mut world = World::new();
    let ann = world.player("Ann");
    world.disconnect(ann);
    assert_eq!(
        (world.census().sessions, world.census().sessions_cut),
        (0, 0)
    );
}

#[test]
fn a_wrong_token_or_game_opens_a_session_of_its_own() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    world.disconnect(ann);
    let token = ResumeToken(welcome.resume_token.0 ^ 1);
    let forged = world.resume(
        &signal_wire::Welcome {
            resume_token: token,
            ..welcome.clone()
        },
        0,
    );
    assert_eq!((forged.1.resumed, forged.1.lobby), (false, None));
    let other = world.connect();
    let resume = Resume {
        session_id: welcome.session_id,
        resume_token: welcome.resume_token,
        last_seq: 0,
    };
    let hello = Hello {
        game: "chess".into(),
        resume: Some(resume),
        ..hello("Eve")
    };
    world.send(other, 1, ClientBodyWith::Hello(hello));
    assert_eq!(world.count(Event::Resume(ResumeOutcome::Unknown)), 2);
    assert_eq!(world.resume(&welcome, 0).1.session_id, welcome.session_id);
}

#[test]
fn a_newer_connection_takes_the_session_over() {
    let mut world = World::new();
    let (old, welcome) = world.greet("Ann");
    world.join(old, "jump-rocket", 2);
    world.read(old);
    let (new, again) = world.resume(&welcome, 0);
    assert!(again.resumed);
    assert_eq!(world.closed(old), Some(CloseCode::SessionReplaced));
    world.disconnect(old);
    let bob = world.member("Bob", 2);
    assert_eq!(story(&world.read(new)), ["v2 2 Bob came", "v3 ready"]);
    world.pass(Duration::from_secs(120));
    assert_eq!(
        world.read(bob),
        [],
        "the end of the old connection does not end the session"
    );
}

#[test]
fn too_many_missed_events_are_replaced_by_the_state() {
    let mut world = World::with(|config| config.replay_events = 3);
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 3);
    let bob = world.member("Bob", 3);
    world.disconnect(ann);
    for _ in 0..3 {
        world.signal(bob, 1, "{}");
    }
    let (ann, again) = world.resume(&welcome, 0);
    assert_eq!(
        (again.resumed, again.replayed, again.lobby.is_some()),
        (false, 0, true)
    );
    let messages = world.read_messages(ann);
    let [snapshot] = messages.as_slice() else {
        panic!("{messages:?}")
    };
    assert_eq!(snapshot.seq, Some(5), "numbers go on without a gap");
    assert_eq!(
        story(std::slice::from_ref(&snapshot.body)),
        ["joined v2 as 1: Ann Bob"]
    );
    assert_eq!(world.count(Event::Resume(ResumeOutcome::Snapshot)), 1);
    assert_eq!(world.count(Event::Dropped(Dropped::Replay)), 1);
}

#[test]
fn bytes_bound_the_replay_too() {
    let mut world = World::with(|config| config.replay_bytes = 10_000);
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    let bob = world.member("Bob", 2);
    world.disconnect(ann);
    let data = format!("\"{}\"", "x".repeat(4_000));
    for _ in 0..3 {
        world.signal(bob, 1, &data);
    }
    assert!(!world.resume(&welcome, 2).1.resumed);
}

#[test]
fn a_number_from_the_future_gets_the_state() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    world.disconnect(ann);
    let (ann, again) = world.resume(&welcome, 99);
    assert!(!again.resumed);
    assert_eq!(story(&world.read(ann)), ["joined v1 as 1: Ann"]);
}

#[test]
fn what_is_acknowledged_is_not_kept() {
    let mut world = World::with(|config| config.replay_events = 2);
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    let bob = world.member("Bob", 2);
    world.read(ann);
    world.acknowledge(ann, 2);
    for n in 3..20 {
        world.signal(bob, 1, "{}");
        world.read(ann);
        world.acknowledge(ann, n);
    }
    assert_eq!(world.count(Event::Dropped(Dropped::Replay)), 0);
    world.disconnect(ann);
    assert_eq!(world.resume(&welcome, 19).1.replayed, 0);
}

#[test]
fn events_nobody_acknowledges_are_dropped_by_age() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    let bob = world.member("Bob", 2);
    world.pass(Duration::from_secs(61));
    assert_eq!(
        world.count(Event::Dropped(Dropped::Replay)),
        3,
        "Ann's two and Bob's one"
    );
    world.disconnect(ann);
    assert!(world.resume(&welcome, 2).1.resumed, "seen is seen");
    world.disconnect(bob);
}

#[test]
fn a_lost_answer_to_a_join_is_had_by_joining_again() {
    let mut world = World::new();
    let (ann, welcome) = world.greet("Ann");
    world.join(ann, "jump-rocket", 2);
    world.disconnect(ann);
    let (ann, again) = world.resume(&welcome, 0);
    assert!(again.lobby.is_some());
    world.join(ann, "jump-rocket", 2);
    assert_eq!(story(&world.read(ann)), ["joined v1 as 1: Ann"]);
}
