//! RFC 5780 and RFC 3489 with two addresses of loopback, 127.0.0.1 and 127.0.0.2.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;

use ops::config::Scheme;
use ops::metrics::Registry;
use stun_server::{Config, Server};
use stun_wire::attribute::{
    ChangeRequest, ErrorCode, MappedAddress, OtherAddress, Padding, ResponseOrigin, ResponsePort,
};
use stun_wire::{Class, Message};

use crate::client::*;

/// Two addresses, ports of the system's choice, two shards, and no limit that a test could meet.
const TWO_ADDRESSES: &str = "listen = ['udp://127.0.0.1:0', 'tcp://127.0.0.1:0']\n\
                             alternate = '127.0.0.2:0'\nthreads = 2\n\
                             [limits]\nexempt = ['127.0.0.0/8']\n";

/// The four endpoints: A1:P1, A1:P2, A2:P1, A2:P2.
fn endpoints(fixture: &Fixture) -> [SocketAddr; 4] {
    let addrs = fixture.server.local_addrs();
    let udp = addrs.iter().filter(|(scheme, _)| *scheme == Scheme::Udp);
    let udp: Vec<_> = udp.map(|(_, address)| *address).collect();
    udp.try_into().unwrap()
}

fn change(change_ip: bool, change_port: bool) -> Vec<u8> {
    request_with(|writer| {
        writer.attribute(&ChangeRequest {
            change_ip,
            change_port,
        });
    })
}

#[test]
fn all_four_endpoints_answer_for_each_other() {
    let fixture = Fixture::start(TWO_ADDRESSES);
    let [a1_p1, a1_p2, a2_p1, a2_p2] = endpoints(&fixture);
    assert_eq!((a1_p1.ip(), a2_p2.ip()), (a1_p2.ip(), a2_p1.ip()));
    assert_eq!((a1_p1.port(), a2_p2.port()), (a2_p1.port(), a1_p2.port()));
    let others = [
        (a1_p1, a2_p2),
        (a1_p2, a2_p1),
        (a2_p1, a1_p2),
        (a2_p2, a1_p1),
    ];
    for (asked, other) in others {
        for (ip, port) in [(false, false), (true, false), (false, true), (true, true)] {
            // Many sockets, so that each shard has its turn.
            for _ in 0..4 {
                let socket = socket_for(asked);
                let (reply, from) = exchange(&socket, asked, &change(ip, port));
                let expected = SocketAddr::new(
                    if ip { other.ip() } else { asked.ip() },
                    if port { other.port() } else { asked.port() },
                );
                assert_eq!(from, expected, "asked {asked} to change {ip} {port}");
                assert_eq!(mapped(&reply), socket.local_addr().unwrap());
                let reply = Message::parse(&reply).unwrap();
                let origin = reply.attribute::<ResponseOrigin>().unwrap().unwrap();
                let named = reply.attribute::<OtherAddress>().unwrap().unwrap();
                let plain = reply.attribute::<MappedAddress>().unwrap().unwrap();
                assert_eq!((origin.0, named.0), (from, other));
                assert_eq!(plain.0, socket.local_addr().unwrap());
            }
        }
    }
    // Counted once they have been sent: 64 answers of 68 bytes.
    let sent = r#"rallypoint_stun_sent_bytes_total{transport="udp"}"#;
    fixture.wait_for(sent, 64.0 * 68.0);
    assert_eq!(fixture.metric(sent), 64.0 * 68.0);
    assert_eq!(fixture.metric("rallypoint_stun_responses_total"), 64.0);
}

#[test]
fn the_answer_goes_to_the_port_that_is_named() {
    let fixture = Fixture::start(TWO_ADDRESSES);
    let (asking, hearing) = (socket_for(fixture.udp()), socket_for(fixture.udp()));
    let port = hearing.local_addr().unwrap().port();
    let bytes = request_with(|writer| {
        writer.attribute(&ResponsePort(port));
    });
    asking.send_to(&bytes, fixture.udp()).unwrap();
    let mut buffer = [0; 200];
    let (length, from) = hearing.recv_from(&mut buffer).unwrap();
    assert_eq!(from, fixture.udp());
    assert_eq!(mapped(&buffer[..length]), asking.local_addr().unwrap());
    assert_silence(&asking);
}

