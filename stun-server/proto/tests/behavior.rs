//! RFC 5780 section 6: the four endpoints, and what strangers may not do with them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use stun_server_proto::{
    Answer, DropReason, Endpoints, Limit, LimitConfig, Responder, SourceLimits, Verdict,
};
use stun_wire::attribute::{
    ChangeRequest, ErrorCode, MappedAddress, OtherAddress, Padding, ResponseOrigin, ResponsePort,
    XorMappedAddress,
};
use stun_wire::{
    AttributeType, Class, Message, MessageWriter, Method, TransactionId, UnknownAttributes,
};

const TX: TransactionId = TransactionId(*b"transaction!");
const A1_P1: &str = "203.0.113.10:3478";
const A1_P2: &str = "203.0.113.10:3479";
const A2_P1: &str = "203.0.113.11:3478";
const A2_P2: &str = "203.0.113.11:3479";
const CLIENT: &str = "192.0.2.1:50000";
/// Each endpoint and its other.
const ALL: [(&str, &str); 4] = [
    (A1_P1, A2_P2),
    (A1_P2, A2_P1),
    (A2_P1, A1_P2),
    (A2_P2, A1_P1),
];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server with two addresses and a client.
struct Harness {
    responder: Responder,
    now: Instant,
    source: SocketAddr,
    reply: Vec<u8>,
}

impl Harness {
    fn new() -> Self {
        Self::at(A1_P1, A2_P2)
    }

    #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
    fn at(primary: &str, alternate: &str) -> Self {
        let now = Instant::now();
        let limits = SourceLimits::new(&LimitConfig::default(), [1; 16], now);
        let endpoints = Endpoints::new(address(primary), address(alternate)).unwrap();
        Self {
            responder: Responder::new(Arc::new(limits)).with_endpoints(endpoints),
            now,
            source: address(CLIENT),
            reply: Vec::new(),
        }
    }

    fn handle(&mut self, local: &str, bytes: &[u8]) -> Verdict {
        self.responder.handle(
            self.now,
            self.source,
            address(local),
            bytes,
            &mut self.reply,
        )
    }

    /// Asks, expects success, and tells where the answer leaves from and goes.
    fn route(&mut self, local: &str, bytes: &[u8]) -> (SocketAddr, SocketAddr) {
        let verdict = self.handle(local, bytes);
        let Verdict::Reply {
            answer: Answer::Success,
            from,
            to,
        } = verdict
        else {
            panic!("{verdict:?}");
        };
        (from, to)
    }

    fn reply(&self) -> Message<'_> {
        Message::parse(&self.reply).unwrap()
    }

    fn error_code(&self) -> u16 {
        assert_eq!(self.reply().class(), Class::Error);
        let error = self.reply().attribute::<ErrorCode<'_>>().unwrap().unwrap();
        error.code
    }
}

fn request(build: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::BINDING, TX);
    build(&mut writer);
    writer.finish();
    bytes
}

fn change(change_ip: bool, change_port: bool) -> Vec<u8> {
    request(|writer| {
        writer.attribute(&ChangeRequest {
            change_ip,
            change_port,
        });
    })
}

fn padded(zeros: usize) -> Vec<u8> {
    let zeros = vec![0; zeros];
    request(|writer| {
        writer.attribute(&Padding(&zeros));
    })
}

#[test]
fn four_endpoints_need_two_addresses_and_two_ports_of_one_family() {
    let endpoints = Endpoints::new(address(A1_P1), address(A2_P2)).unwrap();
    assert_eq!(endpoints.all(), [A1_P1, A1_P2, A2_P1, A2_P2].map(address));
    for alternate in [A1_P1, A1_P2, A2_P1, "[2001:db8::1]:3479"] {
        assert_eq!(Endpoints::new(address(A1_P1), address(alternate)), None);
    }
}

#[test]
fn the_other_address_is_right_on_all_four() {
    // Section 7.4. Servers are known that name the same one on every socket.
    for (local, other) in ALL {
        let mut harness = Harness::new();
        let route = harness.route(local, &request(|_| {}));
        assert_eq!(route, (address(local), address(CLIENT)));
        let reply = harness.reply();
        let other_address = reply.attribute::<OtherAddress>().unwrap().unwrap();
        assert_eq!(other_address.0, address(other), "asked at {local}");
        let origin = reply.attribute::<ResponseOrigin>().unwrap().unwrap();
        assert_eq!(origin.0, address(local));
        // Section 6.1: both forms.
        let mapped = reply.attribute::<MappedAddress>().unwrap().unwrap();
        let xored = reply.attribute::<XorMappedAddress>().unwrap().unwrap();
        assert_eq!((mapped.0, xored.0), (harness.source, harness.source));
        assert_eq!(reply.attributes().count(), 4);
        assert_eq!(harness.reply.len(), 68);
    }
}

