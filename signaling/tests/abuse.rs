//! What strangers do to servers: none of it is served, and none of it is felt by others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{Client, PATIENCE, Running, http, native, request};
use futures_util::SinkExt as _;
use serde_json::json;
use signal_wire::{ErrorCode, ServerBody, SignalKind};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn a_frame_above_16_kib_closes_with_1009() {
    let running = Running::start().await;
    let (mut ann, _) = running.member("Ann", 2).await;
    // Not sent whole: the head alone says too much. The rest may meet a closed socket.
    let _ = ann
        .socket
        .send(Message::text("x".repeat(16 * 1024 + 1)))
        .await;
    assert_eq!(ann.close_code().await, Some(1009));
    running
        .metric_becomes(
            "rallypoint_signal_disconnects_total{reason=\"too_big\"}",
            1.0,
        )
        .await;

    let mut bob = running.player("Bob").await;
    let mut text = r#"{"id":5,"type":"ping","data":{"t":1}}"#.to_owned();
    text.push_str(&" ".repeat(16 * 1024 - text.len()));
    bob.send(&text).await;
    assert!(
        matches!(bob.body().await, ServerBody::Pong(_)),
        "exactly 16 KiB is a frame"
    );
}

#[tokio::test]
async fn binary_garbage_is_refused_and_then_closed_with_4400() {
    let running = Running::start().await;
    let mut ann = running.player("Ann").await;
    for byte in 0..8 {
        ann.socket
            .send(Message::binary(vec![byte; 100]))
            .await
            .unwrap();
    }
    for _ in 0..8 {
        assert!(
            matches!(ann.body().await, ServerBody::Error(e) if e.code == ErrorCode::BadRequest)
        );
    }
    assert_eq!(ann.close_code().await, Some(4400));
}

#[tokio::test]
async fn bytes_that_are_no_frames_close_with_1002_and_bad_utf_8_with_1007() {
    let running = Running::start().await;
    // An unmasked text frame (RFC 6455 §5.1), then a masked one of bytes that are no UTF-8.
    for (bytes, code) in [
        (&b"\x81\x02hi"[..], 1002),
        (&b"\x81\x82\x00\x00\x00\x00\xff\xfe"[..], 1007),
    ] {
        let mut ann = running.player("Ann").await;
        ann.socket.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(ann.close_code().await, Some(code), "{bytes:?}");
    }
    running
        .metric_becomes(
            "rallypoint_signal_disconnects_total{reason=\"protocol\"}",
            2.0,
        )
        .await;
}

