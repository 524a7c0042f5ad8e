//! Lists of image URLs and local image folders to WebDataset shards with their tables and statistics; tagging of shards.
//!
//! ```text
//! rows -> download | local -> image -> shard (tar + table + stats)      run in parallel by `pipeline`
//! shards -> tag -> sidecars          shards -> hash -> signals          shards -> verify -> report of damaged files
//! tables -> tag -> numbered sidecars
//! ```

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln)]
extern crate program;

pub mod dataset;
pub mod download;
mod error;
pub mod hash;
pub mod image;
pub mod local;
pub mod messages;
mod parallel;
pub mod pipeline;
pub mod problem;
pub mod request;
pub mod rows;
pub mod sample;
mod shard;
mod signals;
pub mod tag;
pub mod verify;

pub use error::Error;
pub use rows::Input;
