//! Replays `corpus/stream`, and damaged copies of it, through the body of the fuzz target `deframer`.
//! It is a test of `turn-relay`, and stands here beside what it replays.

use std::fs;
use std::path::Path;

#[path = "bodies/deframer.rs"]
mod deframer;
#[path = "../../libs/stun-wire/tests/support/mutate.rs"]
mod mutate;

use mutate::{Random, mutate};

/// Damaged copies of each stream in a plain test run.
const COPIES: u64 = 50;

#[test]
fn deframer_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/stream");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "there are {} files", files.len());
    for (seed, path) in (0_u64..).zip(files) {
        let stream = fs::read(&path).expect("the corpus can be read");
        for copy in 0..COPIES {
            let mut random = Random(seed << 32 | copy);
            // The first byte is how the rest is cut.
            let cut = u8::try_from((seed * 7 + copy) % 256).expect("below 256");
            let mut damaged = [&[cut], &stream[..]].concat();
            if copy > 0 {
                mutate(&mut damaged, &mut random);
            }
            let case = format!("{} damaged by seed {seed}, copy {copy}", path.display());
            let result = std::panic::catch_unwind(|| deframer::run(&damaged));
            assert!(result.is_ok(), "{case}: {damaged:02x?}");
        }
    }
}
