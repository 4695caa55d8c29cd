//! Properties: what is written reads back the same, and no text makes a reader panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};
use signal_wire::{
    CandidateData, ClientBody, ClientMessage, DescriptionError, ErrorCode, ErrorReply, Hello,
    IceServer, Lobby, LobbyId, LobbyJoin, LobbyJoined, Member, MemberId, MemberJoined, Nonce, Ping,
    PublicKey, Resume, ResumeToken, ServerBody, ServerMessage, SessionDescription, SessionId,
    SignalFrom, SignalKind, SignalTo, SignedDescription, split_frame,
};

proptest! {
    #[test]
    fn client_messages_round_trip(id in option::of(any::<u64>()), ack in option::of(any::<u64>()), body in client_body()) {
        let message = ClientMessage { id, ack, body };
        prop_assert_eq!(ClientMessage::from_json(&message.to_json()), Ok(message));
    }

    #[test]
    fn server_messages_round_trip(re in option::of(any::<u64>()), seq in option::of(any::<u64>()), body in server_body()) {
        let message = ServerMessage { re, seq, body };
        prop_assert_eq!(ServerMessage::from_json(&message.to_json()), Ok(message));
    }

    #[test]
    fn batches_split_into_what_was_joined(bodies in vec(client_body(), 0..5)) {
        let messages: Vec<_> =
            bodies.into_iter().map(|body| ClientMessage { id: None, ack: None, body }).collect();
        let texts: Vec<_> = messages.iter().map(ClientMessage::to_json).collect();
        let frame = format!("[{}]", texts.join(","));
        prop_assert_eq!(split_frame(&frame), Ok(texts.iter().map(String::as_str).collect()));
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".*", kind in prop::sample::select(ClientBody::TYPES), data in json_value()) {
        let _ = split_frame(&text);
        let _ = ClientMessage::from_json(&text);
        let _ = ServerMessage::from_json(&text);
        let typed = json!({ "type": kind, "data": data }).to_string();
        let _ = ClientMessage::from_json(&typed);
    }

    #[test]
    fn descriptions_round_trip(description in description(), signature in vec(any::<u8>(), 64)) {
        let bytes = description.to_bytes();
        let signature: [u8; 64] = signature.try_into().unwrap();
        let signed = SignedDescription::new(&bytes, &signature);
        prop_assert_eq!(signed.decode(), Ok((bytes.clone(), signature)));
        prop_assert_eq!(SessionDescription::from_bytes(&bytes), Ok(description));
    }
}

#[test]
fn a_description_is_the_documented_object() {
    let description = SessionDescription {
        ufrag: "8hhY".into(),
        pwd: "asd88fgpdd777uzjYhagZg".into(),
        session: vec![SessionDescription::QUIC_1.into()],
        key: PublicKey([0; 32]),
        room: LobbyId(10),
        from: MemberId(1),
        to: MemberId(2),
        nonce: Nonce([0; 16]),
        time: 1_795_172_707,
    };
    let text = r#"{"ufrag":"8hhY","pwd":"asd88fgpdd777uzjYhagZg","session":["quic/1"],"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","room":"0000000000000000000000000A","from":1,"to":2,"nonce":"AAAAAAAAAAAAAAAAAAAAAA","time":1795172707}"#;
    assert_eq!(String::from_utf8(description.to_bytes()).unwrap(), text);
    assert!(
        !format!("{description:?}").contains("asd88"),
        "the password does not print"
    );
}

#[test]
fn descriptions_out_of_bounds_are_refused() {
    let good = SignedDescription::new(b"{}", &[0; 64]);
    let refused = |signed: SignedDescription| signed.decode().unwrap_err();
    assert_eq!(
        refused(SignedDescription {
            v: 2,
            ..good.clone()
        }),
        DescriptionError::Version
    );
    let long = "A".repeat(8 * 1024);
    assert_eq!(
        refused(SignedDescription {
            description: long,
            ..good.clone()
        }),
        DescriptionError::TooLarge
    );
    assert_eq!(
        refused(SignedDescription {
            signature: "AAAA".into(),
            ..good.clone()
        }),
        DescriptionError::Encoding
    );
    assert_eq!(
        refused(SignedDescription {
            description: "e30=".into(),
            ..good
        }),
        DescriptionError::Encoding
    );

    let read = SessionDescription::from_bytes;
    assert_eq!(read(b"{}"), Err(DescriptionError::Malformed));
    assert_eq!(read(&[b' '; 4097]), Err(DescriptionError::TooLarge));
    // RFC 8839 §5.4: neither a short password nor a character outside `ice-char`.
    let with_pwd = |pwd: &str| {
        json!({"ufrag": "8hhY", "pwd": pwd, "session": [], "key": "A".repeat(43),
        "room": "0".repeat(26), "from": 1, "to": 2, "nonce": "A".repeat(22), "time": 1})
        .to_string()
    };
    assert!(read(with_pwd(&"a".repeat(22)).as_bytes()).is_ok());
    assert_eq!(
        read(with_pwd(&"a".repeat(21)).as_bytes()),
        Err(DescriptionError::Malformed)
    );
    assert_eq!(
        read(with_pwd(&"a b".repeat(22)).as_bytes()),
        Err(DescriptionError::Malformed)
    );
}

