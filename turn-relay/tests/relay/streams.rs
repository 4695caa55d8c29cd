//! TURN over TCP: framing, padding, and what bounds a connection.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use turn_relay::{Scheme, StreamLimits};

use crate::client::{Client, FromPeer, Peer, connect};
use crate::harness::{V4, V6, config, start};

#[test]
fn payloads_go_both_ways_over_tcp() {
    let relay = start(config());
    for ip in [V4, V6] {
        let mut client = Client::tcp(relay.addr(Scheme::Tcp, ip));
        let peer = Peer::new(V4);
        let relayed = client.allocate();
        client.permit(peer.addr());
        client.send_indication(peer.addr(), b"indicated");
        assert_eq!(peer.receive(), (relayed, b"indicated".to_vec()));
        peer.send(relayed, b"odd");
        assert_eq!(
            client.receive(),
            FromPeer::Indication(peer.addr(), b"odd".to_vec())
        );
        client.bind_channel(peer.addr(), 0x4000);
        for len in [0, 1, 2, 3, 4, 5, 1200, 60_001] {
            let payload = vec![0xA5; len];
            client.send_channel(0x4000, &payload);
            assert_eq!(peer.receive(), (relayed, payload.clone()));
            peer.send(relayed, &payload);
            assert_eq!(client.receive(), FromPeer::Channel(0x4000, payload));
        }
    }
}

#[test]
fn a_tcp_and_a_udp_client_reach_each_other() {
    let relay = start(config());
    let (mut a, mut b) = (Client::tcp(relay.tcp()), Client::udp(relay.udp()));
    let (at_a, at_b) = (a.allocate(), b.allocate());
    a.bind_channel(at_b, 0x4001);
    b.bind_channel(at_a, 0x4002);
    for round in 0..20_u8 {
        a.send_channel(0x4001, &[round; 101]);
        assert_eq!(b.receive(), FromPeer::Channel(0x4002, vec![round; 101]));
        b.send_channel(0x4002, &[round; 34]);
        assert_eq!(a.receive(), FromPeer::Channel(0x4001, vec![round; 34]));
    }
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let relay = start(config());
    let mut client = Client::tcp(relay.tcp());
    let peer = Peer::new(V4);
    let relayed = client.allocate();
    client.bind_channel(peer.addr(), 0x4000);
    let frame = [&[0x40, 0, 0, 5][..], b"hello", &[0; 3]].concat();
    for byte in frame.iter().chain(&frame) {
        client.send_raw(&[*byte]);
    }
    client.send_raw(&[&frame[..], &frame, &frame[..6]].concat());
    client.send_raw(&frame[6..]);
    for _ in 0..5 {
        assert_eq!(peer.receive(), (relayed, b"hello".to_vec()));
    }
}

#[test]
fn a_client_that_leaves_takes_its_allocation_with_it() {
    let relay = start(config());
    let mut client = Client::tcp(relay.tcp());
    client.allocate();
    relay.expect(
        "rallypoint_turn_allocations{transport=\"tcp\",family=\"ipv4\"}",
        1.0,
    );
    drop(client);
    relay.expect(
        "rallypoint_turn_allocations{transport=\"tcp\",family=\"ipv4\"}",
        0.0,
    );
    relay.expect(
        "rallypoint_turn_allocations_ended_total{reason=\"disconnected\"}",
        1.0,
    );
    relay.expect("rallypoint_turn_relay_ports_in_use", 0.0);
    relay.expect("rallypoint_turn_connections{transport=\"tcp\"}", 0.0);
}

#[test]
fn another_protocol_is_cut_off() {
    let relay = start(config());
    let mut client = Client::tcp(relay.tcp());
    client.send_raw(b"\xff\xfe\xfd\xfc what is this");
    client.expect_closed();
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"malformed\"}",
        1.0,
    );
}

