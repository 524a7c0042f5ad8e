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
//! let shards = loader::shard::list(&["shards/{00000..00007}.tar".into()])?;
//! let loader = loader::Loader::open(loader::Settings::new(shards, 64))?;
//! for batch in loader.batches(loader::Position { epoch: 0, step: 1_000 }).take(10) {
//!     let batch = batch?;
//!     println!("{:?}: {} images, first caption {:?}", batch.position, batch.size, batch.captions[0]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The modules, in the order in which a sample passes through them: [`shard`] lists the files, [`tar`] finds the
//! samples in a file, [`index`] keeps the key, image position and caption of each, [`order`] decides which sample goes
//! into which row, [`crop`] and [`pixels`] make the image, and [`text`] makes the tokens and mentions. [`Loader`] runs
//! all of this on threads.

// First: its macros are used in the other modules.
#[macro_use]
mod lines;

pub mod budget;
pub mod caption;
pub mod crop;
pub mod formats;
pub mod identity;
pub mod index;
pub mod json;
pub mod order;
pub mod permutation;
pub mod pixels;
pub mod program;
pub mod scaler;
pub mod shard;
pub mod sidecar;
pub mod slot;
pub mod source;
pub mod tar;
pub mod text;

mod batch;
mod cache;
mod error;
mod pipeline;
mod settings;
mod store;
mod worker;

pub use batch::{Batch, BatchMention, Counters, Skipped};
pub use cache::Cache;
pub use caption::{CaptionChoice, CaptionSource};
pub use error::Error;
pub use identity::Identity;
/// JPEG files: the decoder of the loader, in a crate of its own.
pub use jpeg;
pub use order::{Position, Share};
pub use pipeline::{Batches, Loader};
pub use settings::{Crop, Decoding, ImageSettings, Settings};
pub use slot::{Images, Lender, Slot};
pub use store::Expected;
