//! The second socket of an allocation that sends mostly to one peer: nobody can tell that it is there.

use std::net::{IpAddr, SocketAddr};

use turn_relay::{Config, Scheme};

use crate::client::{Client, FromPeer, Peer, port_unreachable};
use crate::harness::{TestRelay, V4, V6, config, start};

const OPEN: &str = "rallypoint_turn_connected_sockets";

/// More than enough to be worth a socket.
const MANY: u8 = 200;

#[test]
fn whoever_sends_mostly_to_one_peer_has_a_second_socket_for_him() {
    let relay = start(config());
    for ip in [V4, V6] {
        let (mut client, relayed, peer) = acquainted(&relay, ip);
        relay.expect(OPEN, 0.0);
        send_many(&mut client, relayed, &peer);
        relay.expect(OPEN, 1.0);
        talk(&mut client, relayed, &peer);

        // Another port of that host is let in by the same permission, and answered (RFC 8656 §9).
        let neighbour = Peer::new(ip);
        neighbour.send(relayed, b"and me?");
        assert_eq!(
            client.receive(),
            FromPeer::Indication(neighbour.addr(), b"and me?".to_vec())
        );
        client.send_indication(neighbour.addr(), b"and you");
        assert_eq!(neighbour.receive(), (relayed, b"and you".to_vec()));
        talk(&mut client, relayed, &peer);

        assert_eq!(client.refresh(0).error, None);
        relay.expect(OPEN, 0.0);
    }
    expect_no_errors(&relay);
}

#[test]
fn large_and_small_and_whole_datagrams_keep_their_order() {
    let relay = start(config());
    let (mut client, relayed, peer) = acquainted(&relay, V4);
    send_many(&mut client, relayed, &peer);
    relay.expect(OPEN, 1.0);
    for round in 0..10_u8 {
        client.send_channel(0x4000, &[round, 1]);
        client.send_whole(peer.addr(), &[round, 2]);
        client.send_channel(0x4000, &[round; 3000]);
        client.send_channel(0x4000, &[]);
    }
    for round in 0..10_u8 {
        for expected in [vec![round, 1], vec![round, 2], vec![round; 3000], vec![]] {
            assert_eq!(peer.receive(), (relayed, expected));
        }
    }
    expect_no_errors(&relay);
}

#[test]
fn a_peer_that_goes_is_told_of() {
    let relay = start(config());
    for ip in [V4, V6] {
        let (mut client, relayed, peer) = acquainted(&relay, ip);
        send_many(&mut client, relayed, &peer);
        relay.expect(OPEN, 1.0);
        let closed = peer.addr();
        drop(peer);
        let unreachable = port_unreachable(ip);
        for _ in 0..3 {
            client.send_channel(0x4000, b"still there?");
            assert_eq!(client.receive(), FromPeer::Error(closed, unreachable));
        }
        assert_eq!(client.refresh(0).error, None);
        relay.expect(OPEN, 0.0);
    }
    expect_no_errors(&relay);
}

#[test]
fn nothing_of_it_stays_for_the_next_allocation_at_that_address() {
    let relay = start(config());
    let (mut client, relayed, peer) = acquainted(&relay, V4);
    send_many(&mut client, relayed, &peer);
    relay.expect(OPEN, 1.0);
    assert_eq!(client.refresh(0).error, None);
    relay.expect("rallypoint_turn_spare_sockets", 1.0);
    relay.expect(OPEN, 0.0);

    let (mut next, at_next, _) = acquainted(&relay, V4);
    assert_eq!(at_next, relayed);
    // The old peer is no peer of this one until it is permitted: its host is, by the permission for another port.
    peer.send(relayed, b"hello?");
    assert_eq!(
        next.receive(),
        FromPeer::Indication(peer.addr(), b"hello?".to_vec())
    );
    relay.expect(OPEN, 0.0);
}

/// RFC 8656 §8.2: one address of two ends, and the allocation does not.
#[test]
fn it_ends_with_its_half_of_an_allocation() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    let relayed = client.allocate_both();
    let peer = acquaint(&mut client, relayed);
    send_many(&mut client, relayed, &peer);
    relay.expect(OPEN, 1.0);
    assert_eq!(client.end_v4().error, None);
    relay.expect("rallypoint_turn_spare_sockets", 1.0);

    // Whose socket stays open from here on.
    let (_next, at_next, _) = acquainted(&relay, V4);
    assert_eq!(at_next, relayed);
    relay.expect(OPEN, 0.0);
}

