//! Any bytes as the pickle of a PyTorch file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::weights::pickle(bytes));
