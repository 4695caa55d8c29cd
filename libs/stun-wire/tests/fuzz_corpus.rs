//! Replays the fuzz corpus of `tests/fuzz/corpus`, and damaged copies of it, through the bodies of
//! the fuzz targets.
//!
//! The corpus is what `support/samples.rs` writes, and whatever fuzzing has found since, which is
//! added beside it under any other name. `RALLYPOINT_WRITE_CORPUS=1 cargo test -p stun-wire --test
//! fuzz_corpus` writes it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use stun_wire::Message;

use crate::bodies::{attributes, channel_data, message, stream};
use crate::support::mutate::{Random, mutate};
use crate::support::samples;

/// Damaged copies of each file in a plain test run.
const COPIES: u64 = 100;

#[test]
fn message_corpus() {
    replay("message", samples::messages(), message::run);
}

#[test]
fn attributes_corpus() {
    replay("attributes", attribute_values(), attributes::run);
}

#[test]
fn channel_data_corpus() {
    replay("channel_data", samples::channel_data(), channel_data::run);
}

#[test]
fn stream_corpus() {
    let cut = |(at, (name, mut bytes)): (usize, (String, Vec<u8>))| {
        bytes.insert(0, u8::try_from(at % 40).expect("small"));
        (name, bytes)
    };
    let seeds = samples::streams()
        .into_iter()
        .enumerate()
        .map(cut)
        .collect();
    replay("stream", seeds, stream::run);
}

/// One value of each attribute type that occurs in the samples, with the transaction id in front.
fn attribute_values() -> Vec<(String, Vec<u8>)> {
    let mut values = BTreeMap::new();
    for (_, bytes) in samples::messages() {
        let message = Message::parse(&bytes).expect("a sample is well formed");
        for attribute in message.attributes() {
            let value = [&message.transaction_id().0, attribute.value].concat();
            let name = format!("{:?}-{}", attribute.kind, attribute.value.len()).to_lowercase();
            values.entry(name).or_insert(value);
        }
    }
    values.into_iter().collect()
}

fn replay(target: &str, seeds: Vec<(String, Vec<u8>)>, body: fn(&[u8])) {
    let folder = corpus(target);
    for (name, bytes) in seeds {
        let path = folder.join(name);
        if env::var_os("RALLYPOINT_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).expect("the corpus folder can be made");
            fs::write(&path, &bytes).expect("the corpus can be written");
        }
        let kept = fs::read(&path).ok();
        assert_eq!(
            kept,
            Some(bytes),
            "{} is not what the samples write",
            path.display()
        );
    }
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{target} has {} files", files.len());
    for (seed, path) in (0_u64..).zip(files) {
        let bytes = fs::read(&path).expect("the corpus can be read");
        body(&bytes);
        for copy in 0..COPIES {
            let mut random = Random(seed << 32 | copy);
            let mut damaged = bytes.clone();
            mutate(&mut damaged, &mut random);
            let case = format!("{} damaged by seed {seed}, copy {copy}", path.display());
            let result = std::panic::catch_unwind(|| body(&damaged));
            assert!(result.is_ok(), "{case}: {damaged:02x?}");
        }
    }
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/corpus")
        .join(target)
}
