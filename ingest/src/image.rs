//! From a file's bytes to the picture in the shard: check, decode, upright, resize, encode. All of it in one call on one
//! thread; nothing a stranger's file does here can end the run.

mod area;
mod blur;
mod decode;
mod encode;
mod exif;
mod hash;
mod memory;
mod resize;
mod segments;

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

pub use self::decode::Pixels;
pub use self::encode::Encoding;
pub use self::hash::Hash;
pub use self::resize::Mode;
use crate::rows::Row;
use crate::sample::{HASH_MISMATCH, Picture, Problem};

/// What happens to pictures. Sizes in pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // Each is an option of its own.
pub struct Settings {
    /// What `size` bounds, and what fills the rest.
    pub mode: Mode,
    /// Side that `mode` speaks of.
    pub size: u32,
    /// Leaves smaller pictures as they are.
    pub only_if_bigger: bool,
    /// Decodes JPEGs at full size even where they are then shrunk to half of it or less. Without it they are decoded at a
    /// half, a quarter or an eighth: faster, with pixels that differ by 2 to 3 of 255 on average.
    pub exact: bool,
    /// File type written.
    pub encoding: Encoding,
    /// Keeps the original bytes when they are of that type already and nothing had to change.
    pub skip_reencode: bool,
    /// Leaves pictures as the sensor saw them, as img2dataset does.
    pub ignore_orientation: bool,
    /// Pictures whose shorter side is less are turned away.
    pub min_side: u32,
    /// Pictures of more pixels are turned away; None has no bound but `max_pixels`.
    pub max_area: Option<u64>,
    /// Pictures longer than this many times their width, or the reverse, are turned away.
    pub max_aspect: Option<f64>,
    /// Pictures that claim more pixels are never decoded: memory stays bounded.
    pub max_pixels: u64,
    /// Which hash of the original bytes is kept, and compared with the row's.
    pub hash: Hash,
    /// Carried column of boxes to blur.
    pub blur: Option<String>,
}

impl Default for Settings {
    /// img2dataset's defaults, and pictures of up to 100 million pixels.
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
        }
    }
}

impl Settings {
    /// Turns a file into what the shard holds; `row` says which hash it should have and what to blur.
    ///
    /// # Errors
    /// A [`Problem`] of status `failed_to_resize`, or `failed_to_download` when the hash is another.
    pub fn process(&self, original: &[u8], row: &Row) -> Result<Picture, Problem> {
        // Decoders of untrusted files have had bugs that panic; one picture must not cost the run.
        catch_unwind(AssertUnwindSafe(|| self.process_unguarded(original, row)))
            .unwrap_or_else(|_| Err(Problem::resize("Image decoding error: the decoder gave up")))
    }

    fn process_unguarded(&self, original: &[u8], row: &Row) -> Result<Picture, Problem> {
        let hash = self.hash.of(original);
        if row.hash.is_some() && row.hash != hash {
            return Err(Problem::download(HASH_MISMATCH));
        }
        let header = decode::Header::read(original, self.ignore_orientation)?;
        let (original_width, original_height) = header.upright_size();
        self.filter(original_width, original_height)?;
        let plan = self.mode.plan(original_width, original_height, self.size, self.only_if_bigger);
        // A line one pixel wide, scaled until its short side fits, would need gigabytes.
        if plan.as_ref().is_some_and(|plan| plan.largest() > self.max_pixels) {
            return Err(Problem::resize("aspect ratio too large"));
        }
        let same_type = header.is(self.encoding);
        let exif = header.exif_json();
        let least = plan.as_ref().and_then(resize::Plan::shrunk).filter(|_| !self.exact);
        let decoded = header.decode(least)?;
        let keep =
            self.skip_reencode && same_type && plan.is_none() && !decoded.changed && row.boxes.is_empty();
        let mut pixels = decoded.pixels;
        if let Some(plan) = &plan {
            pixels = plan.scale(pixels)?;
        }
        blur::blur(&mut pixels, &row.boxes);
        if let Some(plan) = &plan {
            pixels = plan.frame(pixels);
        }
        let (width, height) = (pixels.width, pixels.height);
        let bytes = if keep { original.to_vec() } else { self.encoding.encode(&pixels)? };
        memory::spend(pixels.data);
        Ok(Picture { bytes, width, height, original_width, original_height, exif, hash })
    }

    fn filter(&self, width: u32, height: u32) -> Result<(), Problem> {
        let (short, long) = (width.min(height), width.max(height));
        let area = u64::from(width) * u64::from(height);
        if area > self.max_pixels {
            return Err(Problem::resize("image claims more pixels than --max-pixels"));
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

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
