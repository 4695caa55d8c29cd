//! What is written reads back the same, for any content; and no bytes make a parser panic.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use stun_wire::attribute::*;
use stun_wire::channel_data::{ChannelData, ChannelNumber};
use stun_wire::{
    Attribute, AttributeType, Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method,
    TransactionId, stream,
};

use crate::bodies;

/// Writes each attribute into a message and reads it there.
macro_rules! assert_round_trip {
    ($tx:expr; $($attribute:expr),+ $(,)?) => {$({
        let written = $attribute;
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::BINDING, $tx);
        writer.attribute(&written);
        let length = writer.finish();
        prop_assert_eq!(length, 24 + written.len().next_multiple_of(4));
        let message = Message::parse(&bytes).expect("what we write, we read");
        prop_assert_eq!(message.attribute(), Ok(Some(written)));
        // RFC 8489 section 14: padding is zero when sent.
        prop_assert!(bytes[24 + written.len()..].iter().all(|byte| *byte == 0));
        // And it is ignored when received, as is what the address families reserve.
        let mut padded = bytes.clone();
        padded[24 + written.len()..].fill(0xFF);
        let message = Message::parse(&padded).expect("padding is ignored");
        prop_assert_eq!(message.attribute(), Ok(Some(written)));
    })+};
}

proptest! {
    #[test]
    fn addresses(address: SocketAddr, tx in transaction_id()) {
        let address = without_scope(address);
        assert_round_trip!(tx; MappedAddress(address), XorMappedAddress(address));
        assert_round_trip!(tx; XorPeerAddress(address), XorRelayedAddress(address));
        assert_round_trip!(tx; AlternateServer(address));
        assert_round_trip!(tx; ResponseOrigin(address), OtherAddress(address));
    }

    #[test]
    fn texts(text in "\\PC{0,127}", tx in transaction_id()) {
        let text = text.as_str();
        assert_round_trip!(tx; Realm(text), Nonce(text), Software(text), Username(text));
        assert_round_trip!(tx; ErrorCode { code: 438, reason: text });
        let family = AddressFamily::Ipv6;
        assert_round_trip!(tx; AddressErrorCode { family, code: 508, reason: text });
        let domain = text.get(..text.len().min(255)).unwrap_or("turn.example");
        assert_round_trip!(tx; AlternateDomain(domain));
    }

    #[test]
    fn error_codes(code in 300..700_u16, tx in transaction_id()) {
        assert_round_trip!(tx; ErrorCode::bare(code));
    }

    #[test]
    fn bytes(bytes in vec(any::<u8>(), 0..1500), tx in transaction_id()) {
        assert_round_trip!(tx; Data(&bytes), Padding(&bytes), MobilityTicket(&bytes));
        let parameters = bytes.as_slice();
        assert_round_trip!(tx; PasswordAlgorithm { algorithm: 7, parameters });
    }

    #[test]
    fn arrays(hash: [u8; 32], token: [u8; 8], tx in transaction_id()) {
        assert_round_trip!(tx; Userhash(hash), ReservationToken(token));
    }

    #[test]
    fn numbers(small: u8, short: u16, long: u32, longer: u64, flag: bool, tx in transaction_id()) {
        assert_round_trip!(tx; Lifetime(long), Priority(long), ConnectionId(long));
        assert_round_trip!(tx; IceControlled(longer), IceControlling(longer));
        assert_round_trip!(tx; ChannelNumberAttribute(short), ResponsePort(short));
        assert_round_trip!(tx; RequestedTransport(small), EvenPort { reserve: flag });
        assert_round_trip!(tx; ChangeRequest { change_ip: flag, change_port: small & 1 == 0 });
        assert_round_trip!(tx; Icmp { icmp_type: small & 0x7F, code: short & 0x1FF, data: long });
        assert_round_trip!(tx; UseCandidate, DontFragment);
        for family in [AddressFamily::Ipv4, AddressFamily::Ipv6] {
            assert_round_trip!(tx; RequestedAddressFamily(family), AdditionalAddressFamily(family));
        }
    }

    #[test]
    fn lists(names in vec(any::<u16>(), 0..12), tx in transaction_id()) {
        let names: UnknownAttributes = names.into_iter().map(AttributeType).collect();
        assert_round_trip!(tx; names);
        assert_round_trip!(tx; PasswordAlgorithms::SHA256_AND_MD5, PasswordAlgorithms::MD5);
    }

    #[test]
    fn messages(
        class in prop_oneof![
            Just(Class::Request), Just(Class::Indication), Just(Class::Success), Just(Class::Error)
        ],
        method in 0..0x1000_u16,
        tx in transaction_id(),
        attributes in vec((ordinary_type(), vec(any::<u8>(), 0..40)), 0..12),
        key in vec(any::<u8>(), 0..200),
        signatures in vec(any::<bool>(), 3),
        before in vec(any::<u8>(), 0..9),
    ) {
        let method = Method::from_u16(method).expect("twelve bits");
        let key = IntegrityKey::from_bytes(&key);
        let mut out = before.clone();
        let mut writer = MessageWriter::new(&mut out, class, method, tx);
        for (kind, value) in &attributes {
            writer.raw(*kind, value);
        }
        let [sha1, sha256, fingerprint] = signatures[..] else { unreachable!() };
        if sha1 { writer.integrity(&key, IntegrityKind::Sha1); }
        if sha256 { writer.integrity(&key, IntegrityKind::Sha256); }
        if fingerprint { writer.fingerprint(); }
        let length = writer.finish();

        prop_assert_eq!(&out[..before.len()], &before);
        let message = Message::parse(&out[before.len()..]).expect("what we write, we read");
        prop_assert_eq!(message.as_bytes().len(), length);
        prop_assert_eq!((message.class(), message.method()), (class, method));
        prop_assert_eq!(message.transaction_id(), tx);
        let read = message.attributes().map(|attribute| (attribute.kind, attribute.value.to_vec()));
        prop_assert!(read.eq(attributes));
        prop_assert_eq!(message.has_fingerprint(), fingerprint);
        prop_assert_eq!(message.verify_integrity(&key, IntegrityKind::Sha1).is_ok(), sha1);
        prop_assert_eq!(message.verify_integrity(&key, IntegrityKind::Sha256).is_ok(), sha256);
    }

    #[test]
    fn channel_data_of_any_length(number in 0x4000..0x5000_u16, length in 0..=65_535_usize) {
        let channel = ChannelNumber::new(number).expect("in range");
        let mut bytes = ChannelData::header(channel, length).expect("fits").to_vec();
        bytes.resize(4 + length, 0xAB);
        bytes.extend_from_slice(ChannelData::stream_padding(length));
        prop_assert_eq!(stream::frame_length(&bytes), Ok(Some(bytes.len())));
        let parsed = ChannelData::parse(&bytes).expect("what we write, we read");
        prop_assert_eq!(parsed, ChannelData { channel, payload: 4..4 + length });
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        bodies::message::run(&bytes);
        bodies::attributes::run(&bytes);
        bodies::channel_data::run(&bytes);
        bodies::stream::run(&bytes);
    }

    #[test]
    fn garbage_behind_a_header_never_panics(
        body in vec(any::<u8>(), 0..50),
        tx in transaction_id(),
    ) {
        // Words that are mostly small, so that lengths are often plausible.
        let body: Vec<u8> = body.iter().flat_map(|byte| [0, byte & 0x3F, 0, byte >> 4]).collect();
        let mut bytes = Vec::new();
        MessageWriter::new(&mut bytes, Class::Request, Method::ALLOCATE, tx).finish();
        bytes.extend_from_slice(&body);
        bytes[2..4].copy_from_slice(&u16::try_from(body.len()).expect("short").to_be_bytes());
        bodies::message::run(&bytes);
    }
}

fn transaction_id() -> impl Strategy<Value = TransactionId> {
    any::<[u8; 12]>().prop_map(TransactionId)
}

/// Any type but those that end what is visible.
fn ordinary_type() -> impl Strategy<Value = AttributeType> {
    any::<u16>()
        .prop_map(AttributeType)
        .prop_filter("ends the message", |kind| {
            ![
                AttributeType::MESSAGE_INTEGRITY,
                AttributeType::MESSAGE_INTEGRITY_SHA256,
                AttributeType::FINGERPRINT,
            ]
            .contains(kind)
        })
}

/// Scope and flow of an IPv6 socket address are not on the wire.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
