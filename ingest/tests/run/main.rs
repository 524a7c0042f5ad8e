//! Runs the program as a user does, grouped by topic.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod common;
mod damage;
mod disk;
mod faults;
mod foreign;
mod hashes;
mod hostile;
mod identity;
mod kills;
mod local;
mod network;
mod nlprule;
mod odd_http;
mod prune;
mod refresh;
mod requests;
mod reshard;
mod resume;
mod scale;
mod signals;
mod slow_hosts;
mod stores;
mod tables;
mod tagging;
mod writers;
