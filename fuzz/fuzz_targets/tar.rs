//! Any bytes as a shard.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::tar::run(bytes));
