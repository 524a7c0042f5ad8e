//! The files of a dataset: shards and the files next to them.
//!
//! [`list`] finds the shards. [`Archive`] reads a shard at any place, and [`Index`] has the key, the place of the image and
//! the caption of each of its samples; [`captions`] and [`visit`] read a shard once from its start to its end. [`sidecar`]
//! opens the mentions, [`signals`] what programs computed from each sample; a [`selection`] says which samples are used, and
//! the [index of a set](set_index) what a loader has to know of all shards before its first batch.
//!
//! # Samples
//! A sample is a series of neighbouring members of the tar with the same key, as in WebDataset. A member's key is its path
//! up to the **first** dot of the base name; the rest after the dot, in lower case, is its extension: `a/b.seg.PNG` has the
//! key `a/b` and the extension `seg.png`. These members are ignored: those that are not regular files, those without a dot
//! after the first character of the base name, and those whose name or first folder starts and ends with two underscores.
//! The same extension twice in a sample is an error, as in WebDataset.
//!
//! ```
//! use loader::shards::{self, Archive, Caption, Index};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let mut tar = tar::Builder::new(std::fs::File::create(folder.path().join("00000.tar"))?);
//! # for (name, data) in [("a.jpg", &b"an image"[..]), ("a.txt", b"A dog")] {
//! #     let mut header = tar::Header::new_ustar();
//! #     header.set_size(data.len() as u64);
//! #     tar.append_data(&mut header, name, data)?;
//! # }
//! # tar.finish()?;
//! # let folder = folder.path();
//! for shard in shards::list([folder])? {
//!     let archive = Archive::open(&shard)?;
//!     let index = Index::load(&archive)?;
//!     assert_eq!((index.len(), index.key(0)), (1, "a"));
//!     let (offset, length) = index.image(0).expect("sample 0 has an image");
//!     assert_eq!(archive.read(offset, length)?, b"an image");
//!     let Some(Caption::At(offset, length)) = index.caption(0) else { panic!("no caption in the tar") };
//!     assert_eq!(archive.read(offset, length)?, b"A dog");
//! }
//! # Ok(())
//! # }
//! ```

pub mod selection;
pub mod set_index;
pub mod sidecar;
pub mod signals;

pub(crate) mod caption;
pub(crate) mod identity;
pub(crate) mod store;

mod describe;
mod each;
mod index;
mod names;
mod table;
mod tar;

pub use self::caption::{CAPTION_EXTENSION, StoredCaptions, field_captions};
pub(crate) use self::caption::{CaptionSource, RawCaption, from_json};
pub use self::describe::{describe, describe_without_sidecar};
pub(crate) use self::each::{MANY, for_each_shard, panic_message};
pub(crate) use self::identity::Identity;
pub use self::identity::image_check;
pub use self::index::{Caption, Index, count_from_stats};
pub use self::names::{SUFFIXES, incomplete, list, sidecar_path, stats_path, stem, sums_path, table_path};
pub(crate) use self::store::{MAX_OPEN, Shard, Store};
pub use self::tar::{
    Archive, IMAGE_EXTENSIONS, Member, MemberData, Sample, Visited, caption_checks, captions,
    most_decompressed, visit,
};
