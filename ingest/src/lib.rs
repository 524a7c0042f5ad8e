//! Lists of image URLs and local image folders to WebDataset shards with their tables and statistics; tagging of shards.
//!
//! ```text
//! rows -> download | local -> image -> shard (tar + table + stats)      run in parallel by `pipeline`
//! shards -> tag -> sidecars          shards -> verify -> report of damaged files
//! tables -> tag -> numbered sidecars
//! ```

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln)]
extern crate program;

mod claim;
pub mod dataset;
pub mod download;
mod error;
pub mod image;
mod input;
pub mod local;
mod metrics;
pub mod part;
mod pipeline;
mod publish;
mod records;
pub mod rows;
pub mod sample;
mod shard;
mod spool;
mod staging;
pub mod stats;
mod sums;
mod table;
pub mod tag;
mod tar;
pub mod verify;
mod watch;

pub use error::Error;
pub use input::Input;
