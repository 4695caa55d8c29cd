//! The native protocol over real WebSockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests fail by panicking"
)]

#[path = "harness/client.rs"]
mod client;

use client::{PATIENCE, Running};
use futures_util::SinkExt as _;
use serde_json::json;
use signal_wire::{ClientBody, ErrorCode, LeaveReason, MemberId, ServerBody, SignalKind};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn two_players_join_are_ready_signal_and_part() {
    let running = Running::start().await;
    let (mut ann, joined) = running.member("Ann", 2).await;
    assert_eq!(
        (joined.you, joined.lobby.max, joined.lobby.version),
        (MemberId(1), 2, 1)
    );
    let (mut bob, joined) = running.member("Bob", 2).await;
    let names: Vec<_> = joined
        .lobby
        .members
        .iter()
        .map(|member| &*member.name)
        .collect();
    assert_eq!((joined.you, names), (MemberId(2), vec!["Ann", "Bob"]));
    assert!(matches!(ann.body().await, ServerBody::MemberJoined(m) if m.member.name == "Bob"));
    assert!(matches!(ann.body().await, ServerBody::LobbyReady(_)));
    assert!(matches!(bob.body().await, ServerBody::LobbyReady(_)));

    let offer = json!({"type": "offer", "sdp": "v=0\r\n…"});
    bob.signal(1, SignalKind::Offer, offer.clone()).await;
    let ServerBody::Signal(signal) = ann.body().await else {
        panic!("no signal")
    };
    assert_eq!(
        (signal.from, signal.kind, signal.data),
        (MemberId(2), SignalKind::Offer, offer)
    );
    assert_eq!(signal.conn, "c1");

    assert_eq!(
        bob.request(ClientBody::LobbyLeave).await,
        ServerBody::LobbyLeft
    );
    let ServerBody::MemberLeft(left) = ann.body().await else {
        panic!("nobody left")
    };
    assert_eq!((left.member, left.reason), (MemberId(2), LeaveReason::Left));
    running.server.shutdown().await;
}

#[tokio::test]
async fn a_third_player_and_a_taken_name_are_refused() {
    let running = Running::start().await;
    let _two = (
        running.member("Ann", 2).await,
        running.member("Bob", 2).await,
    );
    let mut cid = running.player("Cid").await;
    assert_eq!(
        refused(cid.try_join("jump-rocket", 2).await),
        ErrorCode::LobbyFull
    );
    assert_eq!(
        refused(cid.try_join("Not A Passphrase", 2).await),
        ErrorCode::BadPassphrase
    );
    cid.join("laser-dragon", 3).await;
    let mut double = running.player("Cid").await;
    assert_eq!(
        refused(double.try_join("laser-dragon", 3).await),
        ErrorCode::Conflict
    );
}

