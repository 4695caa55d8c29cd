//! TCP allocations: RFC 6062, with the same peer policy as for datagrams.

use std::time::Duration;

use stun_wire::Method;
use stun_wire::attribute::AddressFamily;
use turn_relay_proto::{
    ConnectionEnd, Direction, DropReason, EndReason, Event, Gauges, IncomingRefusal, Path,
    PeerConnectionId, QuotaKind, Reason, RelayAddress, Traffic, Transport,
};

use crate::harness::{
    Ask, Got, OTHER_PEER, PEER, PEER_V6, Player, Reply, World, addr, allocate, allocate_tcp,
    attempt, channel_bind, connect, connection_bind, create_permission, refresh,
};

const CLIENT: &str = "198.51.100.7:5000";
/// Where the client's data connections come from.
const DATA: &str = "198.51.100.7:5001";
const OTHER_DATA: &str = "198.51.100.7:5002";

#[test]
fn allocation_listens_and_is_bound_to_a_control_connection() {
    // RFC 6062 §5.1.
    let mut world = world();
    let mut alice = alice();
    let reply = alice.ask(&mut world, allocate_tcp());
    let relayed = reply.relayed();
    assert_eq!(reply.lifetime, Some(600));
    assert!(world.listening.iter().any(|addr| addr.0 == relayed));
    world.relay.handle_disconnect(world.now, alice.path);
    world.drain();
    world.assert_empty();
}

#[test]
fn what_makes_no_sense_for_connections_is_400() {
    // RFC 6062 §5.1: over UDP, or with EVEN-PORT, DONT-FRAGMENT or RESERVATION-TOKEN.
    let mut world = world();
    let mut over_udp = Player::alice("198.51.100.8:5000");
    assert_eq!(over_udp.ask(&mut world, allocate_tcp()).code, Some(400));
    for ask in [
        allocate_tcp().even_port(false),
        allocate_tcp().even_port(true),
        allocate_tcp().dont_fragment(),
        allocate_tcp().token([7; 8]),
    ] {
        assert_eq!(alice().ask(&mut world, ask).code, Some(400));
    }
    world.assert_empty();
}

#[test]
fn switched_off_it_is_442_and_its_methods_are_unknown() {
    // RFC 6062 §5.1, RFC 8489 §6.3; off is the default.
    let mut world = World::new();
    let mut alice = alice();
    assert_eq!(alice.ask(&mut world, allocate_tcp()).code, Some(442));
    for ask in [connect(PEER), connection_bind(7)] {
        let request = alice.sign(&ask);
        let got = world.client_sends(alice.path, &request);
        assert_eq!(got, Got::Dropped(DropReason::UnknownMethod));
    }
    // CONNECTION-ID is an attribute that nobody has heard of: 420 (RFC 8489 §6.3.1).
    let strange = Ask {
        method: Method::ALLOCATE,
        ..connection_bind(7)
    };
    let reply = alice.ask(&mut world, strange.transport(17));
    assert_eq!((reply.code, reply.unknown), (Some(420), vec![0x002A]));
}

#[test]
fn connect_reaches_the_peer_and_is_bound_to_a_data_connection() {
    // RFC 6062 §5.2 and §5.4.
    let (mut world, mut alice, relayed) = allocated();
    let request = alice.sign(&connect(PEER));
    assert_eq!(world.client_sends(alice.path, &request), Got::Absorbed);
    let [asked] = world.connecting[..] else {
        panic!("one connection is wanted")
    };
    assert_eq!((asked.relayed.0, asked.peer), (relayed, addr(PEER)));
    world.answer_connects(true);
    let reply = Reply::parse(&world.told(alice.path).expect("a response"));
    assert_eq!(reply.code, None);
    assert!(reply.is_signed_by(&alice.key()));
    let connection = reply.connection.expect("CONNECTION-ID");
    assert_eq!(asked.connection, PeerConnectionId(connection));

    let mut data = data_connection(&alice, DATA);
    world.take_events();
    assert_eq!(data.ask(&mut world, connection_bind(connection)).code, None);
    assert_eq!(
        world.take_events(),
        [Event::ConnectionBound {
            connection: asked.connection,
            client: data.path
        }]
    );
    // Its data is the peer's: whatever it looks like, it is no message.
    assert!(world.relay.carries_data(data.path));
    let request = data.sign(&allocate());
    let got = world.client_sends(data.path, &request);
    assert_eq!(got, Got::Dropped(DropReason::NotTurn));
    // Bound, it lives as long as its allocation.
    world.wait_secs(500);
    assert_eq!(world.relay.gauges().peer_connections, 1);
    world.wait_secs(200);
    world.assert_empty();
}

