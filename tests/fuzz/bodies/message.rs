//! Any bytes as a STUN message: what parses is consistent, can be written again, and can be signed.

use stun_wire::{
    AttributeType, IntegrityError, IntegrityKey, IntegrityKind, Message, MessageWriter,
    UnknownAttributes, is_stun,
};

pub(crate) fn run(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    assert!(is_stun(bytes));
    assert_eq!(message.as_bytes(), bytes);
    look_at_attributes(&message);
    judge_signatures(&message);
    write_again(&message);
}

/// The ways to ask for an attribute agree with one another.
fn look_at_attributes(message: &Message<'_>) {
    for attribute in message.attributes() {
        assert!(message.contains(attribute.kind));
        let count = message
            .attributes()
            .filter(|other| other.kind == attribute.kind)
            .count();
        assert_eq!(message.count(attribute.kind), count);
    }
    let known: Vec<_> = message
        .attributes()
        .map(|attribute| attribute.kind)
        .collect();
    assert!(message.unknown_required(&known).is_empty());
    let unknown = message.unknown_required(&[]);
    assert!(unknown.iter().count() <= UnknownAttributes::MAX);
    assert!(
        unknown
            .iter()
            .all(|name| known.contains(&name) && name.0 < 0x8000)
    );
    let fingerprint = message.contains(AttributeType::FINGERPRINT);
    assert_eq!(message.has_fingerprint(), fingerprint);
}

/// A signature that is there is judged; the others are missing.
fn judge_signatures(message: &Message<'_>) {
    let key = IntegrityKey::short_term("fuzz");
    for (kind, name) in [
        (IntegrityKind::Sha1, AttributeType::MESSAGE_INTEGRITY),
        (
            IntegrityKind::Sha256,
            AttributeType::MESSAGE_INTEGRITY_SHA256,
        ),
    ] {
        let verdict = message.verify_integrity(&key, kind);
        assert_eq!(
            verdict == Err(IntegrityError::Missing),
            !message.contains(name)
        );
    }
    let _ = message.verify_truncated_integrity(&key, 0);
}

/// The visible attributes, written into a message of their own and signed, are the same attributes.
fn write_again(message: &Message<'_>) {
    let key = IntegrityKey::short_term("fuzz");
    let mut out = vec![0xEE; 3];
    let mut writer = MessageWriter::new(
        &mut out,
        message.class(),
        message.method(),
        message.transaction_id(),
    );
    for attribute in message.attributes() {
        writer.raw(attribute.kind, attribute.value);
    }
    writer
        .integrity(&key, IntegrityKind::Sha1)
        .integrity(&key, IntegrityKind::Sha256);
    writer.fingerprint();
    let written = writer.finish();
    if written == 0 {
        assert_eq!(
            out, [0xEE; 3],
            "a message that is too long leaves nothing behind"
        );
        assert!(message.as_bytes().len() > 65_000);
        return;
    }
    let again = Message::parse(&out[3..]).expect("what we write, we read");
    assert_eq!(again.as_bytes().len(), written);
    assert_eq!(again.class(), message.class());
    assert_eq!(again.method(), message.method());
    assert_eq!(again.transaction_id(), message.transaction_id());
    assert!(again.attributes().eq(message.attributes()));
    assert!(again.has_fingerprint());
    for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
        assert_eq!(again.verify_integrity(&key, kind), Ok(()));
    }
}
