//! See `bodies/relay.rs`.

#![no_main]

#[path = "../bodies/relay.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