#[test]
fn padding_comes_back_as_long_as_it_went() {
    let fixture = Fixture::start(TWO_ADDRESSES);
    let socket = socket_for(fixture.udp());
    for zeros in [0, 4, 100, 1500, 2000] {
        let zeros = vec![0; zeros];
        let bytes = request_with(|writer| {
            writer.attribute(&Padding(&zeros));
        });
        let (reply, _) = exchange(&socket, fixture.udp(), &bytes);
        assert_eq!(mapped(&reply), socket.local_addr().unwrap());
        assert_eq!(reply.len(), bytes.len().max(68));
    }
}

#[test]
fn answers_from_elsewhere_are_few() {
    let fixture = Fixture::start(
        "listen = ['udp://127.0.0.1:0']\nalternate = '127.0.0.2:0'\nthreads = 1\n\
         [limits]\nredirects-per-second = 1",
    );
    let socket = socket_for(fixture.udp());
    for _ in 0..2 {
        exchange(&socket, fixture.udp(), &change(true, true));
    }
    let limited = r#"rallypoint_rate_limited_total{limiter="redirect"}"#;
    fixture.until(limited, || {
        socket.send_to(&change(true, true), fixture.udp()).unwrap();
    });
    // Whoever does not ask for that is answered as ever.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    let (reply, _) = exchange(&other, fixture.udp(), &request());
    assert_eq!(mapped(&reply), other.local_addr().unwrap());
}

#[test]
fn over_tcp_it_is_off() {
    let fixture = Fixture::start(TWO_ADDRESSES);
    let mut stream = fixture.tcp();
    let reply = exchange_tcp(&mut stream, &request());
    assert_eq!(
        (mapped(&reply), reply.len()),
        (stream.local_addr().unwrap(), 32)
    );
    let reply = exchange_tcp(&mut stream, &change(true, false));
    let reply = Message::parse(&reply).unwrap();
    assert_eq!(reply.class(), Class::Error);
    let error = reply.attribute::<ErrorCode<'_>>().unwrap().unwrap();
    assert_eq!(error.code, 420);
}

#[test]
fn four_endpoints_on_given_ports_or_none() {
    // The system chooses four, which are free once it has let them go, on addresses that no other test gets ports of.
    let found =
        Fixture::start("listen = ['udp://127.0.7.1:0']\nalternate = '127.0.7.2:0'\nthreads = 1\n");
    let [primary, _, between, alternate] = endpoints(&found);
    found.server.shutdown();
    let text = format!("listen = ['udp://{primary}']\nalternate = '{alternate}'");
    // Any of the four in use is named.
    let taken = once_free(|| UdpSocket::bind(between));
    let refused = Server::bind(Config::from_toml(&text).unwrap(), &Registry::new());
    let error = refused.expect_err("a port is in use").to_string();
    assert!(error.contains(&format!("udp://{between}")), "{error}");
    drop(taken);
    let fixture = once_free(|| {
        let registry = Registry::new();
        let server = Server::bind(Config::from_toml(&text).unwrap(), &registry);
        server.map(|server| Fixture { server, registry })
    });
    assert_eq!(endpoints(&fixture)[3], alternate);
}

