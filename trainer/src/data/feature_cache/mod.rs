//! The features of the frozen vision tower for a dataset, stored on disk: a folder of four files (`header` names them).
//! [`compute()`] is `trainer cache`, `trainer cache --verify` is [`verify()`], and training reads a [`FeatureCache`], a batch ahead.
//!
//! A folder knows its source by content. Training compares what the indices of the shards say (keys, places and, where the
//! tables have them, hashes of the images); [`verify()`] compares the bytes of every image and of every row of features.

mod ahead;
mod compute;
mod header;
mod images;
mod reader;
mod verify;
mod writer;

pub use ahead::PatchesOf;
pub(super) use ahead::{FeatureReader, rows_with_mentions};
pub use compute::{CacheSettings, compute};
pub use header::{CacheHeader, CachedShard};
pub use reader::{FeatureBuffer, FeatureCache};
pub use verify::{Verified, verify};
pub use writer::CacheWriter;
