//! TURN over UDP: allocations, permissions, channels and data both ways.

use std::net::SocketAddr;

use stun_wire::Method;
use stun_wire::attribute::{EvenPort, RequestedTransport};
use turn_relay::{Config, Scheme};

use crate::client::{Client, FromPeer, Peer, port_unreachable};
use crate::harness::{V4, V6, config, eventually, start};

#[test]
fn binding_tells_the_client_its_address() {
    let relay = start(config());
    for ip in [V4, V6] {
        let mut client = Client::udp(relay.addr(Scheme::Udp, ip));
        assert_eq!(client.binding().mapped(), client.local());
    }
}

#[test]
fn payloads_go_both_ways_in_channels_and_indications() {
    let relay = start(config());
    for ip in [V4, V6] {
        let mut client = Client::udp(relay.addr(Scheme::Udp, ip));
        let peer = Peer::new(ip);
        let relayed = client.allocate_at(ip);
        assert_eq!(relayed.ip(), ip);

        client.permit(peer.addr());
        client.send_indication(peer.addr(), b"indicated");
        assert_eq!(peer.receive(), (relayed, b"indicated".to_vec()));
        peer.send(relayed, b"answered");
        assert_eq!(
            client.receive(),
            FromPeer::Indication(peer.addr(), b"answered".to_vec())
        );

        client.bind_channel(peer.addr(), 0x4000);
        for len in [0, 1, 3, 4, 1200, 9000] {
            let payload = vec![0x5A; len];
            client.send_channel(0x4000, &payload);
            assert_eq!(peer.receive(), (relayed, payload.clone()));
            peer.send(relayed, &payload);
            assert_eq!(client.receive(), FromPeer::Channel(0x4000, payload));
        }
    }
}

#[test]
fn two_clients_of_one_relay_reach_each_other() {
    let relay = start(config());
    let (mut a, mut b) = (Client::udp(relay.udp()), Client::udp(relay.udp()));
    let (at_a, at_b) = (a.allocate(), b.allocate());
    a.bind_channel(at_b, 0x4001);
    b.bind_channel(at_a, 0x4002);
    for round in 0..20_u8 {
        a.send_channel(0x4001, &[round; 100]);
        assert_eq!(b.receive(), FromPeer::Channel(0x4002, vec![round; 100]));
        b.send_channel(0x4002, &[round; 33]);
        assert_eq!(a.receive(), FromPeer::Channel(0x4001, vec![round; 33]));
    }
}

#[test]
fn a_client_of_the_same_relay_needs_the_others_permission_too() {
    let relay = start(config());
    let (mut a, mut b) = (Client::udp(relay.udp()), Client::udp(relay.udp()));
    let (at_a, at_b) = (a.allocate(), b.allocate());
    a.bind_channel(at_b, 0x4001);
    a.send_channel(0x4001, b"uninvited");
    let dropped =
        "rallypoint_turn_dropped_packets_total{direction=\"to_client\",reason=\"no_permission\"}";
    relay.wait_until(dropped, |count| count == 1.0);
    b.permit(at_a);
    a.send_channel(0x4001, b"invited");
    assert_eq!(b.receive(), FromPeer::Indication(at_a, b"invited".to_vec()));
}

#[test]
fn clients_on_different_shards_reach_each_other() {
    let relay = start(Config {
        threads: 4,
        ..config()
    });
    let mut clients: Vec<Client> = (1..=12_u8)
        .map(|host| Client::udp_from([127, 0, 0, host].into(), relay.udp()))
        .collect();
    let relayed: Vec<_> = clients.iter_mut().map(Client::allocate).collect();
    let shards: std::collections::BTreeSet<u16> = relayed
        .iter()
        .map(|addr| (addr.port() - 49152) / 4096)
        .collect();
    assert!(
        shards.len() > 1,
        "12 clients on one shard of 4: {relayed:?}"
    );
    for (index, client) in clients.iter_mut().enumerate() {
        let next = relayed[(index + 1) % relayed.len()];
        let before = relayed[(index + relayed.len() - 1) % relayed.len()];
        client.bind_channel(next, 0x4000);
        client.bind_channel(before, 0x4001);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.send_channel(0x4000, &[u8::try_from(index).unwrap(); 50]);
    }
    let count = clients.len();
    for (index, client) in clients.iter_mut().enumerate() {
        let from = u8::try_from((index + count - 1) % count).unwrap();
        assert_eq!(client.receive(), FromPeer::Channel(0x4001, vec![from; 50]));
    }
}

