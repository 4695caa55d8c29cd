//! STUN over TLS, TLS and plain TCP on one port, and behind a proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use net_io::proxy::{SIGNATURE, header_for};
use ops::config::Scheme;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use stun_server::{Config, Server};

use crate::client::*;

type Tls = StreamOwned<ClientConnection, TcpStream>;

const LISTEN: &str = "'tls://127.0.0.1:0', 'tcp+tls://127.0.0.1:0', 'tls://[::1]:0'";

#[test]
fn both_families_are_told_their_address_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let fixture = Fixture::start(&config(folder.path(), LISTEN, ""));
    for (_, server) in fixture.server.local_addrs() {
        let mut stream = over_tls(connect(server), &certificate, b"stun.nat-discovery");
        assert_eq!(mapped(&ask(&mut stream, &request())), local(&stream));
        // RFC 7443 section 3.
        let alpn = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(alpn.as_deref(), Some(&b"stun.nat-discovery"[..]));
        for byte in request() {
            stream.write_all(&[byte]).unwrap();
        }
        mapped(&read_from(&mut stream));
        stream.write_all(&request().repeat(100)).unwrap();
        for _ in 0..100 {
            mapped(&read_from(&mut stream));
        }
    }
    for family in ["ipv4", "ipv6"] {
        let requests = "rallypoint_stun_requests_total";
        let labels = format!("{{family=\"{family}\",method=\"binding\",transport=\"tls\"}}");
        fixture.wait_for(&format!("{requests}{labels}"), 102.0);
    }
    for direction in ["received", "sent"] {
        let bytes = format!("rallypoint_stun_{direction}_bytes_total{{transport=\"tls\"}}");
        fixture.wait_for(&bytes, 1.0);
    }
}

#[test]
fn another_protocol_under_tls_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let fixture = Fixture::start(&config(folder.path(), LISTEN, ""));
    let server = fixture.address(Scheme::Tls);
    let mut stream = over_tls(connect(server), &certificate, b"http/1.1");
    assert!(stream.conn.complete_io(&mut stream.sock).is_err());
    let mut plain = connect(server);
    plain.write_all(&request()).unwrap();
    let _ = plain.read_to_end(&mut Vec::new());
    fixture.wait_for(&closed("tls"), 2.0);
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let fixture = Fixture::start(&config(folder.path(), LISTEN, ""));
    let mut stream = connect(fixture.address(Scheme::Tls));
    // A ClientHello of 65,535 bytes, 18 KiB of which come.
    let mut hello = vec![0x16, 3, 1, 0, 6, 1, 0, 0xFF, 0xFF, 3, 3];
    for _ in 0..18 {
        hello.extend([0x16, 3, 1, 4, 0]);
        hello.extend([7; 1024]);
    }
    stream.write_all(&hello).unwrap();
    fixture.wait_for(&closed("tls"), 1.0);
}

#[test]
fn tls_and_plain_stun_share_a_port_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let fixture = Fixture::start(&config(folder.path(), LISTEN, ""));
    let server = fixture.address(Scheme::TcpTls);
    let mut plain = connect(server);
    let mut secure = over_tls(connect(server), &certificate, b"stun.nat-discovery");
    let reply = exchange_tcp(&mut plain, &request());
    assert_eq!(mapped(&reply), plain.local_addr().unwrap());
    assert_eq!(mapped(&ask(&mut secure, &request())), local(&secure));
    for transport in ["tcp", "tls"] {
        let open = format!("rallypoint_stun_connections{{transport=\"{transport}\"}}");
        fixture.wait_for(&open, 1.0);
    }
    for first in [0x04, 0x40, b'G', 0xff] {
        let mut stream = connect(server);
        stream.write_all(&[first]).unwrap();
        assert_closed(&mut stream);
    }
    fixture.wait_for(&closed("unknown_protocol"), 4.0);
    let _undecided = connect(server);
    fixture.wait_for("rallypoint_stun_undecided_connections", 1.0);
}

