//! Two players become connected, and what the wire shows of it.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "helpers of tests may panic, and tell the one event of interest from all others"
)]

#[path = "common/world.rs"]
#[allow(dead_code, reason = "each story uses its part of the world")]
mod world;

use client_sdk_proto::{LostReason, NodeEvent, PathKind, Trust};
use signal_wire::SignalKind;
use world::{ANNA, BERT, CHAT, STATE, World, ms};

#[test]
fn two_players_connect_directly_within_three_round_trips() {
    let mut world = World::new(1);
    world.meet();
    world.run(ms(2000));
    for player in &world.players {
        // Signaling one way (50), checks, nomination and handshake: 2.2 round trips of 50 and 20 for timers.
        let connected = player.connected_at().expect("connected");
        assert!(connected <= ms(50 + 110 + 20 + 50), "{connected:?}");
    }
    let event = world.players[0]
        .events
        .iter()
        .find_map(|(_, event)| match event {
            NodeEvent::Connected {
                player,
                path,
                trust,
                ..
            } => Some((*player, path.kind, *trust)),
            _ => None,
        });
    assert_eq!(event, Some((BERT, PathKind::Direct, Trust::Signaling)));
}

#[test]
fn messages_of_both_kinds_arrive() {
    let mut world = World::connected(2);
    world.send(0, STATE, b"left");
    world.send(0, CHAT, b"hello");
    world.send(1, CHAT, &vec![7; 100_000]);
    world.run(ms(2000));
    assert_eq!(world.players[1].messages(STATE), [b"left".as_slice()]);
    assert_eq!(world.players[1].messages(CHAT), [b"hello".as_slice()]);
    assert_eq!(
        world.players[0].messages(CHAT),
        [vec![7; 100_000].as_slice()]
    );
}

#[test]
fn an_unreliable_message_costs_one_datagram_and_at_most_32_bytes() {
    let mut world = World::connected(11);
    world.run(ms(1000));
    let before = world.wire.len();
    for _ in 0..100 {
        world.send(0, STATE, &[7; 100]);
        world.run(ms(16));
    }
    let sent = &world.wire[before..];
    let carrying: Vec<usize> = sent
        .iter()
        .filter(|bytes| bytes[0] >= 64)
        .map(Vec::len)
        .filter(|len| *len > 100)
        .collect();
    assert_eq!(carrying.len(), 100, "one datagram a message");
    let overhead = carrying.iter().sum::<usize>() / carrying.len() - 100;
    println!(
        "overhead of a message of 100 bytes: {overhead} bytes, probes and acknowledgements in"
    );
    assert!(overhead <= 32, "{overhead}");
}

#[test]
fn a_marker_in_a_message_is_nowhere_on_the_wire() {
    let mut world = World::connected(3);
    let marker = b"the crown jewels are under the oak";
    world.send(0, STATE, marker);
    world.send(0, CHAT, marker);
    world.run(ms(1000));
    assert_eq!(world.players[1].messages(CHAT).len(), 1);
    let seen = |bytes: &Vec<u8>| bytes.windows(marker.len()).any(|window| window == marker);
    assert!(!world.wire.iter().any(seen));
}

#[test]
fn reliable_messages_survive_a_lossy_path_in_order() {
    let mut world = World::connected(4);
    world.loss = 0.2;
    for number in 0..200_u32 {
        world.send(0, CHAT, &number.to_be_bytes());
        world.run(ms(5));
    }
    world.run(ms(20_000));
    let got: Vec<u32> = world.players[1]
        .messages(CHAT)
        .iter()
        .map(|message| u32::from_be_bytes((*message).try_into().unwrap()))
        .collect();
    assert_eq!(got, (0..200).collect::<Vec<_>>());
}

#[test]
fn players_connect_through_heavy_loss() {
    let mut world = World::new(5);
    world.loss = 0.3;
    world.meet();
    world.run(ms(15_000));
    assert!(
        world
            .players
            .iter()
            .all(|player| player.connected_at().is_some())
    );
}

