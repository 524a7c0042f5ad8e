//! Tests that take several programs, each as a user runs it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod coco;
mod scenes;
mod serve;
mod takeaway;
mod tiny;
mod training;
