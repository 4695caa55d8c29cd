//! STUN over UDP.

use std::net::UdpSocket;
use std::process::Command;

use ops::metrics::Registry;
use stun_server::{Config, Server};
use stun_wire::attribute::ErrorCode;
use stun_wire::{AttributeType, Class, Message, Method};

use crate::client::*;

#[test]
fn both_families_are_told_their_address() {
    for listen in ["udp://127.0.0.1:0", "udp://[::1]:0"] {
        let fixture = Fixture::start(&format!("listen = ['{listen}']"));
        let socket = socket_for(fixture.udp());
        let (reply, from) = exchange(&socket, fixture.udp(), &request());
        assert_eq!(mapped(&reply), socket.local_addr().unwrap());
        assert_eq!(from, fixture.udp());
    }
}

#[test]
fn a_wildcard_listener_answers_from_the_address_that_was_asked() {
    for (listen, asked) in [("udp://0.0.0.0:0", "127.0.0.1"), ("udp://[::]:0", "::1")] {
        let fixture = Fixture::start(&format!("listen = ['{listen}']\nthreads = 2"));
        let mut server = fixture.udp();
        server.set_ip(asked.parse().unwrap());
        let socket = socket_for(server);
        // A connected socket hears nobody else.
        socket.connect(server).unwrap();
        socket.send(&request()).unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(mapped(&buffer[..length]), socket.local_addr().unwrap());
    }
}

