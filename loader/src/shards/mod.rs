//! The files of a dataset: shards and the files next to them.
//!
//! [`list`] finds the shards, [`tar`] the samples in a shard, and [`index`] keeps the key, image position and caption of each;
//! it reads them from the shard's Parquet table, where there is one. [`sidecar`] opens the mentions.

pub mod identity;
pub mod index;
pub mod sidecar;
pub mod tar;

mod caption;
mod each;
mod names;
mod store;
mod table;

pub(crate) use self::caption::from_json;
pub use self::caption::{CaptionChoice, CaptionSource};
pub(crate) use self::each::{for_each_shard, panic_message};
pub use self::identity::Identity;
pub use self::names::{SUFFIXES, incomplete, list, sidecar_path, stats_path, stem, sums_path, table_path};
pub use self::store::Expected;
pub(crate) use self::store::{MAX_OPEN, Shard, Store};
