//! Any bytes as an input table.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::table::run(bytes));