#[test]
fn unfinished_handshakes_and_undecided_connections_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let limits = "[limits]\nfirst-message = '200ms'";
    let fixture = Fixture::start(&config(folder.path(), LISTEN, limits));
    let mut silent = [Scheme::Tls, Scheme::TcpTls].map(|of| connect(fixture.address(of)));
    let mut begun = [Scheme::Tls, Scheme::TcpTls].map(|of| connect(fixture.address(of)));
    for stream in &mut begun {
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    }
    for stream in silent.iter_mut().chain(&mut begun) {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    fixture.wait_for(&closed("silent"), 4.0);
    assert_eq!(fixture.metric("rallypoint_stun_undecided_connections"), 0.0);
    assert_eq!(fixture.metric("rallypoint_stun_connections{"), 0.0);
}

#[test]
fn who_does_not_read_under_tls_is_not_read_and_cut() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let limits = "[limits]\nidle = '500ms'\nanswers-per-second = 1000000\nburst = 1000000\n\
                  answers-per-second-total = 1000000";
    let fixture = Fixture::start(&config(folder.path(), LISTEN, limits));
    let mut deaf = over_tls(
        connect(fixture.address(Scheme::Tls)),
        &certificate,
        b"stun.nat-discovery",
    );
    ask(&mut deaf, &request());
    deaf.sock.set_write_timeout(Some(PATIENCE)).unwrap();
    let flood = request().repeat(500);
    let mut written = 0_usize;
    while deaf.write_all(&flood).is_ok() {
        written += flood.len();
        assert!(written < 1 << 28, "the server swallows without end");
    }
    fixture.wait_for(&closed("slow"), 1.0);
}

#[test]
fn a_changed_certificate_is_served_and_running_connections_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let old = certificate(folder.path());
    let text = config(folder.path(), LISTEN, "");
    let mut fixture = Fixture::start(&text);
    let server = fixture.address(Scheme::Tls);
    let mut running = over_tls(connect(server), &old, b"stun.nat-discovery");
    ask(&mut running, &request());
    let reloads = |of| format!("rallypoint_tls_certificate_reloads_total{{outcome=\"{of}\"}}");

    fs::write(folder.path().join("certificate.pem"), "half a file").unwrap();
    fixture.wait_for(&reloads("refused"), 1.0);
    let mut stream = over_tls(connect(server), &old, b"stun.nat-discovery");
    ask(&mut stream, &request());

    let new = certificate(folder.path());
    fixture.wait_for(&reloads("served"), 1.0);
    let mut stream = over_tls(connect(server), &new, b"stun.nat-discovery");
    ask(&mut stream, &request());
    mapped(&ask(&mut running, &request()));

    // Asked for, it is read again at once.
    let before = fixture.metric(&reloads("served"));
    let reloaded = fixture.server.reload(Config::from_toml(&text).unwrap());
    assert!(reloaded.unwrap().changed.is_empty());
    assert!(fixture.metric(&reloads("served")) > before);

    // Other files, named by a new configuration.
    let folder = tempfile::tempdir().unwrap();
    let newest = certificate(folder.path());
    let text = config(folder.path(), LISTEN, "");
    let reloaded = fixture.server.reload(Config::from_toml(&text).unwrap());
    assert_eq!(reloaded.unwrap().changed, ["tls"]);
    let mut stream = over_tls(connect(server), &newest, b"stun.nat-discovery");
    ask(&mut stream, &request());
    let watched = certificate(folder.path());
    let before = fixture.metric(&reloads("served"));
    fixture.wait_for(&reloads("served"), before + 1.0);
    let mut stream = over_tls(connect(server), &watched, b"stun.nat-discovery");
    ask(&mut stream, &request());
}

#[test]
fn tls_without_a_certificate_does_not_start() {
    let text = "listen = ['tcp://127.0.0.1:0']";
    let mut config = Config::from_toml(text).unwrap();
    config.listen[0].scheme = Scheme::Tls;
    let error = Server::bind(config, &ops::metrics::Registry::new()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("tls: missing; tls://127.0.0.1:0"),
        "{error}"
    );
}

