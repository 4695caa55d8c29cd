//! Whatever happens in whatever order, the books agree, and when all is over nothing is left.

#[path = "harness/world.rs"]
mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use signal_wire::{ClientBodyWith, Fault, Welcome};
use signaling_lobby::ConnId;
use std::collections::BTreeMap;
use std::time::Duration;
use world::{Body, Received, World};

#[derive(Clone, Debug)]
enum Step {
    Connect,
    ConnectTank,
    Resume { who: usize, last_seq: u64 },
    Join { who: usize, lobby: usize, max: u16 },
    Leave { who: usize },
    Signal { who: usize, to: u16 },
    Text { who: usize, lobby: usize },
    Garbage { who: usize },
    Disconnect { who: usize },
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..12_usize;
    prop_oneof![
        2 => Just(Step::Connect),
        1 => Just(Step::ConnectTank),
        2 => (who(), 0..6_u64).prop_map(|(who, last_seq)| Step::Resume { who, last_seq }),
        6 => (who(), 0..3_usize, 2..4_u16)
            .prop_map(|(who, lobby, max)| Step::Join { who, lobby, max }),
        2 => who().prop_map(|who| Step::Leave { who }),
        4 => (who(), 1..6_u16).prop_map(|(who, to)| Step::Signal { who, to }),
        3 => (who(), 0..4_usize).prop_map(|(who, lobby)| Step::Text { who, lobby }),
        1 => who().prop_map(|who| Step::Garbage { who }),
        3 => who().prop_map(|who| Step::Disconnect { who }),
        2 => (0..40_000_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

/// What a client that reads everything knows.
#[derive(Default)]
struct Players {
    conns: Vec<ConnId>,
    tanks: Vec<ConnId>,
    welcomes: Vec<Welcome>,
    last_seq: BTreeMap<ConnId, u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_books_agree_and_nothing_is_left(steps in vec(step(), 1..80)) {
        let mut world = World::with(|config| config.replay_events = 4);
        let mut players = Players::default();
        for step in steps {
            act(&mut world, &mut players, step);
            read(&mut world, &mut players);
            let census = world.census();
            prop_assert!(census.lobbies_ready <= census.lobbies);
            prop_assert!(census.sessions_cut <= census.sessions);
        }
        for conn in players.conns.iter().chain(&players.tanks) {
            world.disconnect(*conn);
        }
        world.pass(Duration::from_secs(3600));
        prop_assert_eq!(world.census(), signaling_lobby::Census::default());
    }
}

fn act(world: &mut World, players: &mut Players, step: Step) {
    let native = |who: usize, players: &Players| {
        players.conns.get(who % players.conns.len().max(1)).copied()
    };
    match step {
        Step::Connect => {
            let (conn, welcome) = world.greet(["Ann", "Bob", "Cid", ""][players.conns.len() % 4]);
            players.conns.push(conn);
            players.welcomes.push(welcome);
        }
        Step::ConnectTank => players.tanks.push(world.connect_tank()),
        Step::Resume { who, last_seq } => {
            let Some(welcome) = players.welcomes.get(who).cloned() else {
                return;
            };
            let (conn, again) = world.resume(&welcome, last_seq);
            players.conns.push(conn);
            if again.resumed {
                players.last_seq.insert(conn, last_seq);
            }
            players.welcomes.push(again);
        }
        Step::Join { who, lobby, max } => {
            if let Some(conn) = native(who, players) {
                world.join(conn, ["aaa", "bbb", "ccc"][lobby], max);
            }
        }
        Step::Leave { who } => {
            if let Some(conn) = native(who, players) {
                world.send(conn, 4, ClientBodyWith::LobbyLeave);
            }
        }
        Step::Signal { who, to } => {
            if let Some(conn) = native(who, players) {
                world.signal(conn, to, "{}");
            }
        }
        Step::Text { who, lobby } => {
            if let Some(conn) = players.tanks.get(who).copied() {
                let joins = [
                    r#"{"join":"aaa"}"#,
                    r#"{"join":"bbb"}"#,
                    r#"{"join":"!"}"#,
                    "hi",
                ];
                world.text(conn, joins[lobby]);
            }
        }
        Step::Garbage { who } => {
            if let Some(conn) = native(who, players) {
                world.send_garbage(conn, Fault::NotJson, None);
            }
        }
        Step::Disconnect { who } => {
            if let Some(conn) = native(who, players) {
                world.disconnect(conn);
            }
        }
        Step::Pass { millis } => world.pass(Duration::from_millis(millis)),
    }
}

/// Reads every inbox: events must be numbered without gaps, and a lobby never shows too many.
fn read(world: &mut World, players: &mut Players) {
    for conn in &players.conns {
        for received in world.received(*conn) {
            let Received::Message(message, _) = received else {
                continue;
            };
            if let Some(seq) = message.seq {
                let before = players.last_seq.insert(*conn, seq);
                assert!(
                    before.is_none_or(|before| before + 1 == seq),
                    "{before:?} then {seq}"
                );
            }
            if let Body::LobbyJoined(joined) = &message.body {
                assert!(joined.lobby.members.len() <= usize::from(joined.lobby.max));
                assert!(
                    joined
                        .lobby
                        .members
                        .iter()
                        .any(|member| member.id == joined.you)
                );
                assert!(joined.lobby.members.is_sorted_by(|a, b| a.id < b.id));
            }
        }
    }
}