#[test]
fn pion_connect_to_a_closed_port_is_447_and_the_next_allocate_is_answered() {
    // After one Connect to a closed port, every later Allocate over TCP went unanswered, for good.
    let (mut world, mut alice, _) = allocated();
    assert_eq!(
        connected(&mut world, &mut alice, PEER, false).code,
        Some(447)
    );
    let mut bob = Player::bob("198.51.100.9:5000").over(Transport::Tcp);
    assert_eq!(bob.ask(&mut world, allocate_tcp()).code, None);
    let mut carol = Player::minted("198.51.100.10:5000", "carol", 3_600).over(Transport::Tls);
    carol.allocate(&mut world);
    // Neither is the allocation itself in the way, nor the peer.
    assert_eq!(connected(&mut world, &mut alice, PEER, true).code, None);
}

#[test]
fn connect_that_nobody_answers_is_447_after_30_seconds() {
    // RFC 6062 §5.2: at least 30 seconds.
    let (mut world, mut alice, _) = allocated();
    let request = alice.sign(&connect(PEER));
    assert_eq!(world.client_sends(alice.path, &request), Got::Absorbed);
    let (at, why) = world.relay.poll_timeout().expect("a deadline");
    assert_eq!(
        (at - world.now.mono, why),
        (Duration::from_secs(30), Reason::PeerConnection)
    );
    let asked = world.connecting[0].connection;
    world.wait_secs(29);
    assert_eq!(world.told(alice.path), None);
    world.wait_secs(1);
    let reply = Reply::parse(&world.told(alice.path).expect("a response"));
    assert_eq!(reply.code, Some(447));
    // The peer's answer comes too late and changes nothing.
    world.relay.handle_connected(world.now, asked, true);
    world.drain();
    assert_eq!(world.told(alice.path), None);
    assert_eq!(world.relay.gauges().peer_connections, 0);
}

#[test]
fn connect_needs_a_tcp_allocation_of_this_user() {
    // RFC 6062 §5.2: 437 without one; RFC 8656 §5: 441 with another's credentials.
    let mut world = world();
    let mut stranger = alice();
    assert_eq!(stranger.ask(&mut world, connect(PEER)).code, Some(437));
    let mut udp = Player::alice("198.51.100.8:5000");
    udp.allocate(&mut world);
    assert_eq!(udp.ask(&mut world, connect(PEER)).code, Some(437));
    // Datagrams over a control connection are no TCP allocation either.
    let mut datagrams = alice();
    datagrams.allocate(&mut world);
    assert_eq!(datagrams.ask(&mut world, connect(PEER)).code, Some(437));

    let (mut world, alice, _) = allocated();
    let mut bob = Player::bob(CLIENT).over(Transport::Tcp);
    bob.nonce.clone_from(&alice.nonce);
    assert_eq!(bob.ask(&mut world, connect(PEER)).code, Some(441));
    assert_eq!(world.connecting, []);
}

#[test]
fn connect_without_a_signature_reaches_nobody() {
    // A recurring fault elsewhere: the check that Allocate has, missing in Connect.
    let (mut world, mut alice, _) = allocated();
    let transaction = alice.transaction();
    let got = world.client_sends(alice.path, &connect(PEER).unsigned(transaction));
    assert_eq!(got.reply().code, Some(401));
    let mut wrong = Player::named(CLIENT, "alice", "wrong").over(Transport::Tcp);
    wrong.nonce.clone_from(&alice.nonce);
    assert_eq!(wrong.ask(&mut world, connect(PEER)).code, Some(401));
    let got = world.client_sends(path_of(DATA), &connection_bind(7).unsigned(transaction));
    assert_eq!(got.reply().code, Some(401));
    assert_eq!(world.connecting, []);
}