#[test]
fn slow_and_idle_connections_are_cut_off() {
    let streams = StreamLimits {
        first_message: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        ..StreamLimits::default()
    };
    let relay = start(turn_relay::Config {
        streams,
        ..config()
    });
    let mut silent = Client::tcp(relay.tcp());
    let mut idle = Client::tcp(relay.tcp());
    let mut busy = Client::tcp(relay.tcp());
    busy.allocate();
    assert_eq!(idle.binding().error, None);
    silent.expect_closed();
    idle.expect_closed();
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"slow\"}",
        1.0,
    );
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"idle\"}",
        1.0,
    );
    // The allocation keeps its connection.
    assert_eq!(busy.refresh(600).error, None);
    assert_eq!(busy.refresh(0).error, None);
    busy.expect_closed();
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"idle\"}",
        2.0,
    );
}

#[test]
fn an_address_has_so_many_connections_and_no_more() {
    let streams = StreamLimits {
        connections_per_address: 3,
        ..StreamLimits::default()
    };
    let relay = start(turn_relay::Config {
        streams,
        ..config()
    });
    let mut kept: Vec<Client> = (0..3).map(|_| Client::tcp(relay.tcp())).collect();
    for client in &mut kept {
        assert_eq!(client.binding().error, None);
    }
    Client::tcp(relay.tcp()).expect_closed();
    let refused = "rallypoint_turn_connections_refused_total{reason=\"address_limit\"}";
    relay.expect(refused, 1.0);
    // Another address is not concerned.
    assert_eq!(
        Client::tcp(relay.addr(Scheme::Tcp, V6)).binding().error,
        None
    );
    kept.pop();
    relay.wait_until("rallypoint_turn_connections{transport=\"tcp\"}", |open| {
        open <= 2.0
    });
    assert_eq!(Client::tcp(relay.tcp()).binding().error, None);
}

#[test]
fn a_deaf_client_loses_datagrams_then_its_connection_and_nobody_else_does() {
    let mut config = config();
    config.quota.bandwidth_per_allocation = None;
    config.quota.bandwidth_per_user = None;
    let relay = start(config);
    let mut deaf = connect(relay.tcp());
    let mut client = Client::stream(deaf.try_clone().unwrap());
    let mut other = Client::udp(relay.udp());
    let (flooder, peer) = (Peer::new(V4), Peer::new(V4));
    let (relayed, at_other) = (client.allocate(), other.allocate());
    client.bind_channel(flooder.addr(), 0x4000);
    other.bind_channel(peer.addr(), 0x4000);
    // Fill its queue and the system's, which is some megabytes on loopback.
    let full =
        "rallypoint_turn_dropped_packets_total{direction=\"to_client\",reason=\"send_queue_full\"}";
    let mut rounds = 0;
    while relay.metric(full) == 0.0 {
        for _ in 0..64 {
            flooder.send(relayed, &[0; 8000]);
        }
        other.send_channel(0x4000, b"undisturbed");
        assert_eq!(peer.receive(), (at_other, b"undisturbed".to_vec()));
        rounds += 1;
        assert!(rounds < 2000, "the queue never fills");
    }
    // It goes on asking without reading the answers: that ends it.
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    let many = binding.repeat(100);
    for _ in 0..1000 {
        if deaf.write_all(&many).is_err() {
            break;
        }
    }
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"deaf\"}",
        1.0,
    );
    other.send_channel(0x4000, b"still there");
    assert_eq!(peer.receive(), (at_other, b"still there".to_vec()));
    let mut sink = [0; 65_536];
    while deaf.read(&mut sink).is_ok_and(|len| len > 0) {}
}

#[test]
fn a_reset_is_an_end_like_any_other() {
    let relay = start(config());
    let socket = connect(relay.tcp());
    let mut client = Client::stream(socket.try_clone().unwrap());
    client.allocate();
    socket2::SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop((client, socket));
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"reset\"}",
        1.0,
    );
    relay.expect("rallypoint_turn_relay_ports_in_use", 0.0);
    assert_eq!(Client::tcp(relay.tcp()).binding().error, None);
}