#[test]
fn candidates_out_of_bounds_are_refused() {
    let text = "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host";
    let candidate = CandidateData::new(text.into());
    assert_eq!(
        serde_json::to_value(&candidate).unwrap(),
        json!({"v": 1, "candidate": text})
    );
    assert_eq!(candidate.candidate(), Ok(text));
    let long = CandidateData::new("x".repeat(1025));
    assert_eq!(long.candidate(), Err(DescriptionError::TooLarge));
    let future = CandidateData { v: 2, ..candidate };
    assert_eq!(future.candidate(), Err(DescriptionError::Version));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn client_body() -> impl Strategy<Value = ClientBody> {
    let text = || ".{0,20}";
    let resume = option::of((any::<u128>(), any::<u128>(), any::<u64>())).prop_map(|resume| {
        resume.map(|(session, token, last_seq)| Resume {
            session_id: SessionId(session),
            resume_token: ResumeToken(token),
            last_seq,
        })
    });
    prop_oneof![
        (text(), text(), text(), text(), resume).prop_map(|(game, build, sdk, name, resume)| {
            ClientBody::Hello(Hello {
                game,
                build,
                sdk,
                name,
                resume,
            })
        }),
        (text(), any::<bool>(), any::<u16>()).prop_map(|(passphrase, create, max)| {
            ClientBody::LobbyJoin(LobbyJoin {
                passphrase,
                create,
                max,
            })
        }),
        Just(ClientBody::LobbyLeave),
        (any::<u16>(), kind(), text(), json_value()).prop_map(|(to, kind, conn, data)| {
            ClientBody::Signal(SignalTo {
                to: MemberId(to),
                kind,
                conn,
                data,
            })
        }),
        any::<u64>().prop_map(|t| ClientBody::Ping(Ping { t })),
        Just(ClientBody::IceRequest),
    ]
}

fn server_body() -> impl Strategy<Value = ServerBody> {
    let text = || ".{0,20}";
    let member = || {
        (any::<u16>(), text()).prop_map(|(id, name)| Member {
            id: MemberId(id),
            name,
        })
    };
    let ice_server = || {
        (vec(text(), 0..3), option::of(text()), option::of(text())).prop_map(
            |(urls, username, credential)| IceServer {
                urls,
                username,
                credential,
            },
        )
    };
    let lobby = (
        any::<u128>(),
        any::<u64>(),
        any::<u16>(),
        vec(member(), 0..4),
    )
        .prop_map(|(id, version, max, members)| Lobby {
            id: LobbyId(id),
            version,
            max,
            members,
        });
    prop_oneof![
        (lobby, any::<u16>(), vec(ice_server(), 0..3)).prop_map(|(lobby, you, ice_servers)| {
            ServerBody::LobbyJoined(LobbyJoined {
                lobby,
                you: MemberId(you),
                ice_servers,
            })
        }),
        (any::<u128>(), any::<u64>(), member()).prop_map(|(id, version, member)| {
            ServerBody::MemberJoined(MemberJoined {
                lobby_id: LobbyId(id),
                version,
                member,
            })
        }),
        Just(ServerBody::LobbyLeft),
        (any::<u16>(), kind(), text(), json_value()).prop_map(|(from, kind, conn, data)| {
            ServerBody::Signal(SignalFrom {
                from: MemberId(from),
                kind,
                conn,
                data,
            })
        }),
        (
            prop::sample::select(ErrorCode::ALL),
            text(),
            option::of(any::<u64>())
        )
            .prop_map(|(code, message, retry_after_ms)| {
                ServerBody::Error(ErrorReply {
                    code,
                    message,
                    retry_after_ms,
                })
            }),
    ]
}

fn kind() -> impl Strategy<Value = SignalKind> {
    use SignalKind::{Answer, Bye, Candidate, CandidatesEnd, Offer, Restart};
    prop::sample::select(vec![Offer, Answer, Candidate, CandidatesEnd, Restart, Bye])
}

fn description() -> impl Strategy<Value = SessionDescription> {
    let ids = (
        any::<[u8; 32]>(),
        any::<u128>(),
        any::<u16>(),
        any::<u16>(),
        any::<[u8; 16]>(),
        any::<u64>(),
    );
    (
        "[A-Za-z0-9+/]{4,256}",
        "[A-Za-z0-9+/]{22,256}",
        vec("[a-z]{1,8}/[0-9]", 0..4),
        ids,
    )
        .prop_map(
            |(ufrag, pwd, session, (key, room, from, to, nonce, time))| SessionDescription {
                ufrag,
                pwd,
                session,
                key: PublicKey(key),
                room: LobbyId(room),
                from: MemberId(from),
                to: MemberId(to),
                nonce: Nonce(nonce),
                time,
            },
        )
}