#[test]
fn connect_is_judged_as_datagrams_are() {
    // 403 for what the policy refuses, 443 for a family that the allocation has not.
    let (mut world, mut alice, _) = allocated();
    for (peer, code) in [
        ("127.0.0.1:6000", 403),
        ("10.0.0.1:6000", 403),
        ("169.254.169.254:8000", 403),
        ("20.30.40.50:53", 403),
        ("20.30.40.50:0", 403),
        ("192.0.2.1:3478", 403),
        ("192.0.2.1:50000", 403),
        ("[::ffff:20.30.40.50]:6000", 443),
        (PEER_V6, 443),
    ] {
        let reply = alice.ask(&mut world, connect(peer));
        assert_eq!(reply.code, Some(code), "{peer}");
    }
    let reply = alice.ask(&mut world, Ask::request(Method::CONNECT));
    assert_eq!(reply.code, Some(400), "no peer");
    assert_eq!(world.connecting, []);
}

#[test]
fn open_ports_of_one_protocol_are_not_peers_of_the_other() {
    // Behind the same number on our own address may be anybody's socket.
    let (mut world, mut alice, listening) = allocated();
    let datagrams = Player::bob("198.51.100.9:5000").allocate(&mut world);
    let reply = alice.ask(&mut world, connect(&datagrams.to_string()));
    assert_eq!(reply.code, Some(403));
    let mut carol = Player::minted("198.51.100.10:5000", "carol", 3_600);
    carol.allocate(&mut world);
    let reply = carol.ask(&mut world, channel_bind(0x4000, &listening.to_string()));
    assert_eq!(reply.code, Some(403));
}

#[test]
fn two_players_meet_on_one_relay_behind_a_nat() {
    let mut world = World::with(|config| {
        config.protocol.tcp_relaying = true;
        config.relay_addresses = vec![RelayAddress {
            bind: addr("10.0.0.5:0").ip(),
            external: Some(addr("203.0.113.10:0").ip()),
        }];
    });
    let (mut alice, mut bob) = (
        alice(),
        Player::bob("198.51.100.9:5000").over(Transport::Tcp),
    );
    let from = alice.ask(&mut world, allocate_tcp()).relayed();
    let to = bob.ask(&mut world, allocate_tcp()).relayed();
    assert_eq!(from.ip(), addr("203.0.113.10:0").ip());
    let reply = bob.ask(&mut world, create_permission(&[&from.to_string()]));
    assert_eq!(reply.code, None);
    let request = alice.sign(&connect(&to.to_string()));
    assert_eq!(world.client_sends(alice.path, &request), Got::Absorbed);
    // The shell goes to the bound address, and the other end sees the bound one.
    let bound = addr(&format!("10.0.0.5:{}", to.port()));
    assert_eq!(world.connecting[0].peer, bound);
    let inside = format!("10.0.0.5:{}", from.port());
    world.peer_connects(&inside, bound).expect("a permission");
    let told = world.told(bob.path).expect("a ConnectionAttempt");
    assert_eq!(attempt(&told).0, from, "under the name that Bob knows");
}

#[test]
fn one_connection_with_a_peer_else_446() {
    // RFC 6062 §5.2: being made, pending or active.
    let (mut world, mut alice, _) = allocated();
    let request = alice.sign(&connect(PEER));
    assert_eq!(world.client_sends(alice.path, &request), Got::Absorbed);
    assert_eq!(alice.ask_once(&mut world, &connect(PEER)).code, Some(446));
    world.answer_connects(true);
    let reply = Reply::parse(&world.told(alice.path).expect("a response"));
    let connection = reply.connection.expect("CONNECTION-ID");
    assert_eq!(alice.ask(&mut world, connect(PEER)).code, Some(446));
    let mut data = data_connection(&alice, DATA);
    assert_eq!(data.ask(&mut world, connection_bind(connection)).code, None);
    assert_eq!(alice.ask(&mut world, connect(PEER)).code, Some(446));
    // Another port is another peer; and when the connection is over, so is the refusal.
    assert_eq!(
        connected(&mut world, &mut alice, "20.30.40.50:6001", true).code,
        None
    );
    world
        .relay
        .handle_connection_end(PeerConnectionId(connection), ConnectionEnd::Finished);
    world.drain();
    assert_eq!(connected(&mut world, &mut alice, PEER, true).code, None);
}