#[test]
fn every_shard_answers_and_together_they_know_each_source() {
    // 200 clients are spread over two shards by the kernel; all are one address, whose burst is 150.
    let fixture = Fixture::start(
        "listen = ['udp://127.0.0.1:0']\nthreads = 2\n[limits]\nburst = 150\nanswers-per-second = 1",
    );
    let clients: Vec<_> = (0..200).map(|_| socket_for(fixture.udp())).collect();
    for client in &clients {
        client.send_to(&request(), fixture.udp()).unwrap();
    }
    fixture.wait_for("rallypoint_stun_requests_total", 200.0);
    let answered = fixture.metric("rallypoint_stun_responses_total");
    // One token a second comes back meanwhile.
    assert!((150.0..=180.0).contains(&answered), "{answered}");
    let limited = fixture.metric(r#"rallypoint_rate_limited_total{limiter="source"}"#);
    assert_eq!(answered + limited, 200.0);
}

#[test]
fn who_is_over_the_limit_hears_nothing_and_others_are_answered() {
    let fixture = Fixture::start(
        "listen = ['udp://127.0.0.1:0']\nthreads = 1\n[limits]\nburst = 3\nanswers-per-second = 1\n\
         exempt = ['127.0.0.2']",
    );
    let greedy = socket_for(fixture.udp());
    for _ in 0..3 {
        exchange(&greedy, fixture.udp(), &request());
    }
    greedy.send_to(&request(), fixture.udp()).unwrap();
    fixture.wait_for(
        r#"rallypoint_stun_discarded_packets_total{reason="rate_limited"}"#,
        1.0,
    );
    for other in ["127.0.0.3:0", "127.0.0.2:0"] {
        let other = UdpSocket::bind(other).unwrap();
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(&other, fixture.udp(), &request());
    }
    let exempt = UdpSocket::bind("127.0.0.2:0").unwrap();
    exempt.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..50 {
        exchange(&exempt, fixture.udp(), &request());
    }
}

#[test]
fn garbage_is_counted_and_disturbs_nobody() {
    let fixture = Fixture::start("listen = ['udp://127.0.0.1:0']\nthreads = 1");
    let socket = socket_for(fixture.udp());
    let whole = request_with(|writer| {
        writer.raw(AttributeType(0x8022), b"software");
    });
    let oversized = request_with(|writer| {
        writer.raw(AttributeType(0x8022), &[b'x'; 3000]);
    });
    // On Linux the system drops what is no STUN at first sight; elsewhere it is too short or not STUN to the server.
    let datagrams: [(&[u8], &str); 8] = [
        (b"", "by the system"),
        (b"hello", "by the system"),
        (&[0xff; 100], "by the system"),
        (&whole[..24], "bad_length"),
        (&oversized, "too_long"),
        (
            &message(Class::Success, Method::BINDING, |_| {}),
            "not_request",
        ),
        (
            &message(Class::Request, Method::ALLOCATE, |_| {}),
            "unsupported",
        ),
        (
            &message(Class::Indication, Method::SEND, |_| {}),
            "unsupported",
        ),
    ];
    for (bytes, _) in datagrams {
        socket.send_to(bytes, fixture.udp()).unwrap();
    }
    // What comes back first is the answer to what was sent last.
    let (reply, _) = exchange(&socket, fixture.udp(), &request());
    assert_eq!(mapped(&reply), socket.local_addr().unwrap());
    let first_sight: f64 = ["too_short", "not_stun"]
        .iter()
        .map(|reason| fixture.metric(&discarded(reason)))
        .sum();
    // It is told a moment after the answer.
    let unqueued = "rallypoint_udp_receive_queue_dropped_total";
    fixture.wait_for(unqueued, 3.0 - first_sight);
    assert_eq!(first_sight + fixture.metric(unqueued), 3.0);
    for (reason, count) in [("bad_length", 1), ("too_long", 1), ("unsupported", 2)] {
        assert_eq!(
            fixture.metric(&discarded(reason)),
            f64::from(count),
            "{reason}"
        );
    }
    assert_silence(&socket);
}

fn discarded(reason: &str) -> String {
    format!("rallypoint_stun_discarded_packets_total{{reason=\"{reason}\"}}")
}

#[test]
fn an_unknown_required_attribute_is_answered_with_420() {
    let fixture = Fixture::start("listen = ['udp://127.0.0.1:0']");
    let socket = socket_for(fixture.udp());
    let bytes = request_with(|writer| {
        writer.raw(AttributeType::CHANGE_REQUEST, &[0, 0, 0, 6]);
    });
    let (reply, _) = exchange(&socket, fixture.udp(), &bytes);
    let reply = Message::parse(&reply).unwrap();
    assert_eq!(
        reply.attribute::<ErrorCode<'_>>().unwrap().unwrap().code,
        420
    );
}

#[test]
fn an_address_in_use_is_named_however_many_threads_there_are() {
    for threads in [1, 2] {
        for scheme in ["udp", "tcp"] {
            let first = Fixture::start(&format!(
                "listen = ['{scheme}://127.0.0.1:0']\nthreads = {threads}"
            ));
            let taken = first.server.local_addrs()[0].1;
            let text = format!("listen = ['{scheme}://{taken}']\nthreads = {threads}");
            let second = Server::bind(Config::from_toml(&text).unwrap(), &Registry::new());
            let error = second.expect_err("two servers on one port").to_string();
            assert!(error.contains(&format!("{scheme}://{taken}")), "{error}");
            assert!(error.contains("in use"), "{error}");
            first.server.shutdown();
            let registry = Registry::new();
            Server::bind(Config::from_toml(&text).unwrap(), &registry).expect("free again");
        }
    }
}

#[test]
fn a_service_of_another_scheme_is_refused_with_its_url() {
    let mut config = Config::from_toml("listen = ['udp://127.0.0.1:0']").unwrap();
    config.listen[0].scheme = ops::config::Scheme::Tls;
    let error = Server::bind(config, &Registry::new())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("tls://127.0.0.1:0"), "{error}");
}

#[test]
fn coturns_client_understands_the_answer() {
    let fixture = Fixture::start("listen = ['udp://127.0.0.1:0', 'udp://[::1]:0']");
    for (_, server) in fixture.server.local_addrs() {
        let output = Command::new("turnutils_stunclient")
            .args(["-p", &server.port().to_string(), &server.ip().to_string()])
            .output();
        let Ok(output) = output else {
            return skip("turnutils_stunclient (Debian package coturn)");
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = format!("UDP reflexive addr: {}", bracketless(server.ip()));
        assert!(
            output.status.success() && said.contains(&expected),
            "{said}"
        );
    }
}

/// coturn writes IPv6 addresses without brackets in some versions and with them in others.
fn bracketless(ip: std::net::IpAddr) -> String {
    if ip.is_ipv4() {
        ip.to_string()
    } else {
        String::new()
    }
}
