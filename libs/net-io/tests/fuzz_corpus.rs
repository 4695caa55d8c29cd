//! Replays the corpus of the fuzz target `proxy`, and damaged copies of it, through the body of the target.
//!
//! The corpus is what [`samples`] writes, and whatever fuzzing has found since, which is added beside it
//! under any other name. `RALLYPOINT_WRITE_CORPUS=1 cargo test -p net-io --test fuzz_corpus` writes it anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::path::Path;
use std::{env, fs};

use net_io::proxy::{LONGEST_HEADER, SIGNATURE, header_for};

#[path = "../../../tests/fuzz/bodies/proxy.rs"]
mod body;

/// Damaged copies of each file.
const COPIES: u64 = 400;

#[test]
fn proxy_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/proxy");
    for (name, bytes) in samples() {
        let path = folder.join(name);
        if env::var_os("RALLYPOINT_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).ok(), Some(bytes), "{}", path.display());
    }
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{} files", files.len());
    for (seed, path) in (0_u64..).zip(files) {
        let bytes = fs::read(&path).unwrap();
        body::run(&bytes);
        for copy in 0..COPIES {
            let damaged = damage(&bytes, seed << 32 | copy);
            let result = std::panic::catch_unwind(|| body::run(&damaged));
            let case = format!("{}, seed {seed}, copy {copy}", path.display());
            assert!(result.is_ok(), "{case}: {damaged:02x?}");
        }
    }
}

/// Named beginnings, each with every kind of listener in front of a proxy, and two without.
fn samples() -> Vec<(String, Vec<u8>)> {
    let header = |command: u8, family: u8, length: u16, body: &[u8]| {
        [
            &SIGNATURE[..],
            &[command, family],
            &length.to_be_bytes(),
            body,
        ]
        .concat()
    };
    let from = |source: &str, to: &str| header_for(source.parse().unwrap(), to.parse().unwrap());
    let v4 = from("192.0.2.7:50000", "198.51.100.1:443");
    let v6 = from("[2001:db8::7]:50000", "[2001:db8::1]:443");
    let mapped = from("[::ffff:192.0.2.7]:50000", "[2001:db8::1]:443");
    let hello = [0x16, 3, 1, 2, 0, 1, 0];
    let binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    let longest = u16::try_from(LONGEST_HEADER - 16).unwrap();
    let filled = vec![4; usize::from(longest)];
    let beginnings = [
        ("v4-tls", [&v4[..], &hello].concat()),
        ("v4-stun", [&v4[..], &binding].concat()),
        ("v6-stun", [&v6[..], &binding].concat()),
        ("mapped", [&mapped[..], &binding].concat()),
        (
            "local",
            [&header(0x20, 0, 3, &[4, 0, 0])[..], &binding].concat(),
        ),
        ("longest", header(0x20, 0, longest, &filled)),
        (
            "version-1",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n".to_vec(),
        ),
        ("no-header", binding.clone()),
    ];
    let proxied = beginnings.into_iter().flat_map(|(name, bytes)| {
        // Plain, TLS and either, in reads of 43, 44 and 1 byte.
        [(0xFF, "a"), (0x80 | 0x7E, "b"), (0x80 | 0x01, "c")]
            .map(|(how, kind)| (format!("{name}-{kind}"), [&[how], &bytes[..]].concat()))
    });
    let direct = [
        ("direct-tls".to_owned(), [&[0x02][..], &hello].concat()),
        ("direct-stun".to_owned(), [&[0x02][..], &binding].concat()),
    ];
    proxied.chain(direct).collect()
}

/// One to four changes; the same seed gives the same bytes everywhere.
fn damage(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed;
    // splitmix64
    let mut next = move |bound: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound.max(1)).unwrap()).unwrap()
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=next(4) {
        // Mostly where the header says what it is.
        let reach = if next(2) == 0 { 18 } else { bytes.len() };
        let at = next(reach.min(bytes.len()));
        match (next(4), bytes.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << next(8),
            (1, Some(byte)) => *byte = [0, 1, 0x11, 0x21, 0xFF][next(5)],
            (2, _) => bytes.truncate(next(bytes.len() + 1)),
            _ => bytes.insert(at, [0, 0x16, 0xFF][next(3)]),
        }
    }
    bytes
}