#[test]
fn a_changed_description_never_connects() {
    let mut world = World::new(6);
    world.tamper = Some(|mut signal| {
        if signal.kind == SignalKind::Offer {
            let text = signal.data["description"].as_str().unwrap().to_owned();
            let flipped = if text.ends_with('A') { "B" } else { "A" };
            let changed = format!("{}{flipped}", &text[..text.len() - 1]);
            signal.data["description"] = changed.into();
        }
        Some(signal)
    });
    world.meet();
    world.run(ms(40_000));
    for player in &world.players {
        assert!(player.connected_at().is_none());
        assert!(player.events.iter().any(|(_, event)| matches!(
            event,
            NodeEvent::Lost {
                reason: LostReason::NoDescription(Some(_)),
                ..
            }
        )));
    }
}

#[test]
fn players_without_a_path_are_told_so_with_a_diary() {
    let mut world = World::new(7);
    let (anna, bert) = (world.players[0].sockets[0].1, world.players[1].sockets[0].1);
    world.cut_both(anna, bert);
    world.meet();
    world.run(ms(40_000));
    let lost = world.players[0]
        .events
        .iter()
        .find_map(|(_, event)| match event {
            NodeEvent::Lost {
                player,
                reason,
                diary,
            } => Some((*player, reason, diary.summary())),
            _ => None,
        });
    let (player, reason, summary) = lost.expect("given up");
    assert_eq!((player, reason), (BERT, &LostReason::NoPath));
    assert!(summary.contains("No relay"), "{summary}");
}

#[test]
fn a_player_who_leaves_is_reported_at_once() {
    let mut world = World::connected(8);
    let now = world.now();
    world.players[0].node.close(now);
    world.run(ms(200));
    assert!(world.players[1].events.iter().any(|(_, event)| matches!(
        event,
        NodeEvent::Lost {
            player: ANNA,
            reason: LostReason::Left,
            ..
        }
    )));
}

#[test]
fn a_strangers_datagrams_change_nothing() {
    let mut world = World::connected(9);
    let stranger = "192.0.2.66:6666".parse().unwrap();
    let (socket, _) = world.players[0].sockets[0];
    let recorded = world.wire.clone();
    let now = world.now();
    let node = &mut world.players[0].node;
    for bytes in &recorded {
        // Whoever replays a whole check holds a valid signature: ICE answers it (RFC 8445 §19.4.1). Session bytes from an
        // address without one, and pieces of checks, are nothing.
        if bytes[0] >= 64 {
            node.handle_datagram(now, socket, stranger, bytes);
        }
        node.handle_datagram(now, socket, stranger, &bytes[..bytes.len() / 2]);
    }
    // Also the shapes of security.md: ChannelData on an unknown channel, an empty datagram.
    node.handle_datagram(now, socket, stranger, &[0x40, 0x99, 0, 0]);
    node.handle_datagram(now, socket, stranger, &[]);
    assert!(node.poll_transmit().is_none(), "a stranger was answered");
    world.send(0, STATE, b"still here");
    world.run(ms(100));
    assert_eq!(world.players[1].messages(STATE), [b"still here".as_slice()]);
}

#[test]
fn a_game_that_does_not_poll_holds_the_sender_back() {
    let mut world = World::connected(10);
    world.players[1].polls = false;
    let now = world.now();
    let mut sent = 0;
    while world.players[0]
        .node
        .send(now, BERT, CHAT, &[1; 60_000])
        .is_ok()
    {
        sent += 1;
        assert!(sent < 1000, "no bound");
    }
    world.run(ms(5000));
    // The other side's window and our queue are bounded; nothing was lost.
    world.players[1].polls = true;
    world.run(ms(10_000));
    assert_eq!(world.players[1].messages(CHAT).len(), sent);
}
