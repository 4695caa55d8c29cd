//! See `bodies/deframer.rs`.

#![no_main]

#[path = "../bodies/deframer.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
