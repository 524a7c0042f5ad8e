//! Tests of the library from outside.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod common;
mod companions;
mod interface;
mod mentions;
mod photos;
mod remote;
mod selection;
mod set_index;
mod signals;
mod stores;
mod tars;
