//! Looking whether relay addresses are still seen as at start. (What is found out at start is shown behind a real NAT by
//! `tests/e2e/tests/external.rs`.)

use std::time::Duration;

use turn_relay::{Config, Discovery, ExternalAddresses, Scheme};

use crate::harness::{TestRelay, V4, config, start};

fn checks(outcome: &str) -> String {
    format!("rallypoint_turn_external_address_checks_total{{outcome=\"{outcome}\"}}")
}

/// Two relays answer Binding requests as well as any STUN server.
fn asking(servers: [&TestRelay; 2]) -> TestRelay {
    start(Config {
        relay_addresses: vec![V4],
        external_addresses: ExternalAddresses::Auto(Discovery {
            stun: servers
                .map(|relay| relay.addr(Scheme::Udp, V4).into())
                .into(),
            recheck: Duration::from_millis(20),
            ..Discovery::default()
        }),
        ..config()
    })
}

#[test]
fn each_look_is_counted_by_its_outcome() {
    let (one, mut other) = (start(config()), start(config()));
    let relay = asking([&one, &other]);
    relay.wait_until(&checks("confirmed"), |count| count >= 2.0);
    other.shutdown();
    relay.wait_until(&checks("failed"), |count| count >= 1.0);
    assert_eq!(relay.metric(&checks("changed")), 0.0);
}
