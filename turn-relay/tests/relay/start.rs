//! What keeps a relay from starting, and how it ends.

use std::net::{TcpListener, UdpSocket};

use ops::metrics::Registry;
use turn_relay::{BindError, Config, ListenUrl, NamedSecret, Scheme, Secret, Server};

use crate::client::Client;
use crate::harness::{config, start};

#[test]
fn a_port_in_use_names_the_address() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = [
        ListenUrl {
            scheme: Scheme::Udp,
            address: udp.local_addr().unwrap(),
        },
        ListenUrl {
            scheme: Scheme::Tcp,
            address: tcp.local_addr().unwrap(),
        },
    ];
    for url in taken {
        for threads in [1, 4] {
            let error = refused(Config {
                listen: vec![url],
                threads,
                ..config()
            });
            assert!(matches!(error, BindError::Listen { .. }), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains(&url.to_string()) && text.contains("in use"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_second_relay_cannot_join_in_on_shared_ports() {
    let first = start(Config {
        threads: 2,
        ..config()
    });
    let url = ListenUrl {
        scheme: Scheme::Udp,
        address: first.udp(),
    };
    let error = refused(Config {
        listen: vec![url],
        threads: 2,
        ..config()
    });
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn a_relay_address_of_another_host_is_refused() {
    let elsewhere = "192.0.2.77".parse().unwrap();
    let error = refused(Config {
        relay_addresses: vec![elsewhere],
        ..config()
    });
    assert!(error.to_string().contains("192.0.2.77"), "{error}");
}

#[test]
fn what_a_program_forgets_is_refused() {
    let nobody = Config {
        test_users: Vec::new(),
        ..config()
    };
    assert!(matches!(refused(nobody), BindError::NoCredentials));
    let nowhere = Config {
        relay_addresses: Vec::new(),
        ..config()
    };
    assert!(matches!(refused(nowhere), BindError::NoRelayAddress));
    assert!(matches!(
        refused(Config {
            listen: Vec::new(),
            ..config()
        }),
        BindError::NoListener
    ));

    let weak = NamedSecret {
        id: None,
        secret: Secret::new(b"short".to_vec()),
    };
    let error = refused(Config {
        secrets: vec![weak],
        ..config()
    });
    assert!(matches!(error, BindError::Secret { .. }), "{error:?}");
    assert!(!error.to_string().contains("short\""), "{error}");

    let mut public = config();
    public.listen.push(ListenUrl {
        scheme: Scheme::Udp,
        address: "0.0.0.0:0".parse().unwrap(),
    });
    assert!(matches!(refused(public), BindError::LoopbackPeers(_)));
}

#[test]
fn shutdown_closes_everything_and_frees_the_ports() {
    let mut relay = start(Config {
        threads: 2,
        ..config()
    });
    let (udp, tcp) = (relay.udp(), relay.tcp());
    let (mut over_udp, mut over_tcp) = (Client::udp(udp), Client::tcp(tcp));
    let relayed = [over_udp.allocate(), over_tcp.allocate()];
    relay.shutdown();
    over_tcp.expect_closed();
    for addr in relayed.into_iter().chain([udp]) {
        UdpSocket::bind(addr).unwrap();
    }
    TcpListener::bind(tcp).unwrap();
    assert_eq!(relay.total("rallypoint_turn_allocations"), 0.0);
    assert_eq!(relay.metric("rallypoint_turn_relay_ports_in_use"), 0.0);
    assert_eq!(
        relay.metric("rallypoint_turn_allocations_ended_total{reason=\"drained\"}"),
        2.0
    );
    assert_eq!(
        relay.metric("rallypoint_turn_connections_ended_total{reason=\"shutdown\"}"),
        1.0
    );
}

fn refused(config: Config) -> BindError {
    Server::bind(config, &Registry::new()).unwrap_err()
}
