//! https and wss with a certificate made for the test.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{Client, Running, native};
use rustls_pki_types::ServerName;
use signal_wire::ServerBody;
use signaling::{BindError, Config, Server};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

#[tokio::test]
async fn players_meet_over_wss_and_the_page_is_there_over_https() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let running = Running::of(&config(folder.path())).await;
    let tls = connector(&made);
    let connect = async || {
        let stream = TcpStream::connect(running.addr).await.unwrap();
        tls.connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
            .unwrap()
    };

    let mut ann = Client::on(connect().await, native(running.addr))
        .await
        .unwrap();
    ann.hello("Ann").await;
    ann.join("jump-rocket", 2).await;
    let mut bob = Client::on(connect().await, native(running.addr))
        .await
        .unwrap();
    bob.hello("Bob").await;
    bob.join("jump-rocket", 2).await;
    assert!(matches!(bob.body().await, ServerBody::LobbyReady(_)));
    assert!(matches!(ann.body().await, ServerBody::MemberJoined(_)));

    let mut page = connect().await;
    page.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    page.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"active_peers\": 2"));

    // Plain HTTP on this port is no handshake.
    let mut plain = TcpStream::connect(running.addr).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let refused = "rallypoint_signal_connections_refused_total{reason=\"tls\"}";
    running.metric_becomes(refused, 1.0).await;
    running.server.shutdown().await;
}

#[tokio::test]
async fn a_missing_or_wrong_certificate_is_a_start_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = bind(&config(folder.path())).await;
    assert!(
        error.contains("tls.certificate") && error.contains("cert.pem"),
        "{error}"
    );

    certificate(folder.path());
    std::fs::write(folder.path().join("key.pem"), "not a key").unwrap();
    let error = bind(&config(folder.path())).await;
    assert!(
        error.contains("tls.key") && error.contains("key.pem"),
        "{error}"
    );
}

#[tokio::test]
async fn a_changed_certificate_is_served_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let old = certificate(folder.path());
    let running = Running::of(&config(folder.path())).await;
    let reloads = |of| format!("rallypoint_tls_certificate_reloads_total{{outcome=\"{of}\"}}");
    // Renamed into place: one change, and one look at it.
    let (half, cert) = (folder.path().join("half"), folder.path().join("cert.pem"));
    std::fs::write(&half, "half a file").unwrap();
    std::fs::rename(&half, &cert).unwrap();
    running.metric_becomes(&reloads("refused"), 1.0).await;
    shake_hands(&running, &old).await;
    let new = certificate(folder.path());
    running.metric_becomes(&reloads("served"), 1.0).await;
    shake_hands(&running, &new).await;
    running.server.shutdown().await;
}

async fn shake_hands(running: &Running, made: &rcgen::CertifiedKey<rcgen::KeyPair>) {
    let stream = TcpStream::connect(running.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    connector(made).connect(name, stream).await.unwrap();
}

#[tokio::test]
async fn a_busy_address_is_a_start_error_that_names_it() {
    let running = Running::start().await;
    let error = bind(&format!("listen = [\"http://{}\"]", running.addr)).await;
    assert!(error.contains(&running.addr.to_string()), "{error}");
}

async fn bind(text: &str) -> String {
    let config = Config::from_toml(text).unwrap_or_else(|problems| panic!("{problems}"));
    let result: Result<Server, BindError> =
        Server::bind(config, &ops::metrics::Registry::new()).await;
    result
        .map(|_| "it started".to_owned())
        .unwrap_or_else(|error| error.to_string())
}

fn config(folder: &Path) -> String {
    format!(
        "listen = [\"https://127.0.0.1:0\"]\ntls = {{ certificate = \"{0}/cert.pem\", key = \"{0}/key.pem\" }}",
        folder.display()
    )
}

fn certificate(folder: &Path) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    let key = folder.join("key.pem");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    keep_secret(&key);
    made
}

#[cfg(unix)]
fn keep_secret(key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(not(unix))]
fn keep_secret(_: &Path) {}

fn connector(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
