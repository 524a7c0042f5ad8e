//! Lists of image URLs and local image folders to WebDataset shards with their tables and statistics; tagging of shards.
//!
//! ```text
//! rows -> download | local -> image -> shard (tar + table + stats)      run in parallel by `pipeline`
//! shards -> tag -> sidecars          shards -> hash -> signals          shards -> verify -> report of damaged files
//! tables -> tag -> numbered sidecars
//! shards -> reshard -> other shards  shards -> prune -> the same without some samples
//! shards -> refresh (in `download`) -> table of what has become of the images
//! ```

// Without panics; see `tools/program/src/lines.rs`.
#[macro_use(eprintln)]
extern crate program;

pub mod dataset;
pub mod deny;
pub mod download;
mod error;
pub mod hash;
pub mod image;
pub mod index;
mod lists;
pub mod local;
pub mod messages;
mod parallel;
pub mod pipeline;
pub mod problem;
pub mod prune;
pub mod request;
pub mod reshard;
mod rewrite;
pub mod rows;
pub mod sample;
mod shard;
mod signals;
pub mod tag;
pub mod verify;

pub use error::Error;
pub use rows::Input;
