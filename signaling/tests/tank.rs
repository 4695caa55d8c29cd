//! The passphrase door at `/`, as the tank game's own client uses it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{Client, Running, request};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn the_story_of_the_tank_game() {
    let running = Running::start().await;
    let (mut one, mut two) = (running.tank().await, running.tank().await);

    // Connection phase.
    one.send(r#"{"join":"jump-rocket"}"#).await;
    assert_eq!(
        one.text().await,
        r#"{"type":"joined","joined":true,"players":1}"#
    );
    two.send(r#"{"join":"jump-rocket"}"#).await;
    assert_eq!(
        two.text().await,
        r#"{"type":"joined","joined":true,"players":2}"#
    );
    assert_eq!(one.text().await, r#"{"type":"ready","ready":true}"#);
    assert_eq!(two.text().await, r#"{"type":"ready","ready":true}"#);

    // Game phase: verbatim, both ways, in order.
    let moves: Vec<_> = (0..50)
        .map(|n| format!("{{ \"playerMove\" : {{\"x\":{n}.50}} }}"))
        .collect();
    for text in &moves {
        one.send(text).await;
    }
    for text in &moves {
        assert_eq!(&two.text().await, text);
    }
    two.send(r#"{"playerShoot":{"power":9}}"#).await;
    assert_eq!(one.text().await, r#"{"playerShoot":{"power":9}}"#);

    // Another lobby hears nothing of it; a third player finds no room.
    let mut three = running.tank().await;
    three.send(r#"{"join":"jump-rocket"}"#).await;
    assert_eq!(three.text().await, r#"{"type":"error","error":"full"}"#);
    three.send(r#"{"join":"Jump Rocket!"}"#).await;
    assert_eq!(
        three.text().await,
        r#"{"type":"error","error":"bad_passphrase"}"#
    );
    three.send(r#"{"join":"laser-dragon"}"#).await;
    assert_eq!(
        three.text().await,
        r#"{"type":"joined","joined":true,"players":1}"#
    );

    // One closes its window, the other's machine dies: both are told of.
    two.socket.close(None).await.unwrap();
    assert_eq!(
        one.text().await,
        r#"{"type":"left","left":true,"players":1}"#
    );
    let mut four = running.tank().await;
    four.send(r#"{"join":"jump-rocket"}"#).await;
    assert_eq!(
        four.text().await,
        r#"{"type":"joined","joined":true,"players":2}"#
    );
    assert_eq!(one.text().await, r#"{"type":"ready","ready":true}"#);
    drop(four);
    assert_eq!(
        one.text().await,
        r#"{"type":"left","left":true,"players":1}"#
    );
    running.server.shutdown().await;
}

#[tokio::test]
async fn binary_is_refused() {
    let running = Running::start().await;
    let mut tank = running.tank().await;
    tank.socket
        .send(Message::binary(vec![1, 2, 3]))
        .await
        .unwrap();
    assert_eq!(
        tank.text().await,
        r#"{"type":"error","error":"bad_request"}"#
    );
}

#[tokio::test]
async fn the_door_can_be_shut() {
    let running = Running::with("doors = { tank = false }").await;
    let refused = Client::connect(running.addr, request(running.addr, "/")).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 404));
    running.connect().await;
}
