//! Every bound by its name, and the event that tells it was hit.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "harness/world.rs"]
mod world;

use signal_wire::{ClientBodyWith, CloseCode, ErrorCode, LobbyJoin};
use signaling_lobby::{Admission, ConnId, Door, Event, Limiter, Prefix, Rate};
use std::net::IpAddr;
use std::time::Duration;
use world::{Body, World, hello};

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn the_server_takes_so_many_connections() {
    let mut world = World::with(|config| config.connections = 2);
    let first = world.connect();
    world.connect();
    assert_eq!(world.connect_from(Door::Native, HOME), Err(Admission::Full));
    world.disconnect(first);
    assert!(world.connect_from(Door::Native, HOME).is_ok());
    assert_eq!(world.count(Event::NotAdmitted(Admission::Full)), 1);
}

#[test]
fn one_address_has_so_many_connections_and_opens_them_so_fast() {
    let mut world = World::with(|config| {
        config.connections_per_address = 3;
        config.connect_rate = Rate::per_second(1, 3);
    });
    let conns: Vec<_> = (0..3)
        .map(|_| world.connect_from(Door::Native, HOME).unwrap())
        .collect();
    assert_eq!(
        world.connect_from(Door::Native, HOME),
        Err(Admission::AddressFull)
    );
    world.disconnect(conns[0]);
    let wait = Admission::ConnectRate(Duration::from_secs(1));
    assert_eq!(world.connect_from(Door::Native, HOME), Err(wait));
    assert_eq!(world.count(Event::RateLimited(Limiter::Connect)), 1);
    world.pass(Duration::from_secs(1));
    assert!(world.connect_from(Door::Native, HOME).is_ok());
}

#[test]
fn an_ipv6_network_is_one_address() {
    let mut world = World::with(|config| config.connections_per_address = 1);
    let from = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(
        world
            .connect_from(Door::Native, from("2001:db8::1"))
            .is_ok()
    );
    let neighbour = world.connect_from(Door::Native, from("2001:db8::2"));
    assert_eq!(neighbour, Err(Admission::AddressFull));
    assert!(
        world
            .connect_from(Door::Native, from("2001:db8:0:1::1"))
            .is_ok()
    );
}

#[test]
fn exempt_prefixes_are_free() {
    let mut world = World::with(|config| {
        config.connections_per_address = 1;
        config.exempt = vec![Prefix::new(HOME, 24).unwrap()];
    });
    for _ in 0..100 {
        world.connect_from(Door::Native, HOME).unwrap();
    }
    assert_eq!(world.census().addresses, 0);
}

#[test]
fn addresses_are_forgotten_when_rested_and_bounded_until_then() {
    let mut world = World::with(|config| {
        config.addresses = 1;
        config.connect_rate = Rate::per_second(1, 2);
    });
    let conn = world.connect_from(Door::Native, HOME).unwrap();
    let other: IpAddr = [192, 0, 2, 2].into();
    assert_eq!(
        world.connect_from(Door::Native, other),
        Err(Admission::AddressTableFull)
    );
    world.disconnect(conn);
    assert_eq!(
        world.connect_from(Door::Native, other),
        Err(Admission::AddressTableFull)
    );
    world.pass(Duration::from_secs(2));
    assert_eq!((world.census().addresses, world.census().deadlines), (0, 0));
    assert!(world.connect_from(Door::Native, other).is_ok());
}

#[test]
fn a_burst_passes_and_what_is_above_is_told_how_long_to_wait() {
    let mut world = World::new();
    let ann = world.player("Ann");
    for t in 0..99 {
        world.ping(ann, t);
    }
    assert_eq!(world.read(ann).len(), 99);
    world.ping(ann, 100);
    assert_eq!(
        world.error_with_wait(ann),
        (ErrorCode::RateLimited, Some(20))
    );
    world.pass(Duration::from_millis(20));
    world.ping(ann, 101);
    assert!(matches!(&*world.read(ann), [Body::Pong(pong)] if pong.t == 101));
    assert_eq!(world.count(Event::RateLimited(Limiter::Messages)), 1);
}

#[test]
fn a_flood_is_served_at_the_limit_and_closed_after_three_seconds() {
    let mut world = World::new();
    let (flood, other) = (world.player("Flood"), world.player("Other"));
    let mut seconds = 0;
    let closed = loop {
        for _ in 0..100 {
            for t in 0..10 {
                world.ping(flood, t);
            }
            world.pass(Duration::from_millis(10));
        }
        seconds += 1;
        let received = world.received(flood);
        let pongs = received.iter().filter(|r| is_pong(r)).count();
        assert!(pongs <= 151, "{pongs} served in a second");
        if let Some(world::Received::Closed(code)) = received.last() {
            break *code;
        }
        assert!(seconds < 10, "never closed");
    };
    assert_eq!((closed, seconds), (CloseCode::RateLimited, 3));
    world.ping(other, 1);
    assert_eq!(world.read(other).len(), 1);
}

fn is_pong(received: &world::Received) -> bool {
    matches!(received, world::Received::Message(message, _) if matches!(message.body, Body::Pong(_)))
}