#[test]
fn incoming_connection_needs_a_permission_and_is_announced() {
    // RFC 6062 §5.3.
    let (mut world, mut alice, relayed) = allocated();
    let refused = world.peer_connects(PEER, relayed);
    assert_eq!(refused, Err(IncomingRefusal::NoPermission));
    assert_eq!(world.told(alice.path), None, "nobody hears of it");
    let reply = alice.ask(&mut world, create_permission(&[PEER]));
    assert_eq!(reply.code, None);
    let connection = world.peer_connects(PEER, relayed).expect("a permission");
    let told = world.told(alice.path).expect("a ConnectionAttempt");
    assert_eq!(attempt(&told), (addr(PEER), connection.0));
    let again = world.peer_connects(PEER, relayed);
    assert_eq!(again, Err(IncomingRefusal::Exists));
    // The permission is for the address; the policy is for the port too.
    let low = world.peer_connects("20.30.40.50:53", relayed);
    assert_eq!(low, Err(IncomingRefusal::PeerDenied));
    let nobody = world.peer_connects(PEER, addr("192.0.2.1:50001"));
    assert_eq!(nobody, Err(IncomingRefusal::UnknownRelay));
    let mut data = data_connection(&alice, DATA);
    assert_eq!(
        data.ask(&mut world, connection_bind(connection.0)).code,
        None
    );
    // RFC 8656 §9: five minutes later nobody gets in; the connection stays.
    world.wait_secs(301);
    let late = world.peer_connects("20.30.40.50:6001", relayed);
    assert_eq!(late, Err(IncomingRefusal::NoPermission));
    assert_eq!(world.relay.gauges().peer_connections, 1);
}

#[test]
fn connection_that_nobody_claims_lives_30_seconds() {
    // RFC 6062 §5.2 and §5.3.
    let (mut world, mut alice, relayed) = allocated();
    let made = connected(&mut world, &mut alice, PEER, true)
        .connection
        .expect("an id");
    alice.ask(&mut world, create_permission(&[OTHER_PEER]));
    let incoming = world
        .peer_connects(OTHER_PEER, relayed)
        .expect("a permission");
    world.take_events();
    world.wait(Duration::from_millis(29_999));
    assert_eq!(world.take_events(), []);
    world.wait(Duration::from_millis(1));
    let ended = [PeerConnectionId(made), incoming].map(unclaimed);
    let events = world.take_events();
    assert!(
        ended.iter().all(|event| events.contains(event)),
        "{events:?}"
    );
    let mut data = data_connection(&alice, DATA);
    assert_eq!(data.ask(&mut world, connection_bind(made)).code, Some(400));
}

#[test]
fn connection_bind_is_for_the_owner_on_a_fresh_connection() {
    // RFC 6062 §5.4: else 400, whether the id is another's or nobody's.
    let (mut world, mut alice, _) = allocated();
    let connection = connected(&mut world, &mut alice, PEER, true)
        .connection
        .expect("an id");
    let bind = || connection_bind(connection);
    let mut bob = Player::bob("198.51.100.9:5000").over(Transport::Tcp);
    assert_eq!(bob.ask(&mut world, bind()).code, Some(400), "another user");
    let mut udp = Player::alice("198.51.100.7:5009");
    assert_eq!(udp.ask(&mut world, bind()).code, Some(400), "over UDP");
    assert_eq!(
        alice.ask(&mut world, bind()).code,
        Some(400),
        "control connection"
    );
    let mut data = data_connection(&alice, DATA);
    let nobodys = connection_bind(connection.wrapping_add(1));
    assert_eq!(data.ask(&mut world, nobodys).code, Some(400), "nobody's");
    let nameless = Ask::request(Method::CONNECTION_BIND);
    assert_eq!(data.ask(&mut world, nameless).code, Some(400), "no id");
    assert_eq!(data.ask(&mut world, bind()).code, None);
    let mut second = data_connection(&alice, OTHER_DATA);
    assert_eq!(
        second.ask(&mut world, bind()).code,
        Some(400),
        "bound already"
    );
}

