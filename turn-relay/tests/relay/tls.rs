//! TURN over TLS: a certificate of our own making, ALPN, and what happens without one.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use ops::metrics::Registry;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turn_relay::{BindError, Config, ListenUrl, Scheme, Server, TlsFiles};

use crate::client::{Client, FromPeer, Peer, connect};
use crate::drain::Flow;
use crate::harness::{V4, config, start};

#[test]
fn payloads_go_both_ways_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = tls_config(folder.path());
    let relay = start(config);
    let mut client = Client::stream(tls(relay.addr(Scheme::Tls, V4), &certificate, b"stun.turn"));
    let peer = Peer::new(V4);
    let relayed = client.allocate();
    client.bind_channel(peer.addr(), 0x4000);
    for len in [0, 1, 1200, 20_000, 60_003] {
        let payload = vec![0x3C; len];
        client.send_channel(0x4000, &payload);
        assert_eq!(peer.receive(), (relayed, payload.clone()));
        peer.send(relayed, &payload);
        assert_eq!(client.receive(), FromPeer::Channel(0x4000, payload));
    }
    relay.expect(
        "rallypoint_turn_allocations{transport=\"tls\",family=\"ipv4\"}",
        1.0,
    );
    drop(client);
    relay.expect("rallypoint_turn_connections{transport=\"tls\"}", 0.0);
}

#[test]
fn the_protocol_is_agreed_on_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = tls_config(folder.path());
    let relay = start(config);
    let addr = relay.addr(Scheme::Tls, V4);
    let mut stream = tls(addr, &certificate, b"stun.turn");
    stream.conn.complete_io(&mut stream.sock).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"stun.turn"[..]));
    let mut stream = tls(addr, &certificate, b"http/1.1");
    assert!(stream.conn.complete_io(&mut stream.sock).is_err());
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"tls\"}",
        1.0,
    );
}

#[test]
fn plain_turn_on_the_tls_port_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(tls_config(folder.path()).0);
    let mut client = Client::tcp(relay.addr(Scheme::Tls, V4));
    client.send_raw(&[&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat());
    let mut reader = client;
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"tls\"}",
        1.0,
    );
    reader.send_raw(b"");
}

#[test]
fn a_handshake_that_never_ends_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let relay = start(tls_config(folder.path()).0);
    let mut client = Client::tcp(relay.addr(Scheme::Tls, V4));
    // A ClientHello of 65,535 bytes, 18 KiB of which come.
    let mut hello = vec![0x16, 3, 1, 0, 6, 1, 0, 0xFF, 0xFF, 3, 3];
    for _ in 0..18 {
        hello.extend([0x16, 3, 1, 4, 0]);
        hello.extend([7; 1024]);
    }
    client.send_raw(&hello);
    relay.expect(
        "rallypoint_turn_connections_ended_total{reason=\"tls\"}",
        1.0,
    );
}

#[test]
fn a_bad_certificate_is_a_start_error_that_names_key_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let (config, _) = tls_config(folder.path());
    let other = tempfile::tempdir().unwrap();
    let (strange, _) = tls_config(other.path());
    let files = config.tls.clone().unwrap();
    let garbage = folder.path().join("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();

    let with = |certificate: &Path, key: &Path| {
        let tls = TlsFiles {
            certificate: certificate.into(),
            key: key.into(),
        };
        start_error(Config {
            tls: Some(tls),
            ..config.clone()
        })
    };
    let missing = folder.path().join("missing.pem");
    expect_names(&with(&missing, &files.key), "tls.certificate", &missing);
    expect_names(&with(&files.certificate, &missing), "tls.key", &missing);
    expect_names(&with(&garbage, &files.key), "tls.certificate", &garbage);
    expect_names(&with(&empty, &files.key), "tls.certificate", &empty);
    expect_names(
        &with(&files.certificate, &files.certificate),
        "tls.key",
        &files.certificate,
    );
    let strange_key = strange.tls.unwrap().key;
    expect_names(
        &with(&files.certificate, &strange_key),
        "tls.key",
        &strange_key,
    );
    let none = start_error(Config {
        tls: None,
        ..config.clone()
    });
    assert!(
        none.contains("tls: missing") && none.contains("tls://127.0.0.1"),
        "{none}"
    );
}

#[test]
fn a_changed_certificate_is_served_and_running_connections_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (config, old) = tls_config(folder.path());
    let files = config.tls.clone().unwrap();
    let relay = start(config);
    let addr = relay.addr(Scheme::Tls, V4);
    let mut running = Client::stream(tls(addr, &old, b"stun.turn"));
    running.allocate();
    let reloads =
        |outcome| format!("rallypoint_tls_certificate_reloads_total{{outcome=\"{outcome}\"}}");

    // Broken: refused, and the old one stays.
    fs::write(&files.certificate, "half a file").unwrap();
    relay.wait_until(&reloads("refused"), |n| n >= 1.0);
    assert_eq!(
        Client::stream(tls(addr, &old, b"stun.turn"))
            .binding()
            .error,
        None
    );

    let (_, new) = tls_config(folder.path());
    relay.wait_until(&reloads("served"), |n| n >= 1.0);
    let mut stream = tls(addr, &new, b"stun.turn");
    stream.conn.complete_io(&mut stream.sock).unwrap();
    assert_eq!(Client::stream(stream).binding().error, None);
    assert_eq!(running.refresh(600).error, None);
}

