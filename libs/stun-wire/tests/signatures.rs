//! What a signature covers, and what stands behind it (RFC 8489 sections 9.2, 14.5, 14.6 and 14.7).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use stun_wire::attribute::{Lifetime, MessageIntegrity, Nonce, Username};
use stun_wire::{
    AttributeType, Class, IntegrityError, IntegrityKey, IntegrityKind, Message, MessageWriter,
    Method, ParseError, TransactionId,
};

const TX: TransactionId = TransactionId([9; 12]);
const KEY: &[u8] = b"a key of some bytes";

#[test]
fn attribute_behind_the_signature_is_invisible() {
    // RFC 8489 section 14.5. The attack: append LIFETIME=0 to a signed Refresh on the way.
    for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
        let mut bytes = refresh(|writer| {
            writer.attribute(&Lifetime(600)).integrity(&key(), kind);
        });
        append(&mut bytes, AttributeType::LIFETIME, &[0; 4]);
        append(&mut bytes, AttributeType::NONCE, b"late");
        append(&mut bytes, AttributeType(0x7FFF), b"unknown");
        let message = Message::parse(&bytes).expect("well formed");
        assert_eq!(message.attribute(), Ok(Some(Lifetime(600))));
        assert_eq!(message.count(AttributeType::LIFETIME), 1);
        assert_eq!(message.attribute::<Nonce<'_>>(), Ok(None));
        assert!(!message.contains(AttributeType::NONCE));
        assert!(
            message
                .unknown_required(&[AttributeType::LIFETIME])
                .is_empty()
        );
        assert_eq!(message.attributes().count(), 1);
        assert_eq!(
            message.verify_integrity(&key(), kind),
            Ok(()),
            "what is signed still is"
        );
    }
}

#[test]
fn only_the_first_signature_of_a_kind_counts() {
    let mut bytes = refresh(|writer| {
        writer.integrity(&key(), IntegrityKind::Sha1);
    });
    append(&mut bytes, AttributeType::MESSAGE_INTEGRITY, &[0; 20]);
    append(
        &mut bytes,
        AttributeType::MESSAGE_INTEGRITY,
        b"of no possible length",
    );
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(
        message.verify_integrity(&key(), IntegrityKind::Sha1),
        Ok(())
    );
    assert_eq!(message.count(AttributeType::MESSAGE_INTEGRITY), 1);
}

#[test]
fn both_signatures_are_seen_and_sha256_is_preferred() {
    // RFC 8489 section 9.2.4: a server that supports both judges MESSAGE-INTEGRITY-SHA256.
    let bytes = refresh(|writer| {
        writer.attribute(&Username("user"));
        writer
            .integrity(&key(), IntegrityKind::Sha1)
            .integrity(&key(), IntegrityKind::Sha256);
        writer.fingerprint();
    });
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
    assert_eq!(
        message.verify_integrity(&key(), IntegrityKind::Sha1),
        Ok(())
    );
    assert_eq!(
        message.verify_integrity(&key(), IntegrityKind::Sha256),
        Ok(())
    );
    assert!(message.has_fingerprint());
}

#[test]
fn sha1_behind_sha256_is_ignored() {
    // RFC 8489 section 14.6: what follows MESSAGE-INTEGRITY-SHA256, except FINGERPRINT, is ignored.
    let bytes = refresh(|writer| {
        writer
            .integrity(&key(), IntegrityKind::Sha256)
            .integrity(&key(), IntegrityKind::Sha1);
    });
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(message.attribute::<MessageIntegrity>(), Ok(None));
    let sha1 = message.verify_integrity(&key(), IntegrityKind::Sha1);
    assert_eq!(sha1, Err(IntegrityError::Missing));
    assert_eq!(
        message.verify_integrity(&key(), IntegrityKind::Sha256),
        Ok(())
    );
}

