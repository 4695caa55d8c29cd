//! See `bodies/channel_data.rs`.

#![no_main]

#[path = "../bodies/channel_data.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
