//! Every message of the protocol as JSON, byte for byte as `docs/signaling-protocol.md` shows it.

use serde_json::json;
use signal_wire::{
    ClientBody, ClientMessage, Fault, Hello, LeaveReason, LobbyId, LobbyJoin, MemberId, ParseError,
    Ping, RawData, Resume, ResumeToken, ServerBody, ServerMessage, ServerMessageWith, SessionId,
    SignalKind, SignalTo,
};

fn from_client(text: &str, expected: ClientMessage) {
    assert_eq!(
        ClientMessage::from_json(text),
        Ok(expected.clone()),
        "reading {text}"
    );
    assert_eq!(expected.to_json(), text);
}

/// Reads `text` and writes it again.
fn from_server(text: &str) -> ServerBody {
    let message = ServerMessage::from_json(text).expect(text);
    assert_eq!(message.to_json(), text);
    message.body
}

#[test]
fn requests_are_written_as_documented() {
    let hello = Hello {
        game: "tank".into(),
        build: "1.4.0".into(),
        sdk: "rallypoint/0.1.0".into(),
        name: "Ann".into(),
        resume: None,
    };
    from_client(
        r#"{"id":1,"type":"hello","data":{"game":"tank","build":"1.4.0","sdk":"rallypoint/0.1.0","name":"Ann"}}"#,
        request(1, ClientBody::Hello(hello.clone())),
    );
    let resume = Resume {
        session_id: SessionId(1),
        resume_token: ResumeToken(2),
        last_seq: 7,
    };
    from_client(
        r#"{"id":1,"type":"hello","data":{"game":"tank","build":"1.4.0","sdk":"rallypoint/0.1.0","name":"Ann","resume":{"session_id":"00000000000000000000000001","resume_token":"00000000000000000000000002","last_seq":7}}}"#,
        request(
            1,
            ClientBody::Hello(Hello {
                resume: Some(resume),
                ..hello
            }),
        ),
    );
    let join = LobbyJoin {
        passphrase: "jump-rocket".into(),
        create: true,
        max: 2,
    };
    from_client(
        r#"{"id":2,"type":"lobby.join","data":{"passphrase":"jump-rocket","create":true,"max":2}}"#,
        request(2, ClientBody::LobbyJoin(join)),
    );
    from_client(
        r#"{"id":3,"type":"signal","data":{"to":2,"kind":"candidates_end","conn":"c1","data":{}}}"#,
        request(
            3,
            ClientBody::Signal(SignalTo {
                to: MemberId(2),
                kind: SignalKind::CandidatesEnd,
                conn: "c1".into(),
                data: json!({}),
            }),
        ),
    );
    from_client(
        r#"{"id":4,"ack":3,"type":"ping","data":{"t":1234}}"#,
        ClientMessage {
            id: Some(4),
            ack: Some(3),
            body: ClientBody::Ping(Ping { t: 1234 }),
        },
    );
    from_client(
        r#"{"id":5,"type":"ice.request","data":{}}"#,
        request(5, ClientBody::IceRequest),
    );
    from_client(
        r#"{"id":6,"type":"lobby.leave","data":{}}"#,
        request(6, ClientBody::LobbyLeave),
    );
}

#[test]
fn replies_and_events_are_written_as_documented() {
    let welcome = from_server(
        r#"{"re":1,"type":"welcome","data":{"session_id":"00000000000000000000000001","resume_token":"00000000000000000000000002","resumed":false,"replayed":0,"grace_ms":60000,"protocol":"1.0","limits":{"message_bytes":16384,"messages_per_second":50,"messages_burst":100,"lobby_members":16,"ping_interval_ms":20000},"server_time":"2026-11-20T11:05:07.042Z"}}"#,
    );
    assert!(matches!(welcome, ServerBody::Welcome(welcome) if welcome.limits.lobby_members == 16));

    let joined = from_server(
        r#"{"re":2,"type":"lobby.joined","data":{"lobby":{"id":"0000000000000000000000000A","version":3,"max":2,"members":[{"id":1,"name":"Ann"},{"id":2,"name":"Bob"}]},"you":2,"ice_servers":[{"urls":["stun:192.0.2.1:3478"]},{"urls":["turn:192.0.2.1:3478?transport=udp"],"username":"1767225600:k1:0.2","credential":"c2VjcmV0"}]}}"#,
    );
    let ServerBody::LobbyJoined(joined) = joined else {
        panic!("{joined:?}")
    };
    assert_eq!((joined.lobby.id, joined.you), (LobbyId(10), MemberId(2)));
    assert!(
        !format!("{joined:?}").contains("c2VjcmV0"),
        "credentials do not print"
    );

    for text in [
        r#"{"seq":1,"type":"lobby.member_joined","data":{"lobby_id":"0000000000000000000000000A","version":3,"member":{"id":2,"name":"Bob"}}}"#,
        r#"{"seq":2,"type":"lobby.ready","data":{"lobby_id":"0000000000000000000000000A","version":4}}"#,
        r#"{"seq":3,"type":"lobby.member_left","data":{"lobby_id":"0000000000000000000000000A","version":5,"member":2,"reason":"disconnected"}}"#,
        r#"{"seq":4,"type":"signal","data":{"from":2,"kind":"bye","conn":"c1","data":{}}}"#,
        r#"{"re":5,"type":"ice.servers","data":{"ice_servers":[],"ttl_s":21600}}"#,
        r#"{"re":6,"type":"lobby.left","data":{}}"#,
        r#"{"re":4,"type":"pong","data":{"t":1234}}"#,
        r#"{"type":"server.drain","data":{"reconnect_after_ms":1500}}"#,
        r#"{"re":7,"type":"error","data":{"code":"lobby_full","message":"the lobby is full"}}"#,
        r#"{"re":7,"type":"error","data":{"code":"rate_limited","message":"","retry_after_ms":20}}"#,
    ] {
        from_server(text);
    }
}