#[test]
fn signatures_are_those_of_the_hmac_crate() {
    // Keys around the block size of 64 bytes, messages around the padding's corners.
    for key_len in [0, 1, 16, 20, 32, 63, 64, 65, 100, 200] {
        let key_bytes: Vec<u8> = (0..=u8::MAX).cycle().take(key_len).collect();
        let key = IntegrityKey::from_bytes(&key_bytes);
        for text_len in 0..140 {
            let name = "x".repeat(text_len);
            let written = |kind| {
                refresh(|writer| {
                    writer.attribute(&Username(&name)).integrity(&key, kind);
                })
            };
            let bytes = written(IntegrityKind::Sha1);
            let (message, signature) = bytes.split_at(bytes.len() - 24);
            let mut expected = Hmac::<Sha1>::new_from_slice(&key_bytes).expect("any length");
            expected.update(message);
            assert_eq!(signature[4..], expected.finalize().into_bytes()[..]);

            let bytes = written(IntegrityKind::Sha256);
            let (message, signature) = bytes.split_at(bytes.len() - 36);
            let mut expected = Hmac::<Sha256>::new_from_slice(&key_bytes).expect("any length");
            expected.update(message);
            assert_eq!(signature[4..], expected.finalize().into_bytes()[..]);
        }
    }
}

#[test]
fn truncated_sha256_is_for_usages_that_ask_for_it() {
    // RFC 8489 section 14.6: at least 16 bytes, a multiple of 4, and whole unless the usage allows
    // it.
    for length in (16..=32).step_by(4) {
        let bytes = refresh_with_truncated(length);
        let message = Message::parse(&bytes).expect("well formed");
        let whole = message.verify_integrity(&key(), IntegrityKind::Sha256);
        let expected = if length == 32 {
            Ok(())
        } else {
            Err(IntegrityError::Truncated)
        };
        assert_eq!(whole, expected, "{length}");
        assert_eq!(
            message.verify_truncated_integrity(&key(), 0),
            Ok(()),
            "{length}"
        );
        assert_eq!(
            message.verify_truncated_integrity(&key(), length),
            Ok(()),
            "{length}"
        );
        let longer = message.verify_truncated_integrity(&key(), length + 1);
        assert_eq!(longer, Err(IntegrityError::Truncated), "{length}");
        let other = IntegrityKey::from_bytes(b"another");
        let mismatch = message.verify_truncated_integrity(&other, 0);
        assert_eq!(mismatch, Err(IntegrityError::Mismatch), "{length}");
    }
}

#[test]
fn signatures_of_other_lengths_are_malformed() {
    for length in (0..=40).filter(|length| ![16, 20, 24, 28, 32].contains(length)) {
        let bytes = refresh(|writer| {
            writer.raw(AttributeType::MESSAGE_INTEGRITY_SHA256, &vec![0; length]);
        });
        assert_eq!(
            Message::parse(&bytes).err(),
            Some(ParseError::IntegrityLength),
            "{length}"
        );
    }
    for length in (0..=40).filter(|length| *length != 20) {
        let bytes = refresh(|writer| {
            writer.raw(AttributeType::MESSAGE_INTEGRITY, &vec![0; length]);
        });
        assert_eq!(
            Message::parse(&bytes).err(),
            Some(ParseError::IntegrityLength),
            "{length}"
        );
    }
}

#[test]
fn fingerprint_must_be_last_and_right() {
    // RFC 8489 section 14.7.
    let good = refresh(|writer| {
        writer.attribute(&Lifetime(1)).fingerprint();
    });
    assert!(Message::parse(&good).is_ok_and(|message| message.has_fingerprint()));
    let mut followed = good.clone();
    append(&mut followed, AttributeType::LIFETIME, &[0; 4]);
    assert_eq!(
        Message::parse(&followed).err(),
        Some(ParseError::FingerprintNotLast)
    );
    for bit in 0..32 {
        let mut wrong = good.clone();
        let at = wrong.len() - 4 + bit / 8;
        wrong[at] ^= 1 << (bit % 8);
        assert_eq!(
            Message::parse(&wrong).err(),
            Some(ParseError::FingerprintMismatch)
        );
    }
    let short = refresh(|writer| {
        writer.raw(AttributeType::FINGERPRINT, &[0; 3]);
    });
    assert_eq!(
        Message::parse(&short).err(),
        Some(ParseError::FingerprintMismatch)
    );
}

#[test]
fn key_is_small_and_says_nothing() {
    assert_eq!(size_of::<IntegrityKey>(), 104);
    assert_eq!(
        format!("{:?}", IntegrityKey::short_term("secret")),
        "IntegrityKey(..)"
    );
}