#[test]
fn bytes_are_limited_beside_messages() {
    let mut world = World::with(|config| config.byte_rate = Rate::per_second(1_000, 10_000));
    let (ann, bob) = (world.member("Ann", 2), world.member("Bob", 2));
    world.read(ann);
    world.read(bob);
    let data = format!("\"{}\"", "x".repeat(4_500));
    for _ in 0..3 {
        world.signal(ann, 2, &data);
    }
    assert_eq!(world.read(bob).len(), 2);
    assert_eq!(world.error(ann), ErrorCode::RateLimited);
    assert_eq!(world.count(Event::RateLimited(Limiter::Bytes)), 1);
}

#[test]
fn wrong_passphrases_are_counted_by_address_over_all_its_connections() {
    let mut world = World::with(|config| config.join_rate = Rate::per_second(100, 100));
    let players: Vec<_> = (0..5).map(|n| player_at(&mut world, HOME, n)).collect();
    let mut answers = Vec::new();
    for n in 0..12 {
        let conn = players[n % players.len()];
        guess(&mut world, conn, &format!("guess-{n}"));
        answers.push(world.error(conn));
    }
    assert_eq!(answers[..10], [ErrorCode::NotFound; 10]);
    assert_eq!(answers[10..], [ErrorCode::RateLimited; 2]);
    assert_eq!(world.count(Event::RateLimited(Limiter::Guesses)), 2);

    // Nor does the refusal tell whether a lobby is there.
    world.member("Host", 2);
    guess(&mut world, players[0], "jump-rocket");
    assert_eq!(
        world.error_with_wait(players[0]),
        (ErrorCode::RateLimited, Some(6_000))
    );
    world.pass(Duration::from_secs(6));
    guess(&mut world, players[0], "jump-rocket");
    assert!(matches!(
        &*world.read(players[0]),
        [Body::LobbyJoined(_), ..]
    ));
}

#[test]
fn guesses_from_everywhere_have_a_limit_that_spares_first_tries() {
    let mut world = World::with(|config| config.total_guess_rate = Rate::per_minute(3, 3));
    let guessers: Vec<_> = (0..3)
        .map(|n| {
            let conn = world.player(&format!("G{n}"));
            guess(&mut world, conn, "no-lobby");
            assert_eq!(world.error(conn), ErrorCode::NotFound);
            conn
        })
        .collect();
    guess(&mut world, guessers[0], "no-lobby-either");
    assert_eq!(world.error(guessers[0]), ErrorCode::RateLimited);
    let fresh = world.player("Fresh");
    guess(&mut world, fresh, "no-lobby");
    assert_eq!(world.error(fresh), ErrorCode::NotFound);
}

#[test]
fn lobbies_opened_from_one_address_are_limited_and_so_are_joins_of_one_connection() {
    let mut world = World::new();
    let players: Vec<_> = (0..12).map(|n| player_at(&mut world, HOME, n)).collect();
    for (n, conn) in players.iter().enumerate() {
        world.join(*conn, &format!("lobby-{n}"), 2);
    }
    let joined = players
        .iter()
        .filter(|conn| matches!(&*world.read(**conn), [Body::LobbyJoined(_)]));
    assert_eq!(joined.count(), 10);
    assert_eq!(world.count(Event::RateLimited(Limiter::Opens)), 2);

    let ann = world.player("Ann");
    for n in 0..6 {
        guess(&mut world, ann, &format!("guess-{n}"));
    }
    assert_eq!(world.count(Event::RateLimited(Limiter::Joins)), 1);
}

#[test]
fn the_server_holds_so_many_lobbies() {
    let mut world = World::with(|config| config.lobbies = 1);
    world.member("Ann", 2);
    let bob = world.player("Bob");
    world.join(bob, "laser-dragon", 2);
    assert_eq!(world.error(bob), ErrorCode::Busy);
}

#[test]
fn a_draining_server_lets_nobody_in_and_spreads_the_return() {
    let mut world = World::new();
    let (silent, lobby) = (world.connect(), world.member("Ann", 2));
    let players: Vec<_> = (0..20).map(|n| world.player(&format!("P{n}"))).collect();
    world.drain_server();
    let mut times: Vec<_> = players
        .iter()
        .map(|conn| match &*world.read(*conn) {
            [Body::ServerDrain(drain)] => drain.reconnect_after_ms,
            other => panic!("{other:?}"),
        })
        .collect();
    times.sort_unstable();
    times.dedup();
    assert!(
        times.len() > 15 && times.iter().all(|time| *time <= 20_000),
        "{times:?}"
    );
    assert!(matches!(&*world.read(lobby), [Body::ServerDrain(_)]));
    assert_eq!(
        world.connect_from(Door::Native, HOME),
        Err(Admission::Draining)
    );
    world.send(silent, 1, ClientBodyWith::Hello(hello("Late")));
    assert_eq!(world.error(silent), ErrorCode::Unavailable);
    world.join(players[0], "new-lobby", 2);
    assert_eq!(world.error(players[0]), ErrorCode::Unavailable);
    world.drain_server();
    assert_eq!(world.read(lobby), [], "told once");
}

fn player_at(world: &mut World, address: IpAddr, n: usize) -> ConnId {
    let conn = world.connect_from(Door::Native, address).unwrap();
    world.send(conn, 1, ClientBodyWith::Hello(hello(&format!("P{n}"))));
    assert_eq!(world.read(conn).len(), 1);
    conn
}

fn guess(world: &mut World, conn: ConnId, passphrase: &str) {
    let join = LobbyJoin {
        passphrase: passphrase.into(),
        create: false,
        max: 2,
    };
    world.send(conn, 2, ClientBodyWith::LobbyJoin(join));
}
