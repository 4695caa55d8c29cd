//! Every metric is there from the start, moves when it should, and never grows by what clients send.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{Client, Running, http, native, request};
use futures_util::SinkExt as _;
use serde_json::json;
use signal_wire::{ClientBody, SignalKind};
use std::collections::BTreeSet;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn messages_and_lobbies_are_counted() {
    let running = Running::start().await;
    let (mut ann, _) = running.member("Ann", 2).await;
    let (mut bob, _) = running.member("Bob", 2).await;
    bob.signal(1, SignalKind::Bye, json!({})).await;
    ann.send(r#"{"type":"future"}"#).await;
    ann.socket.send(Message::binary(vec![0])).await.unwrap();
    let mut tank = running.tank().await;
    tank.send(r#"{"join":"alone"}"#).await;
    tank.text().await;
    tank.send("to nobody").await;
    for (name, value) in [
        ("connections", 3.0),
        ("connections_total", 3.0),
        ("messages_total{direction=\"in\",type=\"hello\"}", 2.0),
        ("messages_total{direction=\"in\",type=\"lobby.join\"}", 2.0),
        ("messages_total{direction=\"in\",type=\"signal\"}", 1.0),
        ("messages_total{direction=\"in\",type=\"unreadable\"}", 2.0),
        ("messages_total{direction=\"in\",type=\"tank\"}", 2.0),
        ("messages_total{direction=\"out\",type=\"signal\"}", 1.0),
        (
            "messages_total{direction=\"out\",type=\"lobby.ready\"}",
            2.0,
        ),
        ("message_duration_seconds_count{type=\"signal\"}", 1.0),
        ("dropped_total{what=\"no_receiver\"}", 1.0),
        ("lobbies{state=\"ready\"}", 1.0),
        ("lobbies{state=\"waiting\"}", 1.0),
        ("lobbies_opened_total", 2.0),
        ("players{state=\"connected\"}", 2.0),
        ("errors_total{code=\"unknown_type\"}", 1.0),
        ("errors_total{code=\"bad_request\"}", 1.0),
    ] {
        running.metric_becomes(&signal(name), value).await;
    }
    tank.socket.close(None).await.unwrap();
    running
        .metric_becomes(&signal("lobbies_closed_total{reason=\"empty\"}"), 1.0)
        .await;
}

#[tokio::test]
async fn cuts_and_ends_are_counted() {
    let running = Running::start().await;
    let mut ann = running.connect().await;
    let welcome = ann.hello("Ann").await;
    ann.join("jump-rocket", 2).await;
    drop(ann);
    running
        .metric_becomes(&signal("players{state=\"cut\"}"), 1.0)
        .await;
    running
        .metric_becomes(&signal("disconnects_total{reason=\"lost\"}"), 1.0)
        .await;
    let mut ann = running.connect().await;
    ann.resume(&welcome, 0).await;
    running
        .metric_becomes(&signal("resumes_total{outcome=\"replayed\"}"), 1.0)
        .await;
    ann.socket.close(None).await.unwrap();
    running
        .metric_becomes(&signal("disconnects_total{reason=\"closed\"}"), 1.0)
        .await;
}

#[tokio::test]
async fn http_is_counted_and_so_is_who_is_not_let_in() {
    let running = Running::start().await;
    let mut foreign = native(running.addr);
    foreign
        .headers_mut()
        .insert("origin", "https://evil.example".parse().unwrap());
    assert!(Client::connect(running.addr, foreign).await.is_err());
    assert!(
        Client::connect(running.addr, request(running.addr, "/nowhere"))
            .await
            .is_err()
    );
    http(
        running.addr,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    running
        .metric_becomes(&signal("connections_refused_total{reason=\"origin\"}"), 1.0)
        .await;
    for (code, handler) in [(403, "native"), (404, "other"), (200, "page")] {
        let series =
            format!("rallypoint_http_requests_total{{code=\"{code}\",handler=\"{handler}\"}}");
        running.metric_becomes(&series, 1.0).await;
    }
}

#[tokio::test]
async fn all_series_are_there_from_the_start_and_no_other_comes() {
    let running = Running::start().await;
    let zero = series(&running);
    let (mut ann, _) = running.member("Ann", 2).await;
    let _bob = running.member("Bob", 2).await;
    for n in 0..30 {
        ann.send(&format!(r#"{{"type":"future-{n}","data":{{"x":{n}}}}}"#))
            .await;
    }
    running
        .metric_becomes(&signal("errors_total{code=\"unknown_type\"}"), 30.0)
        .await;
    http(
        running.addr,
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(series(&running), zero);
    assert!(zero.len() < 700, "{} series", zero.len());
}

#[tokio::test]
async fn rates_and_bad_passphrases_are_counted() {
    let running = Running::of("listen = [\"http://127.0.0.1:0\"]").await;
    let mut ann = running.player("Ann").await;
    for n in 0..7 {
        let join = signal_wire::LobbyJoin {
            passphrase: format!("guess-{n}"),
            create: false,
            max: 2,
        };
        ann.request(ClientBody::LobbyJoin(join)).await;
    }
    ann.try_join("Bad Form", 2).await;
    assert!(running.metric("rallypoint_rate_limited_total{limiter=\"joins\"}") >= 1.0);
    assert!(running.metric(&signal("errors_total{code=\"not_found\"}")) >= 5.0);
    assert!(running.metric(&signal("errors_total{code=\"rate_limited\"}")) >= 1.0);
}

fn signal(name: &str) -> String {
    format!("rallypoint_signal_{name}")
}

/// The names and labels of all series, without their values.
fn series(running: &Running) -> BTreeSet<String> {
    let text = running.registry.render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}
