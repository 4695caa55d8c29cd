//! What is bounded, and what happens at the bound: answered or counted, and nobody else disturbed.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use turn_relay::{Config, PortRange};

use crate::client::{Client, FromPeer, Peer};
use crate::harness::{V4, config, start};

#[test]
fn a_busy_relay_port_is_a_508_and_not_a_crash() {
    // The only two ports there are belong to somebody else.
    let (first, second) = neighbours();
    let relay_ports = PortRange {
        first: port(&first),
        last: port(&second),
    };
    let relay = start(Config {
        relay_ports,
        relay_addresses: vec![V4],
        ..config()
    });
    assert_eq!(Client::udp(relay.udp()).try_allocate().error, Some(508));
    relay.wait_until(
        "rallypoint_turn_relay_sockets_total{outcome=\"in_use\"}",
        |n| n >= 1.0,
    );
    let refused =
        "rallypoint_turn_responses_total{method=\"allocate\",class=\"error\",code=\"508\"}";
    relay.expect(refused, 1.0);
    // As soon as one is free it is given out.
    let free = first.local_addr().unwrap();
    drop(first);
    assert_eq!(Client::udp(relay.udp()).allocate(), free);
}

#[test]
fn a_user_on_many_addresses_has_sixteen_allocations_of_the_whole_relay() {
    // security.md E3. An address meets one shard, and these do not all meet the same.
    let relay = start(Config {
        threads: 2,
        ..config()
    });
    let mut clients: Vec<Client> = (1..=40)
        .map(|host| Client::udp_from(IpAddr::from([127, 0, 0, host]), relay.udp()))
        .collect();
    let answers: Vec<_> = clients
        .iter_mut()
        .map(|client| client.try_allocate().error)
        .collect();
    let (made, refused) = answers.split_at(16);
    assert_eq!((made, refused), (&[None; 16][..], &[Some(486); 24][..]));
    relay.expect(
        "rallypoint_turn_quota_rejections_total{quota=\"user\"}",
        24.0,
    );
    // One that is given back can be had from wherever.
    assert_eq!(clients[3].refresh(0).error, None);
    clients[39].allocate();
    assert_eq!(clients[38].try_allocate().error, Some(486));
    assert_eq!(relay.total("rallypoint_turn_allocations"), 16.0);
}

#[test]
fn allocations_are_bounded_for_the_whole_relay() {
    let mut config = Config {
        threads: 2,
        ..config()
    };
    config.quota.allocations = 10;
    let relay = start(config);
    let answers: Vec<_> = (1..=12)
        .map(|host| {
            let mut client = Client::udp_from(IpAddr::from([127, 0, 0, host]), relay.udp());
            client.try_allocate().error
        })
        .collect();
    let (made, refused) = answers.split_at(10);
    assert_eq!((made, refused), (&[None; 10][..], &[Some(508); 2][..]));
}

#[test]
fn garbage_leaves_a_flow_undisturbed() {
    let relay = start(config());
    let mut client = Client::udp(relay.udp());
    let peer = Peer::new(V4);
    let relayed = client.allocate();
    client.bind_channel(peer.addr(), 0x4000);
    // Another address: it has no permission, and limits of its own.
    let flooder = UdpSocket::bind("127.0.0.3:0").unwrap();
    let mut sent = 0_u32;
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for round in 0..200_u32 {
        for _ in 0..20 {
            flooder.send_to(&noise.datagram(), relay.udp()).unwrap();
            flooder.send_to(&noise.datagram(), relayed).unwrap();
            sent += 2;
        }
        client.send_channel(0x4000, &round.to_be_bytes());
        assert_eq!(peer.receive(), (relayed, round.to_be_bytes().to_vec()));
        peer.send(relayed, &round.to_be_bytes());
        assert_eq!(
            client.receive(),
            FromPeer::Channel(0x4000, round.to_be_bytes().to_vec())
        );
    }
    assert!(sent > 0);
    let received = |side: &str| {
        relay.metric(&format!(
            "rallypoint_turn_received_packets_total{{side=\"{side}\"}}"
        ))
    };
    // What is no TURN at first sight is dropped by the system.
    let dropped = "rallypoint_udp_receive_queue_dropped_total";
    let unqueued = relay.metric(&format!("{dropped}{{listener=\"udp://{}\"}}", relay.udp()));
    let arrived = received("client") + unqueued;
    assert!(arrived > 4000.0, "{arrived}");
    expect_books_balance(&relay);
}

/// For each side, what was received equals the sum of its verdicts.
pub(crate) fn expect_books_balance(relay: &crate::harness::TestRelay) {
    for side in ["client", "peer"] {
        let received = format!("rallypoint_turn_received_packets_total{{side=\"{side}\"}}");
        let verdicts: f64 = ["forwarded", "replied", "absorbed", "dropped"]
            .iter()
            .map(|verdict| {
                let labels = format!("side=\"{side}\",verdict=\"{verdict}\"");
                relay.metric(&format!("rallypoint_turn_verdicts_total{{{labels}}}"))
            })
            .sum();
        assert_eq!(relay.metric(&received), verdicts, "{side}");
    }
}

/// Two sockets on neighbouring ports, the first even.
fn neighbours() -> (UdpSocket, UdpSocket) {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        if !port(&first).is_multiple_of(2) {
            continue;
        }
        let next = SocketAddr::new(V4, port(&first) + 1);
        if let Ok(second) = UdpSocket::bind(next) {
            return (first, second);
        }
    }
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

/// xorshift64: the same noise in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Half of them begin like something the relay knows.
    fn datagram(&mut self) -> Vec<u8> {
        let len = usize::try_from(self.next() % 600).unwrap();
        let mut bytes: Vec<u8> = (0..len).map(|_| self.next().to_le_bytes()[0]).collect();
        let heads: [&[u8]; 4] = [
            &[0, 1, 0, 8, 0x21, 0x12, 0xA4, 0x42],
            &[0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42],
            &[0x40, 0, 0xFF, 0xFF],
            &[],
        ];
        let head = heads[usize::try_from(self.next() % 4).unwrap()];
        for (byte, known) in bytes.iter_mut().zip(head) {
            *byte = *known;
        }
        bytes
    }
}
