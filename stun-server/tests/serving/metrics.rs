//! Every declared metric moves when the service is used, and strangers cannot add to their number.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use ops::Health;
use ops::metrics::{self, BuildInfo};
use stun_wire::attribute::{ChangeRequest, ResponsePort};
use stun_wire::{AttributeType, Class, Method};

use crate::client::*;

/// The budget of a STUN server, at rest and under load.
const MOST_SERIES: usize = 150;

/// Metrics that no traffic on loopback can bring about.
const NOT_ON_LOOPBACK: [&str; 5] = [
    // Linux drops it before; elsewhere it moves.
    r#"rallypoint_stun_discarded_packets_total{reason="too_short"}"#,
    // The kernel delivers no datagram from a source that cannot be answered.
    r#"rallypoint_stun_discarded_packets_total{reason="bad_source"}"#,
    // Loopback takes every answer: it is never full, never refuses, and fits all sizes.
    r#"rallypoint_stun_unsent_packets_total{reason="queue_full"}"#,
    r#"rallypoint_stun_unsent_packets_total{reason="too_large"}"#,
    r#"rallypoint_stun_unsent_packets_total{reason="refused"}"#,
];

/// Metrics, or the rest of them from a label on, that the tests in `tls.rs` move one by one.
const OF_TLS_AND_PROXIES: [&str; 7] = [
    "rallypoint_stun_proxy_headers_total{",
    "rallypoint_stun_undecided_connections",
    "rallypoint_tls_certificate_reloads_total{",
    "transport=\"tls\"",
    "reason=\"tls\"",
    "reason=\"proxy_header\"",
    "reason=\"unknown_protocol\"",
];

#[test]
fn everything_declared_moves_when_the_service_is_used() {
    let fixture = Fixture::start(
        "listen = ['udp://127.0.0.1:0', 'udp://[::1]:0', 'tcp://127.0.0.1:0', 'tcp://[::1]:0']\n\
         alternate = '127.0.0.2:0'\nthreads = 2\nreceive-buffer = '4KiB'\n\
         [limits]\nfirst-message = '2s'\nidle = '100ms'\nconnections = 2\n\
         connections-per-address = 1\nanswers-per-second = 100\nburst = 100\nneighbourhood = 1\n\
         answers-per-second-total = 1000\nexempt = ['::1']",
    );
    let before = samples(&fixture.registry.render());
    // There is a configuration from the start; `reload.rs` moves these.
    let of_the_configuration = |name: &str| name.starts_with("rallypoint_config_");
    assert!(
        before
            .iter()
            .all(|(name, value)| (*value == 0.0) != of_the_configuration(name)),
        "{before:?}"
    );

    ask_over_udp(&fixture);
    send_what_is_discarded(&fixture);
    reach_every_limit(&fixture);
    end_connections_in_every_way(&fixture);
    overflow_every_queue(&fixture);
    let _open = fixture.tcp();
    fixture.wait_for("rallypoint_stun_connections{", 1.0);
    let Fixture { server, registry } = fixture;
    server.shutdown();

    let after = samples(&registry.render());
    let still: Vec<_> = after
        .iter()
        .filter(|(name, value)| *value == 0.0 && !name.contains("_bucket"))
        .map(|(name, _)| name.as_str())
        .filter(|name| !NOT_ON_LOOPBACK.contains(name))
        .filter(|name| !OF_TLS_AND_PROXIES.iter().any(|of| name.contains(of)))
        // The gauge was waited for above, and has come back.
        .filter(|name| !name.starts_with("rallypoint_stun_connections{"))
        .collect();
    assert!(still.is_empty(), "did not move: {still:#?}");
    let names = |samples: &[(String, f64)]| -> BTreeSet<String> {
        samples.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&before), names(&after), "a series appeared or went");
}

#[test]
fn ten_thousand_sources_add_no_series_and_the_counts_add_up() {
    let fixture =
        Fixture::start("listen = ['udp://127.0.0.1:0']\n[limits]\nexempt = ['127.0.0.0/8']");
    metrics::register_process(
        &fixture.registry,
        BuildInfo {
            version: "0",
            revision: "0",
        },
    )
    .unwrap();
    Health::new(&fixture.registry).unwrap();
    let at_rest = samples(&fixture.registry.render()).len();
    assert!(at_rest <= MOST_SERIES, "{at_rest}");
    let (mut sent, mut answered) = (0, 0);
    for n in 0..10_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, high, low), 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        if n % 10 == 0 {
            // Garbage at second sight, and at first.
            socket
                .send_to(&[&request()[..], &[0]].concat(), fixture.udp())
                .unwrap();
            socket.send_to(b"garbage", fixture.udp()).unwrap();
            sent += 2;
        }
        exchange(&socket, fixture.udp(), &request());
        sent += 1;
        answered += 1;
    }
    let requests = fixture.metric("rallypoint_stun_requests_total");
    let discarded = fixture.metric("rallypoint_stun_discarded_packets_total");
    assert_eq!(requests, f64::from(answered));
    assert_eq!(requests, fixture.metric("rallypoint_stun_responses_total"));
    let unqueued = fixture.metric("rallypoint_udp_receive_queue_dropped_total");
    assert_eq!(requests + discarded + unqueued, f64::from(sent));
    assert_eq!(samples(&fixture.registry.render()).len(), at_rest);
}

