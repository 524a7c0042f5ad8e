//! From the bytes of an image file to the image in the shard: check, decode, apply the EXIF orientation, resize, encode. All
//! in one call on one thread; no invalid or malicious file can end the run.

mod area;
mod blur;
mod buffer_pool;
mod decode;
mod encode;
mod exif;
mod exif_block;
mod hash;
mod perceptual;
mod pixels;
mod resample;
mod resize;

use std::panic::{AssertUnwindSafe, catch_unwind};

use concepts::tables::guarded;
use serde::{Deserialize, Serialize};

pub use self::encode::Encoding;
pub use self::hash::Hash;
pub use self::pixels::Pixels;
pub use self::resize::Mode;
use crate::problem::{HASH_MISMATCH, Problem};
use crate::rows::Row;

/// An encoded image, ready for the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedImage {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Width of the stored image, in pixels.
    pub width: u32,
    /// Height of the stored image, in pixels.
    pub height: u32,
    /// Width before resizing, in pixels, after applying the EXIF orientation.
    pub original_width: u32,
    /// Height before resizing, in pixels, after applying the EXIF orientation.
    pub original_height: u32,
    /// EXIF tags and values as JSON text.
    pub exif: String,
    /// Hash of the original file, in hexadecimal; None if hashes are not computed.
    pub hash: Option<String>,
    /// Perceptual hash of the upright original image, before it was resized; None if it is not known.
    pub phash: Option<u64>,
}

/// How images are processed. Sizes are in pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // Each is an option of its own.
pub struct Settings {
    /// Which side `size` applies to, and whether the image is padded or cropped.
    pub mode: Mode,
    /// Target size of the side that `mode` chooses.
    pub size: u32,
    /// Leaves images that are smaller than `size` unchanged.
    pub only_if_bigger: bool,
    /// Decodes JPEGs at full size even if they are then reduced to half or less. By default they are decoded at 1/2, 1/4 or
    /// 1/8 size: faster, with pixel values that differ by 2 to 3 of 255 on average.
    pub exact: bool,
    /// Output file type.
    pub encoding: Encoding,
    /// Stores the original bytes if they have the output file type and need no change.
    pub skip_reencode: bool,
    /// Does not apply the EXIF orientation, as img2dataset does not.
    pub ignore_orientation: bool,
    /// Minimum length of the shorter side.
    pub min_side: u32,
    /// Maximum width x height; None: only `max_pixels` applies.
    pub max_area: Option<u64>,
    /// Maximum ratio of the longer side to the shorter side.
    pub max_aspect: Option<f64>,
    /// Images whose header declares more pixels are not decoded, so that memory is bounded.
    pub max_pixels: u64,
    /// Kind of hash of the original bytes that is stored and compared with the row's.
    pub hash: Hash,
    /// Additional column with the boxes to blur.
    pub blur: Option<String>,
    /// Whether the perceptual hash and the language of the caption are computed, and `NNNNN.hash.parquet` is written.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub perceptual_hash: bool,
}

// Manifests of earlier versions do not have the setting.
fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl Default for Settings {
    /// The defaults of img2dataset, and at most 100 million pixels.
    fn default() -> Self {
        Self {
            mode: Mode::Border,
            size: 256,
            only_if_bigger: false,
            exact: false,
            encoding: Encoding::Jpg(95),
            skip_reencode: false,
            ignore_orientation: false,
            min_side: 0,
            max_area: None,
            max_aspect: None,
            max_pixels: 100_000_000,
            hash: Hash::Sha256,
            blur: None,
            perceptual_hash: true,
        }
    }
}

impl Settings {
    /// Processes an image file; `row` has its expected hash and the regions to blur.
    ///
    /// # Errors
    /// A [`Problem`] with status `failed_to_resize`, or `failed_to_download` if the hash differs.
    pub fn process(&self, original: &[u8], row: &Row) -> Result<EncodedImage, Problem> {
        // Image decoders have had bugs that panic; one image must not end the run.
        catch_unwind(AssertUnwindSafe(|| self.process_unguarded(original, row)))
            .unwrap_or_else(|_| Err(Problem::resize("Image decoding error: the decoder crashed")))
    }

