//! Times the codec beside the `stun` crate, in one run: `cargo bench -p stun-wire`.
//!
//! Each line is the median of several rounds, ours and theirs by turns, so that a busy machine
//! slows both.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::time::Instant;

use stun::message::{BINDING_SUCCESS, Getter as _, Setter as _};
use stun_wire::attribute::{Nonce, Realm, RequestedTransport, Username, XorMappedAddress};
use stun_wire::{
    Class, IntegrityKey, IntegrityKind, Message, MessageWriter, Method, TransactionId,
};

const ROUNDS: usize = 15;
const CALLS: u32 = 20_000;
const TX: TransactionId = TransactionId([7; 12]);

fn main() {
    // Under `cargo test --benches` one short round shows that it runs.
    let calls = if std::env::args().any(|argument| argument == "--bench") {
        CALLS
    } else {
        100
    };
    println!(
        "{:<44}{:>10}{:>10}{:>8}",
        "nanoseconds a call", "stun-wire", "stun", "ratio"
    );
    parse_binding(calls);
    parse_signed_allocate(calls);
    write_binding_success(calls);
    sign_binding_success(calls);
}

fn parse_binding(calls: u32) {
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::BINDING, TX);
    writer.fingerprint();
    writer.finish();
    let mut theirs = stun::message::Message::new();
    compare(
        "parse a Binding request, check FINGERPRINT",
        calls,
        || assert!(Message::parse(black_box(&bytes)).unwrap().has_fingerprint()),
        || {
            theirs.raw.clear();
            theirs.raw.extend_from_slice(black_box(&bytes));
            theirs.decode().unwrap();
            stun::fingerprint::FINGERPRINT.check(&theirs).unwrap();
        },
    );
}

fn parse_signed_allocate(calls: u32) {
    let key = IntegrityKey::long_term_md5("1700000000:k1:alice", "rallypoint", "password");
    let mut bytes = Vec::new();
    let mut writer = MessageWriter::new(&mut bytes, Class::Request, Method::ALLOCATE, TX);
    writer
        .attribute(&RequestedTransport::UDP)
        .attribute(&Username("1700000000:k1:alice"));
    writer
        .attribute(&Realm("rallypoint"))
        .attribute(&Nonce("obMatJos2AAAC-a-nonce-of-35-charact"));
    writer.integrity(&key, IntegrityKind::Sha1);
    writer.finish();
    let mut theirs = stun::message::Message::new();
    let their_key = stun::integrity::MessageIntegrity::new_long_term_integrity(
        "1700000000:k1:alice".into(),
        "rallypoint".into(),
        "password".into(),
    );
    compare(
        "parse an Allocate, read 3 texts, verify SHA-1",
        calls,
        || {
            let message = Message::parse(black_box(&bytes)).unwrap();
            black_box(message.attribute::<Username<'_>>().unwrap());
            black_box(message.attribute::<Realm<'_>>().unwrap());
            black_box(message.attribute::<Nonce<'_>>().unwrap());
            message.verify_integrity(&key, IntegrityKind::Sha1).unwrap();
        },
        || {
            theirs.raw.clear();
            theirs.raw.extend_from_slice(black_box(&bytes));
            theirs.decode().unwrap();
            let mut text = stun::textattrs::TextAttribute::default();
            for name in [
                stun::attributes::ATTR_USERNAME,
                stun::attributes::ATTR_REALM,
                stun::attributes::ATTR_NONCE,
            ] {
                text.attr = name;
                text.get_from(&theirs).unwrap();
                black_box(&text);
            }
            their_key.check(&mut theirs).unwrap();
        },
    );
}

fn write_binding_success(calls: u32) {
    let mapped: std::net::SocketAddr = "203.0.113.7:50000".parse().unwrap();
    let mut out = Vec::with_capacity(128);
    let mut theirs = stun::message::Message::new();
    compare(
        "write a Binding success with FINGERPRINT",
        calls,
        || {
            out.clear();
            let mut writer = MessageWriter::new(&mut out, Class::Success, Method::BINDING, TX);
            writer
                .attribute(&XorMappedAddress(black_box(mapped)))
                .fingerprint();
            assert_eq!(writer.finish(), 40);
        },
        || {
            write_theirs(&mut theirs, mapped);
            stun::fingerprint::FINGERPRINT.add_to(&mut theirs).unwrap();
            assert_eq!(theirs.raw.len(), 40);
        },
    );
}

fn sign_binding_success(calls: u32) {
    let mapped: std::net::SocketAddr = "203.0.113.7:50000".parse().unwrap();
    let key = IntegrityKey::short_term("VOkJxbRl1RmTxUk/WvJxBt");
    let their_key = stun::integrity::MessageIntegrity::new_short_term_integrity(
        "VOkJxbRl1RmTxUk/WvJxBt".into(),
    );
    let mut out = Vec::with_capacity(128);
    let mut theirs = stun::message::Message::new();
    compare(
        "the same, signed with SHA-1 as in ICE",
        calls,
        || {
            out.clear();
            let mut writer = MessageWriter::new(&mut out, Class::Success, Method::BINDING, TX);
            writer.attribute(&XorMappedAddress(black_box(mapped)));
            writer.integrity(&key, IntegrityKind::Sha1).fingerprint();
            assert_eq!(writer.finish(), 64);
        },
        || {
            write_theirs(&mut theirs, mapped);
            their_key.add_to(&mut theirs).unwrap();
            stun::fingerprint::FINGERPRINT.add_to(&mut theirs).unwrap();
            assert_eq!(theirs.raw.len(), 64);
        },
    );
}

/// The quick way with the `stun` crate: one message kept, no boxed setters.
fn write_theirs(message: &mut stun::message::Message, mapped: std::net::SocketAddr) {
    message.reset();
    message.transaction_id = stun::agent::TransactionId(TX.0);
    message.set_type(BINDING_SUCCESS);
    message.write_header();
    stun::xoraddr::XorMappedAddress {
        ip: black_box(mapped).ip(),
        port: mapped.port(),
    }
    .add_to(message)
    .unwrap();
}

fn compare(name: &str, calls: u32, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        times.0.push(time(calls, &mut ours));
        times.1.push(time(calls, &mut theirs));
    }
    let (ours, theirs) = (median(times.0), median(times.1));
    println!("{name:<44}{ours:>10.1}{theirs:>10.1}{:>8.1}", theirs / ours);
}

fn time(calls: u32, work: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