#[test]
fn promtool_finds_no_fault() {
    let fixture = Fixture::start("listen = ['udp://127.0.0.1:0']");
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        return skip("promtool (Debian package prometheus)");
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(fixture.registry.render().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Name with labels, and value, of every sample.
fn samples(text: &str) -> Vec<(String, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let split = lines.map(|line| line.rsplit_once(' ').unwrap());
    split
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Enough to have one answer timed.
fn ask_over_udp(fixture: &Fixture) {
    // The endpoints of `alternate` stand behind the four that are configured.
    for (scheme, server) in fixture.server.local_addrs().into_iter().take(4) {
        if scheme.as_str() == "udp" {
            let socket = socket_for(server);
            for _ in 0..90 {
                exchange(&socket, server, &request());
            }
            // One shard has answered all 90, so it has timed one.
        }
    }
    let unknown = request_with(|writer| {
        writer.raw(AttributeType(0x7fff), b"");
    });
    exchange(&socket_for(fixture.udp()), fixture.udp(), &unknown);
    let nonsense = request_with(|writer| {
        writer.attribute(&ResponsePort(0));
    });
    exchange(&socket_for(fixture.udp()), fixture.udp(), &nonsense);
}

fn send_what_is_discarded(fixture: &Fixture) {
    let whole = request_with(|writer| {
        writer.raw(AttributeType(0x8022), b"abcd").fingerprint();
    });
    let altered = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    let signature = request_with(|writer| {
        writer.raw(AttributeType::MESSAGE_INTEGRITY, b"short");
    });
    let long = [&whole[..], &[0; 3000]].concat();
    let datagrams = [
        message(Class::Indication, Method::BINDING, |_| {}),
        message(Class::Success, Method::BINDING, |_| {}),
        message(Class::Request, Method::ALLOCATE, |_| {}),
        whole[..10].to_vec(),
        altered(4, 0),
        altered(3, 0),
        altered(23, 200),
        altered(35, whole[35] ^ 1),
        signature,
        long,
    ];
    let socket = socket_for(fixture.udp());
    for bytes in &datagrams {
        socket.send_to(bytes, fixture.udp()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn reach_every_limit(fixture: &Fixture) {
    let burst_of = |bytes: &[u8], source: [u8; 4], count: usize| {
        let socket = UdpSocket::bind((Ipv4Addr::from(source), 0)).unwrap();
        for _ in 0..count {
            let _ = socket.send_to(bytes, fixture.udp());
        }
    };
    let burst = |source, count| burst_of(&request(), source, count);
    let limited = |limiter: &str| format!("rallypoint_rate_limited_total{{limiter=\"{limiter}\"}}");
    let elsewhere = request_with(|writer| {
        writer.attribute(&ChangeRequest {
            change_ip: true,
            change_port: true,
        });
    });
    fixture.until(&limited("redirect"), || {
        burst_of(&elsewhere, [127, 4, 0, 1], 30);
    });
    fixture.until(&limited("source"), || burst([127, 2, 0, 1], 30));
    // A /24 has no more than one source has here, so two of its sources reach its limit.
    fixture.until(&limited("neighbourhood"), || {
        burst([127, 2, 0, 2], 30);
        burst([127, 2, 0, 3], 30);
    });
    fixture.until(&limited("server"), || {
        for network in 0..50 {
            burst([127, 3, network, 1], 20);
        }
    });
}

fn end_connections_in_every_way(fixture: &Fixture) {
    let addrs = fixture.server.local_addrs();
    let mut tcp = addrs.iter().filter(|(scheme, _)| scheme.as_str() == "tcp");
    let (v4, v6) = (tcp.next().unwrap().1, tcp.next().unwrap().1);
    let closed =
        |reason: &str| format!("rallypoint_stun_connections_closed_total{{reason=\"{reason}\"}}");
    let finish = |mut stream: TcpStream| {
        let _ = stream.read_to_end(&mut Vec::new());
    };
    fixture.until(&closed("address_limit"), || {
        let _first = connect(v4);
        finish(connect(v4));
    });
    fixture.until(&closed("server_limit"), || {
        let _others = [connect(v4), connect(v6)];
        finish(connect_from([127, 2, 0, 9], v4));
    });
    fixture.until(&closed("client"), || drop(connect(v4)));
    fixture.until(&closed("silent"), || finish(connect(v4)));
    for address in [v4, v6] {
        let before = fixture.metric(&closed("idle"));
        fixture.until_above(&closed("idle"), before, || {
            let mut stream = connect(address);
            let _ = stream.write_all(&request());
            finish(stream);
        });
    }
    fixture.until(&closed("malformed"), || {
        let mut stream = connect(v4);
        let _ = stream.write_all(&[0xff; 40]);
        finish(stream);
    });
    // Exempt from the limits, so that there are answers to leave unread.
    fixture.until(&closed("slow"), || {
        let mut deaf = connect(v6);
        while deaf.write_all(&request().repeat(1000)).is_ok() {}
    });
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn overflow_every_queue(fixture: &Fixture) {
    for (_, server) in fixture
        .server
        .local_addrs()
        .iter()
        .filter(|(s, _)| s.as_str() == "udp")
    {
        let name = "rallypoint_udp_receive_queue_dropped_total";
        let socket = socket_for(*server);
        // Long, and no garbage at first sight.
        let long = request_with(|writer| {
            writer.raw(AttributeType(0x8022), &[b'x'; 1300]);
        });
        fixture.until(&format!("{name}{{listener=\"udp://{server}\"}}"), || {
            for _ in 0..200 {
                let _ = socket.send_to(&long, server);
            }
        });
    }
}