#[test]
fn connect_in_progress_cannot_be_bound() {
    let (mut world, mut alice, _) = allocated();
    let request = alice.sign(&connect(PEER));
    assert_eq!(world.client_sends(alice.path, &request), Got::Absorbed);
    let asked = world.connecting[0].connection;
    let mut data = data_connection(&alice, DATA);
    let reply = data.ask(&mut world, connection_bind(asked.0));
    assert_eq!(reply.code, Some(400));
}

#[test]
fn channels_and_indications_are_for_datagrams() {
    // RFC 6062: what a TCP allocation is not for.
    let (mut world, mut alice, relayed) = allocated();
    alice.ask(&mut world, create_permission(&[PEER]));
    assert_eq!(
        alice.ask(&mut world, channel_bind(0x4000, PEER)).code,
        Some(403)
    );
    let got = alice.send(&mut world, PEER, b"datagram");
    assert_eq!(got, Got::Dropped(DropReason::BadIndication));
    let got = alice.send_channel(&mut world, 0x4000, b"datagram");
    assert_eq!(got, Got::Dropped(DropReason::NoChannel));
    let got = world.peer_sends(PEER, relayed, b"datagram");
    assert_eq!(got, Got::Dropped(DropReason::UnknownRelay));
}

#[test]
fn connections_end_with_their_allocation_however_it_ends() {
    // RFC 6062 §5.5.
    type End = fn(&mut World, &mut Player);
    let ends: [(EndReason, End); 5] = [
        (EndReason::Deleted, |world, alice| {
            assert_eq!(alice.ask(world, refresh().lifetime(0)).code, None);
        }),
        (EndReason::Expired, |world, _| world.wait_secs(700)),
        (EndReason::Disconnected, |world, alice| {
            world.relay.handle_disconnect(world.now, alice.path);
        }),
        (EndReason::Kicked, |world, _| {
            assert_eq!(world.relay.kick_user(world.now, "alice"), 1);
        }),
        (EndReason::Drained, |world, _| {
            world.relay.end_all(world.now);
        }),
    ];
    for (reason, end) in ends {
        let (mut world, mut alice, _) = allocated();
        let made = connected(&mut world, &mut alice, PEER, true)
            .connection
            .expect("an id");
        let mut data = data_connection(&alice, DATA);
        assert_eq!(data.ask(&mut world, connection_bind(made)).code, None);
        world.take_events();
        end(&mut world, &mut alice);
        world.drain();
        let over = Event::ConnectionEnded {
            connection: PeerConnectionId(made),
            reason: ConnectionEnd::AllocationEnded,
        };
        assert!(world.take_events().contains(&over), "{reason:?}");
        world.assert_empty();
    }
}

#[test]
fn connect_in_progress_is_answered_when_the_allocation_ends() {
    let (mut world, mut alice, _) = allocated();
    let request = alice.sign(&connect(PEER));
    assert_eq!(world.client_sends(alice.path, &request), Got::Absorbed);
    world.relay.kick_client(world.now, alice.path);
    world.drain();
    let reply = Reply::parse(&world.told(alice.path).expect("a response"));
    assert_eq!(reply.code, Some(447));
    world.assert_empty();
}

#[test]
fn data_connection_that_ends_ends_its_peer_and_nothing_else() {
    let (mut world, mut alice, _) = allocated();
    let made = connected(&mut world, &mut alice, PEER, true)
        .connection
        .expect("an id");
    connected(&mut world, &mut alice, OTHER_PEER, true);
    let mut data = data_connection(&alice, DATA);
    data.ask(&mut world, connection_bind(made));
    world.take_events();
    world.relay.handle_disconnect(world.now, data.path);
    world.drain();
    assert_eq!(
        world.take_events(),
        [Event::ConnectionEnded {
            connection: PeerConnectionId(made),
            reason: ConnectionEnd::ClientLost
        }]
    );
    let gauges = world.relay.gauges();
    assert_eq!((gauges.allocations, gauges.peer_connections), (1, 1));
}

