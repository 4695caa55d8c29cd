//! Our codec beside two independent ones, the crates `stun` and `stun-types`: each reads what the
//! other writes, and on damaged messages they accept and refuse alike, but for the differences
//! written down in [`excuse`].

use std::collections::BTreeSet;

use stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use stun::message::{BINDING_REQUEST, Getter as _, Setter as _};
use stun_types::attribute::{
    Nonce as TheirNonce, Realm as TheirRealm, Username as TheirUsername,
    XorMappedAddress as TheirXorMappedAddress,
};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, MessageIntegrityCredentials, MessageWrite as _,
    MessageWriteExt as _, MessageWriteVec,
};
use stun_wire::attribute::{Nonce, Realm, Software, Username, XorMappedAddress};
use stun_wire::{
    AttributeType, Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method, ParseError,
    TransactionId,
};

use crate::support::mutate::{Random, mutate};
use crate::support::samples;

/// Damaged messages in a plain test run, over all samples.
const MUTATIONS: u64 = 150_000;

const USER: &str = "user";
const PASSWORD: &str = "password";
const REALM: &str = "rallypoint";
const NONCE: &str = "a nonce";
const MAPPED: &str = "[2001:db8::1]:50000";

#[test]
fn stun_reads_what_we_write() {
    for (name, bytes) in samples::messages() {
        let ours = Message::parse(&bytes).expect("a sample is well formed");
        let theirs = stun_decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(theirs.transaction_id.0, ours.transaction_id().0, "{name}");
        let kind = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert_eq!(theirs.typ.value(), kind, "{name}");
        for attribute in ours.attributes() {
            let theirs = theirs
                .attributes
                .get(stun::attributes::AttrType(attribute.kind.0));
            assert!(theirs.1, "{name}: {:?}", attribute.kind);
        }
        if ours.has_fingerprint() {
            stun::fingerprint::FINGERPRINT
                .check(&theirs)
                .expect("our CRC is theirs");
        }
    }
    let mut signed = stun_decode(&our_signed(IntegrityKind::Sha1)).expect("well formed");
    their_stun_key()
        .check(&mut signed)
        .expect("our signature is theirs");
    let mut mapped = stun::xoraddr::XorMappedAddress::default();
    mapped.get_from(&signed).expect("there is one");
    assert_eq!(format!("[{}]:{}", mapped.ip, mapped.port), MAPPED);
}

#[test]
fn we_read_what_stun_writes() {
    let mut theirs = stun::message::Message::new();
    theirs
        .build(&[
            Box::new(stun::agent::TransactionId(samples::TX.0)),
            Box::new(BINDING_REQUEST),
            Box::new(stun::textattrs::Username::new(ATTR_USERNAME, USER.into())),
            Box::new(stun::textattrs::Realm::new(ATTR_REALM, REALM.into())),
            Box::new(stun::textattrs::Nonce::new(ATTR_NONCE, NONCE.into())),
        ])
        .expect("it builds");
    let mapped: std::net::SocketAddr = MAPPED.parse().expect("an address");
    let mapped = stun::xoraddr::XorMappedAddress {
        ip: mapped.ip(),
        port: mapped.port(),
    };
    mapped.add_to(&mut theirs).expect("it adds");
    their_stun_key().add_to(&mut theirs).expect("it signs");
    stun::fingerprint::FINGERPRINT
        .add_to(&mut theirs)
        .expect("it adds");
    assert_is_ours(&theirs.raw, IntegrityKind::Sha1);
}

#[test]
fn stun_types_reads_what_we_write() {
    for (name, bytes) in samples::messages() {
        let ours = Message::parse(&bytes).expect("a sample is well formed");
        let theirs = stun_types::message::Message::from_bytes(&bytes)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(same_content(&ours, &theirs), "{name}");
    }
    for (kind, algorithm) in [
        (IntegrityKind::Sha1, IntegrityAlgorithm::Sha1),
        (IntegrityKind::Sha256, IntegrityAlgorithm::Sha256),
    ] {
        let bytes = our_signed(kind);
        let theirs = stun_types::message::Message::from_bytes(&bytes).expect("well formed");
        assert_eq!(
            theirs.validate_integrity(&their_credentials()).ok(),
            Some(algorithm)
        );
        let mapped = theirs
            .attribute::<TheirXorMappedAddress>()
            .expect("there is one");
        assert_eq!(
            mapped.addr(theirs.transaction_id()),
            MAPPED.parse().expect("an address")
        );
    }
}

