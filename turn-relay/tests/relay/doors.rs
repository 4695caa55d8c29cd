//! How connections begin: TLS or not on one port, and PROXY headers, good and hostile.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use net_io::proxy::{LONGEST_HEADER, SIGNATURE, header_for};
use rustls::pki_types::CertificateDer;
use turn_relay::{Config, ListenUrl, ProxyListeners, Scheme, StreamLimits};

use crate::client::{Client, FromPeer, Peer, connect};
use crate::harness::{TestRelay, V4, start};
use crate::tls::{tls_config, tls_over};

const SCHEMES: [Scheme; 3] = [Scheme::Tcp, Scheme::Tls, Scheme::TcpTls];

#[test]
fn tls_and_plain_turn_share_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = mixed(folder.path());
    let relay = start(config);
    let addr = relay.addr(Scheme::TcpTls, V4);
    let peer = Peer::new(V4);
    let plain = Client::tcp(addr);
    let secure = Client::stream(tls_over(connect(addr), &certificate, b"stun.turn"));
    for (mut client, transport) in [(plain, "tcp"), (secure, "tls")] {
        let relayed = client.allocate();
        client.bind_channel(peer.addr(), 0x4000);
        client.send_channel(0x4000, &[1; 5000]);
        assert_eq!(peer.receive(), (relayed, vec![1; 5000]));
        peer.send(relayed, &[2; 5000]);
        assert_eq!(client.receive(), FromPeer::Channel(0x4000, vec![2; 5000]));
        let labels = format!("{{transport=\"{transport}\",family=\"ipv4\"}}");
        relay.expect(&format!("rallypoint_turn_allocations{labels}"), 1.0);
        let open = format!("rallypoint_turn_connections{{transport=\"{transport}\"}}");
        relay.expect(&open, 1.0);
        drop(client);
        relay.expect(&open, 0.0);
    }
    relay.expect("rallypoint_turn_undecided_connections", 0.0);
}

#[test]
fn what_is_neither_tls_nor_stun_is_cut_at_its_first_byte() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(mixed(folder.path()).0);
    let firsts = [0x04, 0x15, 0x17, b'G', 0x40, 0x80, 0xFF];
    for first in firsts {
        let mut client = Client::tcp(relay.addr(Scheme::TcpTls, V4));
        client.send_raw(&[first]);
        client.expect_closed();
    }
    expect_cut(&relay, "unknown_protocol", f64::from(7));
    relay.expect(
        "rallypoint_turn_received_packets_total{side=\"client\"}",
        0.0,
    );
}

#[test]
fn who_does_not_say_what_it_is_has_the_time_of_a_first_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = proxied(folder.path()).0;
    config.streams = StreamLimits {
        first_message: Duration::from_secs(1),
        ..StreamLimits::default()
    };
    let relay = start(config);
    let header = header_for(addr("203.0.113.7:5000"), addr("198.51.100.1:443"));
    // Nothing at all; half a header; a header and no first byte.
    let mut silent: Vec<Client> = [&header[..0], &header[..20], &header]
        .map(|bytes| {
            let mut client = Client::tcp(relay.addr(Scheme::TcpTls, V4));
            client.send_raw(bytes);
            client
        })
        .into();
    relay.expect("rallypoint_turn_undecided_connections", 3.0);
    for client in &mut silent {
        client.expect_closed();
    }
    expect_cut(&relay, "slow", 3.0);
    relay.expect("rallypoint_turn_undecided_connections", 0.0);
    relay.expect("rallypoint_turn_connections_total{transport=\"tcp\"}", 0.0);
    expect_header(&relay, "proxied", 1.0);
}