#[test]
fn many_players_at_once_reach_a_peer_with_and_without_io_uring() {
    for io_uring in [true, false] {
        let mut config = Config {
            io_uring,
            ..config()
        };
        config.quota.allocations_per_user = 100;
        config.quota.silent_peer_packets = None;
        let relay = start(config);
        let peer = Peer::new(V4);
        let mut clients: Vec<Client> = (0..50).map(|_| Client::udp(relay.udp())).collect();
        let mut relayed: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let relayed = client.allocate();
                client.bind_channel(peer.addr(), 0x4000);
                relayed
            })
            .collect();
        relayed.sort();
        for round in 0..10_u8 {
            for client in &mut clients {
                client.send_channel(0x4000, &[round; 100]);
            }
            let mut from: Vec<_> = clients
                .iter()
                .map(|_| {
                    let (from, payload) = peer.receive();
                    assert_eq!(payload, [round; 100], "io_uring: {io_uring}");
                    from
                })
                .collect();
            from.sort();
            assert_eq!(from, relayed, "io_uring: {io_uring}");
        }
    }
}

/// RFC 8656 §7.2: who reserved the next port may take it on another 5-tuple, as `turnutils_uclient` does.
#[test]
fn a_reserved_port_is_given_to_another_socket_of_the_client() {
    let relay = start(Config {
        threads: 4,
        ..config()
    });
    // Kept to the end: a port used again would still have its allocation (437).
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (mut first, mut second) = (Client::udp(relay.udp()), Client::udp(relay.udp()));
        let even = first.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
            writer.attribute(&EvenPort { reserve: true });
        });
        let token = even.reservation();
        let odd = second.request(Method::ALLOCATE, &|writer| {
            writer.attribute(&RequestedTransport(17));
            writer.attribute(&token);
        });
        assert_eq!(odd.relayed().port(), even.relayed().port() + 1);
        clients.push((first, second));
    }
}

#[test]
fn a_peer_without_permission_is_not_heard() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    let (friend, stranger) = (Peer::new(V4), Peer::new(V6));
    let relayed = client.allocate();
    let other = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
    other.send_to(b"let me in", relayed).unwrap();
    relay.expect(
        "rallypoint_turn_dropped_packets_total{direction=\"to_client\",reason=\"no_permission\"}",
        1.0,
    );
    assert_eq!(
        client.try_permit(stranger.addr()).error,
        Some(443),
        "wrong family"
    );
    client.permit(friend.addr());
    friend.send(relayed, b"hello");
    assert_eq!(
        client.receive(),
        FromPeer::Indication(friend.addr(), b"hello".to_vec())
    );
}

#[test]
fn the_relay_does_not_reach_its_own_services() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    client.allocate();
    let answer = client.request(Method::CHANNEL_BIND, &|writer| {
        writer.attribute(&stun_wire::attribute::ChannelNumberAttribute(0x4000));
        writer.attribute(&stun_wire::attribute::XorPeerAddress(relay.udp()));
    });
    assert_eq!(answer.error, Some(403));
}

#[test]
fn refresh_to_zero_frees_the_port_at_once() {
    let relay = start(Config {
        spare_sockets: 0,
        ..config()
    });
    let mut client = Client::udp(relay.udp());
    let relayed = client.allocate();
    let used = std::net::UdpSocket::bind(relayed).map(drop);
    assert_eq!(used.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(client.refresh(0).error, None);
    relay.expect("rallypoint_turn_relay_ports_in_use", 0.0);
    std::net::UdpSocket::bind(relayed).unwrap();
    assert_eq!(client.refresh(600).error, Some(437));
    client.allocate();
}

/// Waits until nothing is bound there.
fn expect_closed(addr: SocketAddr) {
    eventually(|| std::net::UdpSocket::bind(addr).map_err(|error| format!("{addr}: {error}")));
}

#[test]
fn the_socket_of_an_allocation_that_ended_serves_the_next_one() {
    let relay = start(config());
    let peer = Peer::new(V4);
    let relayed = [1, 2, 3].map(|round| {
        let mut client = Client::udp(relay.udp());
        let relayed = client.allocate();
        client.bind_channel(peer.addr(), 0x4000);
        client.send_channel(0x4000, &[round]);
        assert_eq!(peer.receive(), (relayed, vec![round]));
        peer.send(relayed, &[round, round]);
        assert_eq!(
            client.receive(),
            FromPeer::Channel(0x4000, vec![round, round])
        );
        assert_eq!(client.refresh(0).error, None);
        relay.expect("rallypoint_turn_relay_ports_in_use", 0.0);
        relayed
    });
    assert_eq!(relayed, [relayed[0]; 3]);
    let opened = "rallypoint_turn_relay_sockets_total{outcome=\"opened\"}";
    assert_eq!(relay.metric(opened), 1.0);
    // Nobody came for it in two seconds.
    relay.expect("rallypoint_turn_spare_sockets", 0.0);
    expect_closed(relayed[0]);
}

#[test]
fn whoever_still_sends_to_an_allocation_that_ended_meets_a_closed_port() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    let (relayed, peer) = (client.allocate(), Peer::new(V4));
    client.permit(peer.addr());
    assert_eq!(client.refresh(0).error, None);
    relay.expect("rallypoint_turn_spare_sockets", 1.0);
    peer.send(relayed, b"are you there?");
    expect_closed(relayed);
    let dropped =
        "rallypoint_turn_dropped_packets_total{direction=\"to_client\",reason=\"unknown_relay\"}";
    assert_eq!(relay.metric(dropped), 1.0);
}

