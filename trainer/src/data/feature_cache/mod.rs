//! The features of the frozen vision tower for a dataset, stored on disk: a folder of four files (`header` names them).
//! [`compute()`] is `trainer cache`, `trainer cache --verify` is [`verify()`], and training reads a [`FeatureCache`].
//!
//! A folder knows its source by content. Training compares what the indices of the shards say (keys, places and, where the
//! tables have them, hashes of the images); [`verify()`] compares the bytes of every image and of every row of features.

mod compute;
mod header;
mod images;
mod reader;
mod verify;
mod writer;

pub use compute::{CacheSettings, compute};
pub use header::{CacheHeader, CachedShard};
pub use reader::FeatureCache;
pub use verify::{Verified, verify};
pub use writer::CacheWriter;