#[test]
fn the_client_is_whom_the_header_names_and_has_limits_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let fixture = Fixture::start(&proxied(folder.path(), "connections-per-address = 2"));
    let to = addr("198.51.100.1:443");
    let mut kept = Vec::new();
    for (scheme, source) in [
        (Scheme::Tcp, "203.0.113.7:1"),
        (Scheme::TcpTls, "203.0.113.7:2"),
        (Scheme::Tcp, "[2001:db8::7]:1"),
        (Scheme::TcpTls, "[2001:db8:0:1::7]:1"),
    ] {
        let mut stream = connect(fixture.address(scheme));
        stream.write_all(&header_for(addr(source), to)).unwrap();
        assert_eq!(mapped(&exchange_tcp(&mut stream, &request())), addr(source));
        kept.push(stream);
    }
    let mut third = connect(fixture.address(Scheme::Tcp));
    third
        .write_all(&header_for(addr("203.0.113.7:3"), to))
        .unwrap();
    assert_closed(&mut third);
    fixture.wait_for(&closed("address_limit"), 1.0);
    let mut stream = connect(fixture.address(Scheme::Tls));
    stream
        .write_all(&header_for(addr("203.0.113.9:3"), to))
        .unwrap();
    let mut stream = over_tls(stream, &certificate, b"stun.nat-discovery");
    assert_eq!(mapped(&ask(&mut stream, &request())), addr("203.0.113.9:3"));
    fixture.wait_for(&headers("proxied"), 5.0);

    let mut health = connect(fixture.address(Scheme::Tcp));
    let local = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
    health.write_all(&local).unwrap();
    let reply = exchange_tcp(&mut health, &request());
    assert_eq!(mapped(&reply), health.local_addr().unwrap());
    fixture.wait_for(&headers("local"), 1.0);
}

#[test]
fn hostile_headers_are_cut_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let fixture = Fixture::start(&proxied(folder.path(), ""));
    let header = |command: u8, family: u8, length: u16, body: &[u8]| {
        [
            &SIGNATURE[..],
            &[command, family],
            &length.to_be_bytes(),
            body,
        ]
        .concat()
    };
    let cases = [
        ("missing", request()),
        (
            "version_1",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n".to_vec(),
        ),
        ("malformed", header(0x21, 0x11, 4, &[1; 4])),
        ("too_long", header(0x20, 0x00, u16::MAX, &[])),
        ("unsupported", header(0x21, 0x12, 12, &[1; 12])),
        ("bad_source", header(0x21, 0x11, 12, &[0; 12])),
    ];
    for (outcome, bytes) in &cases {
        for scheme in [Scheme::Tcp, Scheme::Tls, Scheme::TcpTls] {
            let mut stream = connect(fixture.address(scheme));
            stream.write_all(bytes).unwrap();
            assert_closed(&mut stream);
        }
        fixture.wait_for(&headers(outcome), 3.0);
    }
    fixture.wait_for(&closed("proxy_header"), 18.0);
    let mut stranger = connect_from([127, 0, 0, 9], fixture.address(Scheme::Tcp));
    assert_closed(&mut stranger);
    fixture.wait_for(&headers("untrusted"), 1.0);
}

/// A certificate and its key in files, as [`config`] names them.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = folder.join("key.pem");
    fs::write(folder.join("certificate.pem"), made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    made.cert.der().clone()
}

fn config(folder: &Path, listen: &str, more: &str) -> String {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    format!(
        "listen = [{listen}]\n[tls]\ncertificate = '{}'\nkey = '{}'\n{more}",
        certificate.display(),
        key.display()
    )
}

/// A proxy on 127.0.0.1 before a listener of each kind.
fn proxied(folder: &Path, limits: &str) -> String {
    let listen = "'tcp://127.0.0.1:0', 'tls://127.0.0.1:0', 'tcp+tls://127.0.0.1:0'";
    let proxy = format!("[proxy]\nlisteners = [{listen}]\ntrusted = ['127.0.0.1']\n");
    config(folder, listen, &format!("{proxy}[limits]\n{limits}"))
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn over_tls(stream: TcpStream, certificate: &CertificateDer<'static>, alpn: &[u8]) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, stream)
}

fn ask(stream: &mut Tls, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    read_from(stream)
}

fn read_from(stream: &mut Tls) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    stream.read_exact(&mut bytes).unwrap();
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    bytes.resize(20 + length, 0);
    stream.read_exact(&mut bytes[20..]).unwrap();
    bytes
}

fn local(stream: &Tls) -> SocketAddr {
    stream.sock.local_addr().unwrap()
}

fn closed(reason: &str) -> String {
    format!("rallypoint_stun_connections_closed_total{{reason=\"{reason}\"}}")
}

fn headers(outcome: &str) -> String {
    format!("rallypoint_stun_proxy_headers_total{{outcome=\"{outcome}\"}}")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
