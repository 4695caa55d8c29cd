//! RFC 3489: clients of the STUN before 2008, where they are wanted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use stun_server_proto::{
    Answer, DropReason, Endpoints, Limit, LimitConfig, Responder, SourceLimits, Verdict,
};

/// The 16 bytes that the cookie is a part of in newer STUN.
const TX: &[u8; 16] = b"sixteen bytes id";
const LOCAL: &str = "203.0.113.10:3478";
const ALTERNATE: &str = "203.0.113.11:3479";
const CLIENT: &str = "192.0.2.1:50000";
/// 192.0.2.1:50000, 203.0.113.10:3478 and 203.0.113.11:3479 as values of MAPPED-ADDRESS.
const CLIENT_VALUE: [u8; 8] = [0, 1, 0xc3, 0x50, 192, 0, 2, 1];
const LOCAL_VALUE: [u8; 8] = [0, 1, 0x0d, 0x96, 203, 0, 113, 10];
const ALTERNATE_VALUE: [u8; 8] = [0, 1, 0x0d, 0x97, 203, 0, 113, 11];

struct Harness {
    responder: Responder,
    now: Instant,
    source: SocketAddr,
    reply: Vec<u8>,
}

impl Harness {
    #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
    fn new(config: &LimitConfig) -> Self {
        let now = Instant::now();
        let limits = SourceLimits::new(config, [1; 16], now);
        Self {
            responder: Responder::new(Arc::new(limits)),
            now,
            source: CLIENT.parse().unwrap(),
            reply: Vec::new(),
        }
    }

    fn classic() -> Self {
        let mut harness = Self::new(&LimitConfig::default());
        harness.responder = harness.responder.with_rfc3489();
        harness
    }

    fn classic_with_alternate() -> Self {
        let endpoints = Endpoints::new(LOCAL.parse().unwrap(), ALTERNATE.parse().unwrap());
        let mut harness = Self::classic();
        harness.responder = harness.responder.with_endpoints(endpoints.unwrap());
        harness
    }

    fn handle(&mut self, bytes: &[u8]) -> Verdict {
        let local = LOCAL.parse().unwrap();
        self.responder
            .handle(self.now, self.source, local, bytes, &mut self.reply)
    }

    /// Type and value of each attribute of the reply, whose header is checked.
    fn attributes(&self, kind: u16) -> Vec<(u16, &[u8])> {
        let (header, mut rest) = self.reply.split_at(20);
        assert_eq!(u16::from_be_bytes([header[0], header[1]]), kind);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        assert_eq!(length, rest.len());
        assert_eq!(&header[4..], TX, "all 16 bytes come back");
        let mut attributes = Vec::new();
        while let [t0, t1, l0, l1, body @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*l0, *l1]));
            assert_eq!(length % 4, 0, "RFC 3489 section 11.2 knows no padding");
            attributes.push((u16::from_be_bytes([*t0, *t1]), &body[..length]));
            rest = &body[length..];
        }
        attributes
    }
}

fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in attributes {
        body.extend(name.to_be_bytes());
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(*value);
    }
    let length = u16::try_from(body.len()).unwrap();
    [&kind.to_be_bytes(), &length.to_be_bytes()[..], TX, &body].concat()
}

fn reply(answer: Answer, from: &str) -> Verdict {
    Verdict::Reply {
        answer,
        from: from.parse().unwrap(),
        to: CLIENT.parse().unwrap(),
    }
}

const NOT_STUN: Verdict = Verdict::Dropped(DropReason::NotStun);

#[test]
fn nobody_is_answered_where_it_is_off() {
    let mut harness = Harness::new(&LimitConfig::default());
    assert_eq!(harness.handle(&message(0x0001, &[])), NOT_STUN);
    assert!(harness.reply.is_empty());
}

#[test]
fn a_binding_request_is_told_source_and_server() {
    let mut harness = Harness::classic();
    let success = reply(Answer::Success, LOCAL);
    assert_eq!(harness.handle(&message(0x0001, &[])), success);
    let expected: [(u16, &[u8]); 2] = [(0x0001, &CLIENT_VALUE), (0x0004, &LOCAL_VALUE)];
    assert_eq!(harness.attributes(0x0101), expected);
    // Debian's client sends CHANGE-REQUEST even where it wants no change.
    let unchanged = message(0x0001, &[(0x0003, &[0; 4])]);
    assert_eq!(harness.handle(&unchanged), success);
    assert_eq!(harness.attributes(0x0101), expected);
}