#[test]
fn change_request_chooses_the_endpoint_that_answers() {
    // Section 6.1, table 1, for each of the four.
    for (local, other) in ALL {
        let (local_addr, other_addr) = (address(local), address(other));
        let cases = [
            (false, false, local_addr),
            (
                true,
                false,
                SocketAddr::new(other_addr.ip(), local_addr.port()),
            ),
            (
                false,
                true,
                SocketAddr::new(local_addr.ip(), other_addr.port()),
            ),
            (true, true, other_addr),
        ];
        for (ip, port, expected) in cases {
            let mut harness = Harness::new();
            let (from, to) = harness.route(local, &change(ip, port));
            assert_eq!(
                (from, to),
                (expected, harness.source),
                "{local} {ip} {port}"
            );
            let reply = harness.reply();
            let origin = reply.attribute::<ResponseOrigin>().unwrap().unwrap();
            assert_eq!(origin.0, expected);
            // It is the other of the address asked, wherever the answer comes from.
            let other_address = reply.attribute::<OtherAddress>().unwrap().unwrap();
            assert_eq!(other_address.0, other_addr);
        }
    }
}

#[test]
fn response_port_moves_the_answer_within_the_source() {
    let mut harness = Harness::new();
    let bytes = request(|writer| {
        writer.attribute(&ResponsePort(40_000));
        writer.attribute(&ChangeRequest {
            change_ip: true,
            change_port: true,
        });
        writer.fingerprint();
    });
    let route = harness.route(A1_P1, &bytes);
    assert_eq!(route, (address(A2_P2), address("192.0.2.1:40000")));
    // Section 6.1: the mapped address is that of the request all the same.
    let reply = harness.reply();
    let mapped = reply.attribute::<XorMappedAddress>().unwrap().unwrap();
    assert_eq!(mapped.0, harness.source);
    assert!(reply.has_fingerprint());
}

#[test]
fn a_source_is_redirected_a_few_times_a_second_and_answered_otherwise() {
    let mut harness = Harness::new();
    let elsewhere = request(|writer| {
        writer.attribute(&ResponsePort(40_000));
    });
    // Both ways of being redirected share one limit, at whichever endpoint.
    for n in 0..10 {
        let (local, _) = ALL[n % 4];
        let bytes = if n % 2 == 0 {
            change(true, false)
        } else {
            elsewhere.clone()
        };
        let (from, to) = harness.route(local, &bytes);
        assert!(from != address(local) || to != harness.source);
    }
    let limited = Verdict::Dropped(DropReason::RateLimited(Limit::Redirect));
    assert_eq!(harness.handle(A1_P1, &change(false, true)), limited);
    assert!(harness.reply.is_empty());
    assert_eq!(harness.handle(A2_P2, &elsewhere), limited);
    // What is answered to where it came from, from where it was asked, is not such.
    let here = request(|writer| {
        writer.attribute(&ResponsePort(50_000));
    });
    for bytes in [request(|_| {}), change(false, false), here, padded(100)] {
        harness.route(A1_P1, &bytes);
    }
    // Another port is the same source; another address is not.
    harness.source = address("192.0.2.1:50001");
    assert_eq!(harness.handle(A1_P1, &change(true, true)), limited);
    harness.source = address("192.0.2.2:50000");
    harness.route(A1_P1, &change(true, true));
    harness.source = address(CLIENT);
    harness.now += Duration::from_secs(1);
    for _ in 0..5 {
        harness.route(A1_P1, &change(true, true));
    }
    assert_eq!(harness.handle(A1_P1, &change(true, true)), limited);
}