#[test]
fn the_client_is_whom_the_header_names() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = proxied(folder.path());
    let relay = start(config);
    let sources = ["203.0.113.7:5000", "[2001:db8::7]:5000"].map(addr);
    for (index, (scheme, source)) in SCHEMES
        .into_iter()
        .flat_map(|scheme| sources.map(|source| (scheme, source)))
        .enumerate()
    {
        let mut stream = connect(relay.addr(scheme, V4));
        let header = header_for(source, addr("198.51.100.1:443"));
        stream.write_all(&header).unwrap();
        let mut client = if scheme == Scheme::Tls {
            Client::stream(tls_over(stream, &certificate, b"stun.turn"))
        } else {
            Client::stream(stream)
        };
        assert_eq!(client.binding().mapped(), source, "{scheme:?}");
        client.allocate();
        drop(client);
        let gone = "rallypoint_turn_allocations_ended_total{reason=\"disconnected\"}";
        relay.wait_until(gone, |ended| {
            ended > f64::from(u8::try_from(index).unwrap())
        });
    }
    expect_header(&relay, "proxied", 6.0);
    let family = |family| {
        format!(
            "rallypoint_turn_allocations_created_total{{transport=\"tls\",family=\"{family}\"}}"
        )
    };
    relay.expect(&family("ipv4"), 1.0);
    relay.expect(&family("ipv6"), 1.0);
}

#[test]
fn each_client_behind_a_proxy_has_limits_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = proxied(folder.path()).0;
    config.streams.connections_per_address = 2;
    let relay = start(config);
    let mut kept: Vec<Client> = Vec::new();
    for source in [
        "203.0.113.7:1",
        "203.0.113.7:2",
        "203.0.113.8:1",
        "203.0.113.9:1",
    ] {
        let mut client = through_proxy(&relay, addr(source));
        assert_eq!(client.binding().mapped(), addr(source));
        kept.push(client);
    }
    through_proxy(&relay, addr("203.0.113.7:3")).expect_closed();
    relay.expect(&refused("address_limit"), 1.0);
    expect_cut(&relay, "refused", 1.0);
    drop(kept.remove(0));
    relay.wait_until("rallypoint_turn_connections{transport=\"tcp\"}", |open| {
        open <= 3.0
    });
    let mut next = through_proxy(&relay, addr("203.0.113.7:4"));
    assert_eq!(next.binding().error, None);
}

#[test]
fn what_has_not_shown_what_it_is_counts_for_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = mixed(folder.path()).0;
    config.streams.connections_per_address = 3;
    let relay = start(config);
    let _silent = [(); 3].map(|()| connect(relay.addr(Scheme::TcpTls, V4)));
    relay.expect("rallypoint_turn_undecided_connections", 3.0);
    Client::tcp(relay.addr(Scheme::TcpTls, V4)).expect_closed();
    relay.expect(&refused("address_limit"), 1.0);
}

#[test]
fn a_second_connection_with_one_5_tuple_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(proxied(folder.path()).0);
    let source = addr("203.0.113.7:5000");
    let mut first = through_proxy(&relay, source);
    first.allocate();
    through_proxy(&relay, source).expect_closed();
    relay.expect(&refused("duplicate"), 1.0);
    assert_eq!(first.refresh(600).error, None);
    relay.expect(
        "rallypoint_turn_allocations{transport=\"tcp\",family=\"ipv4\"}",
        1.0,
    );
}

#[test]
fn a_proxy_that_looks_whether_somebody_listens_is_answered_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(proxied(folder.path()).0);
    let local = [&SIGNATURE[..], &[0x20, 0, 0, 3, 0x04, 0, 0]].concat();
    let mut stream = connect(relay.addr(Scheme::Tcp, V4));
    stream.write_all(&local).unwrap();
    let own = stream.local_addr().unwrap();
    assert_eq!(Client::stream(stream).binding().mapped(), own);
    expect_header(&relay, "local", 1.0);
    // On the mixed port, where the first byte never comes.
    drop(connect_with(&relay, Scheme::TcpTls, &local));
    expect_header(&relay, "local", 2.0);
    expect_cut(&relay, "closed", 1.0);
}