#[tokio::test]
async fn what_is_not_understood_is_answered_by_number() {
    let running = Running::start().await;
    let mut ann = running.player("Ann").await;
    let mut answer = async |text: &str| {
        ann.send(text).await;
        let message = ann.message().await;
        (message.re, refused(message.body))
    };
    let unknown = answer(r#"{"id":70,"type":"lobby.explode","data":{}}"#).await;
    assert_eq!(unknown, (Some(70), ErrorCode::UnknownType));
    let bad = answer(r#"{"id":71,"type":"lobby.join","data":{"create":true}}"#).await;
    assert_eq!(bad, (Some(71), ErrorCode::BadRequest));
    assert_eq!(answer("nonsense").await, (None, ErrorCode::BadRequest));
    let strange = answer(r#"{"id":72,"type":"lobby.leave","data":{"future":1},"x":[]}"#).await;
    assert_eq!(strange, (Some(72), ErrorCode::NotFound));
}

#[tokio::test]
async fn a_frame_may_hold_several_messages() {
    let running = Running::start().await;
    let mut ann = running.player("Ann").await;
    ann.send(r#"[{"id":8,"type":"ping","data":{"t":1}},{"id":9,"type":"ping","data":{"t":2}}]"#)
        .await;
    let numbers = [ann.message().await.re, ann.message().await.re];
    assert_eq!(numbers, [Some(8), Some(9)]);
}

#[tokio::test]
async fn a_cut_connection_is_taken_up_again_and_nothing_is_missed() {
    let running = Running::start().await;
    let mut ann = running.connect().await;
    let welcome = ann.hello("Ann").await;
    ann.join("jump-rocket", 2).await;
    let (mut bob, _) = running.member("Bob", 2).await;
    assert!(matches!(ann.body().await, ServerBody::MemberJoined(_)));
    // Cut without a word, while `ready` is on its way; and a signal comes while nobody is there.
    drop(ann);
    let cut = "rallypoint_signal_players{state=\"cut\"}";
    running.metric_becomes(cut, 1.0).await;
    bob.signal(1, SignalKind::Candidate, json!({"v": 1})).await;

    let mut ann = running.connect().await;
    let again = ann.resume(&welcome, 1).await;
    assert_eq!((again.resumed, again.replayed), (true, 2));
    assert_eq!(again.session_id, welcome.session_id);
    let (ready, signal) = (ann.message().await, ann.message().await);
    assert!(matches!(ready.body, ServerBody::LobbyReady(_)));
    assert!(matches!(signal.body, ServerBody::Signal(_)));
    assert_eq!((ready.seq, signal.seq), (Some(2), Some(3)));
    running.metric_becomes(cut, 0.0).await;
    ann.signal(2, SignalKind::Bye, json!({})).await;
    assert!(matches!(bob.body().await, ServerBody::LobbyReady(_)));
    assert!(
        matches!(bob.body().await, ServerBody::Signal(_)),
        "the others saw nothing of it"
    );
}

#[tokio::test]
async fn a_session_has_one_connection_and_the_newest_wins() {
    let running = Running::start().await;
    let mut old = running.connect().await;
    let welcome = old.hello("Ann").await;
    old.join("jump-rocket", 2).await;
    let mut new = running.connect().await;
    assert!(new.resume(&welcome, 0).await.resumed);
    assert_eq!(old.close_code().await, Some(4409));
}

#[tokio::test]
async fn a_drain_tells_when_to_come_back_and_closes() {
    let running = Running::start().await;
    let (mut ann, _) = running.member("Ann", 2).await;
    let mut tank = running.tank().await;
    let addr = running.addr;
    timeout(PATIENCE, running.server.shutdown())
        .await
        .expect("an end in time");
    let ServerBody::ServerDrain(drain) = ann.body().await else {
        panic!("no drain")
    };
    assert!(drain.reconnect_after_ms <= 20_000);
    assert_eq!(ann.close_code().await, Some(1001));
    assert_eq!(tank.close_code().await, Some(1001));
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn members_get_stun_and_turn_servers_with_credentials_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let key = "9f86d081884c7d659a2feaa0c55ad015";
    std::fs::write(&secret, key).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let running = Running::with(&format!(
        r#"
        [[relay]]
        region = "eu"
        urls = ["turn:203.0.113.10:3478?transport=udp"]
        secret = {{ id = "k1", file = "{}" }}
        [[stun]]
        urls = ["stun:203.0.113.11:3478"]
        "#,
        secret.display()
    ))
    .await;
    let mut ann = running.connect().await;
    let welcome = ann.hello("Ann").await;
    let joined = ann.join("jump-rocket", 2).await;
    let [stun, turn] = joined.ice_servers.as_slice() else {
        panic!("{joined:?}")
    };
    assert_eq!(
        (&*stun.urls[0], &stun.username),
        ("stun:203.0.113.11:3478", &None)
    );
    assert_eq!(turn.urls, ["turn:203.0.113.10:3478?transport=udp"]);
    let username = turn.username.as_deref().unwrap();
    assert!(
        username.ends_with(&format!(":k1:{}.1", welcome.session_id)),
        "{username}"
    );
    let secrets = credentials::Secrets::new(vec![credentials::Secret {
        id: Some("k1".into()),
        key: key.into(),
    }]);
    let candidates = secrets
        .password_for(username, net_io::clock::unix())
        .unwrap();
    let credential = turn.credential.as_deref().unwrap();
    assert!(
        candidates
            .passwords()
            .any(|good| good.as_str() == credential)
    );

    let ServerBody::IceServers(fresh) = ann.request(ClientBody::IceRequest).await else {
        panic!("no servers")
    };
    assert_eq!((fresh.ice_servers.len(), fresh.ttl_s), (2, 21_600));
    let issued = "rallypoint_signal_turn_credentials_issued_total{region=\"eu\"}";
    running.metric_becomes(issued, 2.0).await;
}

#[tokio::test]
async fn pings_of_the_websocket_are_answered() {
    let running = Running::start().await;
    let mut ann = running.player("Ann").await;
    ann.socket
        .send(Message::Ping(b"x".to_vec().into()))
        .await
        .unwrap();
    let pong = timeout(PATIENCE, futures_util::StreamExt::next(&mut ann.socket))
        .await
        .unwrap();
    assert_eq!(pong.unwrap().unwrap(), Message::Pong(b"x".to_vec().into()));
}

fn refused(body: ServerBody) -> ErrorCode {
    match body {
        ServerBody::Error(error) => error.code,
        other => panic!("not refused but {other:?}"),
    }
}