#[test]
fn connections_to_peers_that_new_rules_refuse_end() {
    let (mut world, mut alice, _) = allocated();
    let made = connected(&mut world, &mut alice, PEER, true)
        .connection
        .expect("an id");
    let mut config = crate::harness::config();
    config.peers.allow_only = true;
    world.take_events();
    world.relay.set_config(world.now, config);
    world.drain();
    assert_eq!(
        world.take_events(),
        [Event::ConnectionEnded {
            connection: PeerConnectionId(made),
            reason: ConnectionEnd::PeerDenied
        }]
    );
}

#[test]
fn one_family_of_a_dual_allocation_ends_with_its_connections() {
    let mut world = world();
    let mut alice = alice();
    let both = allocate_tcp().additional_family(AddressFamily::Ipv6);
    assert_eq!(alice.ask(&mut world, both).relayed.len(), 2);
    assert_eq!(world.listening.len(), 2);
    let kept = connected(&mut world, &mut alice, PEER, true)
        .connection
        .expect("an id");
    connected(&mut world, &mut alice, PEER_V6, true);
    let half = refresh().family(AddressFamily::Ipv6).lifetime(0);
    assert_eq!(alice.ask(&mut world, half).code, None);
    assert_eq!(world.listening.len(), 1);
    let left: Vec<_> = world.connections.iter().copied().collect();
    assert_eq!(left, [PeerConnectionId(kept)]);
}

#[test]
fn connections_of_an_allocation_are_bounded() {
    let mut world = World::with(|config| {
        config.protocol.tcp_relaying = true;
        config.quota.peer_connections_per_allocation = 3;
        config.quota.waiting_connections_per_allocation = 2;
    });
    let mut alice = alice();
    let relayed = alice.ask(&mut world, allocate_tcp()).relayed();
    alice.ask(&mut world, create_permission(&[PEER]));
    let peer = |port: u16| format!("20.30.40.50:{port}");
    let first = connected(&mut world, &mut alice, &peer(6_001), true);
    let second = world.peer_connects(&peer(6_002), relayed).expect("room");
    assert_eq!(alice.ask(&mut world, connect(&peer(6_003))).code, Some(508));
    let third = world.peer_connects(&peer(6_003), relayed);
    assert_eq!(third, Err(IncomingRefusal::Full));
    for (n, connection) in [first.connection.expect("an id"), second.0]
        .into_iter()
        .enumerate()
    {
        let mut data = data_connection(&alice, &format!("198.51.100.7:{}", 5_100 + n));
        assert_eq!(data.ask(&mut world, connection_bind(connection)).code, None);
    }
    world.peer_connects(&peer(6_003), relayed).expect("room");
    let fourth = world.peer_connects(&peer(6_004), relayed);
    assert_eq!(fourth, Err(IncomingRefusal::Full));
    assert_eq!(refused(&world, QuotaKind::WaitingConnections), 2);
    assert_eq!(refused(&world, QuotaKind::PeerConnections), 1);
}

#[test]
fn connect_is_no_port_scanner() {
    let mut world = World::with(|config| {
        config.protocol.tcp_relaying = true;
        config.quota.silent_peer_packets = Some(5);
    });
    let mut alice = alice();
    alice.ask(&mut world, allocate_tcp());
    for port in 0..5 {
        let reply = connected(
            &mut world,
            &mut alice,
            &format!("20.30.40.50:{}", 6_000 + port),
            false,
        );
        assert_eq!(reply.code, Some(447));
    }
    assert_eq!(alice.ask(&mut world, connect(PEER)).code, Some(508));
    assert_eq!(refused(&world, QuotaKind::Connects), 1);
    world.wait_secs(1);
    assert_eq!(connected(&mut world, &mut alice, PEER, true).code, None);
}