#[test]
fn padding_is_answered_with_padding_and_never_with_more_than_was_asked() {
    // Section 6.1 has the MTU of the interface, which is an amplifier: 57 times on a known server.
    for zeros in 0..600 {
        for has_fingerprint in [false, true] {
            let zeros = vec![0; zeros];
            let bytes = request(|writer| {
                writer.attribute(&Padding(&zeros));
                if has_fingerprint {
                    writer.fingerprint();
                }
            });
            let mut harness = Harness::new();
            harness.route(A1_P1, &bytes);
            let bare = if has_fingerprint { 76 } else { 68 };
            let reply = harness.reply();
            let padding = reply.attribute::<Padding<'_>>().unwrap();
            if bytes.len() < bare + 4 {
                assert_eq!(padding, None);
                assert_eq!(harness.reply.len(), bare);
            } else {
                assert_eq!(harness.reply.len(), bytes.len(), "just as long");
                let padding = padding.unwrap();
                assert!(padding.0.iter().all(|byte| *byte == 0));
                assert_eq!(padding.0.len() % 4, 0);
            }
        }
    }
}

#[test]
fn whoever_asks_often_is_answered_with_three_times_the_request_at_most() {
    // A bare request is 20 bytes, the whole answer 68 or 116: as often as a client needs it.
    let bare = request(|_| {});
    let mut harness = Harness::new();
    for _ in 0..10 {
        harness.route(A1_P1, &bare);
        assert_eq!(harness.reply.len(), 68);
    }
    harness.route(A1_P1, &bare);
    assert_eq!(harness.reply.len(), 56);
    let reply = harness.reply();
    assert_eq!(reply.attribute::<MappedAddress>(), Ok(None));
    let xored = XorMappedAddress(harness.source);
    assert_eq!(reply.attribute(), Ok(Some(xored)));
    assert_eq!(reply.attribute(), Ok(Some(OtherAddress(address(A2_P2)))));
    assert_eq!(reply.attribute(), Ok(Some(ResponseOrigin(address(A1_P1)))));
    // Longer requests have room for all of it, and a second later it is there again.
    harness.route(A1_P1, &change(false, false));
    assert_eq!(harness.reply.len(), 68);
    harness.now += Duration::from_secs(1);
    harness.route(A1_P1, &bare);
    assert_eq!(harness.reply.len(), 68);

    let (primary, alternate) = ("[2001:db8::10]:3478", "[2001:db8::11]:3479");
    let mut harness = Harness::at(primary, alternate);
    harness.source = address("[2001:db8:1::1]:50000");
    for n in 0..20 {
        harness.route(primary, &bare);
        assert_eq!(harness.reply.len(), if n < 10 { 116 } else { 44 });
    }
    harness.route(primary, &change(false, false));
    assert_eq!(harness.reply.len(), 68, "28 bytes: the other address too");
}

#[test]
fn flood_from_one_source_is_answered_with_a_quarter_of_its_bytes() {
    // Goal A3 with two addresses: 1,500 requests a second, counted once the burst is over.
    let bare = request(|_| {});
    for (primary, alternate, source) in [
        (A1_P1, A2_P2, CLIENT),
        (
            "[2001:db8::10]:3478",
            "[2001:db8::11]:3479",
            "[2001:db8:1::1]:50000",
        ),
    ] {
        let mut harness = Harness::at(primary, alternate);
        harness.source = address(source);
        let (mut sent, mut answered) = (0, 0);
        for n in 0..6_000 {
            harness.now += Duration::from_micros(667);
            let verdict = harness.handle(primary, &bare);
            if n >= 3_000 {
                sent += bare.len();
                answered += harness.reply.len();
            }
            assert_eq!(
                matches!(verdict, Verdict::Reply { .. }),
                !harness.reply.is_empty()
            );
        }
        assert!(answered * 4 <= sent, "{answered} of {sent} bytes");
    }
}

#[test]
fn a_long_datagram_is_not_sent_to_another_port() {
    // Section 6.1: RESPONSE-PORT together with PADDING MUST be refused with 400.
    let mut harness = Harness::new();
    let both = request(|writer| {
        writer
            .attribute(&ResponsePort(40_000))
            .attribute(&Padding(&[0; 1000]));
    });
    let bad_request = Verdict::Reply {
        answer: Answer::BadRequest,
        from: address(A1_P1),
        to: harness.source,
    };
    assert_eq!(harness.handle(A1_P1, &both), bad_request);
    assert_eq!(harness.error_code(), 400);
    assert_eq!(harness.reply.len(), 28);
}