#[tokio::test]
async fn a_flood_is_answered_with_a_time_and_closed_with_4429() {
    let running = Running::of(
        "listen = [\"http://127.0.0.1:0\"]\n[limits]\nmessages-per-second = 10\nmessages-burst = 5\n",
    )
    .await;
    let mut ann = running.player("Ann").await;
    let flood = async {
        let mut refused = None;
        let mut id = 10;
        loop {
            let ping = format!(r#"{{"id":{id},"type":"ping","data":{{"t":1}}}}"#);
            if ann.socket.send(Message::text(ping)).await.is_err() {
                return (refused, None);
            }
            id += 1;
            match ann.next().await {
                Some(Message::Close(frame)) => {
                    return (refused, frame.map(|frame| u16::from(frame.code)));
                }
                Some(Message::Text(text)) if text.contains("rate_limited") => {
                    refused = Some(text.as_str().to_owned());
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (refused, code) = timeout(PATIENCE, flood).await.unwrap();
    assert!(refused.unwrap().contains("\"retry_after_ms\":"));
    assert_eq!(code, Some(4429));
    running
        .metric_becomes(
            "rallypoint_signal_disconnects_total{reason=\"rate_limited\"}",
            1.0,
        )
        .await;
    assert!(running.metric("rallypoint_rate_limited_total{limiter=\"messages\"}") >= 3.0);
}

#[tokio::test]
async fn who_does_not_read_is_cut_off_and_the_others_go_on() {
    let running = Running::of(
        "listen = [\"http://127.0.0.1:0\"]\n[limits]\nexempt = [\"127.0.0.0/8\"]\n\
         messages-per-second = 1000000\nmessages-burst = 1000000\n\
         bytes-per-second = 100000000\nbytes-burst = 1000000000\noutbox = \"64KiB\"\n",
    )
    .await;
    let (mut ann, _) = running.member("Ann", 3).await;
    let (_deaf, _) = running.member("Deaf", 3).await;
    let (mut cid, _) = running.member("Cid", 3).await;
    assert!(matches!(cid.body().await, ServerBody::LobbyReady(_)));

    // More than the socket buffers of both ends can hold, so that the outbox must fill.
    let data = json!("x".repeat(10_000));
    let slow = "rallypoint_signal_disconnects_total{reason=\"slow\"}";
    let send = async {
        while running.metric(slow) < 1.0 {
            for _ in 0..50 {
                ann.signal(2, SignalKind::Offer, data.clone()).await;
            }
        }
    };
    timeout(PATIENCE, send).await.expect("cut off in time");
    assert!(running.metric("rallypoint_signal_send_queue_dropped_total") >= 1.0);
    ann.signal(3, SignalKind::Offer, json!("through")).await;
    assert!(matches!(cid.body().await, ServerBody::Signal(s) if s.data == json!("through")));
}

#[tokio::test]
async fn silence_is_pinged_and_then_closed_with_4410() {
    let running =
        Running::of("listen = [\"http://127.0.0.1:0\"]\n[limits]\nping-interval = \"100ms\"\n")
            .await;
    // A client that reads bytes and answers no ping: a bare socket after the handshake.
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let head = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                Sec-WebSocket-Protocol: rallypoint.v1.json\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("closed in time")
        .unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.starts_with("HTTP/1.1 101 ") && text.contains("rallypoint.v1.json"),
        "{text}"
    );
    // Two empty pings, then the close frame with 4410.
    assert!(
        bytes.ends_with(b"\x89\x00\x89\x00\x88\x02\x11\x3a"),
        "{bytes:?}"
    );
    running
        .metric_becomes("rallypoint_signal_connections", 0.0)
        .await;
}

#[tokio::test]
async fn who_says_no_hello_is_closed_with_1008() {
    let running =
        Running::of("listen = [\"http://127.0.0.1:0\"]\n[limits]\nhello-timeout = \"50ms\"\n")
            .await;
    let mut silent = running.connect().await;
    assert_eq!(silent.close_code().await, Some(1008));
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let running =
        Running::of("listen = [\"http://127.0.0.1:0\"]\n[limits]\nconnections-per-address = 2\n")
            .await;
    let _two = (running.connect().await, running.connect().await);
    let third = Client::connect(running.addr, native(running.addr)).await;
    assert_eq!(status(third), 429);
    let refused = "rallypoint_signal_connections_refused_total{reason=\"address\"}";
    running.metric_becomes(refused, 1.0).await;
}

#[tokio::test]
async fn foreign_pages_and_bad_handshakes_are_refused() {
    let running = Running::with("allowed-origins = [\"https://game.example\"]").await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = native(running.addr);
        request.headers_mut().insert(name, value.parse().unwrap());
        Client::connect(running.addr, request)
    };
    assert_eq!(status(with("origin", "https://evil.example").await), 403);
    assert!(with("origin", "https://game.example").await.is_ok());
    assert_eq!(status(with("sec-websocket-version", "8").await), 426);
    assert_eq!(
        status(with("sec-websocket-protocol", "graphql-ws").await),
        400
    );
    let unknown = Client::connect(running.addr, request(running.addr, "/v2/ws")).await;
    assert_eq!(status(unknown), 404);

    let get = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(http(running.addr, get).await.starts_with("HTTP/1.1 426 "));
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    assert!(http(running.addr, &long).await.starts_with("HTTP/1.1 431 "));
}

fn status<S>(refused: Result<Client<S>, Error>) -> u16 {
    match refused {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("let in"),
    }
}
