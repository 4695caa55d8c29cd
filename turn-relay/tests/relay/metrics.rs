//! Every declared metric is there from the start, and moves when what it counts happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::Duration;

use turn_relay::{Config, StreamLimits};

use crate::bounds::expect_books_balance;
use crate::client::{Client, FromPeer, Peer};
use crate::harness::{TestRelay, V4, config, start};

/// This says how much there is, not what happened, so it stands from the start.
const CONSTANT: &str = "rallypoint_turn_relay_ports_limit";

/// These tell of the configuration, and there is one from the start.
const OF_THE_CONFIGURATION: [&str; 3] = [
    "rallypoint_config_last_reload_successful",
    "rallypoint_config_last_reload_success_timestamp_seconds",
    "rallypoint_turn_bandwidth_limit_bytes_per_second",
];

/// These need a host in trouble: no descriptors, no memory, a full receive queue.
const OF_A_HOST_IN_TROUBLE: [&str; 2] = [
    "rallypoint_turn_socket_errors_total",
    "rallypoint_udp_receive_queue_dropped_total",
];

/// Moved by the tests in `tls.rs` and `external.rs`.
const OF_OTHER_TESTS: [&str; 2] = [
    "rallypoint_tls_certificate_reloads_total",
    "rallypoint_turn_external_address_checks_total",
];

/// Moved by the tests in `tcp_relaying.rs`.
const OF_TCP_RELAYING: &str = "rallypoint_turn_peer_connect";
/// Moved, label by label, by the tests in `doors.rs`.
const OF_DOORS: [&str; 3] = [
    "rallypoint_turn_undecided_connections",
    "rallypoint_turn_undecided_connections_ended_total",
    "rallypoint_turn_proxy_headers_total",
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
            zero || name == CONSTANT || OF_THE_CONFIGURATION.contains(&name.as_str()),
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
    let mut relay = start(config.clone());
    let before = families(&relay);

    let mut client = Client::udp(relay.udp());
    flow_both_ways(&relay, &mut client);
    let elsewhere = "127.0.0.9:5000".parse().unwrap();
    assert_eq!(client.try_permit(elsewhere).error, Some(508), "a quota");
    Client::udp(relay.udp())
        .login("nobody", "nothing")
        .try_allocate();
    let mut reserving = Client::udp(relay.udp());
    assert_eq!(reserving.allocate_even().error, None);
    relay.expect("rallypoint_turn_relay_ports_reserved", 1.0);
    let _connected = come_and_go(&relay);
    flood_with_requests(&relay);

    // While everything is still there, so that gauges are seen up; the busy ratio is reckoned over
    // a second at least. Then the end.
    std::thread::sleep(Duration::from_millis(1100));
    reload_well_and_badly(&mut relay, config);
    let during = families(&relay);
    assert_eq!(client.refresh(0).error, None);
    relay.expect(
        "rallypoint_turn_allocations_ended_total{reason=\"deleted\"}",
        1.0,
    );
    relay.expect("rallypoint_turn_spare_sockets", 1.0);
    let after = families(&relay);

    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let moved = before.get(name) != during.get(name) || before.get(name) != after.get(name);
        let elsewhere = OF_OTHER_TESTS.contains(&name.as_str())
            || OF_DOORS.contains(&name.as_str())
            || name.starts_with(OF_TCP_RELAYING);
        let excused =
            elsewhere || name == CONSTANT || OF_A_HOST_IN_TROUBLE.contains(&name.as_str());
        assert!(moved || excused, "{name} did not move");
    }
    expect_books_balance(&relay);
}

/// A configuration with another bandwidth, a second after the start or later, and one that is refused.
fn reload_well_and_badly(relay: &mut TestRelay, mut config: Config) {
    let successful = "rallypoint_config_last_reload_successful";
    assert_eq!(relay.metric(successful), 1.0);
    config.quota.bandwidth_per_allocation = Some(123_456);
    relay.server().reload(config.clone()).unwrap();
    assert_eq!(relay.metric(successful), 1.0);
    config.test_users.clear();
    relay.server().reload(config).unwrap_err();
    assert_eq!(relay.metric(successful), 0.0);
}

/// Long enough for the sampled histograms.
fn flow_both_ways(relay: &TestRelay, client: &mut Client) {
    let peer = Peer::new(V4);
    let relayed = client.allocate();
    client.bind_channel(peer.addr(), 0x4000);
    for round in 0..200_u8 {
        client.send_channel(0x4000, &[round; 100]);
        assert_eq!(peer.receive(), (relayed, vec![round; 100]));
        peer.send(relayed, &[round; 50]);
        assert_eq!(client.receive(), FromPeer::Channel(0x4000, vec![round; 50]));
    }
    let closed = Peer::new(V4).addr();
    client.permit(closed);
    client.send_indication(closed, b"nobody there");
    assert!(matches!(client.receive(), FromPeer::Error(peer, _) if peer == closed));
    for level in ["permissions", "channels", "relay_ports_in_use"] {
        relay.expect(&format!("rallypoint_turn_{level}"), 1.0);
    }
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

/// Two connections, one too many, and one that leaves; the last is returned.
fn come_and_go(relay: &TestRelay) -> Client {
    let mut kept = [Client::tcp(relay.tcp()), Client::tcp(relay.tcp())];
    for client in &mut kept {
        assert_eq!(client.binding().error, None);
    }
    Client::tcp(relay.tcp()).expect_closed();
    let [leaves, stays] = kept;
    drop(leaves);
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"closed\"}",
        1.0,
    );
    stays
}

/// More unauthenticated requests than one source is answered.
fn flood_with_requests(relay: &TestRelay) {
    let flooder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let header = [0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42];
    let requested_transport = [0, 0x19, 0, 4, 17, 0, 0, 0];
    let allocate = [&header[..], &[7; 12], &requested_transport].concat();
    for _ in 0..200 {
        flooder.send_to(&allocate, relay.udp()).unwrap();
    }
    relay.wait_until("rallypoint_rate_limited_total{limiter=\"answers\"}", |n| {
        n > 0.0
    });
}

#[test]
fn strangers_cannot_add_series() {
    let relay = start(config());
    let before: usize = families(&relay).values().map(Vec::len).sum();
    for user in 0..25 {
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
