//! Tests of the library from outside.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any_text;
mod clip_text;
mod hostile;
mod nlprule;
mod noun_phrases;
mod sidecar;
mod statistics;
mod training;