#[test]
fn bytes_are_counted_and_wait_for_bandwidth() {
    let mut world = World::with(|config| {
        config.protocol.tcp_relaying = true;
        config.quota.bandwidth_per_allocation = Some(10_000);
    });
    let mut alice = alice();
    alice.ask(&mut world, allocate_tcp());
    let made = connected(&mut world, &mut alice, PEER, true)
        .connection
        .expect("an id");
    let (connection, mut carried) = (PeerConnectionId(made), 0_u64);
    let until = world.now.mono + Duration::from_secs(10);
    while world.now.mono < until {
        match world
            .relay
            .may_carry(world.now, connection, Direction::ToPeer)
        {
            Ok(()) => {
                carried += 1_000;
                world
                    .relay
                    .handle_carried(world.now, connection, Direction::ToPeer, 1_000);
            }
            Err(at) => {
                assert!(at > world.now.mono, "or the shell would spin");
                world.now.mono = at;
            }
        }
    }
    assert!(
        (109_000..=111_000).contains(&carried),
        "1 s at once, then 10,000/s: {carried}"
    );
    // The other way has a bandwidth of its own.
    let other = world
        .relay
        .may_carry(world.now, connection, Direction::ToClient);
    assert_eq!(other, Ok(()));
    world
        .relay
        .handle_carried(world.now, connection, Direction::ToClient, 7);
    world.take_events();
    alice.ask(&mut world, refresh().lifetime(0));
    let traffic = Traffic {
        to_peer_bytes: carried,
        to_client_bytes: 7,
        ..Traffic::default()
    };
    let ended =
        |event: &Event| matches!(event, Event::AllocationEnded { traffic: t, .. } if *t == traffic);
    assert!(world.take_events().iter().any(ended));
}

#[test]
fn listener_that_cannot_be_had_is_replaced_or_508() {
    let mut world = world();
    world.no_descriptors = true;
    let mut player = alice();
    assert_eq!(player.ask(&mut world, allocate_tcp()).code, Some(508));
    world.assert_empty();
    // A shell that answers when nobody waits any more: the listener is given back as one.
    world.no_descriptors = false;
    world.slow_shell = true;
    let request = player.sign(&allocate_tcp());
    assert_eq!(world.client_sends(player.path, &request), Got::Absorbed);
    world.relay.handle_disconnect(world.now, player.path);
    world.slow_shell = false;
    world.drain();
    world.assert_empty();
    let expected = Gauges {
        ports_limit: world.relay.gauges().ports_limit,
        ..Gauges::default()
    };
    assert_eq!(world.relay.gauges(), expected);
}

fn world() -> World {
    World::with(|config| config.protocol.tcp_relaying = true)
}

fn alice() -> Player {
    Player::alice(CLIENT).over(Transport::Tcp)
}

fn path_of(client: &str) -> Path {
    Player::alice(client).over(Transport::Tcp).path
}

/// Alice with a TCP allocation.
fn allocated() -> (World, Player, std::net::SocketAddr) {
    let (mut world, mut alice) = (world(), alice());
    let relayed = alice.ask(&mut world, allocate_tcp()).relayed();
    (world, alice, relayed)
}

/// Another connection of the same user, which knows no nonce of its own yet.
fn data_connection(of: &Player, client: &str) -> Player {
    let mut data = of.clone();
    data.path = path_of(client);
    data.nonce = None;
    data
}

/// Connect, and what the client reads when the peer has answered or refused.
fn connected(world: &mut World, player: &mut Player, peer: &str, success: bool) -> Reply {
    let request = player.sign(&connect(peer));
    assert_eq!(world.client_sends(player.path, &request), Got::Absorbed);
    world.answer_connects(success);
    Reply::parse(&world.told(player.path).expect("a response"))
}

fn unclaimed(connection: PeerConnectionId) -> Event {
    Event::ConnectionEnded {
        connection,
        reason: ConnectionEnd::Unclaimed,
    }
}

fn refused(world: &World, kind: QuotaKind) -> u64 {
    let mut all = world.relay.counters().quota_rejections();
    all.find(|(known, _)| *known == kind).expect("each kind").1
}