#[test]
fn unknown_members_are_ignored_and_left_out_ones_have_defaults() {
    let text = r#"{"future":[1],"type":"hello","data":{"game":"tank","future":{"a":1}},"id":9}"#;
    let hello = Hello {
        game: "tank".into(),
        build: String::new(),
        sdk: String::new(),
        name: String::new(),
        resume: None,
    };
    assert_eq!(
        ClientMessage::from_json(text),
        Ok(request(9, ClientBody::Hello(hello)))
    );
    let left = ServerMessage::from_json(
        r#"{"seq":1,"type":"lobby.member_left","data":{"lobby_id":"0000000000000000000000000A","version":5,"member":2,"reason":"abducted"}}"#,
    );
    assert!(matches!(
        left.unwrap().body,
        ServerBody::MemberLeft(left) if left.reason == LeaveReason::Other
    ));
}

#[test]
fn what_cannot_be_read_keeps_its_number_for_the_answer() {
    let read = |text: &str| ClientMessage::from_json(text).unwrap_err();
    let fault = |fault, id| ParseError {
        fault,
        id,
        seq: None,
    };
    assert_eq!(
        read(r#"{"id":7,"type":"lobby.explode"}"#),
        fault(Fault::UnknownType, Some(7))
    );
    assert_eq!(
        read(r#"{"id":7,"type":"hello","data":{}}"#),
        fault(Fault::BadData, Some(7))
    );
    assert_eq!(
        read(r#"{"id":7,"type":"ping","data":[]}"#),
        fault(Fault::BadData, Some(7))
    );
    assert_eq!(read(r#"{"id":7}"#), fault(Fault::NotAMessage, None));
    assert_eq!(
        read(r#"{"id":-7,"type":"ping"}"#),
        fault(Fault::NotAMessage, None)
    );
    assert_eq!(read("[]"), fault(Fault::NotAMessage, None));
    assert_eq!(read("{"), fault(Fault::NotJson, None));
    assert_eq!(read(""), fault(Fault::NotJson, None));
    assert_eq!(
        read(&" ".repeat(16 * 1024 + 1)),
        fault(Fault::TooLarge, None)
    );

    let event = ServerMessage::from_json(r#"{"seq":9,"type":"lobby.future","data":{}}"#);
    assert_eq!(
        event,
        Err(ParseError {
            fault: Fault::UnknownType,
            id: None,
            seq: Some(9)
        })
    );
}

#[test]
fn signal_data_passes_the_server_byte_for_byte() {
    let data = r#"{ "sdp" : "v=0\r\n", "big":123456789012345678901234567890 }"#;
    let text = format!(
        r#"{{"type":"signal","data":{{"from":1,"kind":"offer","conn":"c","data":{data}}}}}"#
    );
    let message = ServerMessageWith::<RawData>::from_json(&text).unwrap();
    assert_eq!(message.to_json(), text);
}

#[test]
fn a_passphrase_does_not_print() {
    let join = LobbyJoin {
        passphrase: "jump-rocket".into(),
        create: true,
        max: 2,
    };
    assert!(!format!("{join:?}").contains("rocket"));
}

#[test]
fn the_lists_of_types_name_every_message() {
    let unknown =
        |text: &str| Fault::UnknownType == ClientMessage::from_json(text).unwrap_err().fault;
    for kind in ClientBody::TYPES {
        let read = ClientMessage::from_json(&json!({ "type": kind }).to_string());
        assert_ne!(
            read.map_err(|error| error.fault),
            Err(Fault::UnknownType),
            "{kind}"
        );
    }
    for kind in ServerBody::TYPES {
        let read = ServerMessage::from_json(&json!({ "type": kind }).to_string());
        assert_ne!(
            read.map_err(|error| error.fault),
            Err(Fault::UnknownType),
            "{kind}"
        );
    }
    assert!(unknown(r#"{"type":"welcome"}"#));
}

fn request(id: u64, body: ClientBody) -> ClientMessage {
    ClientMessage {
        id: Some(id),
        ack: None,
        body,
    }
}