#[test]
fn a_reload_serves_the_certificate_of_other_files_and_watches_those() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (config, old) = tls_config(folder.path());
    let mut relay = start(config.clone());
    let addr = relay.addr(Scheme::Tls, V4);
    let mut running = Client::stream(tls(addr, &old, b"stun.turn"));
    running.allocate();

    let (elsewhere, new) = tls_config(other.path());
    let missing = TlsFiles {
        certificate: other.path().join("missing.pem"),
        key: config.tls.clone().unwrap().key,
    };
    let with = |tls| Config {
        tls,
        ..config.clone()
    };
    let error = relay.server().reload(with(Some(missing.clone())));
    expect_names(
        &error.unwrap_err().to_string(),
        "tls.certificate",
        &missing.certificate,
    );
    let mut stream = Client::stream(tls(addr, &old, b"stun.turn"));
    assert_eq!(stream.binding().error, None);

    let reloaded = relay.server().reload(with(elsewhere.tls)).unwrap();
    assert_eq!(reloaded.changed, ["tls"]);
    let mut stream = Client::stream(tls(addr, &new, b"stun.turn"));
    assert_eq!(stream.binding().error, None);
    assert_eq!(running.refresh(600).error, None);
    let served = "rallypoint_tls_certificate_reloads_total{outcome=\"served\"}";
    assert_eq!(relay.metric(served), 1.0);

    let (_, newest) = tls_config(other.path());
    relay.wait_until(served, |n| n >= 2.0);
    let mut stream = Client::stream(tls(addr, &newest, b"stun.turn"));
    assert_eq!(stream.binding().error, None);
    // TLS can neither be given up nor begun without a restart.
    let reloaded = relay.server().reload(with(None)).unwrap();
    assert_eq!(reloaded.need_restart, ["tls"]);
}

/// H8 of the goals: 200 flows, 100 other certificates, nothing lost.
#[test]
fn a_hundred_new_certificates_disturb_no_flow() {
    const FLOWS: usize = 200;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let made = folders.each_ref().map(|folder| tls_config(folder.path()));
    let mut started = made[1].0.clone();
    started.streams.connections_per_address = 1000;
    started.quota.allocations_per_address = 1000;
    started.quota.allocations_per_user = 1000;
    started.limits.challenges_burst = 1000;
    let mut relay = start(started.clone());
    let addr = relay.addr(Scheme::Tls, V4);
    let mut flows: Vec<Flow> = (0..FLOWS)
        .map(|_| Flow::of(Client::stream(tls(addr, &made[1].1, b"stun.turn"))))
        .collect();
    for swap in 0..100_u8 {
        let (config, certificate) = &made[usize::from(swap % 2)];
        for flow in &mut flows {
            flow.send(swap);
        }
        let reloaded = relay.server().reload(Config {
            tls: config.tls.clone(),
            ..started.clone()
        });
        assert_eq!(reloaded.unwrap().changed, ["tls"]);
        let mut stream = Client::stream(tls(addr, certificate, b"stun.turn"));
        assert_eq!(stream.binding().error, None, "swap {swap}");
        for flow in &mut flows {
            flow.receive(swap);
        }
    }
    let connections = "rallypoint_turn_connections{transport=\"tls\"}";
    relay.wait_until(connections, |open| open == FLOWS as f64);
}

#[cfg(unix)]
#[test]
fn a_key_that_everybody_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let (config, _) = tls_config(folder.path());
    let key = config.tls.clone().unwrap().key;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    expect_names(&start_error(config), "tls.key", &key);
}

fn start_error(config: Config) -> String {
    match Server::bind(config, &Registry::new()) {
        Err(error @ BindError::Tls(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn expect_names(error: &str, key: &str, path: &Path) {
    assert!(
        error.contains(key) && error.contains(&path.display().to_string()),
        "{error}"
    );
}

/// A relay with a TLS listener, and its certificate.
pub(crate) fn tls_config(folder: &Path) -> (Config, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
    };
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut config = Config {
        tls: Some(files),
        ..config()
    };
    config.listen.push(ListenUrl {
        scheme: Scheme::Tls,
        address: SocketAddr::new(V4, 0),
    });
    (config, made.cert.der().clone())
}

pub(crate) fn tls(
    addr: SocketAddr,
    certificate: &CertificateDer<'static>,
    alpn: &[u8],
) -> StreamOwned<ClientConnection, TcpStream> {
    tls_over(connect(addr), certificate, alpn)
}

/// TLS on a connection that is there already.
pub(crate) fn tls_over(
    stream: TcpStream,
    certificate: &CertificateDer<'static>,
    alpn: &[u8],
) -> StreamOwned<ClientConnection, TcpStream> {
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
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    )
}
