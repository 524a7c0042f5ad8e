//! Any bytes as a sidecar.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::sidecar::run(bytes));
