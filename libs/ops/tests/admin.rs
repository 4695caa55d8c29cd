//! The admin listener over real sockets: what it answers, what it refuses, and that it ends.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use ops::Health;
use ops::admin::Admin;
use ops::metrics::{self, BuildInfo, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    admin: Admin,
    registry: Registry,
    health: Health,
}

async fn fixture() -> Fixture {
    let registry = Registry::new();
    let build = BuildInfo {
        version: "1.2.3",
        revision: "unknown",
    };
    metrics::register_process(&registry, build).unwrap();
    let health = Health::new(&registry).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let admin = Admin::bind(address, registry.clone(), health.clone())
        .await
        .unwrap();
    Fixture {
        admin,
        registry,
        health,
    }
}

impl Fixture {
    /// Sends `request` as it is and returns all that comes back until the other end closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.admin.local_addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = self.exchange(&request).await;
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn readiness_follows_the_service_and_liveness_does_not() {
    let fixture = fixture().await;
    assert_eq!(fixture.status("GET", "/healthz").await, 200);
    assert_eq!(fixture.status("GET", "/readyz").await, 503);
    fixture.health.set_ready(true);
    assert_eq!(fixture.status("GET", "/readyz").await, 200);
    fixture.health.set_draining(true);
    assert_eq!(fixture.status("GET", "/readyz").await, 503);
    assert_eq!(fixture.status("GET", "/healthz").await, 200);
}

#[tokio::test]
async fn other_paths_are_404_and_other_methods_405() {
    let fixture = fixture().await;
    assert_eq!(fixture.status("GET", "/").await, 404);
    assert_eq!(fixture.status("GET", "/metrics/").await, 404);
    assert_eq!(fixture.status("POST", "/metrics").await, 405);
    assert_eq!(fixture.status("HEAD", "/metrics").await, 200);
    let counted = |line: &str| assert!(fixture.registry.render().contains(line), "{line}");
    counted(r#"rallypoint_http_requests_total{code="404",handler="other"} 2"#);
    counted(r#"rallypoint_http_requests_total{code="405",handler="metrics"} 1"#);
    counted(r#"rallypoint_http_request_duration_seconds_count{handler="metrics"} 2"#);
}

#[tokio::test]
async fn a_request_head_beyond_its_limit_is_refused() {
    let fixture = fixture().await;
    let padding = "x".repeat(64 * 1024);
    let mut stream = TcpStream::connect(fixture.admin.local_addr())
        .await
        .unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\npadding: {padding}\r\n\r\n");
    // The listener may close before all of it is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    assert_eq!(fixture.status("GET", "/healthz").await, 200);
}

#[tokio::test]
async fn what_is_no_http_is_closed_and_disturbs_nobody() {
    let fixture = fixture().await;
    let answer = fixture.exchange("\u{1}\u{2} what?\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(fixture.status("GET", "/healthz").await, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let fixture = fixture().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(fixture.admin.local_addr())
            .await
            .unwrap();
        // An answered request proves that the connection was accepted; it stays open.
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        open.push(stream);
    }
    let mut one_more = TcpStream::connect(fixture.admin.local_addr())
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, one_more.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(answer.is_empty());
    let refused = "\nrallypoint_admin_connections_refused_total 1\n";
    assert!(fixture.registry.render().contains(refused));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let fixture = fixture().await;
    let registry = Registry::new();
    let health = Health::new(&registry).unwrap();
    let address = fixture.admin.local_addr();
    let error = Admin::bind(address, registry, health)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn it_ends_although_a_connection_is_open() {
    let fixture = fixture().await;
    let mut stream = TcpStream::connect(fixture.admin.local_addr())
        .await
        .unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\n")
        .await
        .unwrap();
    timeout(PATIENCE, fixture.admin.shutdown())
        .await
        .expect("the listener ends");
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    let fixture = fixture().await;
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = fixture.exchange(request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains(r#"rallypoint_build_info{revision="unknown",version="1.2.3"} 1"#));
    assert!(body.contains("process_resident_memory_bytes"));
    assert!(body.contains(r#"rallypoint_log_messages_total{level="error"} 0"#));
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        let required = std::env::var_os("RALLYPOINT_TEST_ALL").is_some();
        assert!(!required, "promtool is missing (Debian package prometheus)");
        eprintln!("skipped: promtool is missing (Debian package prometheus)");
        return;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(body.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
