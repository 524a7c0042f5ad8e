//! What a training step is given: from shards to embeddings of images and tokens of captions. The concept vocabulary ([`bank()`])
//! and the shards of a run make its loader ([`loader()`]); [`Prefetcher`] copies its batches to the device; the embeddings of the
//! images come from the frozen tower ([`frozen_tower`]), from its features on disk ([`feature_cache`]) or from a tower that is
//! trained ([`VisionSource`]); [`step_input()`] puts all of it together. [`run_shards`] knows the data of a run again.

mod bank;
pub mod feature_cache;
pub mod frozen_tower;
mod loaders;
mod prefetcher;
pub mod run_shards;
mod step_input;
mod vision_source;
mod watched;

pub use bank::bank;
pub use loaders::{image_loader, loader, pretraining_loader, read_image, warnings};
pub use prefetcher::{DeviceBatch, DeviceImages, Prefetcher};
pub use step_input::{seen, step_input};
pub use vision_source::VisionSource;