#[test]
fn we_read_what_stun_types_writes() {
    for (kind, algorithm) in [
        (IntegrityKind::Sha1, IntegrityAlgorithm::Sha1),
        (IntegrityKind::Sha256, IntegrityAlgorithm::Sha256),
    ] {
        let mut theirs = stun_types::message::Message::builder(
            stun_types::message::MessageType::from_class_method(
                stun_types::message::MessageClass::Request,
                stun_types::message::BINDING,
            ),
            u128_of(samples::TX).into(),
            MessageWriteVec::new(),
        );
        let mapped = TheirXorMappedAddress::new(
            MAPPED.parse().expect("an address"),
            u128_of(samples::TX).into(),
        );
        theirs
            .add_attribute(&TheirUsername::new(USER).expect("short"))
            .expect("it adds");
        theirs
            .add_attribute(&TheirRealm::new(REALM).expect("short"))
            .expect("it adds");
        theirs
            .add_attribute(&TheirNonce::new(NONCE).expect("short"))
            .expect("it adds");
        theirs.add_attribute(&mapped).expect("it adds");
        theirs
            .add_message_integrity(&their_credentials(), algorithm)
            .expect("it signs");
        theirs.add_fingerprint().expect("it adds");
        assert_is_ours(&theirs.finish(), kind);
    }
}

#[test]
fn damaged_messages_meet_one_verdict() {
    let samples = samples::messages();
    let mut accepted = 0;
    let mut reasons = BTreeSet::new();
    for seed in 0..MUTATIONS {
        let mut random = Random(seed);
        let (name, sample) = &samples[random.below(samples.len())];
        let mut bytes = sample.clone();
        mutate(&mut bytes, &mut random);
        let stun = stun_decode(&bytes);
        let types = stun_types::message::Message::from_bytes(&bytes);
        let case = || format!("seed {seed}, {name}: {bytes:02x?}");
        match Message::parse(&bytes) {
            Ok(ours) => {
                accepted += 1;
                assert!(stun.is_ok(), "{}", case());
                assert!(
                    types.is_ok_and(|types| same_content(&ours, &types)),
                    "{}",
                    case()
                );
            }
            Err(error) => {
                for (them, accepts) in
                    [(Them::Stun, stun.is_ok()), (Them::StunTypes, types.is_ok())]
                {
                    if accepts {
                        let reason = excuse(them, error, &bytes);
                        assert!(reason.is_some(), "{them:?} accepts, {error:?}: {}", case());
                        reasons.extend(reason);
                    }
                }
            }
        }
    }
    // If hardly any were accepted, the test would say little.
    assert!(
        accepted > MUTATIONS / 10,
        "only {accepted} of {MUTATIONS} were accepted"
    );
    assert_eq!(
        reasons.len(),
        EXCUSES,
        "the list has no reason that is never needed: {reasons:#?}"
    );
}

/// The length of the list in [`excuse`].
const EXCUSES: usize = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Them {
    Stun,
    StunTypes,
}

/// The written list: where we refuse and another accepts, and why we do. Each holds only if the
/// bytes really are such a case. (What we accept, both accept.)
fn excuse(them: Them, ours: ParseError, bytes: &[u8]) -> Option<&'static str> {
    let claimed = 20 + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    match (them, ours) {
        (Them::Stun, ParseError::NotStun) if bytes[0] & 0xC0 != 0 => {
            Some("RFC 8489 section 5: the first two bits MUST be zeros; `stun` does not look")
        }
        (_, ParseError::Length) if claimed < bytes.len() => {
            Some("a datagram is one message: bytes behind it belong to nobody")
        }
        (Them::StunTypes, ParseError::Length) if claimed % 4 != 0 => {
            Some("RFC 8489 section 5: the last two bits of the length are zero")
        }
        (Them::Stun, ParseError::FingerprintMismatch) => {
            Some("`stun` checks FINGERPRINT only when asked to")
        }
        (_, ParseError::FingerprintNotLast) => {
            Some("RFC 8489 section 14.7: FINGERPRINT MUST be the last attribute")
        }
        (Them::StunTypes, ParseError::FingerprintMismatch | ParseError::Attribute)
            if signature_is_followed_by_another_attribute(bytes) =>
        {
            Some(
                "`stun-types` leaves unread what is behind an unsigned attribute; ours tile it all",
            )
        }
        (_, ParseError::IntegrityLength) => Some(
            "RFC 8489 sections 14.5, 14.6: no signature has that length; the others verify later",
        ),
        _ => None,
    }
}

