//! Tests of the program `tools`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod duplicates;
mod kills;
mod program;
mod report;
mod scenes;
mod select;
mod sql;
