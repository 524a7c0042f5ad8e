//! Any bytes as the answer of an image server.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::response::run(bytes));
