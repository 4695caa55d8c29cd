//! The health page at the root: HTML for people, JSON for programs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{Running, http};
use serde_json::Value;

#[tokio::test]
async fn programs_get_json_with_peers_uptime_and_activity() {
    let running = Running::start().await;
    let _two = (
        running.member("Ann", 2).await,
        running.member("Bob", 2).await,
    );
    let _tank = running.tank().await;
    running
        .metric_becomes("rallypoint_signal_connections", 3.0)
        .await;
    let answer = get(&running, "GET", "application/json").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: application/json"));
    let page: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&page["active_peers"], &page["lobbies_ready"]),
        (&3.into(), &1.into())
    );
    assert!(page["uptime_seconds"].is_u64());
    assert_eq!(page["recent_activity"][0]["what"], "a lobby became ready");
    for secret in ["Ann", "jump", "127.0.0.1"] {
        assert!(!answer.contains(secret), "{secret} is nobody's business");
    }
}

#[tokio::test]
async fn people_get_html() {
    let running = Running::start().await;
    let _ann = running.member("Ann", 2).await;
    let answer = get(&running, "GET", "text/html,*/*;q=0.8").await;
    assert!(
        answer.contains("content-type: text/html; charset=utf-8"),
        "{answer}"
    );
    assert!(
        answer.contains("content-security-policy: default-src 'none'"),
        "{answer}"
    );
    for part in [
        "<!doctype html>",
        "Active peers</dt><dd>1<",
        "Up for",
        "a lobby was opened",
    ] {
        assert!(answer.contains(part), "no {part} in {answer}");
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let running = Running::start().await;
    let head = get(&running, "HEAD", "*/*").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let post = get(&running, "POST", "*/*").await;
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"),
        "{post}"
    );
}

async fn get(running: &Running, method: &str, accept: &str) -> String {
    let request =
        format!("{method} / HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    http(running.addr, &request).await
}