#[test]
fn what_makes_no_sense_is_refused_where_it_was_asked() {
    let cases = [
        request(|writer| {
            writer.attribute(&ResponsePort(0));
        }),
        request(|writer| {
            writer.raw(AttributeType::RESPONSE_PORT, b"1");
        }),
        request(|writer| {
            writer.raw(AttributeType::CHANGE_REQUEST, b"no");
        }),
    ];
    for bytes in cases {
        let mut harness = Harness::new();
        let bad_request = Verdict::Reply {
            answer: Answer::BadRequest,
            from: address(A2_P1),
            to: harness.source,
        };
        assert_eq!(harness.handle(A2_P1, &bytes), bad_request);
        assert_eq!(harness.error_code(), 400);
    }
}

#[test]
fn only_the_unknown_is_listed_in_a_420() {
    let mut harness = Harness::new();
    let bytes = request(|writer| {
        writer.attribute(&ChangeRequest {
            change_ip: true,
            change_port: true,
        });
        writer.raw(AttributeType(0x7fff), b"????");
        writer
            .attribute(&Padding(&[0; 8]))
            .attribute(&ResponsePort(1));
    });
    let refused = Verdict::Reply {
        answer: Answer::UnknownAttribute,
        from: address(A1_P1),
        to: harness.source,
    };
    assert_eq!(harness.handle(A1_P1, &bytes), refused);
    assert_eq!(harness.error_code(), 420);
    let reply = harness.reply();
    let unknown = reply.attribute::<UnknownAttributes>().unwrap().unwrap();
    assert!(unknown.iter().eq([AttributeType(0x7fff)]));
}

#[test]
fn elsewhere_than_at_the_four_it_is_off() {
    // Another listener of the same server: one of the other family, or a stream.
    let cases = [
        (change(false, false), AttributeType::CHANGE_REQUEST),
        (padded(4), AttributeType::PADDING),
        (
            request(|writer| {
                writer.attribute(&ResponsePort(40_000));
            }),
            AttributeType::RESPONSE_PORT,
        ),
    ];
    for (bytes, name) in cases {
        let mut harness = Harness::new();
        harness.source = address("[2001:db8::1]:50000");
        let verdict = harness.handle("[2001:db8::10]:3478", &bytes);
        assert!(matches!(
            verdict,
            Verdict::Reply {
                answer: Answer::UnknownAttribute,
                ..
            }
        ));
        let reply = harness.reply();
        let unknown = reply.attribute::<UnknownAttributes>().unwrap().unwrap();
        assert!(unknown.iter().eq([name]));
        harness.route("[2001:db8::10]:3478", &request(|_| {}));
        assert_eq!(harness.reply.len(), 44);
    }
}

#[test]
fn ipv6_has_four_endpoints_too() {
    let (primary, alternate) = ("[2001:db8::10]:3478", "[2001:db8::11]:3479");
    let mut harness = Harness::at(primary, alternate);
    harness.source = address("[2001:db8:1::1]:50000");
    let route = harness.route(primary, &change(true, true));
    assert_eq!(route, (address(alternate), harness.source));
    assert_eq!(harness.reply.len(), 116);
    harness.route(primary, &padded(500));
    assert_eq!(harness.reply.len(), 524);
}

proptest! {
    /// However a request is made up, its answer is no longer than the request or the bare answer, and
    /// leaves from one of the four for the source's address.
    #[test]
    fn no_request_makes_an_amplifier(
        endpoint in 0_usize..4,
        attributes in prop::collection::vec((0_u16..0x40, 0_usize..300), 0..8),
        fingerprint: bool,
    ) {
        let bytes = request(|writer| {
            for (kind, length) in attributes {
                if ![0x08, 0x1c].contains(&kind) {
                    writer.raw(AttributeType(kind), &vec![0x04; length]);
                }
            }
            if fingerprint {
                writer.fingerprint();
            }
        });
        let mut harness = Harness::new();
        let (local, _) = ALL[endpoint];
        let Verdict::Reply { from, to, .. } = harness.handle(local, &bytes) else {
            panic!("a request is answered");
        };
        prop_assert!(ALL.iter().any(|(local, _)| address(local) == from));
        prop_assert_eq!(to.ip(), harness.source.ip());
        prop_assert!(harness.reply.len() <= bytes.len().max(76));
        prop_assert!(Message::parse(&harness.reply).is_ok());
    }
}
