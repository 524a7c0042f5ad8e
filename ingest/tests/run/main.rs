//! The program as its users run it, grouped by what it is put through.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod common;
mod continuing;
mod damage;
mod disk;
mod faults;
mod hashes;
mod many;
mod network;
mod nlprule;
mod sets;
mod stores;
mod tables;
mod tagging;