/// Whether something other than a signature or FINGERPRINT stands, or a second one of them, behind
/// one of them.
fn signature_is_followed_by_another_attribute(bytes: &[u8]) -> bool {
    let mut seen = Vec::new();
    let mut rest = &bytes[20..];
    while let Some(([t0, t1, l0, l1], value)) = rest.split_first_chunk::<4>() {
        let kind = AttributeType(u16::from_be_bytes([*t0, *t1]));
        let trailer = [
            AttributeType::MESSAGE_INTEGRITY,
            AttributeType::MESSAGE_INTEGRITY_SHA256,
            AttributeType::FINGERPRINT,
        ]
        .contains(&kind);
        if !seen.is_empty() && (!trailer || seen.contains(&kind)) {
            return true;
        }
        if trailer {
            seen.push(kind);
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1])).next_multiple_of(4);
        rest = value.get(length..).unwrap_or_default();
    }
    false
}

/// Class, method, transaction id, and each of our visible attributes where they see it too.
fn same_content(ours: &Message<'_>, theirs: &stun_types::message::Message<'_>) -> bool {
    let class = match ours.class() {
        Class::Request => stun_types::message::MessageClass::Request,
        Class::Indication => stun_types::message::MessageClass::Indication,
        Class::Success => stun_types::message::MessageClass::Success,
        Class::Error => stun_types::message::MessageClass::Error,
    };
    let transaction_id: u128 = theirs.transaction_id().into();
    theirs.has_class(class)
        && theirs.method().value() == ours.method().as_u16()
        && transaction_id == u128_of(ours.transaction_id())
        && ours.attributes().all(|attribute| {
            theirs
                .raw_attribute(attribute.kind.0.into())
                .is_some_and(|raw| Some(raw.value.as_ref()) == ours.raw(attribute.kind))
        })
}

fn stun_decode(bytes: &[u8]) -> Result<stun::message::Message, stun::Error> {
    let mut message = stun::message::Message::new();
    message.raw = bytes.to_vec();
    message.decode().map(|()| message)
}

fn our_key(kind: IntegrityKind) -> IntegrityKey {
    match kind {
        IntegrityKind::Sha1 => IntegrityKey::long_term_md5(USER, REALM, PASSWORD),
        IntegrityKind::Sha256 => IntegrityKey::long_term_sha256(USER, REALM, PASSWORD),
    }
}

fn their_stun_key() -> stun::integrity::MessageIntegrity {
    stun::integrity::MessageIntegrity::new_long_term_integrity(
        USER.into(),
        REALM.into(),
        PASSWORD.into(),
    )
}

fn their_credentials() -> MessageIntegrityCredentials {
    LongTermKeyCredentials::new(USER.into(), PASSWORD.into(), REALM.into()).into()
}

fn our_signed(kind: IntegrityKind) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = MessageWriter::new(&mut out, Class::Request, Method::BINDING, samples::TX);
    writer
        .attribute(&Username(USER))
        .attribute(&Realm(REALM))
        .attribute(&Nonce(NONCE));
    writer.attribute(&XorMappedAddress(MAPPED.parse().expect("an address")));
    writer.integrity(&our_key(kind), kind).fingerprint();
    writer.finish();
    out
}

fn assert_is_ours(bytes: &[u8], kind: IntegrityKind) {
    let message = Message::parse(bytes).expect("well formed");
    assert_eq!(message.transaction_id(), samples::TX);
    assert_eq!(
        (message.class(), message.method()),
        (Class::Request, Method::BINDING)
    );
    assert_eq!(message.attribute(), Ok(Some(Username(USER))));
    assert_eq!(message.attribute(), Ok(Some(Realm(REALM))));
    assert_eq!(message.attribute(), Ok(Some(Nonce(NONCE))));
    let mapped = XorMappedAddress(MAPPED.parse().expect("an address"));
    assert_eq!(message.attribute(), Ok(Some(mapped)));
    assert_eq!(message.attribute::<Software<'_>>(), Ok(None));
    assert!(message.has_fingerprint());
    assert_eq!(message.integrity(), Some(kind));
    assert_eq!(message.verify_integrity(&our_key(kind), kind), Ok(()));
}

fn u128_of(tx: TransactionId) -> u128 {
    tx.0.iter()
        .fold(0, |number, byte| number << 8 | u128::from(*byte))
}