#[test]
fn who_has_not_used_it_gives_it_up_to_another() {
    let relay = start(Config {
        connected_sockets: 1,
        ..config()
    });
    let (mut first, at_first, first_peer) = acquainted(&relay, V4);
    send_many(&mut first, at_first, &first_peer);
    relay.expect(OPEN, 1.0);
    let (mut second, at_second, second_peer) = acquainted(&relay, V4);
    // It takes two requests: the first finds that the other has used it.
    for _ in 0..3 {
        send_many(&mut second, at_second, &second_peer);
    }
    relay.expect(OPEN, 1.0);
    assert_eq!(second.refresh(0).error, None);
    // So it was the second one's.
    relay.expect(OPEN, 0.0);
    talk(&mut first, at_first, &first_peer);
}

#[test]
fn who_turns_to_another_peer_gets_one_for_that() {
    let relay = start(config());
    let (mut client, relayed, peer) = acquainted(&relay, V4);
    send_many(&mut client, relayed, &peer);
    let other = Peer::new(V4);
    client.bind_channel(other.addr(), 0x4001);
    other.send(relayed, b"here");
    assert_eq!(
        client.receive(),
        FromPeer::Channel(0x4001, b"here".to_vec())
    );
    for _ in 0..3 {
        for number in 0..MANY {
            client.send_channel(0x4001, &[number]);
            assert_eq!(other.receive(), (relayed, vec![number]));
        }
    }
    relay.expect(OPEN, 1.0);
    talk(&mut client, relayed, &peer);
    client.send_channel(0x4001, b"you");
    assert_eq!(other.receive(), (relayed, b"you".to_vec()));
    expect_no_errors(&relay);
}

#[test]
fn a_new_configuration_closes_them_or_allows_them() {
    let mut relay = start(config());
    let (mut client, relayed, peer) = acquainted(&relay, V4);
    send_many(&mut client, relayed, &peer);
    relay.expect(OPEN, 1.0);
    for (connected_sockets, open) in [(0, 0.0), (7, 1.0)] {
        let new = Config {
            connected_sockets,
            ..config()
        };
        relay.server().reload(new).unwrap();
        if connected_sockets == 0 {
            relay.expect(OPEN, 0.0);
        }
        send_many(&mut client, relayed, &peer);
        relay.expect(OPEN, open);
        talk(&mut client, relayed, &peer);
    }
}

/// A client with channel 0x4000 to a peer who has said something: whoever is silent is sent little.
fn acquainted(relay: &TestRelay, ip: IpAddr) -> (Client, SocketAddr, Peer) {
    let mut client = Client::udp(relay.addr(Scheme::Udp, ip));
    let relayed = client.allocate_at(ip);
    let peer = acquaint(&mut client, relayed);
    (client, relayed, peer)
}

fn acquaint(client: &mut Client, relayed: SocketAddr) -> Peer {
    let peer = Peer::new(relayed.ip());
    client.bind_channel(peer.addr(), 0x4000);
    peer.send(relayed, b"here");
    assert_eq!(
        client.receive(),
        FromPeer::Channel(0x4000, b"here".to_vec())
    );
    peer
}

fn send_many(client: &mut Client, relayed: SocketAddr, peer: &Peer) {
    for number in 0..MANY {
        client.send_channel(0x4000, &[number]);
        assert_eq!(peer.receive(), (relayed, vec![number]));
    }
}

fn talk(client: &mut Client, relayed: SocketAddr, peer: &Peer) {
    for number in 0..20 {
        client.send_channel(0x4000, &[number]);
        assert_eq!(peer.receive(), (relayed, vec![number]));
        peer.send(relayed, &[number, number]);
        assert_eq!(
            client.receive(),
            FromPeer::Channel(0x4000, vec![number, number])
        );
    }
}

fn expect_no_errors(relay: &TestRelay) {
    assert_eq!(relay.total("rallypoint_turn_socket_errors_total"), 0.0);
}
