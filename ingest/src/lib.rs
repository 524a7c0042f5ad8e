//! Lists of URLs and local sets to WebDataset shards, their tables and statistics; tagging of shards.
//!
//! ```text
//! rows -> download | local -> image -> shard (tar + table + stats)      pipeline runs them side by side
//! shards -> tag -> sidecars          shards -> verify -> what is broken
//! tables -> tag -> numbered sidecars
//! ```

pub mod download;
mod error;
pub mod image;
mod input;
pub mod local;
mod metrics;
pub mod part;
mod pipeline;
mod records;
pub mod rows;
pub mod sample;
pub mod set;
mod shard;
mod staging;
pub mod stats;
mod table;
pub mod tag;
mod tar;
pub mod verify;
mod watch;

pub use error::Error;
pub use input::Input;
