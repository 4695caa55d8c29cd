//! Every declared metric is there from the start, and moves when what it counts happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::Duration;

use turn_relay::{Config, StreamLimits};

use crate::bounds::expect_books_balance;
use crate::client::{Client, FromPeer, Peer};
use crate::harness::{TestRelay, V4, config, start};

/// These say how much there is, not what happened, so they stand from the start.
const CONSTANT: [&str; 2] = [
    "rallypoint_turn_relay_ports_limit",
    "rallypoint_turn_bandwidth_limit_bytes_per_second",
];

/// These need a host in trouble: no descriptors, no memory, a full receive queue.
const OF_A_HOST_IN_TROUBLE: [&str; 2] = [
    "rallypoint_turn_socket_errors_total",
    "rallypoint_udp_receive_queue_dropped_total",
];

#[test]
fn everything_is_registered_at_start_with_0() {
    let relay = start(config());
    let families = families(&relay);
    assert!(families.len() > 30, "{families:?}");
    for (name, samples) in &families {
        assert!(name.starts_with("rallypoint_"), "{name}");
        let zero = samples.iter().all(|(_, value)| *value == 0.0);
        assert!(
            zero || CONSTANT.contains(&name.as_str()),
            "{name}: {samples:?}"
        );
    }
    let series: usize = families.values().map(Vec::len).sum();
    assert!(series <= 450, "{series} series");
}

#[test]
fn each_metric_moves() {
    let streams = StreamLimits {
        connections_per_address: 2,
        ..StreamLimits::default()
    };
    let mut config = Config {
        streams,
        ..config()
    };
    config.quota.permissions_per_allocation = 1;
    let relay = start(config);
    let before = families(&relay);

    // A flow both ways, long enough for the sampled histograms.
    let mut client = Client::udp(relay.udp());
    let peer = Peer::new(V4);
    let relayed = client.allocate();
    client.bind_channel(peer.addr(), 0x4000);
    for round in 0..200_u8 {
        client.send_channel(0x4000, &[round; 100]);
        assert_eq!(peer.receive(), (relayed, vec![round; 100]));
        peer.send(relayed, &[round; 50]);
        assert_eq!(client.receive(), FromPeer::Channel(0x4000, vec![round; 50]));
    }
    let levels = ["permissions", "channels", "relay_ports_in_use"];
    for level in levels {
        relay.expect(&format!("rallypoint_turn_{level}"), 1.0);
    }
    // A quota, an unknown user, a reserved port, a connection too many, and a good end.
    let elsewhere = "127.0.0.9:5000".parse().unwrap();
    assert_eq!(client.try_permit(elsewhere).error, Some(508));
    Client::udp(relay.udp())
        .login("nobody", "nothing")
        .try_allocate();
    assert_eq!(Client::udp(relay.udp()).allocate_even().error, None);
    relay.expect("rallypoint_turn_relay_ports_reserved", 1.0);
    let mut kept = [Client::tcp(relay.tcp()), Client::tcp(relay.tcp())];
    for client in &mut kept {
        assert_eq!(client.binding().error, None);
    }
    Client::tcp(relay.tcp()).expect_closed();
    let [one, _other] = kept;
    drop(one);
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"closed\"}",
        1.0,
    );
    // A flood of challenges runs into its limit.
    let flooder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let allocate = [&[0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    let allocate = [&allocate[..], &[0, 0x19, 0, 4, 17, 0, 0, 0]].concat();
    for _ in 0..200 {
        flooder.send_to(&allocate, relay.udp()).unwrap();
    }
    relay.wait_until("rallypoint_rate_limited_total{limiter=\"answers\"}", |n| {
        n > 0.0
    });
    // While everything is still there, so that gauges are seen up; then the end.
    std::thread::sleep(Duration::from_millis(1100));
    let during = families(&relay);
    assert_eq!(client.refresh(0).error, None);
    relay.expect(
        "rallypoint_turn_allocations_ended_total{reason=\"deleted\"}",
        1.0,
    );
    let after = families(&relay);

    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let moved = before.get(name) != during.get(name) || before.get(name) != after.get(name);
        let excused =
            CONSTANT.contains(&name.as_str()) || OF_A_HOST_IN_TROUBLE.contains(&name.as_str());
        assert!(moved || excused, "{name} did not move");
    }
    expect_books_balance(&relay);
    let bytes =
        |labels: &str| relay.metric(&format!("rallypoint_turn_relayed_bytes_total{labels}"));
    assert_eq!(
        bytes("{direction=\"to_peer\",framing=\"channel\"}"),
        20_000.0
    );
    assert_eq!(
        bytes("{direction=\"to_client\",framing=\"channel\"}"),
        10_000.0
    );
}

#[test]
fn strangers_cannot_add_series() {
    let relay = start(config());
    let before: usize = families(&relay).values().map(Vec::len).sum();
    for user in 0..40 {
        let mut client = Client::udp(relay.udp()).login(&format!("user-{user}"), "wrong");
        client.try_allocate();
    }
    let after: usize = families(&relay).values().map(Vec::len).sum();
    assert_eq!(before, after);
}

/// Every family with its samples.
fn families(relay: &TestRelay) -> BTreeMap<String, Vec<(String, f64)>> {
    let mut families: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    let mut family = String::new();
    for line in relay.registry.render().lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split(' ').next().unwrap().to_owned();
            families.entry(family.clone()).or_default();
        } else if let Some((sample, value)) =
            line.rsplit_once(' ').filter(|_| !line.starts_with('#'))
        {
            let entry = families.get_mut(&family).unwrap();
            entry.push((sample.to_owned(), value.parse().unwrap()));
        }
    }
    families
}