#[test]
fn even_port_with_reservation_is_granted() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    let answer = client.allocate_even();
    assert_eq!(answer.error, None);
    assert_eq!(answer.relayed().port() % 2, 0);
}

#[test]
fn dont_fragment_is_obeyed_and_keeps_the_order() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    let peer = Peer::new(V4);
    let relayed = client.allocate();
    client.bind_channel(peer.addr(), 0x4000);
    // Whoever has answered is sent more than a few packets a second.
    peer.send(relayed, b"here");
    assert_eq!(
        client.receive(),
        FromPeer::Channel(0x4000, b"here".to_vec())
    );
    for round in 0..10_u8 {
        client.send_channel(0x4000, &[round, 1]);
        client.send_whole(peer.addr(), &[round, 2]);
        client.send_channel(0x4000, &[round, 3]);
    }
    for round in 0..10_u8 {
        for part in 1..=3 {
            assert_eq!(peer.receive(), (relayed, vec![round, part]));
        }
    }
}

/// RFC 8656 §11.5, and what it must not do: an error is told by failing some call on the socket.
#[test]
fn a_closed_port_is_told_of_and_costs_other_peers_nothing() {
    let relay = start(config());
    for ip in [V4, V6] {
        let mut client = Client::udp(relay.addr(Scheme::Udp, ip));
        let (open, closed) = (Peer::new(ip), Peer::new(ip).addr());
        let relayed = client.allocate_at(ip);
        client.bind_channel(open.addr(), 0x4000);
        client.bind_channel(closed, 0x4001);
        let unreachable = port_unreachable(ip);
        open.send(relayed, b"here");
        assert_eq!(
            client.receive(),
            FromPeer::Channel(0x4000, b"here".to_vec())
        );
        for round in 0..5_u8 {
            client.send_channel(0x4001, b"is anyone there?");
            client.send_channel(0x4000, &[round]);
            assert_eq!(open.receive(), (relayed, vec![round]));
            assert_eq!(client.receive(), FromPeer::Error(closed, unreachable));
            open.send(relayed, &[round]);
            assert_eq!(client.receive(), FromPeer::Channel(0x4000, vec![round]));
        }
    }
    let count =
        |outcome: &str| format!("rallypoint_turn_peer_icmp_errors_total{{outcome=\"{outcome}\"}}");
    relay.expect(&count("told"), 10.0);
    relay.expect(&count("dropped"), 0.0);
    assert_eq!(relay.total("rallypoint_turn_socket_errors_total"), 0.0);
}

#[test]
fn a_wildcard_listener_answers_from_the_address_asked() {
    let mut config = config();
    config.peers.allow_loopback_for_tests = false;
    for url in &mut config.listen {
        let any: std::net::IpAddr = if url.address.is_ipv4() {
            "0.0.0.0".parse()
        } else {
            "::".parse()
        }
        .unwrap();
        url.address.set_ip(any);
    }
    let relay = start(config);
    let port = relay.addr(Scheme::Udp, "0.0.0.0".parse().unwrap()).port();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // A connected socket hears nobody else.
    socket.connect(("127.0.0.77", port)).unwrap();
    let mut client = Client::udp(([127, 0, 0, 77], port).into());
    assert_eq!(client.binding().error, None);
    assert_eq!(client.allocate().ip(), V4);
}

#[test]
fn time_limited_credentials_work_and_expired_ones_do_not() {
    let secret = turn_relay::Secret::new(b"9b1f0c4d6a7e8f90aa51c3d2b4e5f607".to_vec());
    let minting = credentials::Secret {
        id: Some("k1".into()),
        key: b"9b1f0c4d6a7e8f90aa51c3d2b4e5f607".to_vec(),
    };
    let secrets = vec![turn_relay::NamedSecret {
        id: Some("k1".into()),
        secret,
    }];
    let relay = start(Config {
        secrets,
        ..config()
    });
    let now = net_io::clock::unix();
    let good = credentials::mint(&minting, "alice", now + 3600);
    Client::udp(relay.udp())
        .login(&good.username, &good.password)
        .allocate();
    // Clocks may differ by a minute.
    let late = credentials::mint(&minting, "alice", now - 120);
    let answer = Client::udp(relay.udp())
        .login(&late.username, &late.password)
        .try_allocate();
    assert_eq!(answer.error, Some(401));
    relay.expect(
        "rallypoint_turn_auth_failures_total{reason=\"expired\"}",
        1.0,
    );
}
