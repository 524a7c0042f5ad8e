//! Reads WebDataset shards and their concept sidecars, and returns batches for training. The order of the samples
//! depends only on the seed, the epoch and the list of shards.
//!
//! A *shard* is a tar file of samples (an image and its caption). Its *sidecar* is a Parquet file next to it with the
//! concepts that the captions mention ([`concepts::sidecar`]).
//!
//! A run opens its shards once and iterates over batches. A [`Position`] (epoch, step) is all that has to be saved to
//! resume at the same place. The number of ranks may differ on resume, as long as it divides the number of streams
//! ([`order`]):
//!
//! ```no_run
//! # fn main() -> Result<(), loader::Error> {
//! let shards = loader::shards::list(&["shards/{00000..00007}.tar"])?;
//! let loader = loader::Loader::open(loader::Settings::new(shards, 64))?;
//! for batch in loader.batches(loader::Position { epoch: 0, step: 1_000 }).take(10) {
//!     let batch = batch?;
//!     println!("{:?}: {} images, first caption {:?}", batch.position, batch.size, batch.captions[0]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The modules, in the order in which a sample passes through them: [`shards`] lists the files and finds the samples in them,
//! [`order`] decides which sample becomes which row, and [`samples`] makes the pixels, tokens and mentions of a row.
//! [`Loader`] runs all of this on threads. How images are decoded, and what one may cost, is in [`jpeg`], [`formats`] and
//! [`budget`]. Where files may be is the crate [`storage`]'s.

pub mod budget;
pub mod formats;
pub mod json;
pub mod order;
pub mod samples;
pub mod shards;

mod error;
mod pipeline;
mod refusal;
mod settings;

pub use error::Error;
/// JPEG files: the decoder of the loader, in a crate of its own.
pub use jpeg;
pub use order::{Position, Share};
pub use pipeline::{Batches, Loader};
pub use samples::batch::{Batch, BatchMention, Counters, Skipped};
pub use samples::buffers::{Allocator, ImageBuffer, Images};
pub use settings::{Crop, CropKind, Decoding, ImageSettings, Options, Settings};
pub use shards::{CaptionChoice, CaptionSource, Expected, Identity};
pub use storage::Cache;