#[test]
fn hostile_headers_are_cut_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(proxied(folder.path()).0);
    let body = [192, 0, 2, 1, 198, 51, 100, 1, 0x13, 0x88, 1, 0xBB];
    let header = |command: u8, family: u8, length: u16, body: &[u8]| {
        [
            &SIGNATURE[..],
            &[command, family],
            &length.to_be_bytes(),
            body,
        ]
        .concat()
    };
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    let too_long = u16::try_from(LONGEST_HEADER).unwrap();
    let mut nobody = body;
    nobody[..4].fill(0);
    let cases = [
        ("missing", binding),
        ("missing", vec![0x16, 3, 1]),
        (
            "version_1",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n".to_vec(),
        ),
        ("malformed", header(0x31, 0x11, 12, &body)),
        ("malformed", header(0x21, 0x11, 11, &body[..11])),
        ("too_long", header(0x21, 0x11, too_long, &body)),
        ("too_long", header(0x20, 0x00, u16::MAX, &[])),
        ("unsupported", header(0x21, 0x12, 12, &body)),
        ("unsupported", header(0x21, 0x00, 0, &[])),
        ("bad_source", header(0x21, 0x11, 12, &nobody)),
    ];
    for scheme in SCHEMES {
        for (_, bytes) in &cases {
            connect_with(&relay, scheme, bytes).expect_closed();
        }
    }
    for (outcome, _) in &cases {
        let times = cases.iter().filter(|(of, _)| of == outcome).count() * SCHEMES.len();
        expect_header(&relay, outcome, f64::from(u8::try_from(times).unwrap()));
    }
    expect_cut(&relay, "proxy_header", f64::from(30));
    assert_eq!(relay.total("rallypoint_turn_connections_total"), 0.0);
}

#[test]
fn whom_nobody_trusts_is_not_asked_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = proxied(folder.path()).0;
    config.proxy.trusted = vec![ops::config::IpPrefix::new(addr("10.0.0.0:0").ip(), 8).unwrap()];
    let relay = start(config);
    through_proxy(&relay, addr("203.0.113.7:5000")).expect_closed();
    expect_header(&relay, "untrusted", 1.0);
    expect_header(&relay, "proxied", 0.0);
}

#[test]
fn a_header_means_nothing_where_none_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(mixed(folder.path()).0);
    let header = header_for(addr("203.0.113.7:5000"), addr("198.51.100.1:443"));
    connect_with(&relay, Scheme::TcpTls, &header).expect_closed();
    connect_with(&relay, Scheme::Tcp, &header).expect_closed();
    expect_cut(&relay, "unknown_protocol", 1.0);
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"malformed\"}",
        1.0,
    );
    assert_eq!(relay.total("rallypoint_turn_proxy_headers_total"), 0.0);
}

/// UDP and TCP, TLS, and both on one port.
pub(crate) fn mixed(folder: &Path) -> (Config, CertificateDer<'static>) {
    let (mut config, certificate) = tls_config(folder);
    config.listen.push(ListenUrl {
        scheme: Scheme::TcpTls,
        address: SocketAddr::new(V4, 0),
    });
    (config, certificate)
}

/// The same, with a proxy on 127.0.0.1 before every IPv4 listener of connections.
pub(crate) fn proxied(folder: &Path) -> (Config, CertificateDer<'static>) {
    let (mut config, certificate) = mixed(folder);
    let is_before = |url: &&ListenUrl| url.scheme != Scheme::Udp && url.address.ip() == V4;
    config.proxy = ProxyListeners {
        listeners: config.listen.iter().filter(is_before).copied().collect(),
        trusted: vec![ops::config::IpPrefix::new(V4, 32).unwrap()],
    };
    (config, certificate)
}

fn through_proxy(relay: &TestRelay, source: SocketAddr) -> Client {
    let header = header_for(source, addr("198.51.100.1:443"));
    connect_with(relay, Scheme::Tcp, &header)
}

fn connect_with(relay: &TestRelay, scheme: Scheme, first: &[u8]) -> Client {
    let mut stream: TcpStream = connect(relay.addr(scheme, V4));
    stream.write_all(first).unwrap();
    Client::stream(stream)
}

fn expect_cut(relay: &TestRelay, reason: &str, times: f64) {
    let ended = "rallypoint_turn_undecided_connections_ended_total";
    relay.expect(&format!("{ended}{{reason=\"{reason}\"}}"), times);
}

fn expect_header(relay: &TestRelay, outcome: &str, times: f64) {
    let headers = "rallypoint_turn_proxy_headers_total";
    relay.expect(&format!("{headers}{{outcome=\"{outcome}\"}}"), times);
}

fn refused(reason: &str) -> String {
    format!("rallypoint_turn_connections_refused_total{{reason=\"{reason}\"}}")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