#[test]
fn message_longer_than_its_length_field_is_not_written() {
    let mut out = b"before".to_vec();
    let mut writer = MessageWriter::new(&mut out, Class::Request, Method::REFRESH, TX);
    writer.raw(AttributeType::DATA, &[1; 65_000]);
    writer.raw(AttributeType::DATA, &[2; 1000]);
    writer.integrity(&key(), IntegrityKind::Sha1).fingerprint();
    assert_eq!(writer.finish(), 0);
    assert_eq!(out, b"before");

    // 65,532 bytes of attributes are the most that a multiple of 4 in 16 bits can say.
    for (length, written) in [(65_528, 65_552), (65_529, 0), (65_535, 0), (70_000, 0)] {
        let mut out = Vec::new();
        let mut writer = MessageWriter::new(&mut out, Class::Indication, Method::DATA, TX);
        writer.raw(AttributeType::DATA, &vec![0; length]);
        assert_eq!(writer.finish(), written, "{length}");
        assert_eq!(Message::parse(&out).is_ok(), written > 0, "{length}");
    }
}

#[test]
fn value_sent_from_where_it_lies_makes_the_same_message() {
    for length in [0, 1, 4, 100, 1199] {
        let value = vec![0xAB; length];
        let mut copied = Vec::new();
        let mut writer = MessageWriter::new(&mut copied, Class::Indication, Method::DATA, TX);
        writer
            .attribute(&Lifetime(7))
            .raw(AttributeType::DATA, &value);
        writer.finish();

        let mut sent = Vec::new();
        let mut writer = MessageWriter::new(&mut sent, Class::Indication, Method::DATA, TX);
        writer.attribute(&Lifetime(7));
        assert_eq!(writer.finish_before_value(AttributeType::DATA, length), 32);
        sent.extend_from_slice(&value);
        sent.resize(sent.len().next_multiple_of(4), 0);
        assert_eq!(sent, copied, "{length}");
    }
    let mut out = Vec::new();
    let writer = MessageWriter::new(&mut out, Class::Indication, Method::DATA, TX);
    assert_eq!(writer.finish_before_value(AttributeType::DATA, 65_535), 0);
    assert_eq!(out, b"");
}

#[test]
fn truncation_and_tiling_are_checked() {
    let good = refresh(|writer| {
        writer
            .attribute(&Username("someone"))
            .attribute(&Lifetime(5));
    });
    for length in 0..good.len() {
        let expected = if length < 20 {
            ParseError::TooShort
        } else {
            ParseError::Length
        };
        assert_eq!(
            Message::parse(&good[..length]).err(),
            Some(expected),
            "{length}"
        );
    }
    // An attribute one byte longer than the message, and one of the largest length.
    for length in [13, 0xFFFC, 0xFFFF_u16] {
        let mut bytes = good.clone();
        let at = bytes.len() - 6;
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            Message::parse(&bytes).err(),
            Some(ParseError::Attribute),
            "{length}"
        );
    }
}

fn key() -> IntegrityKey {
    IntegrityKey::from_bytes(KEY)
}

fn refresh(fill: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::REFRESH, TX);
    fill(&mut writer);
    writer.finish();
    bytes
}

/// Signed with the `hmac` crate: the length field counts the signature as long as it will be.
fn refresh_with_truncated(length: usize) -> Vec<u8> {
    let mut bytes = refresh(|writer| {
        writer.attribute(&Username("user"));
    });
    let body = bytes.len() - 20 + 4 + length;
    bytes[2..4].copy_from_slice(&u16::try_from(body).expect("short").to_be_bytes());
    let mut hmac = Hmac::<Sha256>::new_from_slice(KEY).expect("any length");
    hmac.update(&bytes);
    let mac = hmac.finalize().into_bytes();
    append(
        &mut bytes,
        AttributeType::MESSAGE_INTEGRITY_SHA256,
        &mac[..length],
    );
    bytes
}

/// What somebody on the way can do: add an attribute and set the length right.
fn append(bytes: &mut Vec<u8>, kind: AttributeType, value: &[u8]) {
    bytes.extend_from_slice(&kind.0.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(value.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let body = u16::try_from(bytes.len() - 20).expect("short");
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
}
