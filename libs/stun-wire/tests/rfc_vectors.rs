//! The sample messages of RFC 5769 and RFC 8489 appendix B.1: read, verified, and written again.

use stun_wire::attribute::{
    IceControlled, Nonce, PasswordAlgorithm, Priority, Realm, Software, Userhash, Username,
    XorMappedAddress,
};
use stun_wire::{
    AttributeType, Class, IntegrityError, IntegrityKey, IntegrityKind, Message, MessageWriter,
    Method, TransactionId,
};

use crate::support::vectors;

const TX: TransactionId = TransactionId(*b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae");
const LONG_TERM_TX: TransactionId =
    TransactionId(*b"\x78\xad\x34\x33\xc6\xad\x72\xc0\x29\xda\x41\x2e");
const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
/// "The<U+00AD>M<U+00AA>tr<U+2168>" after SASLprep.
const LONG_TERM_PASSWORD: &str = "TheMatrIX";

#[test]
fn rfc5769_2_1_request() {
    let bytes = vectors::request();
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(
        (message.class(), message.method(), message.transaction_id()),
        (Class::Request, Method::BINDING, TX)
    );
    assert_eq!(message.attribute(), Ok(Some(Software("STUN test client"))));
    assert_eq!(message.attribute(), Ok(Some(Priority(0x6e00_01ff))));
    assert_eq!(
        message.attribute(),
        Ok(Some(IceControlled(0x932f_f9b1_5126_3b36)))
    );
    assert_eq!(message.attribute(), Ok(Some(Username("evtj:h6vY"))));
    assert!(message.has_fingerprint());
    assert_signed_by_password(&message);
}

#[test]
fn rfc5769_2_2_ipv4_response() {
    assert_response(&vectors::ipv4_response(), "192.0.2.1:32853");
}

#[test]
fn rfc5769_2_3_ipv6_response() {
    assert_response(
        &vectors::ipv6_response(),
        "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
    );
}

#[test]
fn rfc5769_2_4_long_term_request() {
    let bytes = vectors::long_term();
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(message.transaction_id(), LONG_TERM_TX);
    assert!(!message.has_fingerprint());
    let user = Username(USER);
    let nonce = Nonce("f//499k954d6OL34oL9FSTvy64sA");
    let realm = Realm("example.org");
    assert_eq!(message.attribute(), Ok(Some(user)));
    assert_eq!(message.attribute(), Ok(Some(nonce)));
    assert_eq!(message.attribute(), Ok(Some(realm)));
    let key = IntegrityKey::long_term_md5(USER, "example.org", LONG_TERM_PASSWORD);
    assert_eq!(message.verify_integrity(&key, IntegrityKind::Sha1), Ok(()));

    // Its padding is zero, so that writing it gives the same bytes.
    let mut out = Vec::new();
    let mut writer = MessageWriter::new(&mut out, Class::Request, Method::BINDING, LONG_TERM_TX);
    writer.attribute(&user).attribute(&nonce).attribute(&realm);
    writer.integrity(&key, IntegrityKind::Sha1);
    assert_eq!(writer.finish(), bytes.len());
    assert_eq!(out, bytes);
}

#[test]
fn rfc8489_b_1_sha256_and_userhash() {
    let bytes = vectors::sha256();
    let message = Message::parse(&bytes).expect("well formed");
    let userhash = Userhash::of(USER, "example.org");
    let nonce = Nonce("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA");
    let realm = Realm("example.org");
    let algorithm = PasswordAlgorithm::SHA256;
    assert_eq!(message.attribute(), Ok(Some(userhash)));
    assert_eq!(message.attribute(), Ok(Some(nonce)));
    assert_eq!(message.attribute(), Ok(Some(realm)));
    assert_eq!(message.attribute(), Ok(Some(algorithm)));
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
    let key = IntegrityKey::long_term_sha256(USER, "example.org", LONG_TERM_PASSWORD);
    assert_eq!(
        message.verify_integrity(&key, IntegrityKind::Sha256),
        Ok(())
    );
    let sha1 = message.verify_integrity(&key, IntegrityKind::Sha1);
    assert_eq!(sha1, Err(IntegrityError::Missing));

    let mut out = Vec::new();
    let mut writer = MessageWriter::new(&mut out, Class::Request, Method::BINDING, LONG_TERM_TX);
    writer
        .attribute(&userhash)
        .attribute(&nonce)
        .attribute(&realm)
        .attribute(&algorithm);
    writer.integrity(&key, IntegrityKind::Sha256);
    writer.finish();
    assert_eq!(out, bytes);
}

#[test]
fn every_changed_bit_of_what_is_signed_is_noticed() {
    let keys = [
        IntegrityKey::short_term(PASSWORD),
        IntegrityKey::long_term_md5(USER, "example.org", LONG_TERM_PASSWORD),
        IntegrityKey::long_term_sha256(USER, "example.org", LONG_TERM_PASSWORD),
    ];
    let verifies = |bytes: &[u8], key: &IntegrityKey| {
        Message::parse(bytes).is_ok_and(|message| {
            message
                .integrity()
                .is_some_and(|kind| message.verify_integrity(key, kind).is_ok())
        })
    };
    for (name, bytes) in vectors::all() {
        let key = keys
            .iter()
            .find(|key| verifies(&bytes, key))
            .expect("signed by one of the keys");
        // A FINGERPRINT stands behind the signature, and its 8 bytes are not signed.
        let fingerprint = Message::parse(&bytes).is_ok_and(|message| message.has_fingerprint());
        let signed = bytes.len() - if fingerprint { 8 } else { 0 };
        for bit in 0..signed * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!verifies(&changed, key), "{name}: bit {bit}");
        }
    }
}

fn assert_response(bytes: &[u8], mapped: &str) {
    let message = Message::parse(bytes).expect("well formed");
    assert_eq!(
        (message.class(), message.method(), message.transaction_id()),
        (Class::Success, Method::BINDING, TX)
    );
    assert_eq!(message.attribute(), Ok(Some(Software("test vector"))));
    let mapped = XorMappedAddress(mapped.parse().expect("an address"));
    assert_eq!(message.attribute(), Ok(Some(mapped)));
    assert!(message.has_fingerprint());
    assert_signed_by_password(&message);

    // The vector pads with 0x20 and we with zero; up to the signature that is the only difference.
    let mut out = Vec::new();
    let mut writer = MessageWriter::new(&mut out, Class::Success, Method::BINDING, TX);
    writer
        .attribute(&Software("test vector"))
        .attribute(&mapped);
    writer
        .integrity(&IntegrityKey::short_term(PASSWORD), IntegrityKind::Sha1)
        .fingerprint();
    assert_eq!(writer.finish(), bytes.len());
    out[35] = 0x20;
    let signature = bytes.len() - 32;
    assert_eq!(out[..signature], bytes[..signature]);
}

fn assert_signed_by_password(message: &Message<'_>) {
    let verify =
        |password: &str, kind| message.verify_integrity(&IntegrityKey::short_term(password), kind);
    assert!(message.contains(AttributeType::MESSAGE_INTEGRITY));
    assert_eq!(message.integrity(), Some(IntegrityKind::Sha1));
    assert_eq!(verify(PASSWORD, IntegrityKind::Sha1), Ok(()));
    assert_eq!(
        verify("another", IntegrityKind::Sha1),
        Err(IntegrityError::Mismatch)
    );
    assert_eq!(
        verify(PASSWORD, IntegrityKind::Sha256),
        Err(IntegrityError::Missing)
    );
}
