//! See `bodies/attributes.rs`.

#![no_main]

#[path = "../bodies/attributes.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
