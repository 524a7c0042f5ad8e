//! Any bytes as a caption.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::caption::run(bytes));
