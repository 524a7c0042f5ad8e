//! Reads WebDataset shards and their concept sidecars, and returns batches for training. The order of the samples
//! depends only on the seed, the epoch and the list of shards.
//!
//! A *shard* is a tar file of samples (an image and its caption). Its *sidecar* is a Parquet file next to it with the
//! concepts that the captions mention ([`concepts::sidecar`]). [`shards::list`] finds the shards of a folder or of a
//! pattern such as `shards/{00000..00295}.tar`, on a local disk or elsewhere ([`Location`]). A [`Loader`] opens them once and
//! makes iterators over batches:
//!
//! ```
//! use loader::{Loader, Position, Settings, shards};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let mut tar = tar::Builder::new(std::fs::File::create(folder.path().join("00000.tar"))?);
//! # for sample in 0..10 {
//! #     let image = loader::jpeg::encode(&[25 * sample; 64 * 48 * 3], 64, 48, 90)?;
//! #     let text = format!("A photo of  {sample} Dogs");
//! #     for (extension, data) in [("jpg", &image[..]), ("txt", text.as_bytes())] {
//! #         let mut header = tar::Header::new_ustar();
//! #         header.set_size(data.len() as u64);
//! #         tar.append_data(&mut header, format!("{sample:09}.{extension}"), data)?;
//! #     }
//! # }
//! # tar.finish()?;
//! # let folder = folder.path();
//! let mut settings = Settings::new(shards::list([folder])?, 4);
//! settings.seed = 7;
//! let loader = Loader::open(settings)?;
//! assert_eq!((loader.samples(), loader.steps_per_epoch()), (10, 2));
//!
//! let mut batches = loader.batches(Position::default());
//! let batch = batches.next().expect("batches have no end")?;
//! assert_eq!(batch.images.len(), 4 * 224 * 224 * 3);
//! assert_eq!(batch.tokens.len(), 4 * 77);
//! assert!(batch.captions[0].starts_with("a photo of ") && batch.captions[0].ends_with(" dogs"));
//!
//! // All that has to be saved to resume at the same place, with any number of threads and processes.
//! let position = batches.position();
//! let next = batches.next().expect("batches have no end")?;
//! let again = loader.batches(position).next().expect("batches have no end")?;
//! assert_eq!((next.position, next.keys), (again.position, again.keys));
//! # Ok(())
//! # }
//! ```
//!
//! A sample that cannot be read is replaced by the next one of its part of the data and reported in the batch's
//! [`Counters`]; only an [`Error`] ends the iteration. Iterators work on threads of their own, which end when they are
//! dropped.
//!
//! | to | see |
//! |---|---|
//! | set what is loaded, and how | [`Settings`] |
//! | share batches between processes | [`Settings::rank`]; their number may be another one when a run is resumed |
//! | load mentions with the labels of a vocabulary | [`Settings::bank`], [`Mentions`] |
//! | have images decoded into memory of your own | [`Loader::batches_in`], [`ImageBuffer`] |
//! | load a selection of the samples, with weights | [`Options::selection`], [`shards::selection`] |
//! | wait for a batch without being blocked | [`Batches::next_timeout`] |
//! | read single samples | [`shards`] |
//! | decode and crop images as the loader does | [`images`] |

pub mod json;
pub mod shards;

mod budget;
mod decode_error;
mod error;
mod formats;
mod order;
mod pipeline;
mod samples;
mod settings;

/// Images: from the bytes of a file to pixels.
///
/// JPEG, PNG, WebP, GIF (its first frame), BMP and TIFF are read; the first bytes decide, never a file's name. All programs open
/// images here, so that the same bytes are an image everywhere or nowhere.
///
/// An image from the web may be made to fill the memory or to keep a thread busy for hours, with a file of a few bytes. So an
/// image has at most 65,535 pixels per side and 512 MiB as RGB (Pillow refuses the same), decoding it takes at most 1 GiB,
/// and a JPEG has at most 100 scans, which visit a billion samples together. Work is counted in samples (a pixel has up to
/// four), not in seconds, so that every machine accepts and refuses the same files.
///
/// ```
/// use loader::images;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = loader::jpeg::encode(&[200; 64 * 48 * 3], 64, 48, 90)?;
/// assert_eq!(images::size(&file)?, (64, 48));
/// let image = images::centre_crop(&images::decode(&file)?, 32)?;
/// assert_eq!((image.dimensions(), image.get_pixel(0, 0).0), ((32, 32), [200; 3]));
/// # Ok(())
/// # }
/// ```
pub mod images {
    pub use crate::budget::JPEG_LIMITS;
    pub use crate::formats::{EXTENSIONS, Format, ImageFile, UNREAD_EXTENSIONS, size, to_rgb, upright};
    pub use crate::samples::crop::{CropRegion, View};
    pub use crate::samples::pixels::{Preprocessor, centre_crop, decode};
    pub use crate::samples::scaler::Scaler;
}

pub use decode_error::DecodeError;
pub use error::{Error, SampleError};
/// JPEG files: the decoder of the loader, in a crate of its own.
pub use jpeg;
pub use order::{Position, SampleId, Share};
pub use pipeline::{Batches, Loader};
pub use samples::batch::{Batch, BatchMention, Counters, Mentions, Skipped};
pub use samples::buffers::{Allocator, ImageBuffer, Images, RowBuffer};
pub use settings::{Crop, CropKind, Decoding, ImageSettings, Options, Settings};
pub use shards::caption::{CaptionChoice, CaptionSource};
pub use shards::identity::Identity;
pub use shards::store::Expected;
pub use storage::{Cache, Location};

// Batches are handed from thread to thread and read by several, in other languages too.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn sent<T: Send>() {}
    shared::<Loader>();
    shared::<Batch>();
    shared::<Images>();
    shared::<Error>();
    sent::<Batches>();
    sent::<Allocator>();
};
