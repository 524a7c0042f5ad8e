//! Shards and sidecars to batches, in an order that is a function of seed, epoch and shards alone.
//!
//! A run opens its shards once and iterates over batches; a [`Position`] (epoch, step) is all that has to be
//! kept to go on from the same place, on any number of ranks that divides the streams:
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
//! From bytes to batches: [`shard`] names the files, [`tar`] finds the samples in one, [`index`] keeps what is
//! needed of them, [`order`] says which sample goes where, [`crop`] and [`pixels`] make the image, [`text`] the
//! tokens and mentions, and [`Loader`] runs it all on threads.

pub mod caption;
pub mod crop;
pub mod index;
pub mod jpeg;
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
pub use order::{Position, Share};
pub use pipeline::{Batches, Loader};
pub use settings::{Crop, Decoding, ImageSettings, Settings};
pub use slot::{Images, Lender, Slot};