#[test]
fn with_a_second_address_it_is_told_and_used() {
    let mut harness = Harness::classic_with_alternate();
    let both = message(0x0001, &[(0x0003, &[0, 0, 0, 6])]);
    assert_eq!(harness.handle(&both), reply(Answer::Success, ALTERNATE));
    let expected: [(u16, &[u8]); 3] = [
        (0x0001, &CLIENT_VALUE),
        (0x0004, &ALTERNATE_VALUE),
        (0x0005, &ALTERNATE_VALUE),
    ];
    assert_eq!(harness.attributes(0x0101), expected);
    let port = message(0x0001, &[(0x0003, &[0, 0, 0, 2])]);
    assert_eq!(
        harness.handle(&port),
        reply(Answer::Success, "203.0.113.10:3479")
    );
}

#[test]
fn a_change_that_cannot_be_made_is_refused() {
    let mut harness = Harness::classic();
    let change = message(0x0001, &[(0x0003, &[0, 0, 0, 4])]);
    let refused = reply(Answer::UnknownAttribute, LOCAL);
    assert_eq!(harness.handle(&change), refused);
    // An odd list has a name twice, since there is no padding (section 11.2.10).
    let expected: [(u16, &[u8]); 2] = [(0x0009, &[0, 0, 4, 20]), (0x000a, &[0, 3, 0, 3])];
    assert_eq!(harness.attributes(0x0111), expected);
}

#[test]
fn an_answer_never_goes_where_the_request_says() {
    // RESPONSE-ADDRESS (section 11.2.2) lets anybody send datagrams in the server's name.
    let mut harness = Harness::classic_with_alternate();
    let elsewhere = message(
        0x0001,
        &[(0x0002, &[0, 1, 0, 53, 198, 51, 100, 1]), (0x7ffe, b"")],
    );
    let refused = reply(Answer::UnknownAttribute, LOCAL);
    assert_eq!(harness.handle(&elsewhere), refused);
    let expected: [(u16, &[u8]); 2] = [(0x0009, &[0, 0, 4, 20]), (0x000a, &[0, 2, 0x7f, 0xfe])];
    assert_eq!(harness.attributes(0x0111), expected);
}

#[test]
fn the_same_limits_hold() {
    let mut harness = Harness::new(&LimitConfig {
        burst: 3,
        redirects: 1,
        ..LimitConfig::default()
    });
    let endpoints = Endpoints::new(LOCAL.parse().unwrap(), ALTERNATE.parse().unwrap());
    harness.responder = harness
        .responder
        .with_rfc3489()
        .with_endpoints(endpoints.unwrap());
    let change = message(0x0001, &[(0x0003, &[0, 0, 0, 6])]);
    for _ in 0..2 {
        let _ = harness.handle(&change);
        assert!(harness.reply.len() * 10 <= change.len() * 30, "amplifies");
    }
    let limited = |limit| Verdict::Dropped(DropReason::RateLimited(limit));
    assert_eq!(harness.handle(&change), limited(Limit::Redirect));
    assert_eq!(
        harness.handle(&message(0x0001, &[])),
        limited(Limit::Source)
    );
}

#[test]
fn what_is_no_classic_request_is_not_answered() {
    let cases = [
        // A shared secret request, which belongs on TLS; a response; a length that is wrong.
        (message(0x0002, &[]), DropReason::Unsupported),
        (message(0x0101, &[]), DropReason::NotRequest),
        (
            [message(0x0001, &[]), vec![0; 4]].concat(),
            DropReason::BadLength,
        ),
        (vec![0xff; 40], DropReason::NotStun),
        (vec![0; 10], DropReason::TooShort),
    ];
    for (bytes, reason) in cases {
        let mut harness = Harness::classic();
        assert_eq!(harness.handle(&bytes), Verdict::Dropped(reason));
        assert!(harness.reply.is_empty());
    }
    // RFC 3489 has no IPv6.
    let mut harness = Harness::classic();
    harness.source = "[2001:db8::1]:50000".parse().unwrap();
    assert_eq!(harness.handle(&message(0x0001, &[])), NOT_STUN);
}

#[test]
fn clients_of_today_are_answered_as_ever() {
    let mut harness = Harness::classic();
    let request = b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction!";
    assert_eq!(harness.handle(request), reply(Answer::Success, LOCAL));
    assert_eq!(harness.reply.len(), 32);
}