/// Binds ports that were let go. A program that another test is starting has its own hold on every socket of this process
/// until it runs.
fn once_free<T, E: std::fmt::Display>(mut bind: impl FnMut() -> Result<T, E>) -> T {
    for _ in 0..PATIENCE.as_millis() / 10 {
        match bind() {
            Ok(bound) => return bound,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    bind().unwrap_or_else(|error| panic!("never free: {error}"))
}

#[test]
fn a_program_that_makes_the_configuration_is_told_its_fault() {
    let mut config = Config::from_toml("listen = ['udp://127.0.0.1:0']").unwrap();
    config.alternate = Some("127.0.0.1:3479".parse().unwrap());
    let refused = Server::bind(config, &Registry::new());
    let error = refused.expect_err("one address").to_string();
    assert!(error.starts_with("alternate: `127.0.0.1:3479`"), "{error}");
}

/// The same under the limits that a client meets by default.
const DEFAULT_LIMITS: &str = "listen = ['udp://127.0.0.1:0']\nalternate = '127.0.0.2:0'\n";

#[test]
fn coturns_nat_discovery_finds_no_nat() {
    let fixture = Fixture::start(DEFAULT_LIMITS);
    let [a1_p1, a1_p2, a2_p1, a2_p2] = endpoints(&fixture);
    let (port, host) = (a1_p1.port().to_string(), a1_p1.ip().to_string());
    for more in [&["-H"][..], &["-P"], &["-c", "-A", "127.0.0.3"]] {
        let mut command = Command::new("turnutils_natdiscovery");
        let discover = command.args(["-m", "-f", "-L", "127.0.0.1", "-p", &port]);
        let output = discover.args(more).arg(&host).output();
        let Some(text) = said(output, "turnutils_natdiscovery (Debian package coturn)") else {
            return;
        };
        let expected = [
            "No ALG: Mapped == XOR-Mapped".to_owned(),
            "No NAT! (Endpoint Independent Mapping)".to_owned(),
            "NAT with Endpoint Independent Filtering!".to_owned(),
            format!("Response origin: : {a1_p1}"),
            format!("Other addr: : {a2_p2}"),
            // The second test of mapping asks the other address, the second of filtering both.
            format!("Response origin: : {a2_p1}"),
            format!("Other addr: : {a1_p2}"),
            format!("Response origin: : {a2_p2}"),
        ];
        for line in expected {
            assert!(text.contains(&line), "{line}\nis not in\n{text}");
        }
    }
}

#[test]
fn coturns_stun_client_has_its_answers_sent_from_and_to_elsewhere() {
    let fixture = Fixture::start(DEFAULT_LIMITS);
    let [asked, _, _, other] = endpoints(&fixture);
    let (port, host) = (asked.port().to_string(), asked.ip().to_string());
    // -f: CHANGE-REQUEST, then RESPONSE-PORT with it.
    let output = Command::new("turnutils_stunclient")
        .args(["-f", "-p", &port, &host])
        .output();
    let Some(text) = said(output, "turnutils_stunclient (Debian package coturn)") else {
        return;
    };
    let count = |line: &str| text.matches(line).count();
    assert_eq!(count("RFC 5780 response"), 3, "{text}");
    assert_eq!(count(&format!("Response origin: : {other}")), 2, "{text}");
    assert_eq!(count("UDP reflexive addr: 127.0.0.1:"), 3, "{text}");
}

#[test]
fn the_classic_client_of_debian_finds_an_open_network() {
    let fixture = Fixture::start(&format!("{DEFAULT_LIMITS}[protocol]\nrfc3489 = true\n"));
    let [asked, asked_other_port, other_asked_port, other] = endpoints(&fixture);
    let output = Command::new("stun")
        .args([asked.to_string().as_str(), "-v", "-i", "127.0.0.1"])
        .output();
    let Some(text) = said(output, "stun (Debian package stun-client)") else {
        return;
    };
    assert!(text.contains("Primary: Open"), "{text}");
    assert!(
        text.contains(&format!("ChangedAddress = {other}")),
        "{text}"
    );
    for from in [asked, asked_other_port, other_asked_port] {
        let line = format!("SourceAddress = {from}");
        assert!(text.contains(&line), "{line}\nis not in\n{text}");
    }
}

/// What a program wrote; `None`, said aloud, where it is not installed.
fn said(output: std::io::Result<Output>, program: &str) -> Option<String> {
    let Ok(output) = output else {
        skip(program);
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}