    fn process_unguarded(&self, original: &[u8], row: &Row) -> Result<EncodedImage, Problem> {
        let hash = self.hash.of(original);
        if row.hash.is_some() && row.hash != hash {
            return Err(Problem::download(HASH_MISMATCH));
        }
        let header = decode::Header::read(original, self.ignore_orientation)?;
        let (original_width, original_height) = header.upright_size();
        self.filter(original_width, original_height)?;
        let plan = self.mode.plan(original_width, original_height, self.size, self.only_if_bigger);
        // An image one pixel wide, enlarged until its shorter side has the target size, would need gigabytes.
        if plan.as_ref().is_some_and(|plan| plan.largest() > self.max_pixels) {
            return Err(Problem::resize("aspect ratio too large"));
        }
        let same_type = header.is(self.encoding);
        let exif = header.exif_json();
        let least = |side: u32| side.max(perceptual::MIN_SIDE);
        let shrunk = plan.as_ref().and_then(resize::Plan::shrunk);
        let min_size = shrunk.filter(|_| !self.exact).map(|(width, height)| (least(width), least(height)));
        let decoded = header.decode(min_size)?;
        let keep =
            self.skip_reencode && same_type && plan.is_none() && !decoded.changed && row.boxes.is_empty();
        let mut pixels = decoded.pixels;
        // The faster hash where the image will be reduced anyway, of the reduced image if that is large enough.
        let reduced = shrunk.is_some_and(|(width, height)| width.min(height) >= perceptual::MIN_SIDE);
        let size = (original_width, original_height);
        let hashed = |pixels: &Pixels| match self.perceptual_hash {
            true if shrunk.is_some() => self.quick_phash(original, pixels, size).map(Some),
            true => Ok(Some(perceptual::phash(pixels))),
            false => Ok(None),
        };
        let mut phash = if reduced { None } else { hashed(&pixels)? };
        if let Some(plan) = &plan {
            pixels = plan.scale(pixels)?;
        }
        if reduced {
            phash = hashed(&pixels)?;
        }
        blur::blur(&mut pixels, &row.boxes);
        if let Some(plan) = &plan {
            pixels = plan.frame(pixels)?;
        }
        let (width, height) = (pixels.width, pixels.height);
        let bytes = if keep { original.to_vec() } else { self.encoding.encode(&pixels)? };
        buffer_pool::recycle(pixels.data);
        Ok(EncodedImage { bytes, width, height, original_width, original_height, exif, hash, phash })
    }

    /// The hash of an image of this width and height, by pixels that may have been reduced, unless that may change more than two of its
    /// bits.
    fn quick_phash(&self, original: &[u8], pixels: &Pixels, size: (u32, u32)) -> Result<u64, Problem> {
        if let Some(hash) = perceptual::quick_phash(pixels) {
            return Ok(hash);
        }
        if (pixels.width, pixels.height) == size {
            return Ok(perceptual::phash(pixels));
        }
        let whole = decode::Header::read(original, self.ignore_orientation)?.decode(None)?.pixels;
        let hash = perceptual::phash(&whole);
        buffer_pool::recycle(whole.data);
        Ok(hash)
    }

    fn filter(&self, width: u32, height: u32) -> Result<(), Problem> {
        let (short, long) = (width.min(height), width.max(height));
        let area = u64::from(width) * u64::from(height);
        if area > self.max_pixels {
            return Err(Problem::resize("image header declares more pixels than --max-pixels"));
        }
        if short < self.min_side {
            return Err(Problem::resize("image too small"));
        }
        if self.max_area.is_some_and(|bound| area > bound) {
            return Err(Problem::resize("image area too large"));
        }
        if self.max_aspect.is_some_and(|bound| f64::from(long) / f64::from(short) > bound) {
            return Err(Problem::resize("aspect ratio too large"));
        }
        Ok(())
    }
}

/// Decodes an image of a shard and drops its pixels.
///
/// # Errors
/// Why it cannot be decoded. Images with more pixels than the default of [`Settings::max_pixels`] are not decoded.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    decoded(bytes, true, |_| ())
}

/// What `each` makes of the pixels of an image.
fn decoded<T>(bytes: &[u8], ignore_orientation: bool, each: impl FnOnce(&Pixels) -> T) -> Result<T, String> {
    let decode = || -> Result<T, String> {
        let header = decode::Header::read(bytes, ignore_orientation).map_err(|problem| problem.cause)?;
        let (width, height) = header.upright_size();
        if u64::from(width) * u64::from(height) > Settings::default().max_pixels {
            return Err(format!("{width} x {height} pixels are too many"));
        }
        let decoded = header.decode(None).map_err(|problem| problem.cause)?;
        let made = each(&decoded.pixels);
        buffer_pool::recycle(decoded.pixels.data);
        Ok(made)
    };
    guarded(decode).map_err(|error| error.to_string())?
}

/// The perceptual hash of an image of a shard, upright and without its white border.
///
/// # Errors
/// As [`check`].
pub(crate) fn trimmed_phash(bytes: &[u8]) -> Result<u64, String> {
    let hash = |pixels: &Pixels| perceptual::phash(&perceptual::without_border(pixels));
    decoded(bytes, false, hash)
}

#[cfg(test)]
mod tests;
